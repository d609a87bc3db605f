//! Settings of a broker: read from flags over environment over a file over defaults, each knowing where it came from.

mod error;
mod file;
mod log_defaults;
mod nearest;
mod table;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

pub use error::ConfigError;
pub use log_defaults::LogDefault;
pub use table::{BrokerConfig, SETTINGS, Setting};
pub use value::{ByteSize, HostPort, LogFormat, Millis, VoterAddress};

/// What the names of environment variables begin with.
pub const VARIABLE_PREFIX: &str = "FLOODMARK_";

/// Variables with this program's prefix that are no settings of a broker.
const OTHER_VARIABLES: &[&str] = &["FLOODMARK_SERVER", "FLOODMARK_REQUIRE_JAVA", "FLOODMARK_CRASH_WORKLOADS"];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from one.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line, dashes included.
    Flag(String),
    /// The program that embeds the broker.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{} line {line}", path.display()),
            Origin::Environment(variable) => write!(f, "environment variable {variable}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
            Origin::Program => f.write_str("program"),
        }
    }
}

/// Where settings are looked for.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file in TOML.
    pub file: Option<PathBuf>,
    /// Environment variables, of which those that begin with [`VARIABLE_PREFIX`] are looked at.
    pub environment: Vec<(String, String)>,
    /// Key, value and the flag that gave it.
    pub flags: Vec<(String, String, String)>,
}

/// A setting as it is in force.
#[derive(Debug, Clone)]
pub struct Effective {
    /// Which.
    pub setting: &'static Setting,
    /// Its value, as it would be written.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

impl BrokerConfig {
    /// Reads settings; the later of file, environment and flags wins. Blocks while the file is read.
    pub fn load(sources: &Sources) -> Result<BrokerConfig, ConfigError> {
        let mut config = BrokerConfig::default();
        if let Some(path) = &sources.file {
            for entry in file::read(path)? {
                config.set_from(&entry.key, &entry.value, entry.origin)?;
            }
        }
        for (variable, value) in &sources.environment {
            if let Some(key) = key_of_variable(variable)? {
                config.set_from(key, value, Origin::Environment(variable.clone()))?;
            }
        }
        for (key, value, flag) in &sources.flags {
            config.set_from(key, value, Origin::Flag(flag.clone()))?;
        }
        config.check()?;
        Ok(config)
    }

    /// A broker for a test or a try: a directory that goes away with it, free ports on loopback, no HTTP.
    pub fn temporary() -> Result<BrokerConfig, ConfigError> {
        let dir = TempDir::with_prefix("floodmark-").map_err(ConfigError::Temporary)?;
        let mut config = BrokerConfig {
            data_dirs: vec![dir.path().to_owned()],
            kafka_listen: HostPort::loopback(0),
            grpc_listen: Some(HostPort::loopback(0)),
            http_listen: None,
            temporary: Some(Arc::new(dir)),
            ..BrokerConfig::default()
        };
        for key in ["data.dirs", "kafka.listen", "grpc.listen", "http.listen"] {
            config.origins.insert(key, Origin::Program);
        }
        Ok(config)
    }

    /// Sets one value by name.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        self.set_from(key, value, Origin::Program)
    }

    /// The same for a flag of a command line, which is named where the value cannot be.
    pub fn set_by_flag(&mut self, key: &str, value: &str, flag: &str) -> Result<(), ConfigError> {
        self.set_from(key, value, Origin::Flag(flag.to_owned()))
    }

    /// Settings that topics take over where they have none of their own.
    #[must_use]
    pub fn log_defaults(&self) -> Vec<LogDefault> {
        log_defaults::all(self)
    }

    /// What somebody set of those that topics take over, by Kafka's names for brokers.
    #[must_use]
    pub fn file_settings(&self) -> &BTreeMap<String, String> {
        &self.log_defaults
    }

