//! `cluster::apply` and snapshots, as openraft wants them. Publishes each image to those who watch.

use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;

use super::error::QuorumError;
use super::snapshot_file::{SnapshotFile, State, decode_state};
use super::types::{
    Answers, Entry, LogId, Proposal, Snapshot, SnapshotMeta, StorageError, StoredMembership, TypeConfig,
};
use crate::cluster::wire::command_len;
use crate::cluster::{ClusterImage, apply};

/// Applies committed entries.
#[derive(Debug)]
pub(crate) struct StateMachine {
    state: State,
    images: watch::Sender<Arc<ClusterImage>>,
    snapshots: Arc<SnapshotFile>,
    growth: Growth,
}

/// Counts what was applied since the last snapshot.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) bytes: u64,
    pub(crate) limit_bytes: u64,
    /// Told when there is more than the limit.
    pub(crate) is_large: Arc<Notify>,
}

impl StateMachine {
    pub(crate) fn new(
        state: State,
        snapshots: Arc<SnapshotFile>,
        growth: Growth,
    ) -> (StateMachine, watch::Receiver<Arc<ClusterImage>>) {
        let (images, watching) = watch::channel(Arc::new(state.image.clone()));
        (StateMachine { state, images, snapshots, growth }, watching)
    }

    fn carry_out(&mut self, proposal: &Proposal) -> Answers {
        let mut answers = Vec::with_capacity(proposal.0.len());
        for command in &*proposal.0 {
            let (image, answer) = apply(&self.state.image, command);
            self.state.image = image;
            self.growth.bytes += command_len(command) as u64;
            answers.push(answer);
        }
        answers
    }

    fn publish(&self) {
        self.images.send_if_modified(|published| {
            let is_newer = published.version() != self.state.image.version();
            if is_newer {
                *published = Arc::new(self.state.image.clone());
            }
            is_newer
        });
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.state.last, self.state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answers>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            self.state.last = Some(entry.log_id);
            answers.push(match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Normal(proposal) => self.carry_out(&proposal),
                EntryPayload::Membership(membership) => {
                    self.state.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Vec::new()
                }
            });
        }
        // Before anybody is answered: who has an answer finds it in the image.
        self.publish();
        if self.growth.bytes > self.growth.limit_bytes {
            self.growth.is_large.notify_one();
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.growth.bytes = 0;
        SnapshotBuilder { state: self.state.clone(), snapshots: Arc::clone(&self.snapshots) }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Bytes>,
    ) -> Result<(), StorageError> {
        let failed = |e: &(dyn std::error::Error + 'static)| {
            StorageIOError::write_snapshot(Some(meta.signature()), AnyError::error(e.to_string()))
        };
        let state = decode_state((*snapshot).clone()).map_err(|e| failed(&e))?;
        if state.last != meta.last_log_id || state.image.cluster_id() != self.state.image.cluster_id() {
            let e = QuorumError::Stopped { reason: "a snapshot of something else was sent".to_owned() };
            return Err(failed(&e).into());
        }
        let (snapshots, last) = (Arc::clone(&self.snapshots), state.last);
        let written = spawn_blocking(move || snapshots.write(last, &snapshot)).await;
        written.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        self.growth.bytes = 0;
        self.state = state;
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let snapshots = Arc::clone(&self.snapshots);
        let failed = |e: &(dyn std::error::Error + 'static)| {
            StorageIOError::read_snapshot(None, AnyError::error(e.to_string()))
        };
        let read = spawn_blocking(move || snapshots.read()).await.map_err(|e| failed(&e))?;
        let found = read.map_err(|e| failed(&e))?;
        Ok(found.map(|(state, file)| Snapshot { meta: state.meta(), snapshot: Box::new(file) }))
    }
}

/// A snapshot to be, of one moment.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    state: State,
    snapshots: Arc<SnapshotFile>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let meta = self.state.meta();
        let failed = |e: &(dyn std::error::Error + 'static)| {
            StorageIOError::write_snapshot(Some(meta.signature()), AnyError::error(e.to_string()))
        };
        let (state, snapshots) = (self.state.clone(), Arc::clone(&self.snapshots));
        let written = spawn_blocking(move || {
            let file = state.encode();
            snapshots.write(state.last, &file).map(|()| file)
        });
        let file = written.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        Ok(Snapshot { meta, snapshot: Box::new(file) })
    }
}
