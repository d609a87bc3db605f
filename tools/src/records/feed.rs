//! Reads records on a thread of its own, since standard input can be waited for in no other way, and hands them on in chunks.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::sync::mpsc;

use super::read::{Form, RecordReader, Source};
use super::{NewHeader, NewRecord};
use crate::input::escapes;
use crate::input::pairs::{self, Pair};

/// Enough to cross the threads seldom, little enough to hold.
const CHUNK_RECORDS: usize = 1_000;
const CHUNK_BYTES: usize = 1 << 20;

/// Chunks that wait to be sent.
const CHUNKS_MAX: usize = 4;

/// Where records come from, and how.
#[derive(Debug, Args)]
pub(crate) struct InputArgs {
    /// How the input becomes records.
    #[arg(long, value_enum, default_value_t = InputForm::Lines)]
    pub(crate) input: InputForm,
    /// Read these files instead of standard input; - is standard input.
    #[arg(long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Ends each record of lines: one byte, such as \0.
    #[arg(long, value_name = "BYTE", default_value = r"\n", value_parser = escapes::delimiter)]
    pub(crate) delimiter: u8,
    /// A header for every record, behind its own.
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = pairs::argument)]
    headers: Vec<Pair>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputForm {
    /// A record for each line.
    Lines,
    /// A record for each line of JSON, as `floodmark consume --output json` prints it.
    Json,
    /// A record for each file.
    Whole,
}

impl InputArgs {
    pub(crate) fn headers(&self) -> Vec<NewHeader> {
        let header = |pair: &Pair| NewHeader {
            name: pair.key.clone().into_bytes(),
            value: Some(pair.value.clone().into_bytes()),
        };
        self.headers.iter().map(header).collect()
    }

    /// Whether somebody sits there and types.
    pub(crate) fn is_typed(&self) -> bool {
        self.files.is_empty() && self.input != InputForm::Whole && io::stdin().is_terminal()
    }

    /// Records as they come.
    pub(crate) fn start(&self, form: Form) -> anyhow::Result<Chunks> {
        start(self.files.clone(), form, self.headers())
    }
}

/// Records in order, and why none follow.
pub(crate) struct Chunk {
    /// What they were read from, for errors.
    pub(crate) source: Arc<str>,
    pub(crate) records: Vec<NewRecord>,
    pub(crate) failure: Option<anyhow::Error>,
}

pub(crate) type Chunks = mpsc::Receiver<Chunk>;

/// The thread ends with its input, or when nobody takes its chunks any more and the next record has come.
fn start(files: Vec<PathBuf>, form: Form, headers: Vec<NewHeader>) -> anyhow::Result<Chunks> {
    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
    thread::Builder::new().name("fm-input".to_owned()).spawn(move || {
        let files = if files.is_empty() { vec![PathBuf::from("-")] } else { files };
        for file in files {
            let source: Arc<str> = name_of(&file).into();
            let failure = read(&file, &source, form.clone(), headers.clone(), &sender).err();
            if let Some(failure) = failure {
                let chunk = Chunk { source, records: Vec::new(), failure: Some(failure) };
                // Nobody is left to tell where this fails.
                let _ = sender.blocking_send(chunk);
                return;
            }
        }
    })?;
    Ok(chunks)
}

fn name_of(path: &Path) -> String {
    if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() }
}

fn read(
    path: &Path,
    name: &Arc<str>,
    form: Form,
    headers: Vec<NewHeader>,
    sender: &mpsc::Sender<Chunk>,
) -> anyhow::Result<()> {
    let source: Source = if path.as_os_str() == "-" { Box::new(io::stdin()) } else { Box::new(open(path)?) };
    let mut reader = RecordReader::new(name.to_string(), source, form, headers);
    let mut chunk = Vec::new();
    let mut bytes = 0;
    loop {
        let next = reader.next_record();
        let is_end = !matches!(next, Ok(Some(_)));
        if let Ok(Some(record)) = &next {
            bytes += record.value.as_ref().map_or(0, Vec::len) + record.key.as_ref().map_or(0, Vec::len);
        }
        let failure = match next {
            Ok(Some(record)) => {
                chunk.push(record);
                None
            }
            Ok(None) => None,
            Err(e) => Some(e),
        };
        // The next read may wait for somebody who types: what is there goes first.
        if is_end || reader.may_wait() || chunk.len() >= CHUNK_RECORDS || bytes >= CHUNK_BYTES {
            let records = std::mem::take(&mut chunk);
            if sender.blocking_send(Chunk { source: Arc::clone(name), records, failure: None }).is_err() {
                return Ok(());
            }
            bytes = 0;
        }
        match failure {
            Some(failure) => return Err(failure),
            None if is_end => return Ok(()),
            None => {}
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a file that a user names is no file of a log")]
fn open(path: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()))
}
