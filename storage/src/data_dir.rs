//! A directory that holds logs: who may use it, what it is, and which partitions lie in it. Several of them make one broker's
//! storage. Must know nothing of what is in a log.
//!
//! ```text
//! <data-dir>/.lock                held by the process that uses it
//! <data-dir>/floodmark.dir        what this directory is, and its identity
//! <data-dir>/logs/<topic>-<n>/    one partition
//! ```

use std::io;
use std::path::{Path, PathBuf};

use floodmark_proto::ids::TopicId;

use crate::config::LogConfig;
use crate::error::LogError;
use crate::fs::{
    Disk, DiskLock, OpenMode, ReplaceSyncs, SyncPoint, parent, read_small_file, remove_if_present,
    replace_file,
};
use crate::log::recovery::RecoveryReport;
use crate::log::{Log, LogContext};
use crate::partition_metadata;

const LOCK_FILE: &str = ".lock";
const MARKER_FILE: &str = "floodmark.dir";
const MARKER_TITLE: &str = "floodmark data directory ";
const MARKER_VERSION: u32 = 1;
const LOGS_DIR: &str = "logs";
const METADATA_FILE: &str = "partition.metadata";
/// What Kafka puts in a directory of its own.
const KAFKA_MARKER_FILE: &str = "meta.properties";
/// A partition that is being removed; Kafka's ending.
const REMOVED_SUFFIX: &str = "-delete";
/// A partition that was taken out of the way; Kafka's ending.
const STRAY_SUFFIX: &str = "-stray";
/// Kafka's limit for a topic's name.
const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Identity files are a few lines.
const SMALL_FILE_BYTES_MAX: u64 = 4096;

/// Identity of a data directory: a disk that comes back empty, or in another machine, is told apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirectoryId(pub uuid::Uuid);

/// A partition's name, which is also its directory's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionName {
    topic: String,
    partition: u32,
}

impl PartitionName {
    /// Fails, saying why, for topic names that Kafka does not take either: they become directory names.
    pub fn new(topic: &str, partition: u32) -> Result<PartitionName, String> {
        let is_legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if topic.is_empty() || topic.len() > TOPIC_NAME_BYTES_MAX {
            return Err(format!("topic name has {} bytes, not 1 to {TOPIC_NAME_BYTES_MAX}", topic.len()));
        }
        if matches!(topic, "." | "..") || !topic.bytes().all(is_legal) {
            return Err(format!(
                "topic name {topic:?} has other characters than a-z, A-Z, 0-9, '.', '_' and '-'"
            ));
        }
        if partition > i32::MAX as u32 {
            return Err(format!("partition {partition} is larger than {}", i32::MAX));
        }
        Ok(PartitionName { topic: topic.to_owned(), partition })
    }

    /// The partition that a directory's name stands for.
    #[must_use]
    pub fn parse(name: &str) -> Option<PartitionName> {
        let (topic, number) = name.rsplit_once('-')?;
        let is_number =
            number == "0" || (!number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit()));
        let partition = number.parse().ok().filter(|_| is_number)?;
        PartitionName::new(topic, partition).ok()
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition's number.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }
}

impl std::fmt::Display for PartitionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A data directory in use by this process, and by no other while this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    context: LogContext,
    id: DirectoryId,
    _lock: DiskLock,
}

