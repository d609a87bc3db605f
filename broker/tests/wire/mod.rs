//! A client that sends what it likes, byte by byte, and says what becomes of its connection.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]
#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use floodmark_broker::{Broker, BrokerConfig};

pub(crate) const API_VERSIONS: i16 = 18;
/// No answer after this is a failure of the test: nothing takes as long that goes well, on a busy machine either.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A broker on a free port, with these settings.
pub(crate) fn broker(settings: &[(&str, &str)]) -> Broker {
    let mut config = BrokerConfig::temporary().unwrap();
    for (key, value) in settings {
        config.set(key, value).unwrap();
    }
    Broker::start(config).unwrap()
}

/// A frame: length, header of version 1 with the client's name, body.
pub(crate) fn frame(key: i16, version: i16, correlation_id: i32, client_id: &[u8], body: &[u8]) -> Vec<u8> {
    let mut inner = Vec::new();
    inner.extend(key.to_be_bytes());
    inner.extend(version.to_be_bytes());
    inner.extend(correlation_id.to_be_bytes());
    inner.extend(i16::try_from(client_id.len()).unwrap().to_be_bytes());
    inner.extend(client_id);
    inner.extend(body);
    prefixed(&inner)
}

pub(crate) fn prefixed(inner: &[u8]) -> Vec<u8> {
    let mut frame = i32::try_from(inner.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(inner);
    frame
}

/// A request that every broker answers.
pub(crate) fn api_versions(correlation_id: i32) -> Vec<u8> {
    frame(API_VERSIONS, 0, correlation_id, b"test", b"")
}

/// What became of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A reply of these bytes, without its length.
    Reply(Vec<u8>),
    /// The broker closed it.
    Closed,
    /// Nothing came in time.
    Silence,
}

pub(crate) struct Client {
    pub(crate) socket: TcpStream,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { socket }
    }

    /// A broker that has closed does not take all; what became of it is seen by reading.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub(crate) fn fate(&mut self, within: Duration) -> Fate {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut length = [0; 4];
        match self.socket.read_exact(&mut length) {
            Ok(()) => {}
            Err(e) => return fate_of(e.kind()),
        }
        let mut reply = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        match self.socket.read_exact(&mut reply) {
            Ok(()) => Fate::Reply(reply),
            Err(e) => fate_of(e.kind()),
        }
    }

    /// The correlation id of the next reply.
    pub(crate) fn correlation_id(&mut self) -> i32 {
        match self.fate(PATIENCE) {
            Fate::Reply(reply) => i32::from_be_bytes(reply[..4].try_into().unwrap()),
            other => panic!("no reply: {other:?}"),
        }
    }

    /// Whether the broker answers this connection.
    pub(crate) fn is_served(&mut self, correlation_id: i32) -> bool {
        self.send(&api_versions(correlation_id));
        matches!(self.fate(PATIENCE), Fate::Reply(reply) if reply[..4] == correlation_id.to_be_bytes())
    }

    /// Waits until the broker closes.
    pub(crate) fn is_closed(&mut self, within: Duration) -> bool {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut rest = [0; 4096];
        loop {
            match self.socket.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) => return fate_of(e.kind()) == Fate::Closed,
            }
        }
    }
}

fn fate_of(kind: ErrorKind) -> Fate {
    match kind {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Fate::Silence,
        _ => Fate::Closed,
    }
}
