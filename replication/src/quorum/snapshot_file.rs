//! The file `image.snapshot`: an image, and the entry after which it was the cluster's. One file, replaced as a whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::pb::metadata as pb;
use floodmark_storage::fs::{Disk, ReplaceSyncs, SyncPoint, read_small_file, replace_file};
use parking_lot::Mutex;

use super::disk_pressure::DiskPressure;
use super::error::QuorumError;
use super::sealed_file::{self, Kind, SealError};
use super::types::{
    LogId, SnapshotMeta, StoredMembership, log_id_from_pb, log_id_to_pb, stored_membership_from_pb,
    stored_membership_to_pb,
};
use crate::cluster::ClusterImage;
use crate::cluster::wire::{WireError, decode, image_from_pb, image_to_pb};

const KIND: Kind = *b"fmkimage";
const FILE: &str = "image.snapshot";
/// A hundred bytes a partition: ten million partitions.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 30;

/// What the state machine holds after one entry.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership,
    pub(crate) image: ClusterImage,
}

/// Where the snapshot lies. Calls block on the disk.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    pressure: Arc<DiskPressure>,
    /// Held while another takes its place.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// The last entry of the snapshot on the disk.
    last: Option<LogId>,
    is_closed: bool,
}

impl State {
    pub(crate) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
            // The same entries make the same bytes wherever they are applied.
            snapshot_id: self.last.map(|last| last.to_string()).unwrap_or_default(),
        }
    }

    /// The whole file.
    pub(crate) fn encode(&self) -> Bytes {
        let message = pb::Snapshot {
            last: self.last.as_ref().map(log_id_to_pb),
            membership: Some(stored_membership_to_pb(&self.membership)),
            image: Some(image_to_pb(&self.image)),
        };
        sealed_file::seal(KIND, &message)
    }
}

/// Why the bytes of a snapshot cannot be taken.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// The state in a whole file, every byte checked.
pub(crate) fn decode_state(file: Bytes) -> Result<State, SnapshotError> {
    let message: pb::Snapshot = decode("snapshot", sealed_file::open(KIND, file)?)?;
    let membership = message.membership.ok_or(WireError::Missing { what: "a snapshot's membership" })?;
    let image = message.image.ok_or(WireError::Missing { what: "a snapshot's image" })?;
    Ok(State {
        last: message.last.as_ref().map(log_id_from_pb),
        membership: stored_membership_from_pb(&membership)?,
        image: image_from_pb(image)?,
    })
}

impl SnapshotFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, metadata_dir: &Path, pressure: Arc<DiskPressure>) -> SnapshotFile {
        SnapshotFile { disk, path: metadata_dir.join(FILE), pressure, held: Mutex::default() }
    }

    /// What the file holds, where there is one.
    pub(crate) fn read(&self) -> Result<Option<(State, Bytes)>, QuorumError> {
        let content = read_small_file(&*self.disk, &self.path, FILE_BYTES_MAX)
            .map_err(QuorumError::io("read", &self.path))?;
        let Some(content) = content else { return Ok(None) };
        let file = Bytes::from(content);
        let path = || self.path.clone();
        let state = decode_state(file.clone()).map_err(|e| match e {
            SnapshotError::Seal(source) => QuorumError::BadFile { path: path(), source },
            SnapshotError::Wire(source) => QuorumError::BadMessage { path: path(), source },
        })?;
        let mut held = self.held.lock();
        held.last = held.last.max(state.last);
        Ok(Some((state, file)))
    }

    /// Replaces the file, unless it holds a newer one already. Durable when it returns.
    pub(crate) fn write(&self, last: Option<LogId>, file: &Bytes) -> Result<(), QuorumError> {
        let mut held = self.held.lock();
        if held.is_closed {
            return Err(QuorumError::Stopped { reason: "it was shut down".to_owned() });
        }
        if last < held.last {
            // One that came from the leader overtook one that was built here.
            return Ok(());
        }
        let syncs =
            ReplaceSyncs { data: SyncPoint::ImageSnapshotData, rename: SyncPoint::ImageSnapshotRenamed };
        self.pressure.until_space(|| {
            replace_file(&*self.disk, &self.path, file, syncs).map_err(QuorumError::io("replace", &self.path))
        })?;
        held.last = last;
        Ok(())
    }

    /// Waits for a write that is under way, and lets no other begin: the directory may be another's after this.
    pub(crate) fn close(&self) {
        self.held.lock().is_closed = true;
    }
}

#[cfg(test)]
mod tests {
    use floodmark_proto::ids::ClusterId;
    use floodmark_storage::fs::SimDisk;

    use super::*;
    use crate::quorum::types::log_id;

    #[test]
    fn an_older_snapshot_does_not_take_the_place_of_a_newer_one() {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("metadata")).unwrap();
        let file = SnapshotFile::new(Arc::new(disk), Path::new("metadata"), Arc::default());
        let state = |index| State {
            last: Some(log_id(1, 1, index)),
            membership: StoredMembership::default(),
            image: ClusterImage::new(ClusterId::from_bytes([7; 16])),
        };
        for (index, left) in [(3, 3), (5, 5), (4, 5)] {
            let state = state(index);
            file.write(state.last, &state.encode()).unwrap();
            assert_eq!(file.read().unwrap().unwrap().0.last, Some(log_id(1, 1, left)));
        }
    }
}