impl DataDir {
    /// Takes `path` into use: makes it where there is none, and refuses it where another process uses it, where it holds
    /// something else, or where a newer Floodmark wrote it. Finishes removals that a crash interrupted.
    pub fn open(context: LogContext, path: &Path) -> Result<DataDir, LogError> {
        let disk = &*context.disk;
        let is_new = match disk.list(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                disk.create_dir_all(path).map_err(refusal(path))?;
                true
            }
            Err(e) => return Err(refusal(path)(e)),
            Ok(entries) => entries.iter().all(|e| e.name == LOCK_FILE || e.name.ends_with(".tmp")),
        };
        let lock = lock(disk, path)?;
        let marker = path.join(MARKER_FILE);
        let id = match identity(disk, path)? {
            Some(id) => id,
            None if is_new => {
                let id = new_id(&context);
                write_identity(disk, &marker, &format_marker(id))?;
                id
            }
            None => return Err(refused(path, foreign(disk, path))),
        };
        let logs = path.join(LOGS_DIR);
        disk.create_dir_all(&logs).map_err(LogError::io("create", &logs))?;
        let dir = DataDir { path: path.to_owned(), context, id, _lock: lock };
        dir.settle_names(path)?;
        dir.sweep()?;
        Ok(dir)
    }

    /// Identity given when the directory was made.
    #[must_use]
    pub fn id(&self) -> DirectoryId {
        self.id
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that may still be written here.
    pub fn available_bytes(&self) -> Result<u64, LogError> {
        self.context.disk.available_bytes(&self.path).map_err(LogError::io("look at", &self.path))
    }

    /// The partitions that lie here, sorted. Directories with other names are not ours and are left out.
    pub fn partitions(&self) -> Result<Vec<PartitionName>, LogError> {
        let logs = self.path.join(LOGS_DIR);
        let entries = self.context.disk.list(&logs).map_err(LogError::io("list", &logs))?;
        let mut names: Vec<PartitionName> =
            entries.iter().filter(|e| e.is_dir).filter_map(|e| PartitionName::parse(&e.name)).collect();
        names.sort();
        Ok(names)
    }

    /// Directory of a partition.
    #[must_use]
    pub fn partition_path(&self, name: &PartitionName) -> PathBuf {
        self.path.join(LOGS_DIR).join(name.to_string())
    }

    /// Opens a partition's log, or makes one. Refuses a directory that belongs to another incarnation of the topic: its
    /// records are not this topic's.
    pub fn open_partition(
        &self,
        name: &PartitionName,
        topic_id: TopicId,
        config: LogConfig,
    ) -> Result<(Log, RecoveryReport), LogError> {
        let dir = self.partition_path(name);
        let held = self.topic_of(name)?;
        if let Some(held) = held.filter(|held| *held != topic_id) {
            let reason =
                format!("holds records of topic id {held}, not of {topic_id}: another topic of this name");
            return Err(refused(&dir, reason));
        }
        let opened = Log::open(self.context.clone(), &dir, config)?;
        // Nothing can be appended before this returns, so a log without the file is an empty one.
        if held.is_none() {
            let path = dir.join(METADATA_FILE);
            write_identity(&*self.context.disk, &path, &partition_metadata::format(topic_id))?;
        }
        Ok(opened)
    }

    /// Whether a partition has a log here, or what is left of one, rather than none or another topic's of its name. Changes nothing.
    pub fn holds_log(&self, name: &PartitionName, topic_id: TopicId) -> Result<bool, LogError> {
        let is_own = self.topic_of(name)?.is_none_or(|held| held == topic_id);
        Ok(is_own && Log::is_in(&*self.context.disk, &self.partition_path(name))?)
    }

    /// The incarnation of the topic that a partition's directory belongs to. `None` where there is no directory, and for a log
    /// to which nothing was ever appended, because whoever made it was stopped before it could say so.
    pub fn topic_of(&self, name: &PartitionName) -> Result<Option<TopicId>, LogError> {
        let path = self.partition_path(name).join(METADATA_FILE);
        let found = read_small_file(&*self.context.disk, &path, SMALL_FILE_BYTES_MAX)
            .map_err(LogError::io("read", &path))?;
        let parse = |content: Vec<u8>| partition_metadata::parse(&content);
        found.map(parse).transpose().map_err(|source| LogError::BadFile { path, source })
    }

    /// Removes a partition and its records. Durable when it returns; the files go after that.
    pub fn remove_partition(&self, name: &PartitionName) -> Result<(), LogError> {
        let aside = self.move_away(name, REMOVED_SUFFIX)?;
        self.remove_tree(&aside)
    }

    /// Takes a partition's directory out of the way of another one of its name, with everything in it; says where it is now.
    /// Durable when it returns.
    pub fn set_aside(&self, name: &PartitionName) -> Result<PathBuf, LogError> {
        self.move_away(name, STRAY_SUFFIX)
    }

    fn move_away(&self, name: &PartitionName, suffix: &str) -> Result<PathBuf, LogError> {
        let dir = self.partition_path(name);
        let logs = self.path.join(LOGS_DIR);
        let unique = self.context.random.next_u64();
        let aside = logs.join(format!("{name}.{unique:016x}{suffix}"));
        self.context.disk.rename(&dir, &aside).map_err(LogError::io("move away", &dir))?;
        self.context
            .disk
            .sync_dir(&logs, SyncPoint::PartitionRemoved)
            .map_err(LogError::io("sync", &logs))?;
        Ok(aside)
    }

    /// Finishes removals.
    fn sweep(&self) -> Result<(), LogError> {
        let logs = self.path.join(LOGS_DIR);
        for entry in self.context.disk.list(&logs).map_err(LogError::io("list", &logs))? {
            if entry.is_dir
                && entry.name.ends_with(REMOVED_SUFFIX)
                && PartitionName::parse(&entry.name).is_none()
            {
                self.remove_tree(&logs.join(entry.name))?;
            }
        }
        Ok(())
    }

    fn remove_tree(&self, dir: &Path) -> Result<(), LogError> {
        let disk = &*self.context.disk;
        for entry in disk.list(dir).map_err(LogError::io("list", dir))? {
            let path = dir.join(&entry.name);
            if entry.is_dir {
                self.remove_tree(&path)?;
            } else {
                remove_if_present(disk, &path).map_err(LogError::io("remove", &path))?;
            }
        }
        disk.remove_dir(dir).map_err(LogError::io("remove", dir))
    }

    fn settle_names(&self, dir: &Path) -> Result<(), LogError> {
        let disk = &*self.context.disk;
        for dir in [dir, parent(dir)] {
            disk.sync_dir(dir, SyncPoint::DataDirCreated).map_err(LogError::io("sync", dir))?;
        }
        Ok(())
    }
}

