//! The Raft log on storage's log: an entry is a batch of one record, its index the batch's offset. Every call blocks on the disk;
//! what returned is durable.
//!
//! ```text
//! <data-dir>/metadata/node.state      whose it is, the vote, how far the head was removed
//! <data-dir>/metadata/log/            the entries
//! <data-dir>/metadata/image.snapshot  the image that stands for what was removed
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use floodmark_proto::batch::{
    BatchBuilder, BatchHeader, DecompressLimits, NewRecord, RecordBatch, Records, check_stored,
};
use floodmark_proto::ids::{ClusterId, LeaderEpoch, Offset};
use floodmark_proto::pb::metadata as pb;
use floodmark_storage::fs::SyncPoint;
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::log::recovery::RecoveryReport;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::{LogConfig, LogError, ReadLimits};
use prost::Message as _;

use super::error::QuorumError;
use super::node_state::{Claim, NodeState, NodeStateFile};
use super::types::{Entry, Known, LogId, Node, NodeId, Vote, entry_from_pb, entry_to_pb};
use crate::cluster::wire::decode;

const LOG_DIR: &str = "log";
/// A file of the log; the head of the log goes by whole files.
const SEGMENT_BYTES: u32 = 16 << 20;
/// What is read again after a crash, at most about this.
const CHECKPOINT_INTERVAL_BYTES: u64 = 4 << 20;
/// Bytes of one read of the log; the first entry is read whatever its size.
const READ_BYTES: usize = 1 << 20;
/// Entries are not compressed.
const NOTHING: DecompressLimits = DecompressLimits { max_bytes: 0, max_ratio: 1 };

/// Where the log lies, and who asks for it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) context: LogContext,
    pub(crate) data_dir: PathBuf,
    pub(crate) claim: Claim,
    /// Partitions lie in the broker's directories, so it has been part of a cluster.
    pub(crate) holds_partitions: bool,
}

/// The part that a broker with an empty directory is to have.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) cluster_id: ClusterId,
    pub(crate) node: NodeId,
    /// Where this node forms the cluster: all that do, itself among them; empty where it is alone.
    pub(crate) founders: BTreeMap<NodeId, Node>,
    /// Others have formed the cluster.
    pub(crate) is_newcomer: bool,
}

/// The log, the vote, and the right to write them.
#[derive(Debug)]
pub(crate) struct RaftLog {
    context: LogContext,
    log: Log,
    file: NodeStateFile,
    /// The last entry, or the last one removed where there is none.
    last: Option<LogId>,
    committed: Option<LogId>,
}

/// The directory of metadata in a data directory.
pub(crate) fn metadata_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("metadata")
}

