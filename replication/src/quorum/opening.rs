//! What a disk holds of the metadata, opened or begun; the log and the snapshot must fit each other. Its calls leave the waiting to threads
//! that may.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::disk_pressure::DiskPressure;
use super::error::QuorumError;
use super::node_state::NodeStateFile;
use super::raft_log::{self, Part, Place, RaftLog, metadata_dir};
use super::snapshot_file::{SnapshotFile, State};
use super::types::StoredMembership;
use super::{FEATURE_LEVELS, stopped};
use crate::cluster::ClusterImage;

/// What was found on the disk.
pub(super) struct Opened {
    pub(super) log: RaftLog,
    pub(super) state: State,
    pub(super) snapshots: Arc<SnapshotFile>,
}

pub(super) async fn find(place: Place) -> Result<Option<NodeStateFile>, QuorumError> {
    spawn_blocking(move || raft_log::find(&place)).await.map_err(stopped)?
}

pub(super) async fn begin(
    place: &Place,
    part: Part,
    pressure: &Arc<DiskPressure>,
) -> Result<Opened, QuorumError> {
    let to_begin = place.clone();
    let begun = spawn_blocking(move || raft_log::begin(&to_begin, part)).await.map_err(stopped)?;
    open(place, begun?, pressure).await
}

pub(super) async fn open(
    place: &Place,
    file: NodeStateFile,
    pressure: &Arc<DiskPressure>,
) -> Result<Opened, QuorumError> {
    let (place, pressure) = (place.clone(), Arc::clone(pressure));
    spawn_blocking(move || read(&place, file, pressure)).await.map_err(stopped)?
}

fn read(place: &Place, file: NodeStateFile, pressure: Arc<DiskPressure>) -> Result<Opened, QuorumError> {
    let log = RaftLog::open(place, file)?;
    let dir = metadata_dir(&place.data_dir);
    let snapshots = SnapshotFile::new(Arc::clone(&place.context.disk), &dir, pressure);
    let found = snapshots.read()?.map(|(state, _)| state);
    if found.as_ref().and_then(|state| state.last) < log.purged() {
        let reason = "the log's head was removed, but the snapshot that stands for it is missing".to_owned();
        return Err(QuorumError::Lost { path: dir, reason });
    }
    let state = found.unwrap_or_else(|| State {
        last: None,
        membership: StoredMembership::default(),
        image: ClusterImage::new(log.cluster_id()),
    });
    if state.image.cluster_id() != log.cluster_id() {
        let (found, expected) = (state.image.cluster_id().to_string(), log.cluster_id().to_string());
        return Err(QuorumError::Foreign { path: dir, what: "cluster id of the snapshot", found, expected });
    }
    check_feature_level(&state.image)?;
    Ok(Opened { log, state, snapshots: Arc::new(snapshots) })
}

pub(super) fn check_feature_level(image: &ClusterImage) -> Result<(), QuorumError> {
    let (level, (lowest, highest)) = (image.feature_level(), FEATURE_LEVELS);
    if (lowest..=highest).contains(&level) {
        return Ok(());
    }
    Err(QuorumError::FeatureLevel { level, lowest, highest })
}
