//! What can be done with a consumer beside reading.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::config::Begin;
use crate::admin::OffsetCommit;
use crate::error::{Error, Result};
use crate::record::TopicPartition;

/// Pauses, seeks, commits. Cheap to clone; outlives its consumer, and then does nothing of use.
#[derive(Debug, Clone)]
pub struct ConsumerHandle {
    shared: Arc<Shared>,
}

impl ConsumerHandle {
    pub(super) fn new(shared: Arc<Shared>) -> ConsumerHandle {
        ConsumerHandle { shared }
    }

    /// As [`crate::Consumer::assign`].
    pub async fn assign(&self, parts: &[(TopicPartition, Begin)]) -> Result<()> {
        if !self.shared.config.topics.is_empty() {
            return Err(Error::Invalid(
                "its group assigns to a member: leave the topics out to assign".to_owned(),
            ));
        }
        let begin = self.resolve(parts).await?;
        let positions = &self.shared.positions;
        let gone: Vec<TopicPartition> = positions
            .assignment()
            .into_iter()
            .filter(|old| !begin.iter().any(|(partition, _)| partition == old))
            .collect();
        positions.remove(&gone);
        positions.add(&begin);
        Ok(())
    }

    /// Reads on from there. What was fetched before and not handed out is dropped.
    pub async fn seek(&self, partition: &TopicPartition, to: Begin) -> Result<()> {
        let assigned = || self.shared.positions.progress(partition);
        let not_assigned = || Error::Invalid(format!("{partition} is not assigned to this consumer"));
        assigned().ok_or_else(not_assigned)?;
        let begin = self.resolve(&[(partition.clone(), to)]).await?;
        assigned().ok_or_else(not_assigned)?;
        self.shared.positions.add(&begin);
        Ok(())
    }

    async fn resolve(&self, parts: &[(TopicPartition, Begin)]) -> Result<Vec<(TopicPartition, i64)>> {
        let config = &self.shared.config;
        let mut begin = Vec::with_capacity(parts.len());
        let mut committed = Vec::new();
        for (partition, from) in parts {
            if *from == Begin::Committed {
                committed.push(partition.clone());
            } else {
                begin.push((
                    partition.clone(),
                    self.shared.client.resolve(partition, *from, config.isolation).await?,
                ));
            }
        }
        if !committed.is_empty() {
            let group = config.group.as_ref();
            let group =
                group.ok_or_else(|| Error::Invalid("only a group has committed offsets".to_owned()))?;
            let found = self
                .shared
                .client
                .resolve_committed(group, &committed, config.reset, config.isolation)
                .await?;
            begin.extend(found);
        }
        Ok(begin)
    }

    /// Hands out no records of these until they are resumed, also after a rebalance that leaves them here.
    pub fn pause(&self, partitions: &[TopicPartition]) {
        self.shared.positions.pause(partitions, true);
    }

    /// Goes on where [`ConsumerHandle::pause`] stopped.
    pub fn resume(&self, partitions: &[TopicPartition]) {
        self.shared.positions.pause(partitions, false);
    }

    /// What is read now.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.positions.assignment()
    }

    /// Offset of the next record to be handed out; none where the partition is not assigned, or is new here and has no leader that could
    /// tell where it begins or ends.
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.shared.positions.progress(partition)?.place()
    }

    /// Records that are committed to the log and not handed out, as far as brokers have told; none before they did.
    #[must_use]
    pub fn lag(&self, partition: &TopicPartition) -> Option<i64> {
        let progress = self.shared.positions.progress(partition)?;
        let high_watermark = progress.high_watermark.load(Ordering::Acquire);
        (high_watermark >= 0).then(|| (high_watermark - progress.position()).max(0))
    }

    /// Commits everything that was handed out, the last record included.
    pub async fn commit(&self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        by_itself(async move { shared.commit(false).await }).await
    }

    /// Commits these offsets, each that of the next record to read. Fails where the group has given out partitions anew meanwhile.
    pub async fn commit_offsets(&self, offsets: &[OffsetCommit]) -> Result<()> {
        let (shared, offsets) = (Arc::clone(&self.shared), offsets.to_vec());
        let member = shared.membership.lock().clone();
        by_itself(async move { shared.commit_offsets(member, &offsets).await }).await
    }
}

/// Goes on whether its caller asks for it or not, and ends when the caller drops it: commits behind one that was begun and let lie would
/// wait for it.
async fn by_itself(commit: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    let commit = AbortOnDropHandle::new(tokio::spawn(commit));
    commit.await.unwrap_or(Err(Error::Closed("the runtime of this commit")))
}
