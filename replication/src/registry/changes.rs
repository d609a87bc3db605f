//! What has to be done, done: partitions opened, made, told of their duty, removed, closed. Waits for disks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use floodmark_proto::ids::{LeaderEpoch, TopicId};
use floodmark_storage::LogError;
use floodmark_storage::clock::Stopwatch;
use floodmark_storage::data_dir::PartitionName;
use parking_lot::Mutex;

use super::{HeldTopic, PATIENCE, Shared, UnusablePartition};
use crate::cluster::delta::TopicDelta;
use crate::cluster::{ClusterDelta, ClusterImage};
use crate::partition::{Duty, PartitionHandle, PartitionId};

/// Threads that open or close logs at a time: most of it is waiting for a disk.
const OPENING_THREADS: usize = 8;
/// Partitions to open between two words about it.
const TELL_EVERY: usize = 1000;

/// How the logs ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Logs with nothing to recover.
    pub cleanly: usize,
    /// Those that failed, or were not reached in time: the next start recovers them.
    pub uncleanly: usize,
}

impl Shared {
    /// Has every partition here know who leads by `image`, though it cannot do as that says yet. Waits for no log.
    pub(super) fn hear_of(&self, image: &Arc<ClusterImage>) {
        let before = {
            let mut heard = self.heard.lock();
            if image.version() < heard.version() {
                return;
            }
            std::mem::replace(&mut *heard, Arc::clone(image))
        };
        for change in ClusterDelta::between(&before, image).topics {
            let (TopicDelta::Created(topic) | TopicDelta::Changed { new: topic, .. }) = &change else {
                continue;
            };
            for index in change.partitions() {
                let held = i32::try_from(index).ok().and_then(|index| self.get(topic.id, index));
                if let (Some(held), Some(partition)) = (held, topic.partition(index)) {
                    held.hear_of_leader(partition.leader_epoch);
                }
            }
        }
        self.heard_version.send_replace(image.version());
    }

    /// Makes the partitions what `image` says; tells which of them cannot be had, of those that could or should until now.
    pub(super) fn follow(&self, image: &Arc<ClusterImage>) -> Vec<UnusablePartition> {
        let mut present = self.image.lock();
        if image.version() < present.version() || self.is_closing.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let plan = self.viewer.plan(&present, image);
        for id in plan.release {
            self.release(&id);
        }
        // One of each, for a log is opened once.
        let mut hold: BTreeMap<_, _> = self.take_what_to_retry(image).into_iter().collect();
        hold.extend(plan.hold);
        let (held, missing): (Vec<_>, Vec<_>) = hold.into_iter().partition(|(id, _)| self.find(id).is_some());
        let mut waiting = Vec::new();
        for (id, duty) in held {
            if let Some(topic) = self.held.write().0.get_mut(&id.topic_id) {
                topic.settings = Arc::clone(&duty.settings);
            }
            let Some(partition) = self.find(&id) else { continue };
            // What hangs since an earlier image was waited for then.
            let was_late = partition.is_late();
            if !partition.take_up(duty, Duration::ZERO) && !was_late {
                waiting.push(partition);
            }
        }
        let begun = Stopwatch::start();
        let left = || PATIENCE.saturating_sub(begun.elapsed());
        wait_for(&waiting, left);
        self.finish_leaving(left);
        let unusable = self.open_all(&missing);
        *present = Arc::clone(image);
        self.reconciled.send_replace(image.version());
        unusable
    }

    /// Those that failed and may not fail again, and what the image wants of them now.
    fn take_what_to_retry(&self, image: &ClusterImage) -> Vec<(PartitionId, Duty)> {
        let mut unusable = self.unusable.lock();
        if !unusable.values().any(is_worth_another_try) {
            return Vec::new();
        }
        let nothing = ClusterImage::new(image.cluster_id());
        let wanted = self.viewer.plan(&nothing, image).hold;
        let again = wanted.into_iter().filter(|(id, _)| unusable.get(id).is_some_and(is_worth_another_try));
        let again: Vec<_> = again.collect();
        // Those that are tried stay what they are until they can be had: whoever asks meanwhile would take them for healthy.
        unusable.retain(|id, reason| {
            !is_worth_another_try(reason) || again.iter().any(|(wanted, _)| wanted == id)
        });
        again
    }

