//! The partitions that this broker holds: opened at the start, made, changed and removed as the cluster's metadata says, kept in order in
//! the background. Must never know Kafka messages.
//!
//! - this file: [`Registry`], what the operations of a broker may ask
//! - `reconcile`: from two images to what has to be done, pure
//! - `upkeep`: retention, compaction, flushing, memory: one thread for all partitions

mod reconcile;
mod upkeep;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arc_swap::ArcSwap;
use floodmark_proto::ids::{BrokerId, TopicId};
use floodmark_storage::data_dir::{DataDir, DirLoad, PartitionName, choose};
use floodmark_storage::group_commit::DiskThreads;
use floodmark_storage::{LogConfig, LogError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::cluster::image::Settings;
use crate::cluster::{ClusterImage, Topic};
use crate::partition::{Duty, PartitionHandle, PartitionId};
use reconcile::{Step, steps};
use upkeep::Upkeep;

/// Threads that open or close logs at a time: most of it is waiting for a disk.
const OPENING_THREADS: usize = 8;

/// What the registry needs of the broker around it.
#[derive(Debug)]
pub struct RegistryOptions {
    /// This broker.
    pub node: BrokerId,
    /// Where its logs lie; the lock of each is held as long as the registry lives.
    pub data_dirs: Vec<DataDir>,
    /// Threads that sync.
    pub disk_threads: usize,
    /// What logs have in common that no topic setting says.
    pub log: LogConfig,
    /// This broker's own defaults for topic settings, by the names that brokers have for them.
    pub file_settings: Settings,
}

/// All partitions of this broker; clones are the same one.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Shared>);

type Partitions = HashMap<(TopicId, i32), PartitionHandle>;

#[derive(Debug)]
struct Shared {
    node: BrokerId,
    data_dirs: Vec<DataDir>,
    disks: DiskThreads,
    log: LogConfig,
    file_settings: Settings,
    /// Read by every request, replaced as a whole by the one who reconciles.
    partitions: ArcSwap<Partitions>,
    /// The image that the partitions are as, and whose version everybody may wait for.
    image: Mutex<Arc<ClusterImage>>,
    reconciled: watch::Sender<u64>,
    upkeep: Mutex<Option<Upkeep>>,
}

/// A partition that cannot be had, and why. The others are not concerned.
#[derive(Debug, Clone, thiserror::Error)]
#[error("partition {name}: {source}")]
pub struct UnusablePartition {
    /// Which.
    pub name: String,
    /// Why.
    pub source: LogError,
}

impl Registry {
    /// Opens every partition that `image` gives to this broker. Blocks until all are open; where one cannot be opened, it is told and
    /// left out, and whoever asks for it is sent elsewhere.
    pub fn open(
        options: RegistryOptions,
        image: &Arc<ClusterImage>,
    ) -> Result<(Registry, Vec<UnusablePartition>), LogError> {
        let shared = Arc::new(Shared {
            node: options.node,
            data_dirs: options.data_dirs,
            disks: DiskThreads::start(options.disk_threads)?,
            log: options.log,
            file_settings: options.file_settings,
            partitions: ArcSwap::default(),
            image: Mutex::new(Arc::new(ClusterImage::new(image.cluster_id()))),
            reconciled: watch::Sender::new(0),
            upkeep: Mutex::default(),
        });
        shared.report_strays(image)?;
        let unusable = shared.follow(image);
        let upkeep = Upkeep::start(&shared).map_err(|e| LogError::NoThread { source: Arc::new(e) })?;
        *shared.upkeep.lock() = Some(upkeep);
        Ok((Registry(shared), unusable))
    }

    /// Does as each new image says, until the sender of images is gone or the task is aborted. Needs a tokio runtime.
    #[must_use]
    pub fn spawn_follower(&self, mut images: watch::Receiver<Arc<ClusterImage>>) -> JoinHandle<()> {
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            loop {
                let image = Arc::clone(&images.borrow_and_update());
                let shared = Arc::clone(&shared);
                let followed = spawn_blocking(move || shared.follow(&image)).await;
                for unusable in followed.unwrap_or_default() {
                    tracing::error!(error = %unusable, "a partition cannot be used");
                }
                if images.changed().await.is_err() {
                    return;
                }
            }
        })
    }

    /// Returns once the partitions are as the image of this version says, or a later one.
    pub async fn reconciled(&self, version: u64) {
        let mut reconciled = self.0.reconciled.subscribe();
        // The sender lives as long as this.
        let _ = reconciled.wait_for(|reached| *reached >= version).await;
    }

    /// A partition that this broker holds.
    #[must_use]
    pub fn get(&self, topic: TopicId, partition: i32) -> Option<PartitionHandle> {
        self.0.partitions.load().get(&(topic, partition)).cloned()
    }

    /// All of them, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<PartitionHandle> {
        self.0.partitions.load().values().cloned().collect()
    }

    /// The data directories.
    #[must_use]
    pub fn data_dirs(&self) -> &[DataDir] {
        &self.0.data_dirs
    }

    /// Closes every log, so that the next start has nothing to recover. Blocks.
    pub fn close(&self) {
        drop(self.0.upkeep.lock().take());
        let partitions = self.all();
        in_parallel(&partitions, |partition| {
            if let Err(e) = partition.close() {
                let id = partition.id();
                tracing::error!(topic = %id.topic, partition = id.index, error = %e, "a log was not closed cleanly");
            }
        });
    }
}

