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

/// An error with its causes, each once: many name their cause in their own words.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
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

/// Whether standard output shows colours: a terminal does, unless its user has said otherwise (no-color.org).
pub(crate) fn is_coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Text that should alarm whoever looks.
pub(crate) fn alarming(text: &str) -> String {
    if is_coloured() { format!("\u{1b}[31m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// How many of so many things are done: on standard error, and only where somebody looks at it.
pub(crate) fn count_bar(count: u64, things: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {things}, {{msg}}")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
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

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_that_was_named_is_not_named_again() {
        let cause = || anyhow!("no such file");
        assert_eq!(sentence(&cause().context("open a")), "open a: no such file");
        assert_eq!(
            sentence(&cause().context("open a: no such file; make it").context("start")),
            "start: open a: no such file; make it"
        );
        assert_eq!(sentence(&cause()), "no such file");
    }
}
