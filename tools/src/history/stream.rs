//! Several files as one history: a line at a time, in the order in which things ended, so that memory does not grow with it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use super::{Event, Op};
use anyhow::{Context as _, Result, bail};

/// No line is longer; a recorder cuts what it reads into smaller pieces.
const LINE_BYTES_MAX: usize = 64 << 20;
/// How a line of a final read says so, as [`super::Recorder`] writes it.
const FINAL: &[u8] = br#""did":{"final""#;

/// Where in a line that can stand at the latest: behind two numbers of twenty digits.
const HEAD_BYTES: usize = 96;

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// What replicas held in the end. Other lines are not looked into.
    Finals,
    /// All that happened before.
    Others,
}

/// One file, with the next event that it has.
struct Source {
    path: PathBuf,
    reader: BufReader<File>,
    line: Vec<u8>,
    line_number: u64,
    next: Option<Event>,
    ended_last: u64,
}

/// The events of all files, by the moment they ended.
pub struct Events {
    sources: Vec<Source>,
    wanted: Wanted,
}

impl Events {
    /// Opens all files.
    ///
    /// # Errors
    /// A file that cannot be read, or whose first line is no event.
    #[expect(clippy::disallowed_methods, reason = "a program that reads the files it is given")]
    pub fn open(paths: &[PathBuf], wanted: Wanted) -> Result<Events> {
        let mut sources = Vec::new();
        for path in paths {
            let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            let reader = BufReader::with_capacity(1 << 20, file);
            let (path, line) = (path.clone(), Vec::new());
            let mut source = Source { path, reader, line, line_number: 0, next: None, ended_last: 0 };
            source.advance(wanted)?;
            sources.push(source);
        }
        Ok(Events { sources, wanted })
    }

    /// The next event of all.
    ///
    /// # Errors
    /// A line that is no event, or stands behind one that ended later.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        let ended = |source: &Source| source.next.as_ref().map(|event| event.ended);
        let first = self.sources.iter_mut().filter(|source| source.next.is_some()).min_by_key(|s| ended(s));
        let Some(source) = first else { return Ok(None) };
        let event = source.next.take();
        source.advance(self.wanted)?;
        Ok(event)
    }
}

impl Source {
    fn advance(&mut self, wanted: Wanted) -> Result<()> {
        while self.read_line()? {
            let is_final =
                self.line[..self.line.len().min(HEAD_BYTES)].windows(FINAL.len()).any(|at| at == FINAL);
            if is_final != (wanted == Wanted::Finals) {
                continue;
            }
            let event: Event = serde_json::from_slice(&self.line)
                .with_context(|| format!("{} line {} is no event", self.path.display(), self.line_number))?;
            if matches!(event.did, Op::Final { .. }) != is_final || event.begun > event.ended {
                bail!("{} line {} is not as a recorder writes it", self.path.display(), self.line_number);
            }
            if event.ended < self.ended_last {
                bail!(
                    "{} line {} stands behind one that ended later; sort the file by `ended`",
                    self.path.display(),
                    self.line_number
                );
            }
            self.ended_last = event.ended;
            self.next = Some(event);
            return Ok(());
        }
        Ok(())
    }

    /// False at the end of the file.
    fn read_line(&mut self) -> Result<bool> {
        self.line.clear();
        let limited = &mut std::io::Read::take(&mut self.reader, LINE_BYTES_MAX as u64);
        let size = limited
            .read_until(b'\n', &mut self.line)
            .with_context(|| format!("cannot read {}", self.path.display()))?;
        self.line_number += 1;
        if size == LINE_BYTES_MAX {
            bail!("{} line {} is longer than 64 MiB", self.path.display(), self.line_number);
        }
        Ok(size > 0)
    }
}
