//! How commands speak: tables for people, one JSON object a line for programs, both in constant memory.

pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod time;

use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Below this a bar would be gone before anybody has read it.
const PROGRESS_FROM_BYTES: u64 = 256 << 20;

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One object a line, for programs.
    Json,
}

/// Standard output.
pub(crate) struct Sink {
    out: BufWriter<StdoutLock<'static>>,
}

impl Sink {
    pub(crate) fn stdout() -> Sink {
        Sink { out: BufWriter::with_capacity(64 << 10, io::stdout().lock()) }
    }

    /// One line.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// One object on a line of its own.
    pub(crate) fn json(&mut self, object: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, object)?;
        self.out.write_all(b"\n")
    }

    /// To be called at the end, so that a failure to write is not lost.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A line on standard error, for people, where standard output may be read by a program.
pub(crate) fn note(text: &str) {
    // A note that cannot be shown is no reason to stop.
    let _ = writeln!(io::stderr(), "{text}");
}

/// How far along work over `bytes` is: on standard error, and only where somebody looks at it and the work is long.
pub(crate) fn progress_bar(bytes: u64) -> ProgressBar {
    if bytes < PROGRESS_FROM_BYTES || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
