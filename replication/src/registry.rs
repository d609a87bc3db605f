//! The partitions that this broker holds: opened at the start, made, changed and removed as the cluster's metadata says, kept in order in
//! the background. Must never know Kafka messages.
//!
//! - this file: [`Registry`], what the operations of a broker may ask
//! - `reconcile`: from two images to what has to be done, pure
//! - `missing`: what should lie in them and does not, before anything is opened
//! - `places`: in which data directory each partition lies
//! - `changes`: what has to be done, done: opened, made, removed, closed
//! - `complaints`: what is said of partitions that cannot be had, pure
//! - `upkeep`: retention, compaction, flushing, memory: two threads for all partitions

mod changes;
mod complaints;
mod missing;
mod places;
mod reconcile;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use floodmark_proto::ids::{BrokerId, TopicId};
use floodmark_storage::clock::Stopwatch;
use floodmark_storage::data_dir::DataDir;
use floodmark_storage::group_commit::DiskThreads;
use floodmark_storage::{LogConfig, LogError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use crate::cluster::ClusterImage;
use crate::cluster::image::Settings;
use crate::cluster::settings::TopicSettings;
use crate::partition::{FullDisk, PartitionError, PartitionHandle, PartitionId};
use crate::vital::Vitals;
pub use changes::Closed;
use complaints::{Complaint, Complaints, Present};
pub use missing::missing_logs;
use places::Places;
use reconcile::Viewer;
pub use upkeep::Periods;
use upkeep::Upkeep;

/// After which a partition that found no space is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What the registry needs of the broker around it.
#[derive(Debug)]
pub struct RegistryOptions {
    /// This broker.
    pub node: BrokerId,
    /// Where its logs lie; the lock of each is held as long as the registry lives.
    pub data_dirs: Arc<[DataDir]>,
    /// Threads that sync.
    pub disk_threads: usize,
    /// What logs have in common that no topic setting says.
    pub log: LogConfig,
    /// This broker's own defaults for topic settings, by the names that brokers have for them.
    pub file_settings: Settings,
    /// How often what is done in the background is done.
    pub periods: Periods,
    /// Hears of panics.
    pub vitals: Vitals,
}

/// All partitions of this broker; clones are the same one.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    viewer: Viewer,
    data_dirs: Arc<[DataDir]>,
    disks: DiskThreads,
    full_disk: Arc<FullDisk>,
    held: RwLock<Held>,
    places: Mutex<Places>,
    /// Partitions that this broker should hold and cannot, with the reason.
    unusable: Mutex<BTreeMap<PartitionId, LogError>>,
    /// The image that the partitions are as. One at a time changes them, and this lock is what makes it so.
    image: Mutex<Arc<ClusterImage>>,
    /// The newest image, of which the partitions may not be yet. Each has heard of its leaders, before `heard_version` says so.
    heard: Mutex<Arc<ClusterImage>>,
    heard_version: watch::Sender<u64>,
    /// From here on nothing is opened any more: nobody would close it.
    is_closing: AtomicBool,
    reconciled: watch::Sender<u64>,
    /// Partitions whose logs were found damaged when they were opened, until somebody has asked.
    damaged: Mutex<BTreeSet<(TopicId, i32)>>,
    upkeep: Upkeep,
    vitals: Vitals,
}

#[derive(Debug, Default)]
struct Held(BTreeMap<TopicId, HeldTopic>);

#[derive(Debug)]
struct HeldTopic {
    settings: Arc<TopicSettings>,
    partitions: BTreeMap<i32, PartitionHandle>,
}

/// A partition that cannot be had, and why. The others are not concerned.
#[derive(Debug, Clone, thiserror::Error)]
#[error("partition {id}: {source}")]
pub struct UnusablePartition {
    /// Which.
    pub id: PartitionId,
    /// Why.
    pub source: LogError,
}

/// How many partitions are not as they should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutOfOrder {
    /// So many.
    pub count: usize,
    /// One of them and what is wrong with it; empty where there is none.
    pub first: String,
}

impl OutOfOrder {
    fn add(&mut self, words: impl FnOnce() -> String) {
        if self.count == 0 {
            self.first = words();
        }
        self.count += 1;
    }
}

