//! Apache Kafka as the reference for our files: a real broker of one node, filled by Kafka's own clients, and Kafka's own dump tool.
//!
//! - [`reference`]: one filled pair of log directories for all tests of a process, or `None` where there is no Java.
//! - [`Kafka`]: the jars; [`Kafka::start`] runs a broker, [`Kafka::dump`] reads any files as `DumpLogSegments` does.
//! - [`Written`]: what the broker acknowledged, record by record.

pub(crate) mod broker;
mod dump;
pub(crate) mod process;
pub(crate) mod toolchain;
mod writer;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

pub(crate) use dump::{Dump, DumpMode, DumpedBatch, DumpedRecord};
pub(crate) use toolchain::Kafka;
pub(crate) use writer::{Part, Transaction, Written, WrittenHeader};

/// Two Kafka log directories and what was written into them.
pub(crate) struct Reference {
    /// Reads files the way Kafka does.
    pub(crate) kafka: Kafka,
    /// A log directory after a clean stop, compacted as far as it goes. Holds `<topic>-0` folders; never write into it.
    pub(crate) clean: PathBuf,
    /// What was acknowledged until then.
    pub(crate) written: Vec<Written>,
    /// A copy of `clean` in which a broker wrote more, in the next leader epoch, until it was killed without warning.
    pub(crate) killed: PathBuf,
    /// What was acknowledged between the two.
    pub(crate) written_more: Vec<Written>,
    /// What `floodmark log recover --adopt` said of the first directory while the broker ran on it.
    pub(crate) adopting_a_running_one: Output,
    /// Keeps other processes out of these directories.
    _lock: File,
}

/// The reference, made once for the process. `None`, said on standard error, where Java or Maven is missing; a panic instead where
/// `FLOODMARK_REQUIRE_JAVA=1`. Blocks for about half a minute, the first time for the download too.
pub(crate) fn reference() -> Option<&'static Reference> {
    static REFERENCE: OnceLock<Option<Reference>> = OnceLock::new();
    REFERENCE.get_or_init(make_reference).as_ref()
}

fn make_reference() -> Option<Reference> {
    let kafka = Kafka::obtain()?;
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka-reference");
    fs::create_dir_all(&root).unwrap();
    let lock = toolchain::lock(&root.join(".lock"));
    let (first, second) = (emptied(&root.join("first")), emptied(&root.join("second")));

    kafka.format(&first);
    let broker = kafka.start(&first);
    let written = kafka.write(&broker, Part::All);
    broker.await_compaction("compacted-0");
    let running = broker::log_dir(&first).join("codec-none-0");
    let mut adopting = Command::new(env!("CARGO_BIN_EXE_floodmark"));
    let adopting_a_running_one = adopting.args(["log", "recover", "--adopt"]).arg(running).output().unwrap();
    let clean = broker.stop();

    copy_dir(&clean, &broker::log_dir(&second));
    let broker = kafka.start(&second);
    let written_more = kafka.write(&broker, Part::More);
    let killed = broker.kill();
    Some(Reference { kafka, clean, written, killed, written_more, adopting_a_running_one, _lock: lock })
}

/// The files in `dir` whose names end in one of `endings`, in order.
pub(crate) fn files_with(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending)))
        .collect();
    files.sort();
    files
}

/// Copies a directory with all below it; `to` is made.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// `dir`, made, with nothing in it.
pub(crate) fn emptied(dir: &Path) -> PathBuf {
    if dir.exists() {
        fs::remove_dir_all(dir).unwrap();
    }
    fs::create_dir_all(dir).unwrap();
    dir.to_owned()
}