    pub(super) fn has_to_retry(&self) -> bool {
        self.is_anything_leaving() || self.unusable.lock().values().any(is_worth_another_try)
    }

    fn open_all(&self, missing: &[(PartitionId, Duty)]) -> Vec<UnusablePartition> {
        let begun = Stopwatch::start();
        let (done, recovered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let unusable = Mutex::new(Vec::new());
        in_parallel(missing, |(id, duty)| {
            match self.open(id, duty) {
                Ok(was_clean) => {
                    recovered.fetch_add(usize::from(!was_clean), Ordering::Relaxed);
                }
                Err(source) => {
                    unusable.lock().push(UnusablePartition { id: id.clone(), source: source.clone() });
                    self.unusable.lock().insert(id.clone(), source);
                }
            }
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(TELL_EVERY) || (done == missing.len() && done > TELL_EVERY) {
                let recovered = recovered.load(Ordering::Relaxed);
                tracing::info!(
                    done,
                    of = missing.len(),
                    recovered,
                    seconds = %format_args!("{:.1}", begun.elapsed().as_secs_f32()),
                    "opening partitions"
                );
            }
        });
        unusable.into_inner()
    }

    /// Opens a partition, or makes it; says whether there was nothing to recover.
    fn open(&self, id: &PartitionId, duty: &Duty) -> Result<bool, LogError> {
        let name = name_of(id)?;
        if self.is_name_taken(id) {
            let path = PathBuf::from(name.to_string());
            let source = Arc::new(std::io::ErrorKind::ResourceBusy.into());
            return Err(LogError::Io {
                action: "make, until the deleted one of its name has ended,",
                path,
                source,
            });
        }
        let at = self.place_of(&name, id.topic_id)?;
        let config = duty.settings.log.clone();
        let (log, report) = self.data_dirs[at].open_partition(&name, id.topic_id, config)?;
        for damage in &report.damage {
            tracing::warn!(partition = %name, %damage, "damaged behind the last checkpoint: records may be lost");
        }
        if let [first, ..] = &*report.set_aside_before {
            let (first, files) = (first.display(), report.set_aside_before.len());
            tracing::warn!(partition = %name, files, %first, "bytes with good batches lie set aside since an earlier damage; remove them when they are not wanted");
        }
        if !report.was_clean && !report.was_new {
            tracing::info!(
                partition = %name,
                scanned_bytes = report.scanned_bytes,
                cut_bytes = report.cut_bytes,
                cut_reason = report.cut_reason.as_deref(),
                rebuilt_files = report.rebuilt.len(),
                "recovered"
            );
        }
        self.unusable.lock().remove(id);
        let partition = PartitionHandle::beside_others(
            id.clone(),
            log,
            &self.disks,
            duty.clone(),
            Arc::clone(&self.full_disk),
        );
        // No image comes in between: it is found by whoever makes that one heard, or has heard of it before anybody finds it.
        let heard = self.heard.lock();
        if let Some(epoch) = leader_epoch_in(&heard, id) {
            partition.hear_of_leader(epoch);
        }
        let mut held = self.held.write();
        let topic = held.0.entry(id.topic_id).or_insert_with(|| HeldTopic {
            settings: Arc::clone(&duty.settings),
            partitions: BTreeMap::new(),
        });
        topic.partitions.insert(id.index, partition);
        drop((held, heard));
        Ok(report.was_clean || report.was_new)
    }

    /// The data directory where a partition lies, or from now on shall lie. What else has its name is taken out of the way.
    /// Nobody else asks for the same name at the same time.
    fn place_of(&self, name: &PartitionName, topic: TopicId) -> Result<usize, LogError> {
        let mut own = Vec::new();
        let named = self.places.lock().of(name);
        for at in named {
            match self.data_dirs[at].topic_of(name)? {
                Some(other) if other != topic => {
                    let aside = self.data_dirs[at].set_aside(name)?;
                    tracing::warn!(dir = %aside.display(), topic_id = %other, "set aside: a topic that is gone had this name");
                    self.places.lock().set_aside(name, at, aside);
                }
                _ => own.push(at),
            }
        }
        match own[..] {
            [at] => Ok(at),
            [] => self.places.lock().choose(&self.data_dirs, name),
            [first, second, ..] => Err(LogError::Refused {
                path: self.data_dirs[first].partition_path(name),
                reason: format!(
                    "the same partition lies in {} too; move one of them away",
                    self.data_dirs[second].partition_path(name).display()
                ),
            }),
        }
    }

    pub(super) fn strays(&self) -> Vec<PathBuf> {
        let image = Arc::clone(&self.image.lock());
        let is_known = |name: &PartitionName| {
            image.topic(name.topic()).is_some_and(|topic| topic.partition(name.partition()).is_some())
        };
        self.places.lock().strays(&self.data_dirs, is_known)
    }

    /// Closes all logs, each cleanly where `timeout` has not passed yet. What a disk holds up longer is not waited for.
    pub(super) fn close(&self, timeout: Duration) -> Closed {
        let begun = Stopwatch::start();
        // Its threads may be at a log that hangs; the others are to be closed yet.
        self.upkeep.stop(timeout / 2);
        self.is_closing.store(true, Ordering::Relaxed);
        // What is being opened now is among those that are closed.
        drop(self.image.try_lock_for(timeout.saturating_sub(begun.elapsed())));
        let partitions: Arc<[PartitionHandle]> = self.all_with(|_| true).into();
        let next = Arc::new(AtomicUsize::new(0));
        let (tell, told) = sync_channel(partitions.len());
        for _ in 0..OPENING_THREADS.min(partitions.len()) {
            let (partitions, next, tell) = (Arc::clone(&partitions), Arc::clone(&next), tell.clone());
            let work = move || {
                while begun.elapsed() < timeout
                    && let Some(partition) = partitions.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let outcome = partition.close();
                    if let Err(e) = &outcome {
                        tracing::error!(partition = %partition.id(), error = %e, "a log was not closed cleanly");
                    }
                    // There is room for all of them.
                    let _ = tell.try_send(outcome.is_ok());
                }
            };
            if let Err(e) = thread::Builder::new().name("fm-close".to_owned()).spawn(work) {
                tracing::error!(error = %e, "there is no thread to close logs");
            }
        }
        drop(tell);
        let mut cleanly = 0;
        while let Ok(is_clean) = told.recv_timeout(timeout.saturating_sub(begun.elapsed())) {
            cleanly += usize::from(is_clean);
        }
        Closed { cleanly, uncleanly: partitions.len() - cleanly }
    }
}

