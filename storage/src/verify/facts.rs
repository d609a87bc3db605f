//! The small files of a partition, and the facts in them that batches must bear out.

use std::path::Path;

use floodmark_proto::batch::BatchHeader;

use super::partition::{PartitionCheck, SMALL_FILE_BYTES_MAX, Walk, damaged};
use super::{Finding, Severity};
use crate::error::LogError;
use crate::format_error::FormatError;
use crate::index::TimestampOffset;
use crate::index::transaction_index::EntriesFacts;
use crate::leader_epochs::LeaderEpochs;
use crate::log::members::Member;
use crate::log::{EPOCHS_FILE, MANIFEST_FILE};
use crate::manifest::Manifest;
use crate::partition_metadata;

const METADATA_FILE: &str = "partition.metadata";

impl PartitionCheck<'_> {
    pub(super) fn read_manifest(&mut self) -> Result<(), LogError> {
        let path = self.dir.join(MANIFEST_FILE);
        let Some(content) = self.read(&path, SMALL_FILE_BYTES_MAX)? else { return Ok(()) };
        self.summary.has_manifest = true;
        match Manifest::parse(&content) {
            Ok(manifest) => {
                if manifest.truncating_to.is_some() || manifest.replacing.is_some() {
                    let found = "a change of the log's files that was not finished".to_owned();
                    self.warn(path, None, None, found, "none under way; opening the log finishes it");
                }
                self.manifest = Some(manifest);
            }
            Err(source @ FormatError::NewerVersion { .. }) => return Err(LogError::BadFile { path, source }),
            Err(e) => self.damage(path, None, None, e.to_string(), "the manifest as it was written"),
        }
        Ok(())
    }

    pub(super) fn read_epochs(&mut self) -> Result<(), LogError> {
        let path = self.dir.join(EPOCHS_FILE);
        match self.read(&path, SMALL_FILE_BYTES_MAX)?.map(|bytes| LeaderEpochs::parse(&bytes)) {
            Some(Ok(epochs)) => self.epochs = Some(epochs),
            Some(Err(e)) => {
                self.damage(path, None, None, e.to_string(), "epochs and start offsets, both rising")
            }
            None if self.found.data.values().any(|bytes| *bytes > 0) => {
                self.warn(
                    path,
                    None,
                    None,
                    "no such file".to_owned(),
                    "leader epochs; opening the log rebuilds them",
                );
            }
            None => {}
        }
        Ok(())
    }

    /// Holds the epochs against the manifest's checksum, where no batch has contradicted them: compaction may have taken those
    /// that would.
    pub(super) fn check_epochs_known(&mut self) -> Result<(), LogError> {
        let (Some(epochs), Some(manifest)) = (&self.epochs, &self.manifest) else { return Ok(()) };
        let (start, end) = (manifest.log_start, manifest.recovery_point());
        let Some(known) = manifest.epochs.filter(|crc| epochs.checksum_within(start, end) != *crc) else {
            return Ok(());
        };
        if self.epoch_reported.is_none() && self.stands(manifest)? {
            let found =
                format!("checksum {:08x} of offsets {start} to {end}", epochs.checksum_within(start, end));
            let expected = format!("{known:08x}, as the manifest says; opening the log rebuilds the epochs");
            self.damage(self.dir.join(EPOCHS_FILE), None, None, found, &expected);
        }
        Ok(())
    }

    /// Holds a transaction index against the manifest's facts of it.
    pub(super) fn check_aborted(
        &mut self,
        member: &Member,
        path: &Path,
        content: &[u8],
    ) -> Result<(), LogError> {
        let Some(facts) = member.record.and_then(|record| record.aborted) else { return Ok(()) };
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let is_whole = !member.is_sealed || content.len() as u64 == facts.len_bytes();
        if (is_whole && facts.found_in(content).is_some()) || !self.stands(manifest)? {
            return Ok(());
        }
        let head = content.get(..facts.len_bytes() as usize).unwrap_or(content);
        let found = format!("{} bytes, checksum {:08x}", content.len(), EntriesFacts::of(head).crc);
        let expected = format!(
            "{} bytes, checksum {:08x}, as the manifest says; opening the log rebuilds the index",
            facts.len_bytes(),
            facts.crc
        );
        self.damage(path.to_owned(), None, Some(member.base), found, &expected);
        Ok(())
    }

    /// True where the log's writer has not replaced the manifest since it was read.
    fn stands(&self, manifest: &Manifest) -> Result<bool, LogError> {
        let content = self.read(&self.dir.join(MANIFEST_FILE), SMALL_FILE_BYTES_MAX)?;
        Ok(content.is_some_and(|bytes| Manifest::parse(&bytes).as_ref() == Ok(manifest)))
    }

    pub(super) fn check_metadata(&mut self) -> Result<(), LogError> {
        let path = self.dir.join(METADATA_FILE);
        let Some(content) = self.read(&path, SMALL_FILE_BYTES_MAX)? else { return Ok(()) };
        if let Err(e) = partition_metadata::parse(&content)
            && content != partition_metadata::OF_METADATA_LOG.as_bytes()
        {
            self.damage(path, None, None, e.to_string(), "the topic's id");
        }
        Ok(())
    }

    /// The manifest's facts against those of the file.
    pub(super) fn check_record(&mut self, member: &Member, walk: &Walk) {
        let Some(record) = member.record else { return };
        let path = self.dir.join(MANIFEST_FILE);
        let of = format!("for the segment at {}", member.base);
        match walk.end_of_durable {
            None => {
                let found = format!("a durable end at byte {} {of}", record.size_bytes);
                self.damage(path.clone(), None, Some(member.base), found, "the end of a batch");
            }
            Some(end) if end > record.end_offset => {
                let found = format!("batches up to offset {end}");
                let expected = format!("up to {}, as the manifest says", record.end_offset);
                self.damage(member.path.clone(), None, Some(member.base), found, &expected);
                self.order.next = record.end_offset;
            }
            // Compaction may have taken the last offsets of a segment away.
            Some(_) => {
                if self.order.skip_to(record.end_offset) {
                    self.replay.lose_track();
                }
            }
        }
        let tell = |t: Option<TimestampOffset>| {
            t.map_or("none".to_owned(), |t| format!("{} at {}", t.timestamp, t.offset))
        };
        let candidates = [walk.largest, walk.largest_with_records];
        if member.is_sealed && !candidates.contains(&record.largest_timestamp) {
            let found = format!("largest timestamp {} {of}", tell(record.largest_timestamp));
            self.damage(path, None, Some(member.base), found, &tell(walk.largest));
        }
    }

    pub(super) fn check_epoch(&mut self, member: &Member, position: u64, header: &BatchHeader) {
        let epoch = header.leader_epoch;
        if epoch.0 < 0 {
            return;
        }
        if epoch < self.latest_epoch {
            let found = format!("leader epoch {epoch}");
            let expected = format!("{} or later, as in the batches before", self.latest_epoch);
            self.damage(member.path.clone(), Some(position), Some(header.base_offset), found, &expected);
        }
        // A lower one is told once, not for each batch behind it.
        self.latest_epoch = epoch;
        let Some(epochs) = &self.epochs else { return };
        let known = epochs.epoch_for_offset(header.base_offset);
        if known == Some(epoch) || (known.is_none() && header.base_offset < self.summary.start) {
            return;
        }
        if self.epoch_reported.replace((epoch, known)) == Some((epoch, known)) {
            return;
        }
        let is_behind = epochs.latest().is_none_or(|latest| epoch > latest.epoch);
        let is_durable = self.manifest.is_some() && position < member.durable_bytes;
        let path = self.dir.join(EPOCHS_FILE);
        let found = known.map_or("no epoch".to_owned(), |e| format!("epoch {e}"));
        let expected = format!("epoch {epoch}, as in the batch at this offset");
        let severity = if is_behind && !is_durable { Severity::Warning } else { Severity::Damage };
        let finding = damaged(&path, found, expected);
        self.findings.push(Finding { severity, offset: Some(header.base_offset), ..finding });
    }
}
