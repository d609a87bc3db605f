//! As little of HTTP/2 as one gRPC call needs, by hand and blocking, so that a load costs next to nothing beside its broker. Knows messages
//! only as bytes.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// Waiting longer than this for a frame is a failure of the run.
const FRAME_WITHIN: Duration = Duration::from_secs(30);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
/// Compression flag and length of a message.
const MESSAGE_HEAD: usize = 5;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
/// What HTTP/2 begins with, where nobody says anything.
const WINDOW_AT_FIRST: u32 = 65_535;
/// Bytes that the broker may send ahead, on the call and on the connection.
const OUR_WINDOW: u32 = 16 << 20;
const OUR_FRAME_MAX: u32 = 1 << 20;
/// The only call of the connection.
const CALL: u32 = 1;

/// One call on a connection of its own.
pub(crate) struct Call {
    stream: TcpStream,
    /// What may be sent, on the connection and on the call.
    connection_window: i64,
    call_window: i64,
    /// What the other side has said of new calls.
    initial_window: u32,
    frame_bytes_max: usize,
    has_settings: bool,
    /// Received, from `start` to `end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Received since the other side was last told of room.
    untold: u32,
}

impl Call {
    /// Connects, and begins a call of this method (`/service/method`).
    pub(crate) fn open(address: SocketAddr, method: &str) -> anyhow::Result<Call> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(FRAME_WITHIN))?;
        let mut call = Call {
            stream,
            connection_window: i64::from(WINDOW_AT_FIRST),
            call_window: i64::from(WINDOW_AT_FIRST),
            initial_window: WINDOW_AT_FIRST,
            frame_bytes_max: 1 << 14,
            has_settings: false,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            untold: 0,
        };
        let mut hello = PREFACE.to_vec();
        let mut settings = Vec::new();
        for (id, value) in [(INITIAL_WINDOW_SIZE, OUR_WINDOW), (MAX_FRAME_SIZE, OUR_FRAME_MAX)] {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        put_frame(&mut hello, SETTINGS, 0, 0, &settings);
        put_frame(&mut hello, WINDOW_UPDATE, 0, 0, &(OUR_WINDOW - WINDOW_AT_FIRST).to_be_bytes());
        put_frame(&mut hello, HEADERS, END_HEADERS, CALL, &header_block(address, method));
        call.stream.write_all(&hello)?;
        while !call.has_settings {
            call.take_frame()?;
        }
        Ok(call)
    }

    /// Sends a message made by [`message`], as the other side's windows allow.
    pub(crate) fn send(&mut self, mut message: &[u8]) -> anyhow::Result<()> {
        while !message.is_empty() {
            let window = usize::try_from(self.connection_window.min(self.call_window)).unwrap_or(0);
            let bytes = message.len().min(self.frame_bytes_max).min(window);
            if bytes == 0 {
                self.take_frame()?;
                continue;
            }
            let (now, later) = message.split_at(bytes);
            write_both(&mut self.stream, &frame_head(DATA, 0, CALL, bytes), now)?;
            self.connection_window -= bytes as i64;
            self.call_window -= bytes as i64;
            message = later;
        }
        Ok(())
    }

    /// The next message, without its head.
    pub(crate) fn receive(&mut self) -> anyhow::Result<&[u8]> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(&[_, a, b, c, d]) = unread.first_chunk::<MESSAGE_HEAD>() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                if unread.len() >= MESSAGE_HEAD + length {
                    let from = self.start + MESSAGE_HEAD;
                    self.start = from + length;
                    return Ok(&self.buffer[from..from + length]);
                }
            }
            self.take_frame()?;
        }
    }

    fn take_frame(&mut self) -> anyhow::Result<()> {
        let mut head = [0; FRAME_HEAD];
        self.stream.read_exact(&mut head).context("read a frame")?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if kind == DATA {
            ensure!(flags & (PADDED | END_STREAM) == 0, "the broker has ended the call or pads its frames");
            return self.take_data(length);
        }
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        match kind {
            HEADERS if flags & END_STREAM != 0 => {
                bail!("the broker has ended the call: {}", String::from_utf8_lossy(&payload))
            }
            RST_STREAM | GOAWAY => bail!("the broker has ended the call: frame {kind}, {payload:?}"),
            SETTINGS if flags & ACK == 0 => self.on_settings(&payload)?,
            PING if flags & ACK == 0 => {
                let mut answer = Vec::new();
                put_frame(&mut answer, PING, ACK, 0, &payload);
                self.stream.write_all(&answer)?;
            }
            WINDOW_UPDATE => {
                let more = payload.first_chunk().copied().map(u32::from_be_bytes);
                let more = i64::from(more.context("a short WINDOW_UPDATE")?);
                match u32::from_be_bytes(stream) {
                    0 => self.connection_window += more,
                    _ => self.call_window += more,
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_data(&mut self, length: usize) -> anyhow::Result<()> {
        if self.end + length > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let needed = self.end + length;
            if needed > self.buffer.len() {
                self.buffer.resize(needed.next_power_of_two(), 0);
            }
        } else if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        self.stream.read_exact(&mut self.buffer[self.end..self.end + length])?;
        self.end += length;
        self.untold += length as u32;
        if self.untold >= OUR_WINDOW / 2 {
            let mut room = Vec::new();
            for stream in [0, CALL] {
                put_frame(&mut room, WINDOW_UPDATE, 0, stream, &self.untold.to_be_bytes());
            }
            self.stream.write_all(&room)?;
            self.untold = 0;
        }
        Ok(())
    }

    fn on_settings(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        for setting in payload.chunks_exact(6) {
            let &[i, d, a, b, c, e] = setting else { continue };
            let value = u32::from_be_bytes([a, b, c, e]);
            match u16::from_be_bytes([i, d]) {
                INITIAL_WINDOW_SIZE => {
                    self.call_window += i64::from(value) - i64::from(self.initial_window);
                    self.initial_window = value;
                }
                MAX_FRAME_SIZE => self.frame_bytes_max = value as usize,
                _ => {}
            }
        }
        self.has_settings = true;
        let mut answer = Vec::new();
        put_frame(&mut answer, SETTINGS, ACK, 0, &[]);
        Ok(self.stream.write_all(&answer)?)
    }
}

/// A message as [`Call::send`] takes it.
pub(crate) fn message(body: &[u8]) -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&(body.len() as u32).to_be_bytes());
    message.extend_from_slice(body);
    message
}