/// Waits for whoever has the logs of these, but passes by those that hang: one must not keep the others from leading or following. They are
/// what they are to be as soon as they go on.
fn wait_for(partitions: &[PartitionHandle], left: impl Fn() -> Duration) {
    let hangs = |partition: &&PartitionHandle| !partition.settle(left());
    let hanging: Vec<_> = partitions.iter().filter(hangs).collect();
    if let Some(first) = hanging.first() {
        let count = hanging.len();
        tracing::warn!(count, partition = %first.id(), "logs hang, this one among them; their replicas lead or follow as they are to when they go on");
    }
}

/// True for what may go better without anybody repairing anything.
fn is_worth_another_try(reason: &LogError) -> bool {
    match reason {
        LogError::Io { source, .. } => {
            matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::ResourceBusy)
        }
        other => other.is_retryable(),
    }
}

fn leader_epoch_in(image: &ClusterImage, id: &PartitionId) -> Option<LeaderEpoch> {
    let index = u32::try_from(id.index).ok()?;
    Some(image.topic_by_id(id.topic_id)?.partition(index)?.leader_epoch)
}

pub(super) fn name_of(id: &PartitionId) -> Result<PartitionName, LogError> {
    let index = u32::try_from(id.index).map_err(|_| format!("partition {} is negative", id.index));
    index
        .and_then(|index| PartitionName::new(&id.topic, index))
        .map_err(|reason| LogError::Refused { path: PathBuf::from(&*id.topic), reason })
}

/// Runs `work` on every item, on a few threads that end with the call.
pub(super) fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item);
        }
    };
    thread::scope(|scope| {
        for _ in 1..items.len().min(OPENING_THREADS) {
            // One thread fewer is slower, nothing else.
            let _ = thread::Builder::new().name("fm-open".to_owned()).spawn_scoped(scope, run);
        }
        run();
    });
}
