//! The table and what may be said against it.
#![allow(clippy::disallowed_methods, reason = "the test writes settings files")]

use super::value::Value;
use super::*;

fn load(
    file: Option<&str>,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<BrokerConfig, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    BrokerConfig::load(&Sources {
        file: file.map(|_| path),
        environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        flags: flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned(), format!("--{k}"))).collect(),
    })
}

fn message(result: Result<BrokerConfig, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn names_flags_and_variables_are_each_used_once() {
    let unique = |names: Vec<String>| {
        let mut seen = names.clone();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), names.len(), "{names:?}");
    };
    let keys: Vec<&str> = SETTINGS.iter().map(|s| s.key).chain(log_defaults::names()).collect();
    unique(keys.iter().map(|key| (*key).to_owned()).collect());
    unique(keys.iter().map(|key| variable_of(key)).collect());
    unique(SETTINGS.iter().filter_map(|s| s.flag).map(|(flag, _)| flag.to_owned()).collect());
}

/// In TOML a name cannot hold a value and stand before a dot as well.
#[test]
fn no_name_is_the_beginning_of_another() {
    let keys: Vec<&str> = SETTINGS.iter().map(|s| s.key).chain(log_defaults::names()).collect();
    for key in &keys {
        let inside = format!("{key}.");
        assert!(!keys.iter().any(|other| other.starts_with(&inside)), "{key}");
    }
}

#[test]
fn every_setting_is_documented_and_takes_its_own_default() {
    let default = BrokerConfig::default();
    for setting in SETTINGS {
        let documentation = setting.documentation.trim();
        assert!(documentation.ends_with('.') && documentation.len() > 20, "{}", setting.key);
        assert!(!is_service_link(&setting.variable()), "{} looks like a service link", setting.key);
        let value = default.text(setting.key).unwrap();
        let mut config = default.clone();
        config.set(setting.key, &value).unwrap();
        assert_eq!(config.text(setting.key).unwrap(), value);
    }
}

#[test]
fn flags_go_over_environment_over_file_over_defaults() {
    let file = Some("num.partitions = 2\n");
    let variable = ("FLOODMARK_NUM_PARTITIONS", "3");
    let flag = ("num.partitions", "4");
    for (result, value, origin) in [
        (load(None, &[], &[]), "1", "default"),
        (load(file, &[], &[]), "2", "line 1"),
        (load(file, &[variable], &[]), "3", "environment variable FLOODMARK_NUM_PARTITIONS"),
        (load(file, &[variable], &[flag]), "4", "flag --num.partitions"),
    ] {
        let config = result.unwrap();
        let effective = config.effective().find(|e| e.setting.key == "num.partitions").unwrap();
        assert_eq!(effective.value, value);
        assert!(effective.origin.to_string().ends_with(origin), "{}", effective.origin);
    }
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    let told = message(load(Some("\nnum.partition = 2\n"), &[], &[]));
    assert!(
        told.ends_with("broker.toml line 2: there is no setting num.partition; did you mean num.partitions?"),
        "{told}"
    );
    let told = message(load(None, &[("FLOODMARK_NODEID", "2")], &[]));
    assert!(told.ends_with("did you mean FLOODMARK_NODE_ID?"), "{told}");
    let told = message(load(None, &[], &[("max.connections", "2")]));
    assert!(told.contains("flag --max.connections") && told.contains("max.connections."), "{told}");
    assert!(message(load(None, &[], &[("zookeeper.connect", "2")])).contains("config show"));
}

#[test]
fn variables_of_others_are_left_alone() {
    for name in [
        "HOME",
        "FLOODMARK_SERVER",
        "FLOODMARK_PORT",
        "FLOODMARK_SERVICE_HOST",
        "FLOODMARK_SERVICE_PORT_KAFKA",
        "FLOODMARK_PORT_9092_TCP",
        "FLOODMARK_PORT_9092_TCP_ADDR",
        "FLOODMARK_KAFKA_PORT_9092_TCP_PROTO",
    ] {
        assert!(load(None, &[(name, "tcp://10.0.0.1:9092")], &[]).is_ok(), "{name}");
    }
    for name in ["FLOODMARK_PORTS", "FLOODMARK_PORT_X", "FLOODMARK_PORT_9092", "FLOODMARK_"] {
        assert!(load(None, &[(name, "1")], &[]).is_err(), "{name}");
    }
}

