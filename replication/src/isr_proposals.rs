//! Carries what leaders on this broker propose about who is in sync to the cluster, and its answers back. Looks only at partitions that moved,
//! and at those of which time alone may make something; where nothing moves, it sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_storage::clock::Clock;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::cluster::{ClusterImage, CommandError, Output};
use crate::fetcher::PartitionKey;
use crate::fetcher::assignment::{Assignment, changes};
use crate::partition::{DirtySet, IsrProposal, PartitionHandle, Registration};
use crate::quorum::{ProposeError, QuorumHandle};
use crate::registry::Registry;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(100);
/// Proposals under way at one time.
const UNDER_WAY_MAX: usize = 256;
/// How long an answer is waited for. What is not heard by then may still be agreed to.
const DEADLINE: Duration = Duration::from_secs(5);

/// What carrying proposals needs of the broker around it.
#[derive(Debug)]
pub struct IsrOptions {
    /// This broker.
    pub node: BrokerId,
    /// Its partitions.
    pub registry: Registry,
    /// Who decides.
    pub quorum: QuorumHandle,
    /// What lag is measured by.
    pub clock: Clock,
    /// After which a replica that lacks something is proposed to be out of sync: `replica.lag.time.max.ms`.
    pub lag_max: Duration,
}

/// Carries proposals until dropped.
#[derive(Debug)]
pub struct IsrProposals(JoinHandle<()>);

impl IsrProposals {
    /// Begins. Needs a tokio runtime with time.
    #[must_use]
    pub fn start(options: IsrOptions) -> IsrProposals {
        let vitals = options.quorum.vitals().clone();
        IsrProposals(tokio::spawn(vitals.keep("proposing who is in sync", async move {
            let images = options.quorum.watch();
            let present = Arc::new(ClusterImage::new(options.quorum.image().cluster_id()));
            Carrier {
                options,
                present,
                led: BTreeMap::new(),
                keys: BTreeMap::new(),
                next_mark: 0,
                dirty: DirtySet::default(),
                watched: BTreeSet::new(),
                under_way: JoinSet::new(),
                looked: Instant::now(),
            }
            .run(images)
            .await;
        })))
    }

