//! The transaction indexes of what is durable. Each is held against what the manifest says of it, without a look at its batches,
//! and made anew from them where the two do not agree: an aborted transaction that is not known is served as a committed one.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use floodmark_proto::ids::Offset;

use super::Opening;
use crate::error::LogError;
use crate::fs::{OpenMode, read_small_file, write_all_at};
use crate::index::transaction_index::{self, EntriesFacts};
use crate::log::replay::{Met, Replay};
use crate::manifest::SegmentRecord;
use crate::segment::name::FileKind;

impl Opening {
    /// Costs a listing where all is well and nothing was aborted, a small read for each index otherwise.
    pub(super) fn check_transaction_indexes(&mut self) -> Result<(), LogError> {
        // Without a manifest all of them are made anew with the tail.
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let sealed = manifest.sealed.iter().map(|record| (record, true));
        let mut doubted = Vec::new();
        for (n, (record, is_sealed)) in sealed.chain([(&manifest.active, false)]).enumerate() {
            if !self.is_index_known(record, is_sealed)? {
                doubted.push(n);
            }
        }
        if doubted.is_empty() { Ok(()) } else { self.rebuild_transaction_indexes(&doubted) }
    }

    fn is_index_known(&self, record: &SegmentRecord, is_sealed: bool) -> Result<bool, LogError> {
        let base = record.base_offset;
        let Some(facts) = record.aborted else { return Ok(record.size_bytes == 0) };
        let bytes = self.found.transaction_indexes.get(&base).copied().unwrap_or(0);
        // What was added behind the recovery point is met again with the tail.
        let may_be = if is_sealed {
            bytes == facts.len_bytes()
        } else {
            (facts.len_bytes()..=transaction_index::BYTES_MAX).contains(&bytes)
        };
        if !may_be || facts.entries == 0 {
            return Ok(may_be);
        }
        Ok(facts.found_in(&self.read_transaction_index(base)?).is_some())
    }

    pub(super) fn read_transaction_index(&self, base: Offset) -> Result<Vec<u8>, LogError> {
        let path = self.path(base, FileKind::TransactionIndex);
        let content = read_small_file(&*self.disk, &path, transaction_index::BYTES_MAX);
        Ok(content.map_err(LogError::io("read", &path))?.unwrap_or_default())
    }

    /// From the batches of these segments, and of those between them. `doubted` counts the manifest's records.
    fn rebuild_transaction_indexes(&mut self, doubted: &[usize]) -> Result<(), LogError> {
        let (Some(&first), Some(&last)) = (doubted.first(), doubted.last()) else { return Ok(()) };
        let durable = self.durable_segments();
        let mut rebuilt: BTreeMap<Offset, Vec<u8>> =
            doubted.iter().map(|n| (durable[*n].base, Vec::new())).collect();
        // A snapshot from within a segment would hide what was aborted before it.
        let mut snapshots = self.found.snapshots.clone();
        snapshots.retain(|at| *at <= durable[first].base);
        let (segments, end) = (&durable[..=last], durable[last].end());
        Replay { disk: &*self.disk, dir: &self.dir, segments, end }.run(&mut snapshots, |segment, met| {
            if let (Met::Aborted(entry), Some(entries)) = (met, rebuilt.get_mut(&segment.base)) {
                entries.extend_from_slice(&entry.encode());
            }
        })?;
        for n in doubted {
            let base = durable[*n].base;
            let entries = rebuilt.remove(&base).unwrap_or_default();
            self.replace_transaction_index(base, &entries)?;
            let facts = EntriesFacts::of(&entries);
            match (self.segments.get(*n), &mut self.manifest) {
                (Some(segment), _) => segment.publish_aborted(facts),
                (None, Some(manifest)) => manifest.active.aborted = Some(facts),
                (None, None) => {}
            }
        }
        // Else the next opening would not know them either.
        self.touched = true;
        Ok(())
    }

    /// In place: an index that a crash leaves unfinished is not known to the manifest either.
    fn replace_transaction_index(&mut self, base: Offset, entries: &[u8]) -> Result<(), LogError> {
        let path = self.path(base, FileKind::TransactionIndex);
        let bytes = self.found.transaction_indexes.get(&base).copied().unwrap_or(0);
        if bytes == entries.len() as u64 && self.read_transaction_index(base)? == entries {
            // It may be as new as the crash.
            if self.found.transaction_indexes.contains_key(&base) {
                self.changed_indexes.push(path);
            }
            return Ok(());
        }
        let file = match self.disk.open(&path, OpenMode::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.disk.open(&path, OpenMode::Create),
            other => other,
        }
        .map_err(LogError::io("open", &path))?;
        file.set_size(0).map_err(LogError::io("cut", &path))?;
        write_all_at(&*file, &mut [IoSlice::new(entries)], 0).map_err(LogError::io("write", &path))?;
        self.found.transaction_indexes.insert(base, entries.len() as u64);
        self.report.rebuilt.push(path.clone());
        self.changed_indexes.push(path);
        Ok(())
    }
}