impl Shared {
    /// Makes the partitions what `image` says; tells which of them cannot be had.
    fn follow(&self, image: &Arc<ClusterImage>) -> Vec<UnusablePartition> {
        // One at a time, and the lock is what makes it so.
        let mut held = self.image.lock();
        if image.version() < held.version() {
            return Vec::new();
        }
        let steps = steps(&held, image, self.node);
        let mut unusable = Vec::new();
        if !steps.is_empty() {
            // What goes, goes first: a topic may have been made again under the name of one that was deleted.
            self.remove_all(&steps);
            let opened = self.open_all(&steps, image, &mut unusable);
            let mut partitions = Partitions::clone(&self.partitions.load());
            partitions.extend(opened);
            for step in &steps {
                if let Step::Change(topic, index) = step
                    && let Some(partition) = partitions.get(&(topic.id, *index as i32))
                {
                    partition.take_up(self.duty(image, topic, *index));
                }
            }
            self.partitions.store(Arc::new(partitions));
        }
        *held = Arc::clone(image);
        self.reconciled.send_replace(image.version());
        unusable
    }

    /// First nobody finds them any more, then their files go.
    fn remove_all(&self, steps: &[Step]) {
        let mut partitions = Partitions::clone(&self.partitions.load());
        let remove = |step: &Step| match step {
            Step::Remove(topic, index) => partitions.remove(&(topic.id, *index as i32)),
            Step::Hold(..) | Step::Change(..) => None,
        };
        let removed: Vec<PartitionHandle> = steps.iter().filter_map(remove).collect();
        if !removed.is_empty() {
            self.partitions.store(Arc::new(partitions));
            in_parallel(&removed, |partition| self.remove(partition));
        }
    }

    /// Opens what is to be held, several at a time.
    fn open_all(
        &self,
        steps: &[Step],
        image: &ClusterImage,
        unusable: &mut Vec<UnusablePartition>,
    ) -> Partitions {
        let wanted: Vec<(&Arc<Topic>, u32)> = steps
            .iter()
            .filter_map(|s| if let Step::Hold(topic, n) = s { Some((topic, *n)) } else { None })
            .collect();
        if wanted.is_empty() {
            return Partitions::new();
        }
        let places = self.places();
        let mut loads = self.loads(&places);
        let placed: Vec<_> = wanted
            .into_iter()
            .map(|(topic, index)| {
                let name = PartitionName::new(&topic.name, index);
                let known = name.as_ref().ok().and_then(|name| places.get(name).copied());
                let dir = known.or_else(|| choose(&loads));
                if let Some(load) = dir.filter(|_| known.is_none()).and_then(|dir| loads.get_mut(dir)) {
                    load.partitions += 1;
                }
                (topic, index, name, dir)
            })
            .collect();
        let opened = Mutex::new(Partitions::new());
        let failed = Mutex::new(Vec::new());
        in_parallel(&placed, |(topic, index, name, dir)| {
            let outcome = self.open_one(image, topic, *index, name, *dir);
            match outcome {
                Ok(partition) => {
                    opened.lock().insert((topic.id, *index as i32), partition);
                }
                Err(source) => {
                    failed.lock().push(UnusablePartition { name: format!("{}-{index}", topic.name), source });
                }
            }
        });
        unusable.append(&mut failed.into_inner());
        opened.into_inner()
    }