impl Registry {
    /// Opens every partition that `image` gives to this broker, and makes what is missing ([`missing_logs`]: the cluster has to know of that
    /// before). Blocks until all are open; where one cannot be opened, it is told and left out, and whoever asks for it is sent elsewhere.
    pub fn open(
        options: RegistryOptions,
        image: &Arc<ClusterImage>,
    ) -> Result<(Registry, Vec<UnusablePartition>), LogError> {
        let viewer = Viewer { node: options.node, file: options.file_settings, log: options.log };
        let shared = Arc::new(Shared {
            viewer,
            places: Mutex::new(Places::look(&options.data_dirs)?),
            data_dirs: options.data_dirs,
            disks: DiskThreads::start(options.disk_threads)?,
            full_disk: Arc::default(),
            held: RwLock::default(),
            unusable: Mutex::default(),
            image: Mutex::new(Arc::new(ClusterImage::new(image.cluster_id()))),
            heard: Mutex::new(Arc::new(ClusterImage::new(image.cluster_id()))),
            heard_version: watch::Sender::new(0),
            is_closing: AtomicBool::new(false),
            reconciled: watch::Sender::new(0),
            damaged: Mutex::default(),
            upkeep: Upkeep::new(options.periods),
            vitals: options.vitals,
        });
        let unusable = shared.follow(image);
        for stray in shared.strays() {
            tracing::warn!(path = %stray.display(), "a partition of no known topic; it is left alone");
        }
        upkeep::start(&shared)?;
        Ok((Registry(shared), unusable))
    }

    /// Does as each new image says, until the sender of images or the registry is gone, or the task is aborted. Needs a tokio runtime with
    /// time.
    #[must_use]
    pub fn spawn_follower(&self, images: watch::Receiver<Arc<ClusterImage>>) -> JoinHandle<()> {
        tokio::spawn(
            self.0
                .vitals
                .keep("having partitions follow the metadata", follow(Arc::downgrade(&self.0), images)),
        )
    }

    /// Returns once the partitions are as the image of this version says, or a later one.
    pub async fn reconciled(&self, version: u64) {
        let mut reconciled = self.0.reconciled.subscribe();
        // The sender lives as long as this.
        let _ = reconciled.wait_for(|reached| *reached >= version).await;
    }

    /// Up to which version of the image no partition leads here any more that another broker leads since. It waits for no disk, as
    /// [`Registry::reconciled`] does: a broker may say that it knows such an image.
    #[must_use]
    pub fn heard(&self) -> watch::Receiver<u64> {
        self.0.heard_version.subscribe()
    }

    /// A partition that this broker holds.
    #[must_use]
    pub fn get(&self, topic: TopicId, partition: i32) -> Option<PartitionHandle> {
        self.0.get(topic, partition)
    }

    /// All of them, by topic id and number.
    #[must_use]
    pub fn all(&self) -> Vec<PartitionHandle> {
        self.0.all_with(|_| true)
    }

    /// Why this broker does not hold a partition that it should hold; `None` also where it should not.
    #[must_use]
    pub fn unusable(&self, topic: TopicId, partition: i32) -> Option<UnusablePartition> {
        let unusable = self.0.unusable.lock();
        let found = unusable.iter().find(|(id, _)| id.topic_id == topic && id.index == partition);
        found.map(|(id, reason)| UnusablePartition { id: id.clone(), source: reason.clone() })
    }

    /// All those that this broker should hold and cannot; the map is by what they are.
    #[must_use]
    pub fn all_unusable(&self) -> BTreeMap<PartitionId, LogError> {
        self.0.unusable.lock().clone()
    }

    /// Partitions of which this broker does not do what it should, by number: it cannot have them, or their logs take no more writes.
    #[must_use]
    pub fn out_of_order(&self) -> OutOfOrder {
        let mut found = OutOfOrder::default();
        for (id, reason) in &*self.0.unusable.lock() {
            found.add(|| UnusablePartition { id: id.clone(), source: reason.clone() }.to_string());
        }
        for partition in self.all() {
            match partition.stopped() {
                // It goes, and nobody asks for it any more.
                None | Some(PartitionError::Closed) => {}
                Some(reason) => found.add(|| format!("partition {}: {reason}", partition.id())),
            }
        }
        found
    }