impl RaftLog {
    /// Opens what is there. Refuses what is somebody else's, and what has lost something.
    pub(crate) fn open(place: &Place, file: NodeStateFile) -> Result<RaftLog, QuorumError> {
        let dir = metadata_dir(&place.data_dir);
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES,
            segment_ms: i64::MAX,
            checkpoint_interval_bytes: CHECKPOINT_INTERVAL_BYTES,
            prewrite_bytes: 0,
            ..LogConfig::default()
        };
        let opened = Log::open_with_proof(place.context.clone(), &dir.join(LOG_DIR), config, proves_loss);
        let (log, report) = opened.map_err(|e| match e {
            e @ LogError::Damaged { .. } => QuorumError::Lost { path: dir.clone(), reason: e.to_string() },
            e => QuorumError::from(e),
        })?;
        tell_cut(&report, log.end());
        let mut opened = RaftLog { context: place.context.clone(), log, file, last: None, committed: None };
        opened.settle(&dir)?;
        // Behind the first entry alone does anybody vote but a newcomer, and the log is there before it does.
        let may_be_empty = opened.file.state.is_newcomer && !report.was_new;
        if opened.vote().is_some() && (report.was_new || opened.last.is_none()) && !may_be_empty {
            let reason = "there is no log, but this node has voted".to_owned();
            return Err(QuorumError::Lost { path: dir, reason });
        }
        Ok(opened)
    }

    pub(crate) fn state(&self) -> &NodeState {
        &self.file.state
    }

    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.file.state.cluster_id
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.file.state.vote
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.file.state.purged
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.committed
    }

    /// Finishes a removal that was under way, and finds the ends.
    fn settle(&mut self, dir: &Path) -> Result<(), QuorumError> {
        let kept_from = self.kept_from();
        if self.log.start() > kept_from {
            let reason = format!("entries {kept_from} to {} are missing", self.log.start());
            return Err(QuorumError::Lost { path: dir.to_owned(), reason });
        }
        self.remove_head()?;
        self.last = self.purged();
        if self.log.end() > kept_from {
            let (entry, committed_count) = self.read_one(self.log.end().0 - 1)?;
            self.last = Some(entry.log_id);
            self.committed = self.committed_of(committed_count)?;
        }
        Ok(())
    }

    fn committed_of(&self, count: u64) -> Result<Option<LogId>, QuorumError> {
        let Some(index) = count.checked_sub(1) else { return Ok(None) };
        if self.purged().is_some_and(|purged| purged.index >= index) {
            return Ok(self.purged());
        }
        let (entry, _) = self.read_one(i64::try_from(index).unwrap_or(i64::MAX))?;
        Ok(Some(entry.log_id))
    }

    /// The first index that was not removed.
    fn kept_from(&self) -> Offset {
        self.purged().map_or(Offset::ZERO, |purged| offset(purged.index).next())
    }

    /// Brings the log's start to where the state says that it is.
    fn remove_head(&mut self) -> Result<(), QuorumError> {
        let kept_from = self.kept_from();
        if self.log.end() < kept_from {
            self.log.reset_to(kept_from)?;
        } else if self.log.start() < kept_from {
            self.log.on_high_watermark(self.log.end());
            self.log.delete_before(kept_from)?;
        }
        Ok(())
    }

    /// Appends entries behind the last one. Those that a snapshot stands for already are passed over. Where there was no room it can be
    /// called again, also where the entries themselves found some.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<(), QuorumError> {
        let covered = entries.partition_point(|e| self.purged().is_some_and(|p| e.log_id.index <= p.index));
        let entries = &entries[covered..];
        // Logs with one entry in common have the same before it, so that all of these are here.
        if entries.last().map(|entry| entry.log_id) != self.last {
            self.write(entries)?;
        }
        if self.file.state.is_newcomer && self.last.is_some() {
            // From here on an empty log is a lost one.
            self.file.save(NodeState { is_newcomer: false, ..self.file.state.clone() })?;
        }
        Ok(())
    }

    fn write(&mut self, entries: &[Entry]) -> Result<(), QuorumError> {
        let mut last = self.last;
        let known = Known {
            committed_count: self.committed.map_or(0, |committed| committed.index + 1),
            // Each call syncs before it returns, so no more than what one call writes is ever on its way.
            durable_count: self.last.map_or(0, |last| last.index + 1),
        };
        let mut batches = Vec::with_capacity(entries.len());
        for entry in entries {
            let index = entry.log_id.index;
            if let Some(last) = last.filter(|last| last.index + 1 != index) {
                let reason = format!("it does not follow the last one, {}", last.index);
                return Err(QuorumError::BadEntry { index, reason });
            }
            last = Some(entry.log_id);
            batches.push(self.batch_of(entry, known)?);
        }
        let outcomes = self.log.append(batches, AppendAs::Replica)?;
        for (entry, outcome) in entries.iter().zip(outcomes) {
            let index = entry.log_id.index;
            outcome.map_err(|e| QuorumError::BadEntry { index, reason: e.to_string() })?;
        }
        self.log.sync()?;
        self.last = last;
        Ok(())
    }

    fn batch_of(&self, entry: &Entry, known: Known) -> Result<RecordBatch, QuorumError> {
        let index = entry.log_id.index;
        let value = entry_to_pb(entry, known).encode_to_vec();
        let record =
            NewRecord { timestamp: self.context.clock.now_ms(), value: Some(&value), ..NewRecord::default() };
        // Terms rise by one with each election; one that does not fit is still told exactly by the entry itself.
        let epoch = i32::try_from(entry.log_id.leader_id.term).unwrap_or(i32::MAX);
        let mut builder = BatchBuilder::new().base_offset(offset(index)).leader_epoch(LeaderEpoch(epoch));
        let built = builder.push(&record).and_then(|_| builder.build());
        built.map_err(|e| QuorumError::BadEntry { index, reason: e.to_string() })
    }

    /// Removes the entries from `index` on. What is committed is never removed.
    pub(crate) fn truncate(&mut self, index: u64) -> Result<(), QuorumError> {
        if let Some(committed) = self.committed.filter(|committed| committed.index >= index) {
            let reason = format!("it must not be removed: entries to {} are committed", committed.index);
            return Err(QuorumError::BadEntry { index, reason });
        }
        let end = self.log.truncate_to(offset(index))?;
        let kept_from = self.kept_from();
        self.last = if end > kept_from { Some(self.read_one(end.0 - 1)?.0.log_id) } else { self.purged() };
        Ok(())
    }

    /// Removes the entries up to `upto`, which a snapshot stands for.
    pub(crate) fn purge(&mut self, upto: LogId) -> Result<(), QuorumError> {
        if self.purged() < Some(upto) {
            // In this order a crash in between is finished at opening.
            self.file.save(NodeState { purged: Some(upto), ..self.file.state.clone() })?;
        }
        self.remove_head()?;
        self.last = self.last.max(Some(upto));
        Ok(())
    }

    pub(crate) fn save_vote(&mut self, vote: Vote) -> Result<(), QuorumError> {
        self.file.save(NodeState { vote: Some(vote), ..self.file.state.clone() })
    }

    /// Notes what is committed. It is written with the next entry: a restart may know of one entry less, and learns of it from
    /// the leader again.
    pub(crate) fn note_committed(&mut self, committed: Option<LogId>) {
        self.committed = committed;
    }

    /// The entries from `from` to before `to` that there are, up to `max_bytes` of them but at least one.
    pub(crate) fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, QuorumError> {
        let mut entries = Vec::new();
        let mut bytes_left = max_bytes;
        let mut next = offset(from).max(self.kept_from());
        let below = offset(to).min(self.log.end());
        while next < below && bytes_left > 0 {
            let limits = ReadLimits { max_bytes: READ_BYTES.min(bytes_left), below };
            let pieces = self.log.reader().read(next, limits)?;
            let before = next;
            for mut piece in pieces {
                while !piece.is_empty() {
                    let header = header_of(&piece, next)?;
                    let batch = piece.split_to(header.size_bytes().min(piece.len()));
                    bytes_left = bytes_left.saturating_sub(batch.len());
                    next = header.next_offset();
                    entries.push(entry_of(&batch)?.0);
                }
            }
            if next == before {
                break;
            }
        }
        Ok(entries)
    }

    fn read_one(&self, index: i64) -> Result<(Entry, u64), QuorumError> {
        let at = Offset(index);
        let limits = ReadLimits { max_bytes: 1, below: at.next() };
        let pieces = self.log.reader().read(at, limits)?;
        let missing =
            || QuorumError::BadEntry { index: at.0.cast_unsigned(), reason: "it is missing".to_owned() };
        entry_of(&pieces.into_iter().next().ok_or_else(missing)?)
    }

    /// Moves the recovery point where enough was appended since it last moved.
    pub(crate) fn checkpoint_if_due(&mut self) -> Option<Result<(), QuorumError>> {
        self.log.is_checkpoint_due().then(|| Ok(self.log.checkpoint()?))
    }

    /// Ends the log cleanly.
    pub(crate) fn close(self) -> Result<(), QuorumError> {
        Ok(self.log.close()?)
    }
}

