//! Which data files make up a log, and how far each of them must be whole: what the manifest says, or all there is without one.

use std::path::{Path, PathBuf};

use floodmark_proto::ids::Offset;

use super::files::Found;
use crate::manifest::{Manifest, SegmentRecord};
use crate::segment::name::{FileKind, path_of};

/// One data file of a log.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) base: Offset,
    pub(crate) path: PathBuf,
    /// `None` where the file is missing.
    pub(crate) file_bytes: Option<u64>,
    /// Bytes in which anything but good batches is damage.
    pub(crate) durable_bytes: u64,
    /// What the manifest says of it.
    pub(crate) record: Option<SegmentRecord>,
    /// No batch may follow the durable bytes.
    pub(crate) is_sealed: bool,
    /// Its compacted copy has not got its name yet, so what lies beside it belongs to the old bytes.
    pub(crate) is_swap_under_way: bool,
}

/// The members in order, and the bases of data files that belong to nothing any more.
pub(crate) fn members(dir: &Path, found: &Found, manifest: Option<&Manifest>) -> (Vec<Member>, Vec<Offset>) {
    let data = |base: Offset| path_of(dir, base, FileKind::Data);
    let Some(manifest) = manifest else {
        let all = found.data.iter().map(|(base, bytes)| Member {
            base: *base,
            path: data(*base),
            file_bytes: Some(*bytes),
            durable_bytes: *bytes,
            record: None,
            is_sealed: false,
            is_swap_under_way: false,
        });
        return (all.collect(), Vec::new());
    };
    let is_truncating = manifest.truncating_to.is_some();
    let listed = |record: &SegmentRecord, is_sealed: bool| {
        let base = record.base_offset;
        let is_swap_under_way = manifest.replacing == Some(base) && found.cleaned.contains_key(&base);
        let path = if is_swap_under_way { path_of(dir, base, FileKind::Cleaned) } else { data(base) };
        let file_bytes = found.data.get(&base).copied();
        Member {
            base,
            path,
            file_bytes: if is_swap_under_way { Some(record.size_bytes) } else { file_bytes },
            durable_bytes: record.size_bytes,
            record: Some(*record),
            is_sealed: is_sealed || is_truncating,
            is_swap_under_way,
        }
    };
    let mut members: Vec<Member> = manifest.sealed.iter().map(|record| listed(record, true)).collect();
    members.push(listed(&manifest.active, false));
    let mut leftovers = Vec::new();
    for (base, bytes) in &found.data {
        if members.iter().any(|m| m.base == *base) {
            continue;
        }
        if is_truncating || *base < manifest.recovery_point() {
            leftovers.push(*base);
            continue;
        }
        members.push(Member {
            base: *base,
            path: data(*base),
            file_bytes: Some(*bytes),
            durable_bytes: 0,
            record: None,
            is_sealed: false,
            is_swap_under_way: false,
        });
    }
    (members, leftovers)
}