    /// Every setting of the broker itself with its value and where that came from.
    pub fn effective(&self) -> impl Iterator<Item = Effective> + '_ {
        SETTINGS.iter().map(|setting| Effective {
            setting,
            value: self.text(setting.key).unwrap_or_default(),
            origin: self.origins.get(setting.key).cloned().unwrap_or(Origin::Default),
        })
    }

    fn set_from(&mut self, key: &str, value: &str, origin: Origin) -> Result<(), ConfigError> {
        if let Some(checked) = log_defaults::check(key, value) {
            let key = checked.map_err(|allowed| bad_value(key, value, allowed, &origin))?;
            self.log_defaults.insert(key.to_owned(), value.to_owned());
            self.origins.insert(key, origin);
            return Ok(());
        }
        let Some(setting) = SETTINGS.iter().find(|s| s.key == key) else {
            let nearest = nearest_setting(key).map(str::to_owned);
            return Err(ConfigError::Unknown { key: key.to_owned(), origin, nearest });
        };
        self.assign(setting.key, value).map_err(|allowed| bad_value(key, value, allowed, &origin))?;
        self.origins.insert(setting.key, origin);
        Ok(())
    }

    /// What no setting can see by itself.
    fn check(&self) -> Result<(), ConfigError> {
        if self.group_min_session_timeout > self.group_max_session_timeout {
            let key = "group.min.session.timeout.ms";
            let allowed =
                format!("at most group.max.session.timeout.ms, {}", self.group_max_session_timeout.0);
            return Err(self.refused(key, allowed));
        }
        if self.cluster_listen.is_none() && !self.cluster_voters.is_empty() {
            return Err(self.refused("cluster.voters", "nothing while cluster.listen is off".to_owned()));
        }
        if self.cluster_listen.is_none() && self.cluster_advertised.is_some() {
            return Err(self.refused("cluster.advertised", "off while cluster.listen is off".to_owned()));
        }
        if self.quorum_heartbeat.0.saturating_mul(2) > self.quorum_election_timeout.0 {
            let allowed = format!(
                "at least twice quorum.heartbeat.ms, which is {}: one lost message is no lost leader",
                self.quorum_heartbeat.0
            );
            return Err(self.refused("quorum.election.timeout.ms", allowed));
        }
        if self.broker_heartbeat_interval.0.saturating_mul(2) > self.broker_session_timeout.0 {
            let allowed = format!(
                "at least twice broker.heartbeat.interval.ms, which is {}: one lost message is no lost broker",
                self.broker_heartbeat_interval.0
            );
            return Err(self.refused("broker.session.timeout.ms", allowed));
        }
        if self.replica_lag_time_max < self.broker_session_timeout {
            let allowed = format!(
                "at least broker.session.timeout.ms, which is {}: a broker that may still lead is not taken out",
                self.broker_session_timeout.0
            );
            return Err(self.refused("replica.lag.time.max.ms", allowed));
        }
        Ok(())
    }

    /// A value that does not go with another.
    fn refused(&self, key: &'static str, allowed: String) -> ConfigError {
        let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default);
        bad_value(key, &self.text(key).unwrap_or_default(), allowed, &origin)
    }
}

fn bad_value(key: &str, value: &str, allowed: String, origin: &Origin) -> ConfigError {
    ConfigError::BadValue { key: key.to_owned(), value: value.to_owned(), allowed, origin: origin.clone() }
}

/// The setting whose name somebody probably meant.
#[must_use]
pub fn nearest_setting(name: &str) -> Option<&'static str> {
    nearest::nearest(name, SETTINGS.iter().map(|s| s.key).chain(log_defaults::names()))
}

/// The setting that a variable stands for; `None` where it is not meant for a broker.
fn key_of_variable(variable: &str) -> Result<Option<&'static str>, ConfigError> {
    if !variable.starts_with(VARIABLE_PREFIX)
        || OTHER_VARIABLES.contains(&variable)
        || is_service_link(variable)
    {
        return Ok(None);
    }
    let mut keys = SETTINGS.iter().map(|s| s.key).chain(log_defaults::names());
    if let Some(key) = keys.find(|key| variable_of(key) == variable) {
        return Ok(Some(key));
    }
    let keys = SETTINGS.iter().map(|s| s.key).chain(log_defaults::names());
    let known: Vec<String> = keys.map(variable_of).collect();
    let nearest = nearest::nearest(variable, known.iter().map(String::as_str)).map(str::to_owned);
    let origin = Origin::Environment(variable.to_owned());
    Err(ConfigError::Unknown { key: variable.to_owned(), origin, nearest })
}

fn variable_of(key: &str) -> String {
    let upper = |c: char| if c == '.' { '_' } else { c.to_ascii_uppercase() };
    format!("{VARIABLE_PREFIX}{}", key.chars().map(upper).collect::<String>())
}

/// Kubernetes puts the addresses of services into every container: a service that is called floodmark gives `FLOODMARK_PORT`,
/// `FLOODMARK_SERVICE_HOST`, `FLOODMARK_PORT_9092_TCP_ADDR` and the like.
fn is_service_link(variable: &str) -> bool {
    let is_port = |rest: &str| {
        let (number, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && ["TCP", "UDP", "SCTP"].iter().any(|p| protocol.starts_with(p))
    };
    variable.ends_with("_PORT")
        || variable.contains("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || variable.match_indices("_PORT_").any(|(at, found)| is_port(&variable[at + found.len()..]))
}

#[cfg(test)]
mod tests;