    fn open_one(
        &self,
        image: &ClusterImage,
        topic: &Arc<Topic>,
        index: u32,
        name: &Result<PartitionName, String>,
        dir: Option<usize>,
    ) -> Result<PartitionHandle, LogError> {
        let refused = |reason: &str| LogError::Refused {
            path: topic.name.to_string().into(),
            reason: reason.to_owned(),
        };
        let name = name.as_ref().map_err(|reason| refused(reason))?;
        let dir = dir
            .and_then(|dir| self.data_dirs.get(dir))
            .ok_or_else(|| refused("there is no data directory"))?;
        let duty = self.duty(image, topic, index);
        let (log, report) = dir.open_partition(name, topic.id, duty.settings.log.clone())?;
        if !report.was_clean && !report.was_new {
            tracing::info!(partition = %name, scanned_bytes = report.scanned_bytes, cut_bytes = report.cut_bytes, "recovered");
        }
        let id = PartitionId { topic_id: topic.id, topic: Arc::clone(&topic.name), index: index as i32 };
        Ok(PartitionHandle::new(id, log, &self.disks, duty))
    }

    fn duty(&self, image: &ClusterImage, topic: &Topic, index: u32) -> Duty {
        reconcile::duty(image, topic, index, self.node, &self.file_settings, &self.log)
    }

    fn remove(&self, partition: &PartitionHandle) {
        let id = partition.id();
        partition.abandon();
        let Ok(name) = PartitionName::new(&id.topic, id.index as u32) else { return };
        let dir = self.data_dirs.iter().find(|dir| partition.dir().starts_with(dir.path()));
        if let Some(Err(e)) = dir.map(|dir| dir.remove_partition(&name)) {
            tracing::error!(partition = %name, error = %e, "the files of a deleted partition are still there");
        }
    }

    /// In which data directory each partition lies that has a folder.
    fn places(&self) -> BTreeMap<PartitionName, usize> {
        let mut places = BTreeMap::new();
        for (n, dir) in self.data_dirs.iter().enumerate() {
            match dir.partitions() {
                Ok(names) => places.extend(names.into_iter().map(|name| (name, n))),
                Err(e) => {
                    tracing::error!(dir = %dir.path().display(), error = %e, "a data directory cannot be listed")
                }
            }
        }
        places
    }

    fn loads(&self, places: &BTreeMap<PartitionName, usize>) -> Vec<DirLoad> {
        let load = |(n, dir): (usize, &DataDir)| DirLoad {
            partitions: places.values().filter(|place| **place == n).count(),
            available_bytes: dir.available_bytes().unwrap_or(0),
        };
        self.data_dirs.iter().enumerate().map(load).collect()
    }

    /// Tells of folders that belong to no topic. They are left alone: records are never thrown away on a guess.
    fn report_strays(&self, image: &ClusterImage) -> Result<(), LogError> {
        for dir in &self.data_dirs {
            for name in dir.partitions()? {
                let is_known =
                    image.topic(name.topic()).is_some_and(|t| t.partition(name.partition()).is_some());
                if !is_known {
                    let path = dir.partition_path(&name);
                    tracing::warn!(path = %path.display(), "a partition of no known topic; it is left alone");
                }
            }
        }
        Ok(())
    }
}

/// Runs `work` on every item, on a few threads that end with the call.
fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item);
        }
    };
    match items.len() {
        0 | 1 => run(),
        count => thread::scope(|scope| {
            for _ in 0..count.min(OPENING_THREADS) {
                scope.spawn(run);
            }
        }),
    }
}

#[cfg(test)]
mod tests;
