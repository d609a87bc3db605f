//! The bare servers: they move the bytes and do nothing else. Each serves one connection at a time and ends with its process.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use floodmark_benches::echo;
use floodmark_benches::server::Server;
use floodmark_proto::batch::crc32c;
use floodmark_storage::fs::{Disk as _, OpenMode, RealDisk};

/// One of the servers that the broker is compared with.
#[derive(Debug, Args)]
pub(crate) struct Bare {
    /// What it does
    kind: Kind,
    /// Where it listens
    address: SocketAddr,
    /// The file it writes or reads
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Receives frames, computes CRC-32C, appends them to the file, which must be missing, answers four bytes
    Sink,
    /// The same, and answers after an `fdatasync`, for which a second thread takes whatever has come since the last one
    SyncedSink,
    /// Answers a position of eight bytes with one MiB of the file from there, by sendfile
    Sendfile,
    /// The same by a write from a map of the file
    Mapped,
    /// Answers what it received, on a tokio runtime of one thread
    Echo,
}

/// What a request for bytes is answered with.
pub(crate) const SOURCE_BYTES: usize = 1 << 20;

/// Frames that wait for a sync; whoever sends more waits, too. Loads have five under way.
const UNSYNCED_MAX: usize = 64;

/// Starts this program again as one of them.
pub(crate) fn start(kind: &str, file: &Path) -> anyhow::Result<Server> {
    Server::bare(&["bare", kind], &[file.as_os_str()])
}

impl Bare {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Echo => echo::serve(self.address),
            Kind::Sink => each_connection(self.address, |stream| sink(stream, &self.file)),
            Kind::SyncedSink => each_connection(self.address, |stream| synced_sink(stream, &self.file)),
            Kind::Sendfile => each_connection(self.address, |stream| sendfile(stream, &self.file)),
            Kind::Mapped => each_connection(self.address, |stream| mapped(stream, &self.file)),
        }
    }
}

fn each_connection(
    address: SocketAddr,
    serve: impl Fn(TcpStream) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        serve(stream)?;
    }
}

fn sink(mut stream: TcpStream, file: &Path) -> anyhow::Result<()> {
    let file = File::create_new(file)?;
    let mut answers = stream.try_clone()?;
    each_frame(&mut stream, &file, |crc| Ok(answers.write_all(&crc.to_be_bytes())?))
}

fn synced_sink(mut stream: TcpStream, file: &Path) -> anyhow::Result<()> {
    let file = File::create_new(file)?;
    let answers = stream.try_clone()?;
    let (written, to_sync) = sync_channel(UNSYNCED_MAX);
    thread::scope(|scope| {
        let syncing = scope.spawn(|| sync_and_answer(&file, answers, to_sync));
        let received = each_frame(&mut stream, &file, |crc| Ok(written.send(crc)?));
        drop(written);
        let synced = syncing.join().map_err(|_| anyhow::anyhow!("the thread that syncs panicked"))?;
        received.and(synced)
    })
}

fn sync_and_answer(file: &File, mut answers: TcpStream, written: Receiver<u32>) -> anyhow::Result<()> {
    let mut answer = Vec::new();
    while let Ok(crc) = written.recv() {
        answer.clear();
        for crc in std::iter::once(crc).chain(written.try_iter()) {
            answer.extend_from_slice(&crc.to_be_bytes());
        }
        file.sync_data()?;
        answers.write_all(&answer)?;
    }
    Ok(())
}

/// Receives, checks and writes frames until the connection ends; `written` is told the checksum of each.
fn each_frame(
    stream: &mut TcpStream,
    file: &File,
    mut written: impl FnMut(u32) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut buffer, mut length, mut at) = (Vec::new(), [0; 4], 0);
    while stream.read_exact(&mut length).is_ok() {
        let frame_len = u32::from_be_bytes(length) as usize;
        buffer.resize(frame_len, 0);
        stream.read_exact(&mut buffer)?;
        let crc = crc32c::crc32c(&buffer);
        file.write_all_at(&buffer, at)?;
        at += frame_len as u64;
        written(crc)?;
    }
    Ok(())
}

fn sendfile(mut stream: TcpStream, file: &Path) -> anyhow::Result<()> {
    let file = File::open(file)?;
    let mut position = [0; 8];
    while stream.read_exact(&mut position).is_ok() {
        let mut offset = u64::from_be_bytes(position);
        let end = offset + SOURCE_BYTES as u64;
        while offset < end {
            let left = (end - offset) as usize;
            let sent = rustix::fs::sendfile(&stream, &file, Some(&mut offset), left)?;
            anyhow::ensure!(sent > 0, "the file ends before byte {end}");
        }
    }
    Ok(())
}

fn mapped(mut stream: TcpStream, file: &Path) -> anyhow::Result<()> {
    let map = RealDisk.open(file, OpenMode::Read)?.map(std::fs::metadata(file)?.len())?;
    let mut position = [0; 8];
    while stream.read_exact(&mut position).is_ok() {
        let from = u64::from_be_bytes(position) as usize;
        stream
            .write_all(map.as_ref().get(from..from + SOURCE_BYTES).context("the file ends before that")?)?;
    }
    Ok(())
}
