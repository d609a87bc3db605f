//! Holds a segment's key index against its batches. A look-up believes what the index names, and misses what it does not.

use super::partition::{INDEX_BYTES_MAX, PartitionCheck};
use crate::error::LogError;
use crate::key_index::{KeyIndexCheck, Verdict};
use crate::log::members::Member;
use crate::segment::name::{FileKind, path_of};

const REBUILT: &str = "an index of this segment's keys; the next look-up builds it anew";

impl PartitionCheck<'_> {
    /// Reads the index, where there is one that may be believed.
    pub(super) fn begin_keys(&mut self, member: &Member) -> Result<Option<KeyIndexCheck>, LogError> {
        let path = path_of(self.dir, member.base, FileKind::KeyIndex);
        let content = if member.is_swap_under_way { None } else { self.read(&path, INDEX_BYTES_MAX)? };
        match content.map(KeyIndexCheck::begin) {
            None => Ok(None),
            Some(Ok(check)) => Ok(Some(check)),
            Some(Err(e)) => {
                self.warn(path, None, Some(member.base), e.to_string(), REBUILT);
                Ok(None)
            }
        }
    }

    /// The segment has been walked through. Behind damage in it nothing is known.
    pub(super) fn end_keys(&mut self, member: &Member, keys: Option<KeyIndexCheck>, has_damage: bool) {
        let Some(keys) = keys.filter(|_| !has_damage) else { return };
        let path = path_of(self.dir, member.base, FileKind::KeyIndex);
        match keys.finish(member.base) {
            Verdict::Right => {}
            // That of the last segment tells of what was there when the log was opened.
            Verdict::OfOthers if !member.is_sealed => {}
            Verdict::OfOthers => {
                let found = "the keys of other batches than there are".to_owned();
                self.warn(path, Some(0), Some(member.base), found, REBUILT);
            }
            Verdict::Differs { byte, is_believed: true } => {
                let found = "a block that names other places than the batches have".to_owned();
                self.damage(path, Some(byte), Some(member.base), found, "each record of each key");
            }
            Verdict::Differs { byte, is_believed: false } => {
                let found = "a block with a wrong checksum".to_owned();
                self.warn(path, Some(byte), Some(member.base), found, REBUILT);
            }
        }
    }
}