/// The state of a directory that is in use; `None` where it is empty and may be taken into use.
pub(crate) fn find(place: &Place) -> Result<Option<NodeStateFile>, QuorumError> {
    let dir = metadata_dir(&place.data_dir);
    let disk = &place.context.disk;
    if let Some(file) = NodeStateFile::read(disk, &dir)? {
        file.check(&place.claim)?;
        return Ok(Some(file));
    }
    let lost = |reason: &str| QuorumError::Lost { path: dir.clone(), reason: reason.to_owned() };
    match disk.list(&dir) {
        Ok(entries) if entries.iter().any(|e| !e.name.ends_with(".tmp")) => {
            return Err(lost(
                "there is metadata, but the file that says whose it is and how it voted is missing",
            ));
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(QuorumError::io("list", &dir)(e)),
    }
    if place.holds_partitions {
        return Err(lost("there are partitions, but no metadata"));
    }
    Ok(None)
}

/// Takes an empty directory into use.
pub(crate) fn begin(place: &Place, part: Part) -> Result<NodeStateFile, QuorumError> {
    let dir = metadata_dir(&place.data_dir);
    let disk = &place.context.disk;
    disk.create_dir_all(&dir).map_err(QuorumError::io("create", &dir))?;
    // Also where it was there before: a process that was killed may have made it and not come this far.
    disk.sync_dir(&place.data_dir, SyncPoint::MetadataDirCreated)
        .map_err(QuorumError::io("sync", &place.data_dir))?;
    let state = NodeState {
        cluster_id: part.cluster_id,
        node: part.node,
        directory_id: place.claim.directory_id,
        vote: None,
        purged: None,
        founders: part.founders,
        is_newcomer: part.is_newcomer,
    };
    NodeStateFile::create(disk, &dir, state)
}

/// An id that no other cluster has.
pub(crate) fn new_cluster_id(context: &LogContext) -> ClusterId {
    let bits = u128::from(context.random.next_u64()) << 64 | u128::from(context.random.next_u64());
    ClusterId::from_bytes(bits.to_be_bytes())
}

fn offset(index: u64) -> Offset {
    Offset(i64::try_from(index).unwrap_or(i64::MAX - 1))
}

fn header_of(bytes: &[u8], at: Offset) -> Result<BatchHeader, QuorumError> {
    let bad = |reason: String| QuorumError::BadEntry { index: at.0.cast_unsigned(), reason };
    BatchHeader::parse(bytes).map_err(|e| bad(e.to_string()))
}

/// Whether a batch behind the place where the log would end was written when entries beyond that place were on the disk. The power
/// takes only what was written together, so these were damaged, and this node has promised to have them.
fn proves_loss(end: Offset, batch: &[u8]) -> bool {
    let known = message_of(&Bytes::copy_from_slice(batch));
    known.is_ok_and(|(_, message)| offset(message.durable_count) > end)
}

/// Says what opening took off the end of the log: an entry of it that was answered would be missed.
fn tell_cut(report: &RecoveryReport, end: Offset) {
    for damage in &report.damage {
        tracing::warn!(%damage, "the metadata log was damaged");
    }
    if report.cut_bytes > 0 {
        let reason = report.cut_reason.as_deref().unwrap_or_default();
        tracing::warn!(cut_bytes = report.cut_bytes, %end, reason, "an unfinished write was cut off the metadata log");
    }
}

/// The entry in a batch, and how many were committed when it was written. Checks every byte.
fn entry_of(batch: &Bytes) -> Result<(Entry, u64), QuorumError> {
    let (header, message) = message_of(batch)?;
    let at = header.base_offset;
    let bad = |reason: String| QuorumError::BadEntry { index: at.0.cast_unsigned(), reason };
    let committed_count = message.committed_count;
    let entry = entry_from_pb(message).map_err(|e| bad(e.to_string()))?;
    // The checksum of a batch does not cover its offset.
    if offset(entry.log_id.index) != at {
        return Err(bad(format!("it is entry {}", entry.log_id.index)));
    }
    Ok((entry, committed_count))
}

fn message_of(batch: &Bytes) -> Result<(BatchHeader, pb::LogEntry), QuorumError> {
    let at = header_of(batch, Offset::ZERO)?.base_offset;
    let bad = |reason: String| QuorumError::BadEntry { index: at.0.cast_unsigned(), reason };
    let header = check_stored(batch).map_err(|e| bad(e.to_string()))?;
    let mut scratch = Vec::new();
    let mut records = Records::open(batch, &NOTHING, &mut scratch).map_err(|e| bad(e.to_string()))?;
    let record = records.next().and_then(Result::ok);
    let value = record.and_then(|r| r.value).ok_or_else(|| bad("it has no value".to_owned()))?;
    let message: pb::LogEntry =
        decode("log entry", batch.slice_ref(value)).map_err(|e| bad(e.to_string()))?;
    Ok((header, message))
}
