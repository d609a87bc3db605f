//! What is wrong with a connection that has to speak HTTP/2, seen in its bytes and told once for each address: the server below it ends such
//! a connection without a word. Knows no service and no socket.

mod parting;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use parking_lot::Mutex;
use parting::Parting;

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Addresses that are remembered as told of. Beyond them nothing more is logged.
const TOLD_MAX: usize = 1024;

/// Which addresses brought connections to a listener that were ended because of them, and why each was.
#[derive(Debug)]
pub(crate) struct Told {
    /// What the listener is called in the log.
    listener: &'static str,
    told: Mutex<BTreeSet<(IpAddr, Fault)>>,
}

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Silent,
    Garbage,
    /// It began well.
    Broken,
}

impl Told {
    pub(crate) fn new(listener: &'static str) -> Told {
        Told { listener, told: Mutex::default() }
    }

    /// Tells it, once for each address and reason.
    pub(crate) fn tell(&self, peer: SocketAddr, why: Fault, code: Option<u32>) {
        if self.is_news(peer.ip(), why) {
            let (listener, reason) = (self.listener, why.reason());
            tracing::warn!(
                %peer,
                reason,
                code,
                "a connection to the listener for {listener} was ended; it is not told of again"
            );
        }
    }

    fn is_news(&self, from: IpAddr, why: Fault) -> bool {
        let mut told = self.told.lock();
        told.len() < TOLD_MAX && told.insert((from, why))
    }
}

impl Fault {
    fn reason(self) -> &'static str {
        match self {
            Fault::Silent => "it did not begin to speak",
            Fault::Garbage => "what came is not HTTP/2",
            Fault::Broken => "what came breaks HTTP/2",
        }
    }
}

/// The beginning of a connection, until all of it has come.
#[derive(Debug)]
pub(crate) struct Preface {
    missing: &'static [u8],
}

impl Preface {
    pub(crate) fn new() -> Preface {
        Preface { missing: PREFACE }
    }

    /// Whether it has all come; none where nobody who speaks HTTP/2 begins so.
    pub(crate) fn on_bytes(&mut self, came: &[u8]) -> Option<bool> {
        let (expected, missing) = self.missing.split_at(came.len().min(self.missing.len()));
        self.missing = missing;
        came.starts_with(expected).then_some(missing.is_empty())
    }
}

/// What the server writes into one connection, watched for the code with which it ends it.
#[derive(Debug, Default)]
pub(crate) struct Written(Parting);

impl Written {
    /// So many bytes of `pieces` were written. The code with which the connection is ended, where that is because of its caller.
    pub(crate) fn on_written(&mut self, pieces: &[io::IoSlice<'_>], mut bytes: usize) -> Option<u32> {
        let mut code = None;
        for piece in pieces {
            let of_piece = piece.get(..bytes).unwrap_or(piece);
            let seen = self.0.on_written(of_piece);
            code = code.or(seen);
            bytes -= of_piece.len();
        }
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preface_may_come_in_pieces_and_nothing_else_in_its_place() {
        for size in 1..=PREFACE.len() {
            let mut preface = Preface::new();
            let said: Vec<_> = PREFACE.chunks(size).map(|piece| preface.on_bytes(piece)).collect();
            assert_eq!(said.last(), Some(&Some(true)), "in pieces of {size}");
            assert!(said[..said.len() - 1].iter().all(|said| *said == Some(false)));
        }
        let with_more = [PREFACE, b"\0\0\0"].concat();
        assert_eq!(Preface::new().on_bytes(&with_more), Some(true));
        assert_eq!(Preface::new().on_bytes(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(Preface::new().on_bytes(&[0; 5000]), None);
        assert_eq!(Preface::new().on_bytes(b""), Some(false));
    }

    #[test]
    fn each_address_is_told_of_once_for_each_reason_and_not_more_than_are_remembered() {
        let told = Told::new("gRPC");
        let one: IpAddr = [10, 0, 0, 1].into();
        assert!(told.is_news(one, Fault::Garbage) && told.is_news(one, Fault::Broken));
        assert!(!told.is_news(one, Fault::Garbage));
        let news = (0..2 * TOLD_MAX as u32).filter(|n| told.is_news(IpAddr::V4((*n).into()), Fault::Silent));
        assert_eq!(news.count(), TOLD_MAX - 2);
    }

    #[test]
    fn only_what_was_written_of_pieces_counts() {
        let goaway = [&[0, 0, 8, 7, 0, 0, 0, 0, 0][..], &[0; 4], &1u32.to_be_bytes()].concat();
        let (head, code) = goaway.split_at(12);
        let pieces = [io::IoSlice::new(head), io::IoSlice::new(code)];
        let mut written = Written::default();
        assert_eq!(written.on_written(&pieces, 14), None);
        assert_eq!(written.on_written(&[io::IoSlice::new(&code[2..])], 3), Some(1));
        assert_eq!(Written::default().on_written(&pieces, goaway.len()), Some(1));
    }
}
