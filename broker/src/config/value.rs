//! The types that settings have: how each is written, read and shown.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use floodmark_proto::ids::ClusterId;

/// A type of setting. Reading what [`Value::show`] gives returns the same value.
pub(super) trait Value: Sized {
    /// What may be written, in words.
    const ALLOWED: &'static str;
    fn read(text: &str) -> Option<Self>;
    fn show(&self) -> String;
}

/// A number of bytes; `KiB`, `MiB` and `GiB` may follow the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// So many MiB.
    #[must_use]
    pub const fn mib(n: u64) -> ByteSize {
        ByteSize(n << 20)
    }

    /// For sizes of memory, which no machine has more of than it can address.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A span of time in milliseconds; `ms`, `s`, `min`, `h` and `d` may follow the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// So many seconds.
    #[must_use]
    pub const fn seconds(n: u64) -> Millis {
        Millis(n * 1000)
    }

    /// The same as the standard library has it.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// A host, by name or number, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port; 0 where the system shall choose one.
    pub port: u16,
}

impl HostPort {
    /// The loopback address.
    #[must_use]
    pub fn loopback(port: u16) -> HostPort {
        HostPort { host: "127.0.0.1".to_owned(), port }
    }

    /// True where the host stands for every address of the machine, which is no place to send anybody to.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> HostPort {
        HostPort { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A broker by its number, and where other brokers find it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VoterAddress {
    /// Its `node.id`.
    pub id: i32,
    /// Its `cluster.listen` as others reach it.
    pub address: HostPort,
}

impl fmt::Display for VoterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.address)
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line, for programs.
    Json,
}

impl Value for ByteSize {
    const ALLOWED: &'static str = "a number of bytes, such as 1048576 or 1MiB";

    fn read(text: &str) -> Option<ByteSize> {
        number_with_unit(text, &[("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)])
            .map(ByteSize)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Value for Millis {
    const ALLOWED: &'static str = "milliseconds, or a time such as 30s, 10min, 12h or 7d";

    fn read(text: &str) -> Option<Millis> {
        const UNITS: &[(&str, u64)] =
            &[("", 1), ("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        number_with_unit(text, UNITS).map(Millis)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Value for HostPort {
    const ALLOWED: &'static str = "HOST:PORT, such as 127.0.0.1:9092 or [::1]:9092; port 0 takes a free one";

    fn read(text: &str) -> Option<HostPort> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let is_host = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        match bracketed {
            Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))).then_some(address),
            None => (!host.is_empty() && host.bytes().all(is_host)).then_some(host),
        }
        .map(|host| HostPort { host: host.to_owned(), port })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// An address, or none: `off`.
impl Value for Option<HostPort> {
    const ALLOWED: &'static str = "HOST:PORT, such as 127.0.0.1:9094 or [::1]:9094, or off";

    fn read(text: &str) -> Option<Option<HostPort>> {
        if text == "off" { Some(None) } else { HostPort::read(text).map(Some) }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "off".to_owned(), HostPort::show)
    }
}

/// No two have one number or one address.
impl Value for Vec<VoterAddress> {
    const ALLOWED: &'static str = "ID@HOST:PORT with commas between, such as 1@10.0.0.1:9095,2@10.0.0.2:9095, each id and address once, or nothing";

    fn read(text: &str) -> Option<Vec<VoterAddress>> {
        if text.trim().is_empty() {
            return Some(Vec::new());
        }
        let mut voters: Vec<VoterAddress> = Vec::new();
        for one in text.split(',') {
            let (id, address) = one.trim().split_once('@')?;
            let voter = VoterAddress {
                id: id.parse().ok().filter(|id| *id >= 0)?,
                address: HostPort::read(address).filter(|address| address.port != 0)?,
            };
            if voters.iter().any(|other| other.id == voter.id || other.address == voter.address) {
                return None;
            }
            voters.push(voter);
        }
        Some(voters)
    }

    fn show(&self) -> String {
        self.iter().map(VoterAddress::to_string).collect::<Vec<_>>().join(",")
    }
}

impl Value for Option<ClusterId> {
    const ALLOWED: &'static str = "22 characters of base64url, or nothing";

    fn read(text: &str) -> Option<Option<ClusterId>> {
        if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
    }

    fn show(&self) -> String {
        self.map(|id| id.to_string()).unwrap_or_default()
    }
}

/// A word, or nothing.
impl Value for Option<String> {
    const ALLOWED: &'static str = "text of up to 255 bytes without control characters, or nothing";

    fn read(text: &str) -> Option<Option<String>> {
        if text.is_empty() {
            return Some(None);
        }
        (text.len() <= 255 && !text.chars().any(char::is_control)).then(|| Some(text.to_owned()))
    }

    fn show(&self) -> String {
        self.clone().unwrap_or_default()
    }
}

impl Value for Vec<PathBuf> {
    const ALLOWED: &'static str = "one directory, or several with commas between";

    fn read(text: &str) -> Option<Vec<PathBuf>> {
        let dirs: Vec<PathBuf> = text.split(',').map(|dir| PathBuf::from(dir.trim())).collect();
        dirs.iter().all(|dir| !dir.as_os_str().is_empty()).then_some(dirs)
    }

    fn show(&self) -> String {
        self.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(",")
    }
}

impl Value for bool {
    const ALLOWED: &'static str = "true or false";

    fn read(text: &str) -> Option<bool> {
        text.parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for i32 {
    const ALLOWED: &'static str = "a whole number";

    fn read(text: &str) -> Option<i32> {
        text.parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const ALLOWED: &'static str = "text";

    fn read(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for LogFormat {
    const ALLOWED: &'static str = "text or json";

    fn read(text: &str) -> Option<LogFormat> {
        match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        }
    }

    fn show(&self) -> String {
        match self {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        }
    }
}

fn number_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = text[digits..].trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    text[..digits].parse::<u64>().ok()?.checked_mul(*factor)
}
