//! Producer state from a snapshot and the batches behind it: when a log is opened, and when its tail was cut.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use floodmark_proto::ids::Offset;

use super::append::end_marker;
use super::files;
use crate::error::LogError;
use crate::fs::{Disk, OpenMode, read_small_file, write_all_at};
use crate::index::AbortedTransaction;
use crate::producers::ProducerStates;
use crate::segment::Segment;
use crate::segment::name::{FileKind, path_of};
use crate::segment::walk::HeaderWalk;

const SNAPSHOT_BYTES_MAX: u64 = 64 << 20;

/// What a replay comes by.
pub(super) enum Met<'a> {
    /// The segment, with the state that belongs to its base.
    Begin(&'a ProducerStates),
    /// The end of a transaction that was aborted.
    Aborted(AbortedTransaction),
}

/// Producer state as of the end of a log, from the newest snapshot and the batches behind it.
pub(super) struct Replay<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) dir: &'a Path,
    pub(super) segments: &'a [Arc<Segment>],
    pub(super) end: Offset,
}

impl Replay<'_> {
    /// Returns the state and the offset from which batches were read. Snapshots that are damaged are removed, and leave
    /// `snapshots`. Tells `on` what is met behind the snapshot.
    pub(super) fn run(
        &self,
        snapshots: &mut Vec<Offset>,
        mut on: impl FnMut(&Segment, Met<'_>),
    ) -> Result<(ProducerStates, Offset), LogError> {
        let start = self.segments.first().map_or(Offset::ZERO, |s| s.base);
        let mut producers = None;
        while let Some(&offset) = snapshots.last() {
            let path = path_of(self.dir, offset, FileKind::Snapshot);
            let content =
                read_small_file(self.disk, &path, SNAPSHOT_BYTES_MAX).map_err(LogError::io("read", &path))?;
            if let Some(Ok(states)) = content.map(|bytes| ProducerStates::from_snapshot(&bytes, offset)) {
                producers = Some((states, offset));
                break;
            }
            files::remove(self.disk, self.dir, offset, FileKind::Snapshot)?;
            snapshots.pop();
        }
        let (mut producers, from) = producers.unwrap_or_else(|| (ProducerStates::new(start), start));
        for segment in self.segments.iter().filter(|s| s.end() > from || s.base > from) {
            // At `from` lies the snapshot itself, or nothing is known yet.
            if segment.base > from {
                on(segment, Met::Begin(&producers));
            }
            if segment.bytes() == 0 {
                continue;
            }
            let source = segment.source()?;
            let Some((position, _)) = segment.locate(&source, from.max(segment.base))? else { continue };
            let path = segment.path(FileKind::Data);
            let mut walk = HeaderWalk::new(&source, &path, position, segment.bytes())
                .within(segment.base..segment.end());
            while let Some((position, header)) = walk.step()? {
                let marker = if header.attributes.is_control() {
                    let batch = segment.read_batch(position, &header)?;
                    end_marker(&batch, &header)
                        .map_err(|e| LogError::damaged(&path, position, e.to_string()))?
                } else {
                    None
                };
                if let Some(entry) = producers.record(&header, marker.as_ref()).and_then(|t| t.index_entry())
                {
                    on(segment, Met::Aborted(entry));
                }
            }
        }
        debug_assert!(producers.end_offset() <= self.end);
        Ok((producers, from))
    }
}

/// Adds an entry behind the last one. Not synced here.
pub(super) fn transaction_index_append(
    disk: &dyn Disk,
    path: &Path,
    entry: &AbortedTransaction,
) -> Result<(), LogError> {
    let file = match disk.open(path, OpenMode::Write) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => disk.open(path, OpenMode::Create),
        other => other,
    }
    .map_err(LogError::io("open", path))?;
    let end = file.size().map_err(LogError::io("look at", path))?;
    write_all_at(&*file, &mut [IoSlice::new(&entry.encode())], end).map_err(LogError::io("append to", path))
}