fn frame_head(kind: u8, flags: u8, stream: u32, length: usize) -> [u8; FRAME_HEAD] {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [w, x, y, z] = stream.to_be_bytes();
    [a, b, c, kind, flags, w, x, y, z]
}

fn put_frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    into.extend_from_slice(&frame_head(kind, flags, stream, payload.len()));
    into.extend_from_slice(payload);
}

/// In one system call where the socket takes it, without a copy of the payload.
fn write_both(stream: &mut TcpStream, head: &[u8], payload: &[u8]) -> std::io::Result<()> {
    let sent = stream.write_vectored(&[IoSlice::new(head), IoSlice::new(payload)])?;
    if sent < head.len() {
        stream.write_all(&head[sent..])?;
    }
    stream.write_all(&payload[sent.saturating_sub(head.len())..])
}

/// The header fields of a call in HPACK (RFC 7541): from its static table, and literals that are not indexed.
fn header_block(address: SocketAddr, method: &str) -> Vec<u8> {
    const METHOD_POST: u8 = 0x83;
    const SCHEME_HTTP: u8 = 0x86;
    const AUTHORITY: &[u8] = &[0x01];
    const PATH: &[u8] = &[0x04];
    /// Index 31, which takes a second byte.
    const CONTENT_TYPE: &[u8] = &[0x0f, 0x10];
    let mut block = vec![METHOD_POST, SCHEME_HTTP];
    let mut put = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        // All values here are shorter than 127 bytes, whose length takes one.
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    };
    put(PATH, method);
    put(AUTHORITY, &address.to_string());
    put(CONTENT_TYPE, "application/grpc");
    put(b"\x00\x02te", "trailers");
    block
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Reads frames until one of `kind`; its flags and payload.
    fn frame_of(stream: &mut TcpStream, kind: u8) -> (u8, Vec<u8>) {
        loop {
            let mut head = [0; FRAME_HEAD];
            stream.read_exact(&mut head).unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).unwrap();
            if head[3] == kind {
                return (head[4], payload);
            }
        }
    }

    #[test]
    fn messages_are_cut_by_the_windows_and_put_together_from_frames() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut preface = [0; PREFACE.len()];
            stream.read_exact(&mut preface).unwrap();
            assert_eq!(frame_of(&mut stream, HEADERS).0, END_HEADERS);
            let mut out = Vec::new();
            // A window of four bytes.
            put_frame(&mut out, SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 4]);
            stream.write_all(&out).unwrap();
            let mut got = frame_of(&mut stream, DATA).1;
            assert_eq!(got.len(), 4);
            let mut out = Vec::new();
            put_frame(&mut out, WINDOW_UPDATE, 0, CALL, &100_u32.to_be_bytes());
            stream.write_all(&out).unwrap();
            got.append(&mut frame_of(&mut stream, DATA).1);
            let two = [message(b"one"), message(b"")].concat();
            let mut out = Vec::new();
            put_frame(&mut out, DATA, 0, CALL, &two[..6]);
            put_frame(&mut out, PING, 0, 0, &[7; 8]);
            put_frame(&mut out, DATA, 0, CALL, &two[6..]);
            stream.write_all(&out).unwrap();
            assert_eq!(frame_of(&mut stream, PING), (ACK, vec![7; 8]));
            got
        });
        let mut call = Call::open(address, "/service/method").unwrap();
        call.send(&message(b"hello")).unwrap();
        assert_eq!(call.receive().unwrap(), b"one");
        assert_eq!(call.receive().unwrap(), b"");
        assert_eq!(server.join().unwrap(), message(b"hello"));
    }
}