/// Takes the lock of the data directory `path`, which is held until the answer is dropped. Fails where another process has it.
pub fn lock(disk: &dyn Disk, path: &Path) -> Result<DiskLock, LogError> {
    match disk.lock(&path.join(LOCK_FILE)) {
        Ok(lock) => Ok(lock),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(refused(
            path,
            "another process uses this data directory; stop it, or choose another directory",
        )),
        Err(e) => Err(refusal(path)(e)),
    }
}

/// Takes the lock that a Kafka broker holds on the log directory `path` while it runs; `None` where `path` is none of Kafka's. Fails
/// where a broker runs on it; none can start there until the answer is dropped.
pub fn lock_of_kafka(disk: &dyn Disk, path: &Path) -> Result<Option<DiskLock>, LogError> {
    let entries = disk.list(path).map_err(LogError::io("list", path))?;
    if !entries.iter().any(|e| e.name == KAFKA_MARKER_FILE || e.name == LOCK_FILE) {
        return Ok(None);
    }
    match disk.lock(&path.join(LOCK_FILE)) {
        Ok(lock) => Ok(Some(lock)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            Err(refused(path, "a Kafka broker runs on this log directory; stop it for good first"))
        }
        Err(e) => Err(refusal(path)(e)),
    }
}

/// What `path` says it is; `None` where it is no data directory of ours. Takes no lock. Fails where a newer Floodmark wrote it, and
/// where the marker is damaged.
pub fn identity(disk: &dyn Disk, path: &Path) -> Result<Option<DirectoryId>, LogError> {
    let marker = path.join(MARKER_FILE);
    let content =
        read_small_file(disk, &marker, SMALL_FILE_BYTES_MAX).map_err(LogError::io("read", &marker))?;
    content.map(|content| parse_marker(&content).map_err(|reason| refused(&marker, reason))).transpose()
}

/// The data directory that a partition's directory lies in, by its place alone.
#[must_use]
pub fn around(partition: &Path) -> Option<&Path> {
    let logs = partition.parent().filter(|logs| logs.file_name().is_some_and(|name| name == LOGS_DIR))?;
    logs.parent()
}

