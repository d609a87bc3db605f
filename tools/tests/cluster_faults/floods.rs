//! More than belongs to a broker's door for brokers: crowds of connections, some that trickle, streams without number, messages without
//! end. Each is refused or ended; it costs the broker little memory and few lines in its log, and nobody else notices.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tonic::Code;

use crate::faults::Nemesis;
use crate::ground::{tell, wait_until};
use crate::strangers::call;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Answered for anybody.
const INTRODUCE: &str = "/floodmark.quorum.Forming/Introduce";
const VOTE: &str = "/floodmark.quorum.Quorum/RequestVote";
/// More than a broker takes from one address, and what it takes.
const CROWD: usize = 700;
const TAKEN_MAX: usize = 512;
const TRICKLERS: usize = 200;
/// Connections of each of the other floods, and what each of them opens or sends.
const CONNECTIONS: usize = 10;
const STREAMS: u32 = 10_000;
const MESSAGE_BYTES: usize = 8 << 20;
/// Whatever it was, it is ended after this: a broker gives it 20 s, and may be busy.
const ENDED_WITHIN: Duration = Duration::from_secs(120);
/// So long a broker may take to look at those who came; shorter than it gives them.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(8);
/// Of one flood, in the log of a broker: ten a second, for a few seconds.
const LINES_MAX: usize = 60;
/// What a flood may hold, or leave behind, in memory. Allocators keep some of what they gave.
const BYTES_MAX: u64 = 192 << 20;
/// Kinds of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

impl Nemesis {
    pub(crate) fn meet_floods(&mut self) -> Result<(), String> {
        let at = self.brokers.ground.places[0].cluster();
        // It takes the longest to end, so that the others come meanwhile.
        let streams: Vec<_> =
            (0..CONNECTIONS).map(|_| thread::spawn(move || streams_that_wait(at))).collect();
        self.flood("messages without end", || every_one(CONNECTIONS, move || message_without_end(at)))?;
        self.flood("calls given up at once", || every_one(CONNECTIONS, move || calls_given_up(at)))?;
        self.flood("connections that trickle", || trickle(at))?;
        self.flood("a crowd", || crowd(at))?;
        self.flood("streams that wait", || {
            let ended: usize = streams.into_iter().map(|one| joined(one).unwrap_or(0)).sum();
            let all = CONNECTIONS * STREAMS as usize;
            if ended == all { Ok(()) } else { Err(format!("{ended} of {all} streams were ended")) }
        })?;
        self.await_progress("floods")
    }

    fn flood(&self, what: &str, run: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let begun = Instant::now();
        let lines = || fs::read_to_string(self.brokers.log(0)).unwrap().lines().count();
        let (before, lines_before) = (self.brokers.memory_bytes(0), lines());
        run().map_err(|e| format!("{what}: {e}"))?;
        let at = self.brokers.ground.places[0].cluster();
        let status = call(at, VOTE, &[])?;
        if status.code() != Code::InvalidArgument {
            return Err(format!("{what}: somebody else is answered {status:?}"));
        }
        let grown = self.brokers.memory_bytes(0).saturating_sub(before);
        let told = lines() - lines_before;
        let (seconds, mib) = (begun.elapsed().as_secs_f32(), grown >> 20);
        tell(self.load.since, &format!("  {what}: {seconds:.1} s, {mib} MiB more, {told} lines in the log"));
        if grown > BYTES_MAX || told > LINES_MAX {
            return Err(format!("{what}: {grown} bytes more, {told} lines in the log"));
        }
        Ok(())
    }
}

fn joined<T>(thread: JoinHandle<T>) -> Result<T, String> {
    thread.join().map_err(|_| "a flood panicked".to_owned())
}

fn every_one(
    count: usize,
    run: impl Fn() -> Result<(), String> + Send + Clone + 'static,
) -> Result<(), String> {
    let all: Vec<_> = (0..count).map(|_| thread::spawn(run.clone())).collect();
    all.into_iter().try_for_each(|one| joined(one)?)
}

/// Connections that say nothing: as many as there is room for are taken, until they had their time; the others are closed at once.
fn crowd(at: SocketAddr) -> Result<(), String> {
    let mut open: Vec<TcpStream> = (0..CROWD).map(|_| connect(at)).collect();
    wait_until(LOOKED_AT_WITHIN, || {
        open.retain(|socket| !is_ended(socket));
        open.len() <= TAKEN_MAX
    });
    if open.len() > TAKEN_MAX || open.is_empty() {
        return Err(format!("{} of {CROWD} connections were taken", open.len()));
    }
    are_all_ended(open)
}

/// Connections that get nowhere, and others that begin well and are silent from then on.
fn trickle(at: SocketAddr) -> Result<(), String> {
    let mut silent: Vec<TcpStream> = (0..TRICKLERS).map(|_| connect(at)).collect();
    for socket in &mut silent {
        let _ = socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    }
    let mut slow: Vec<TcpStream> = (0..TRICKLERS).map(|_| connect(at)).collect();
    for byte in &PREFACE[..PREFACE.len() - 1] {
        for socket in &mut slow {
            // It may have been ended.
            let _ = socket.write_all(&[*byte]);
        }
        thread::sleep(Duration::from_millis(300));
    }
    are_all_ended(slow)?;
    are_all_ended(silent)
}

