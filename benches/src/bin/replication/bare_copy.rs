//! What is left of catching up when nothing is a log: the bytes of files, put into other files and synced.
#![allow(clippy::disallowed_methods, reason = "bare copies read and write files themselves")]

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, bail, ensure};
use floodmark_storage::clock::Stopwatch;

/// Bytes read and written at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A file, and how many of its bytes are copied.
pub(crate) struct Piece {
    path: PathBuf,
    bytes: u64,
}

/// The newest segments of a log, up to `bytes` in all.
pub(crate) fn newest(log: &Path, bytes: u64) -> anyhow::Result<Vec<Piece>> {
    let mut segments: Vec<PathBuf> = fs::read_dir(log)
        .with_context(|| format!("list {}", log.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    segments.sort();
    let mut left = bytes;
    let mut pieces = Vec::new();
    for path in segments.into_iter().rev() {
        let piece = left.min(path.metadata()?.len());
        left -= piece;
        pieces.push(Piece { path, bytes: piece });
    }
    pieces.retain(|piece| piece.bytes > 0);
    Ok(pieces)
}

/// Reads the files and writes others, each synced once it is there; MiB per second.
pub(crate) fn of_files(from: &[Piece], to: &Path) -> anyhow::Result<f64> {
    fs::create_dir_all(to)?;
    let begun = Stopwatch::start();
    for piece in from {
        let read = File::open(&piece.path)?;
        let mut write = File::create(to.join(piece.path.file_name().unwrap_or_default()))?;
        move_all(&mut read.take(piece.bytes), &mut write)?;
        write.sync_data()?;
    }
    finish(begun, from, to)
}

/// Sends the files by `sendfile` over a loopback connection to a thread that writes what comes into a file, synced once at its end; MiB per
/// second.
pub(crate) fn over_a_connection(from: &[Piece], to: &Path) -> anyhow::Result<f64> {
    fs::create_dir_all(to)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let begun = Stopwatch::start();
    let connection = TcpStream::connect(listener.local_addr()?)?;
    let mut read = listener.accept()?.0;
    let bytes: u64 = from.iter().map(|piece| piece.bytes).sum();
    thread::scope(|scope| {
        let receiver = scope.spawn(move || -> anyhow::Result<()> {
            let mut write = File::create(to.join("received"))?;
            let received = move_all(&mut read, &mut write)?;
            ensure!(received == bytes, "{received} bytes of {bytes} came");
            Ok(write.sync_data()?)
        });
        let sent = from.iter().try_for_each(|piece| send(piece, &connection));
        // The receiver reads up to there.
        drop(connection);
        match receiver.join() {
            Ok(received) => sent.and(received),
            Err(_) => bail!("the receiver panicked"),
        }
    })?;
    finish(begun, from, to)
}

fn send(piece: &Piece, connection: &TcpStream) -> anyhow::Result<()> {
    let file = File::open(&piece.path)?;
    let mut at = 0;
    while at < piece.bytes {
        let left = usize::try_from(piece.bytes - at)?;
        ensure!(rustix::fs::sendfile(connection, &file, Some(&mut at), left)? > 0, "the file became shorter");
    }
    Ok(())
}

fn move_all(from: &mut impl Read, to: &mut File) -> anyhow::Result<u64> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut moved = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(moved);
        }
        to.write_all(&buffer[..count])?;
        moved += count as u64;
    }
}

fn finish(begun: Stopwatch, from: &[Piece], to: &Path) -> anyhow::Result<f64> {
    let seconds = begun.elapsed().as_secs_f64();
    fs::remove_dir_all(to)?;
    let bytes: u64 = from.iter().map(|piece| piece.bytes).sum();
    Ok(bytes as f64 / f64::from(1 << 20) / seconds)
}