#[test]
fn bad_values_are_refused_with_what_is_allowed() {
    for (key, value, allowed) in [
        ("node.id", "-1", "from 0 to 2147483647"),
        ("node.id", "one", "a whole number"),
        ("kafka.listen", "9092", "HOST:PORT"),
        ("kafka.listen", "host:99999", "HOST:PORT"),
        ("kafka.listen", "::1:9092", "HOST:PORT"),
        ("kafka.listen", "a b:1", "HOST:PORT"),
        ("http.listen", "of", "or off"),
        ("data.dirs", "a,,b", "one directory"),
        ("auto.create.topics.enable", "yes", "true or false"),
        ("socket.request.max.bytes", "10MB", "1MiB"),
        ("socket.request.max.bytes", "10", "from 1024 to 1073741824"),
        ("socket.request.max.bytes", "99999999999999999999", "1MiB"),
        ("connections.max.idle.ms", "0", "from 1"),
        ("connections.max.idle.ms", "-1", "milliseconds"),
        ("logging.format", "xml", "text or json"),
        ("group.min.session.timeout.ms", "1h", "at most group.max.session.timeout.ms"),
        ("cluster.voters", "1@a:9095,2@b:9095", "nothing while cluster.listen is off"),
        ("cluster.voters", "1@a:9095,1@b:9095", "each id and address once"),
        ("cluster.voters", "1@a:9095,2@a:9095", "each id and address once"),
        ("cluster.voters", "a:9095", "ID@HOST:PORT"),
        ("cluster.voters", "-1@a:9095", "ID@HOST:PORT"),
        ("cluster.voters", "1@a:0", "ID@HOST:PORT"),
        ("cluster.voters", "1@a:9095,", "ID@HOST:PORT"),
        ("cluster.advertised", "a:9095", "off while cluster.listen is off"),
        ("cluster.id", "floodmark", "22 characters of base64url"),
        ("broker.rack", "a\nb", "without control characters"),
        ("quorum.election.timeout.ms", "150", "at least twice quorum.heartbeat.ms"),
        ("broker.session.timeout.ms", "450", "at least twice broker.heartbeat.interval.ms"),
        ("replica.lag.time.max.ms", "1999", "at least broker.session.timeout.ms"),
        ("default.replication.factor", "-1", "from 0 to 32767"),
    ] {
        let told = message(load(None, &[], &[(key, value)]));
        assert!(told.starts_with(&format!("flag --{key}: {key} cannot be ")), "{told}");
        assert!(told.contains(allowed), "{told}");
    }
}

#[test]
fn what_topics_take_over_goes_by_kafkas_names() {
    let file =
        "log.retention.hours = 24\nlog.cleanup.policy = ['compact', 'delete']\n[floodmark]\nsync = 'none'\n";
    let config = load(Some(file), &[("FLOODMARK_LOG_SEGMENT_BYTES", "1048576")], &[]).unwrap();
    let set: Vec<_> = config.file_settings().iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        set,
        [
            ("floodmark.sync", "none"),
            ("log.cleanup.policy", "compact,delete"),
            ("log.retention.hours", "24"),
            ("log.segment.bytes", "1048576"),
        ]
    );
    let all = config.log_defaults();
    let seen = |key: &str| {
        all.iter().find(|d| d.key == key).map(|d| (d.value.as_deref(), d.origin.to_string())).unwrap()
    };
    assert_eq!(seen("log.retention.hours").0, Some("24"));
    assert!(seen("log.retention.hours").1.ends_with("line 1"));
    assert_eq!(seen("log.retention.ms"), (None, "default".to_owned()), "the hours count");
    assert_eq!(seen("log.roll.ms").0, Some("604800000"));
    assert_eq!(seen("log.roll.hours").0, None);
    assert_eq!(seen("message.max.bytes").0, Some("1048588"));
    for (key, value, allowed) in [
        ("log.retention.hours", "soon", "a whole number"),
        ("log.retention.hours", "9223372036854775807", "a whole number"),
        ("log.cleanup.policy", "keep", "any of compact, delete"),
        ("log.segment.bytes", "1", "a whole number, from 1048576 to"),
        ("floodmark.sync", "always", "one of "),
    ] {
        let told = message(load(None, &[], &[(key, value)]));
        assert!(told.contains(&format!("{key} cannot be \"{value}\"")) && told.contains(allowed), "{told}");
    }
    let told = message(load(None, &[], &[("log.retention.hour", "1")]));
    assert!(told.ends_with("did you mean log.retention.hours?"), "{told}");
    // A topic's own name for a setting is not a broker's.
    assert!(message(load(None, &[], &[("retention.ms", "1")])).contains("log.retention.ms"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing =
        BrokerConfig::load(&Sources { file: Some("/no/such/file.toml".into()), ..Sources::default() });
    assert!(message(missing).starts_with("settings file /no/such/file.toml: "));
}

#[test]
fn sizes_times_and_addresses_read_as_people_write_them() {
    assert_eq!(ByteSize::read("100MiB"), Some(ByteSize::mib(100)));
    assert_eq!(ByteSize::read("1 GiB"), Some(ByteSize::mib(1024)));
    assert_eq!(ByteSize::read("MiB"), None);
    assert_eq!(Millis::read("10min"), Some(Millis::seconds(600)));
    assert_eq!(Millis::read("7d"), Some(Millis(604_800_000)));
    assert_eq!(Millis::read("1.5s"), None);
    assert_eq!(HostPort::read("[::1]:0").map(|a| a.to_string()), Some("[::1]:0".to_owned()));
    for (text, is_wildcard) in
        [("0.0.0.0:1", true), ("[::]:1", true), ("localhost:1", false), ("127.0.0.1:1", false)]
    {
        assert_eq!(HostPort::read(text).unwrap().is_wildcard(), is_wildcard, "{text}");
    }
}

#[test]
fn voters_read_as_they_are_shown() {
    let text = "1@10.0.0.1:9095,2@[::1]:9095,7@broker-7:9095";
    let config = load(None, &[], &[("cluster.listen", "10.0.0.1:9095"), ("cluster.voters", text)]).unwrap();
    let seen: Vec<_> = config.cluster_voters.iter().map(|v| (v.id, v.address.port)).collect();
    assert_eq!(seen, [(1, 9095), (2, 9095), (7, 9095)]);
    assert_eq!(config.text("cluster.voters").as_deref(), Some(text));
    assert_eq!(config.text("cluster.id").as_deref(), Some(""));
}

#[test]
fn a_temporary_directory_goes_with_its_last_user() {
    let config = BrokerConfig::temporary().unwrap();
    let dir = config.data_dirs[0].clone();
    let second = config.clone();
    drop(config);
    assert!(dir.is_dir());
    drop(second);
    assert!(!dir.exists());
}