/// The directory for a new partition: the one with the fewest, and among those the one with the most space.
/// `None` where there is no directory.
#[must_use]
pub fn choose(loads: &[DirLoad]) -> Option<usize> {
    let best = |(_, load): &(usize, &DirLoad)| (load.partitions, std::cmp::Reverse(load.available_bytes));
    loads.iter().enumerate().min_by_key(best).map(|(n, _)| n)
}

/// What is known of a data directory when a partition is to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirLoad {
    /// Partitions it holds.
    pub partitions: usize,
    /// Bytes it has left.
    pub available_bytes: u64,
}

fn new_id(context: &LogContext) -> DirectoryId {
    let bits = u128::from(context.random.next_u64()) << 64 | u128::from(context.random.next_u64());
    DirectoryId(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid())
}

fn format_marker(id: DirectoryId) -> String {
    let text = format!("{MARKER_TITLE}{MARKER_VERSION}\ndirectory_id {}\n", id.0);
    format!("{text}crc {:08x}\n", crc32fast::hash(text.as_bytes()))
}

fn parse_marker(content: &[u8]) -> Result<DirectoryId, String> {
    let text = std::str::from_utf8(content).map_err(|_| "is not text; it was not written by Floodmark")?;
    let version = text.lines().next().and_then(|line| line.strip_prefix(MARKER_TITLE));
    let version: u32 = version.and_then(|v| v.parse().ok()).ok_or("was not written by Floodmark")?;
    if version > MARKER_VERSION {
        return Err(format!(
            "has format {version}, newer than {MARKER_VERSION}, the newest this program reads: use the program that wrote it"
        ));
    }
    let id = text.lines().nth(1).and_then(|line| line.strip_prefix("directory_id "));
    let id = id.and_then(|id| uuid::Uuid::parse_str(id).ok()).map(DirectoryId);
    match id {
        Some(id) if format_marker(id) == text => Ok(id),
        _ => Err("is damaged: its checksum does not fit; restore it from a copy of the directory".to_owned()),
    }
}

/// What to say of a directory that holds something, but no marker.
fn foreign(disk: &dyn Disk, path: &Path) -> String {
    let has = |name: &str| disk.list(path).is_ok_and(|entries| entries.iter().any(|e| e.name == name));
    if has(KAFKA_MARKER_FILE) {
        "was written by Kafka; Floodmark does not write into it: give it a directory of its own".to_owned()
    } else if has(LOGS_DIR) {
        format!("has logs but no {MARKER_FILE}, so parts of it are missing; restore that file from a copy")
    } else {
        "is not empty and was not written by Floodmark; give it a directory of its own".to_owned()
    }
}

/// True where the directory lies on a file system that is mounted read-only: nobody can be writing to it here, and its lock cannot
/// be taken.
#[must_use]
pub fn is_read_only(disk: &dyn Disk, path: &Path) -> bool {
    let lock = disk.open(&path.join(LOCK_FILE), OpenMode::Write);
    lock.is_err_and(|e| e.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

/// Replaces a file that says what its directory is.
fn write_identity(disk: &dyn Disk, path: &Path, content: &str) -> Result<(), LogError> {
    let syncs = ReplaceSyncs { data: SyncPoint::IdentityData, rename: SyncPoint::IdentityRenamed };
    replace_file(disk, path, content.as_bytes(), syncs).map_err(LogError::io("replace", path))
}

fn refused(path: &Path, reason: impl Into<String>) -> LogError {
    LogError::Refused { path: path.to_owned(), reason: reason.into() }
}

/// The system's refusal in words that say what to do.
fn refusal(path: &Path) -> impl FnOnce(io::Error) -> LogError {
    move |e| match e.kind() {
        io::ErrorKind::PermissionDenied => {
            refused(path, "this user may not read and write here; change the owner or mode of the directory")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            refused(path, "the file system is mounted read-only; remount it for writing")
        }
        io::ErrorKind::NotADirectory => refused(path, "is a file, not a directory"),
        io::ErrorKind::StorageFull => refused(path, "the disk is full; free space, then start again"),
        _ => LogError::io("use", path)(e),
    }
}

#[cfg(test)]
mod tests;