    /// Carries nothing more.
    pub fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for IsrProposals {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Carrier {
    options: IsrOptions,
    /// What `led` is as.
    present: Arc<ClusterImage>,
    led: BTreeMap<PartitionKey, Led>,
    /// By mark.
    keys: BTreeMap<u32, PartitionKey>,
    next_mark: u32,
    dirty: DirtySet,
    /// To be looked at in each period.
    watched: BTreeSet<PartitionKey>,
    under_way: JoinSet<(PartitionHandle, Result<Output, ProposeError>)>,
    looked: Instant,
}

/// A partition with other replicas, which this broker leads.
struct Led {
    partition: PartitionHandle,
    mark: u32,
    _marks: Registration,
}

impl Carrier {
    async fn run(&mut self, mut images: watch::Receiver<Arc<ClusterImage>>) {
        self.follow(&mut images).await;
        loop {
            let next_look = (!self.watched.is_empty()).then(|| self.looked + PERIOD);
            let dirty = self.dirty.clone();
            tokio::select! {
                changed = images.changed() => match changed {
                    Ok(()) => self.follow(&mut images).await,
                    Err(_) => return,
                },
                // Whoever moved once is looked at together with all who move within a period.
                () = dirty.marked(), if self.watched.is_empty() => self.take_marks(),
                () = until(next_look) => {
                    self.take_marks();
                    self.look();
                }
                Some(answered) = self.under_way.join_next() => match answered {
                    Ok((partition, answer)) => on_answer(&partition, answer),
                    // Its partition would propose nothing any more.
                    Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                    Err(_) => return,
                },
            }
        }
    }

    async fn follow(&mut self, images: &mut watch::Receiver<Arc<ClusterImage>>) {
        let image = Arc::clone(&images.borrow_and_update());
        // A replica does as the image says before it is asked what it proposes.
        self.options.registry.reconciled(image.version()).await;
        for (key, assignment) in changes(self.options.node, &self.present, &image) {
            match assignment {
                Assignment::Leads => self.lead(key),
                Assignment::Follows(_) | Assignment::Nothing => self.give_up(key),
            }
        }
        self.present = image;
    }

    fn lead(&mut self, key: PartitionKey) {
        self.watched.insert(key);
        if self.led.get(&key).is_some_and(|led| led.partition.stopped().is_none()) {
            return;
        }
        self.give_up(key);
        let index = i32::try_from(key.index).unwrap_or(-1);
        self.watched.insert(key);
        // One that cannot be opened leads nothing. It may come to be opened later, of which no image tells.
        let Some(partition) = self.options.registry.get(key.topic, index) else { return };
        let mark = self.next_mark;
        self.next_mark = self.next_mark.wrapping_add(1);
        let marks = partition.on_replica_progress(self.dirty.mark_of(mark));
        self.keys.insert(mark, key);
        self.led.insert(key, Led { partition, mark, _marks: marks });
    }

    fn give_up(&mut self, key: PartitionKey) {
        self.watched.remove(&key);
        if let Some(gone) = self.led.remove(&key) {
            self.keys.remove(&gone.mark);
        }
    }

    fn take_marks(&mut self) {
        let marked = self.dirty.take(usize::MAX);
        self.watched.extend(marked.iter().filter_map(|mark| self.keys.get(mark)).copied());
    }

    fn look(&mut self) {
        self.looked = Instant::now();
        // Were somebody to set the machine's clock, all who are a moment behind would be left out, or none for long.
        let now_ms = self.options.clock.steady_ms();
        let lag_ms_max = u64::try_from(self.options.lag_max.as_millis()).unwrap_or(u64::MAX);
        for key in std::mem::take(&mut self.watched) {
            if !self.led.contains_key(&key) {
                self.lead(key);
            }
            let Some(led) = self.led.get(&key) else { continue };
            let has_room = self.under_way.len() < UNDER_WAY_MAX;
            if has_room && let Some(proposal) = led.partition.isr_proposal(now_ms, lag_ms_max) {
                let partition = led.partition.clone();
                self.propose(partition, &proposal);
            }
            let Some(led) = self.led.get(&key) else { continue };
            if !has_room || led.partition.needs_isr_watch() {
                self.watched.insert(key);
            }
        }
    }

    fn propose(&mut self, partition: PartitionHandle, proposal: &IsrProposal) {
        let image = Arc::clone(&self.present);
        let epoch_of = |broker| image.broker(broker).map(|broker| broker.epoch);
        let Some(command) = proposal.command(epoch_of) else {
            return partition.on_isr_unanswered();
        };
        let quorum = self.options.quorum.clone();
        self.under_way.spawn(async move {
            let answer = quorum.propose_within(command, DEADLINE).await;
            (partition, answer)
        });
    }
}

fn on_answer(partition: &PartitionHandle, answer: Result<Output, ProposeError>) {
    let answer: Result<i32, CommandError> = match answer {
        Ok(Output::IsrChanged { partition_epoch }) => Ok(partition_epoch),
        Err(ProposeError::Refused(refused)) => {
            tracing::info!(partition = %partition.id(), error = %refused, "the cluster does not take this leader's word on who is in sync");
            Err(refused)
        }
        Ok(other) => {
            tracing::error!(partition = %partition.id(), answer = ?other, "no answer to a proposal of who is in sync");
            return partition.on_isr_unanswered();
        }
        Err(e) => {
            tracing::warn!(partition = %partition.id(), error = %e, "it is not known whether a change of who is in sync was agreed to");
            return partition.on_isr_unanswered();
        }
    };
    partition.on_isr_answer(&answer);
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
