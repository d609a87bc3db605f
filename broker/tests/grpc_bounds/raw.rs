//! HTTP/2 frame by frame, for what no client library would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::setup::PATIENCE;

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;

pub(crate) struct Raw {
    pub(crate) socket: TcpStream,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Raw {
        let mut raw = Raw { socket: TcpStream::connect(address).await.unwrap() };
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        raw.send(&frame(SETTINGS, 0, 0, &[])).await;
        raw
    }

    /// A broker that has closed does not take all; one that is there has to.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sent = tokio::time::timeout(PATIENCE, self.socket.write_all(bytes)).await;
        let _ = sent.expect("nothing is read, and the connection stays open");
    }

    /// Opens a call, with one more header of this size.
    pub(crate) async fn open(&mut self, stream: u32, path: &str, padding: usize) {
        let mut fields = vec![0x83, 0x86];
        literal(&mut fields, &[0x04], path.as_bytes());
        literal(&mut fields, &[0x0f, 0x10], b"application/grpc");
        literal(&mut fields, b"\x00\x02te", b"trailers");
        if padding > 0 {
            literal(&mut fields, b"\x00\x03pad", &vec![b'x'; padding]);
        }
        for (n, part) in fields.chunks(16_000).enumerate() {
            // The rest follows in CONTINUATION frames.
            let is_last = (n + 1) * 16_000 >= fields.len();
            let kind = if n == 0 { HEADERS } else { 9 };
            self.send(&frame(kind, if is_last { END_HEADERS } else { 0 }, stream, part)).await;
        }
    }

    pub(crate) async fn data(&mut self, stream: u32, bytes: &[u8]) {
        self.send(&frame(DATA, 0, stream, bytes)).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32) {
        self.send(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await;
    }

    /// Reads until the broker closes; true where it said so before.
    pub(crate) async fn is_sent_away(&mut self, within: Duration) -> bool {
        let mut all = Vec::new();
        let read = tokio::time::timeout(within, self.socket.read_to_end(&mut all)).await;
        assert!(read.is_ok(), "it stays open");
        let (mut rest, mut said) = (&all[..], false);
        while let Some((head, after)) = rest.split_at_checked(9) {
            said |= head[3] == GOAWAY;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            rest = after.get(length..).unwrap_or_default();
        }
        said
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field that is written out: its name, then its value without Huffman coding.
fn literal(fields: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    fields.extend(name);
    if value.len() < 127 {
        fields.push(u8::try_from(value.len()).unwrap());
    } else {
        fields.push(127);
        let mut rest = value.len() - 127;
        while rest >= 128 {
            fields.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        fields.push(u8::try_from(rest).unwrap());
    }
    fields.extend(value);
}