    /// Partitions whose logs end before what no unfinished write explains: records that were on this disk may be gone. Told once.
    #[must_use]
    pub fn take_damaged(&self) -> BTreeSet<(TopicId, i32)> {
        std::mem::take(&mut *self.0.damaged.lock())
    }

    /// What the broker cannot be without, for whatever else of it works on partitions.
    pub(crate) fn vitals(&self) -> &Vitals {
        &self.0.vitals
    }

    /// The data directories.
    #[must_use]
    pub fn data_dirs(&self) -> &[DataDir] {
        &self.0.data_dirs
    }

    /// Folders with a partition of no topic known here. Nothing touches them: what is in them may be all that is left of a topic.
    #[must_use]
    pub fn strays(&self) -> Vec<PathBuf> {
        self.0.strays()
    }

    /// Closes every log, so that the next start has nothing to recover, as far as `timeout` allows. Writes are refused from then on. Blocks.
    pub fn close(&self, timeout: Duration) -> Closed {
        self.0.close(timeout)
    }
}

impl Shared {
    fn get(&self, topic: TopicId, partition: i32) -> Option<PartitionHandle> {
        self.held.read().0.get(&topic)?.partitions.get(&partition).cloned()
    }

    fn find(&self, id: &PartitionId) -> Option<PartitionHandle> {
        self.get(id.topic_id, id.index)
    }

    fn unusable_ids(&self) -> BTreeSet<PartitionId> {
        self.unusable.lock().keys().cloned().collect()
    }

    fn present(&self, id: &PartitionId) -> Present {
        if self.unusable.lock().contains_key(id) {
            Present::Missing
        } else if self.find(id).is_some() {
            Present::Held
        } else {
            Present::Unwanted
        }
    }

    /// The partitions of topics whose settings are `wanted`, without a look at any other.
    fn all_with(&self, wanted: impl Fn(&TopicSettings) -> bool) -> Vec<PartitionHandle> {
        let held = self.held.read();
        let topics = held.0.values().filter(|topic| wanted(&topic.settings));
        topics.flat_map(|topic| topic.partitions.values().cloned()).collect()
    }
}

async fn follow(shared: Weak<Shared>, mut images: watch::Receiver<Arc<ClusterImage>>) {
    let mut news = images.clone();
    let since = Stopwatch::start();
    // Whoever opened the registry has told of those.
    let told = shared.upgrade().map(|shared| shared.unusable_ids()).unwrap_or_default();
    let mut complaints = Complaints::after_telling(told, since.elapsed());
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        let Some(followed) = shared.upgrade() else { return };
        followed.hear_of(&image);
        let following = spawn_blocking(move || followed.follow(&image));
        match heard_beside(&shared, following, &mut news).await {
            Ok(unusable) => {
                let Some(shared) = shared.upgrade() else { return };
                let said = complaints.after(unusable, |id| shared.present(id), since.elapsed());
                said.into_iter().for_each(Complaint::tell);
            }
            // Partitions may be half of what they should be.
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            // The runtime ends.
            Err(_) => return,
        }
        let has_to_retry = || shared.upgrade().is_some_and(|shared| shared.has_to_retry());
        loop {
            match tokio::time::timeout(RETRY, images.changed()).await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return,
                Err(_) if has_to_retry() => break,
                Err(_) if shared.strong_count() == 0 => return,
                Err(_) => {}
            }
        }
    }
}

/// Waits for whoever may wait for a disk. Of what is decided meanwhile the partitions hear at once.
async fn heard_beside<T>(
    shared: &Weak<Shared>,
    mut following: JoinHandle<T>,
    news: &mut watch::Receiver<Arc<ClusterImage>>,
) -> Result<T, JoinError> {
    loop {
        tokio::select! {
            biased;
            followed = &mut following => return followed,
            changed = news.changed() => {
                if changed.is_err() {
                    return following.await;
                }
                let image = Arc::clone(&news.borrow_and_update());
                if let Some(shared) = shared.upgrade() {
                    shared.hear_of(&image);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
