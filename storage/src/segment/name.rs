//! File names inside a partition's directory: a base offset in twenty digits, and what the file holds.

use std::path::{Path, PathBuf};

use floodmark_proto::ids::Offset;

/// What a file that belongs to a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Batches.
    Data,
    /// Offsets to positions.
    OffsetIndex,
    /// Timestamps to offsets.
    TimeIndex,
    /// Aborted transactions.
    TransactionIndex,
    /// Which records carry which key; ours.
    KeyIndex,
    /// Producer state as of the offset in the name.
    Snapshot,
    /// A compacted segment that is to take the place of others.
    Cleaned,
    /// The transaction index that belongs to it.
    CleanedTransactions,
}

impl FileKind {
    /// The kinds that live and die with a segment's data.
    pub const OF_SEGMENT: [FileKind; 5] = [
        FileKind::Data,
        FileKind::OffsetIndex,
        FileKind::TimeIndex,
        FileKind::TransactionIndex,
        FileKind::KeyIndex,
    ];

    fn extension(self) -> &'static str {
        match self {
            FileKind::Data => "log",
            FileKind::OffsetIndex => "index",
            FileKind::TimeIndex => "timeindex",
            FileKind::TransactionIndex => "txnindex",
            FileKind::KeyIndex => "keyindex",
            FileKind::Snapshot => "snapshot",
            FileKind::Cleaned => "log.cleaned",
            FileKind::CleanedTransactions => "txnindex.cleaned",
        }
    }
}

/// `00000000000000000042.log` in `dir`.
#[must_use]
pub fn path_of(dir: &Path, base: Offset, kind: FileKind) -> PathBuf {
    dir.join(format!("{:020}.{}", base.0, kind.extension()))
}

/// What `name` stands for, if it is a name that [`path_of`] gives.
#[must_use]
pub fn parse(name: &str) -> Option<(Offset, FileKind)> {
    let (digits, extension) = name.split_at_checked(20)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let base = digits.parse().ok().map(Offset)?;
    let kinds = [
        FileKind::Data,
        FileKind::OffsetIndex,
        FileKind::TimeIndex,
        FileKind::TransactionIndex,
        FileKind::KeyIndex,
        FileKind::Snapshot,
        FileKind::Cleaned,
        FileKind::CleanedTransactions,
    ];
    let kind = kinds.into_iter().find(|k| extension.strip_prefix('.') == Some(k.extension()))?;
    Some((base, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_not_ours() {
        for (base, kind) in [
            (0, FileKind::Data),
            (42, FileKind::Cleaned),
            (7, FileKind::CleanedTransactions),
            (8, FileKind::KeyIndex),
            (i64::MAX, FileKind::Snapshot),
        ] {
            let path = path_of(Path::new("d"), Offset(base), kind);
            let name = path.file_name().and_then(|n| n.to_str()).unwrap();
            assert_eq!(parse(name), Some((Offset(base), kind)), "{name}");
        }
        for name in [
            "",
            "log.manifest",
            "0.log",
            "0000000000000000000x.log",
            "00000000000000000001.logs",
            "99999999999999999999.log",
            "é0000000000000000001.log",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