fn are_all_ended(mut open: Vec<TcpStream>) -> Result<(), String> {
    wait_until(ENDED_WITHIN, || {
        open.retain(|socket| !is_ended(socket));
        open.is_empty()
    });
    if open.is_empty() { Ok(()) } else { Err(format!("{} connections stay open", open.len())) }
}

/// One message that is announced larger than any may be, and comes, as far as it is taken.
fn message_without_end(at: SocketAddr) -> Result<(), String> {
    let mut socket = begin(at);
    socket.write_all(&open(1)).map_err(|e| e.to_string())?;
    let reader = socket.try_clone().map_err(|e| e.to_string())?;
    let reading = thread::spawn(move || count_ended(reader, 1));
    let piece = frame(DATA, 0, 1, &[7; 16 << 10]);
    let announced = frame(DATA, 0, 1, &[0, 255, 255, 255, 255]);
    let _ = socket.write_all(&announced);
    for _ in 0..MESSAGE_BYTES / (16 << 10) {
        // More than it takes without being asked ends the connection, or is not sent at all.
        if socket.write_all(&piece).is_err() {
            break;
        }
    }
    match joined(reading)? {
        0 => Err("the call goes on".to_owned()),
        _ => Ok(()),
    }
}

/// Calls that are opened and reset, as fast as that goes.
fn calls_given_up(at: SocketAddr) -> Result<(), String> {
    let mut socket = begin(at);
    let reader = socket.try_clone().map_err(|e| e.to_string())?;
    let reading = thread::spawn(move || count_ended(reader, u32::MAX));
    for stream in (0..STREAMS).map(|n| 2 * n + 1) {
        let both = [open(stream), frame(RESET, 0, stream, &[0, 0, 0, 8])].concat();
        if socket.write_all(&both).is_err() {
            break;
        }
    }
    // What it did not mind it need not end.
    let _ = socket.shutdown(std::net::Shutdown::Both);
    joined(reading).map(drop)
}

/// Opens calls whose messages never come, and answers pings all the while. Says how many of them were ended, each by itself or with the
/// connection.
fn streams_that_wait(at: SocketAddr) -> usize {
    let mut socket = begin(at);
    let Ok(reader) = socket.try_clone() else { return 0 };
    let reading = thread::spawn(move || count_ended(reader, STREAMS));
    for stream in (0..STREAMS).map(|n| 2 * n + 1) {
        if socket.write_all(&open(stream)).is_err() {
            break;
        }
    }
    reading.join().unwrap_or(0) as usize
}

/// Reads what a broker says and answers its pings, until so many streams have ended; all of them have where the connection ends.
fn count_ended(mut socket: TcpStream, wanted: u32) -> u32 {
    let since = Instant::now();
    let (mut come, mut ended) = (Vec::new(), std::collections::BTreeSet::new());
    let mut piece = vec![0; 64 << 10];
    while (ended.len() as u32) < wanted && since.elapsed() < ENDED_WITHIN {
        match socket.read(&mut piece) {
            Ok(0) => return wanted,
            Ok(count) => come.extend_from_slice(&piece[..count]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return wanted,
        }
        let mut rest = &come[..];
        while let Some((head, after)) = rest.split_at_checked(9) {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some((payload, next)) = after.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                PING if head[4] == 0 => drop(socket.write_all(&frame(PING, 1, 0, payload))),
                RESET => drop(ended.insert(stream)),
                // The last of it.
                HEADERS | DATA if head[4] & 1 == 1 => drop(ended.insert(stream)),
                _ => {}
            }
            rest = next;
        }
        let used = come.len() - rest.len();
        come.drain(..used);
    }
    ended.len() as u32
}

fn connect(at: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(at).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn begin(at: SocketAddr) -> TcpStream {
    let mut socket = connect(at);
    let _ = socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(SETTINGS, 1, 0, &[])].concat());
    socket
}

/// Looks without waiting.
fn is_ended(mut socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let ended = loop {
        match socket.read(&mut [0; 4096]) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(e) => break e.kind() != ErrorKind::WouldBlock,
        }
    };
    socket.set_nonblocking(false).unwrap();
    ended
}

/// Opens a call, and leaves its message out.
fn open(stream: u32) -> Vec<u8> {
    // POST, http.
    let mut fields = vec![0x83, 0x86];
    for (name, value) in [
        (&[0x04][..], INTRODUCE),
        (&[0x01][..], "broker"),
        (&b"\x00\x0ccontent-type"[..], "application/grpc"),
        (&b"\x00\x02te"[..], "trailers"),
        (&b"\x00\x0bfm-protocol"[..], "1"),
    ] {
        fields.extend_from_slice(name);
        fields.push(value.len() as u8);
        fields.extend_from_slice(value.as_bytes());
    }
    frame(HEADERS, 4, stream, &fields)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&[length[1], length[2], length[3], kind, flags], &stream.to_be_bytes()[..], payload].concat()
}
