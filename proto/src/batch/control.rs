//! The records of control batches: today the markers that end a transaction.

use super::BatchError;

/// Version of key and value that is written; later versions append fields.
const VERSION: i16 = 0;
const TYPE_ABORT: i16 = 0;
const TYPE_COMMIT: i16 = 1;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionResult {
    /// Its records are to be skipped.
    Abort,
    /// Its records count.
    Commit,
}

/// The one record of a control batch that ends a transaction of the batch's producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndTransactionMarker {
    /// How it ended.
    pub result: TransactionResult,
    /// Epoch of the transaction coordinator that wrote the marker; an older coordinator's is refused.
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// The record's key: version, then type.
    #[must_use]
    pub fn key(&self) -> [u8; 4] {
        let kind = match self.result {
            TransactionResult::Abort => TYPE_ABORT,
            TransactionResult::Commit => TYPE_COMMIT,
        };
        let ([v0, v1], [k0, k1]) = (VERSION.to_be_bytes(), kind.to_be_bytes());
        [v0, v1, k0, k1]
    }

    /// The record's value: version, then coordinator epoch.
    #[must_use]
    pub fn value(&self) -> [u8; 6] {
        let ([v0, v1], [e0, e1, e2, e3]) = (VERSION.to_be_bytes(), self.coordinator_epoch.to_be_bytes());
        [v0, v1, e0, e1, e2, e3]
    }

    /// Decodes the record of a control batch.
    ///
    /// `None` for control records that end no transaction; those of other kinds exist and are to be passed over. Newer
    /// versions are read as far as this one goes, as their writers intend.
    pub fn decode(
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Option<EndTransactionMarker>, BatchError> {
        let Some(&[v0, v1, k0, k1, ..]) = key else {
            return Err(malformed("a control record's key is cut short"));
        };
        if i16::from_be_bytes([v0, v1]) < 0 {
            return Err(malformed("a control record's key has a negative version"));
        }
        let result = match i16::from_be_bytes([k0, k1]) {
            TYPE_ABORT => TransactionResult::Abort,
            TYPE_COMMIT => TransactionResult::Commit,
            _ => return Ok(None),
        };
        let Some(&[v0, v1, e0, e1, e2, e3, ..]) = value else {
            return Err(malformed("a transaction marker's value is cut short"));
        };
        if i16::from_be_bytes([v0, v1]) < 0 {
            return Err(malformed("a transaction marker's value has a negative version"));
        }
        let coordinator_epoch = i32::from_be_bytes([e0, e1, e2, e3]);
        Ok(Some(EndTransactionMarker { result, coordinator_epoch }))
    }
}

fn malformed(reason: &'static str) -> BatchError {
    // Markers are written one to a batch.
    BatchError::Record { index: 0, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kafkas() {
        let commit = EndTransactionMarker { result: TransactionResult::Commit, coordinator_epoch: 7 };
        assert_eq!(commit.key(), [0, 0, 0, 1]);
        assert_eq!(commit.value(), [0, 0, 0, 0, 0, 7]);
        let abort = EndTransactionMarker { result: TransactionResult::Abort, coordinator_epoch: -1 };
        assert_eq!(abort.key(), [0, 0, 0, 0]);
        for marker in [commit, abort] {
            let decoded = EndTransactionMarker::decode(Some(&marker.key()), Some(&marker.value()));
            assert_eq!(decoded, Ok(Some(marker)));
        }
    }

    #[test]
    fn newer_versions_and_other_kinds_are_read() {
        let newer = EndTransactionMarker::decode(Some(&[0, 1, 0, 1, 9]), Some(&[0, 1, 0, 0, 0, 3, 0]));
        assert_eq!(
            newer,
            Ok(Some(EndTransactionMarker { result: TransactionResult::Commit, coordinator_epoch: 3 }))
        );
        assert_eq!(EndTransactionMarker::decode(Some(&[0, 0, 0, 2]), None), Ok(None));
    }

    #[test]
    fn short_and_negative_are_refused() {
        let key: &[u8] = &[0, 0, 0, 1];
        for (key, value) in [
            (None, None),
            (Some(&key[..3]), None),
            (Some(key), None),
            (Some(key), Some(&[0u8, 0, 0, 0, 0][..])),
            (Some(&[0xff, 0xff, 0, 1][..]), Some(&[0u8; 6][..])),
            (Some(key), Some(&[0xff, 0xff, 0, 0, 0, 0][..])),
        ] {
            let decoded = EndTransactionMarker::decode(key, value);
            assert!(matches!(decoded, Err(BatchError::Record { index: 0, .. })), "{key:?} {value:?}");
        }
    }
}
