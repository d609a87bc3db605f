//! Copies the partitions that this broker follows: one call to each leader, with all its partitions in it. Must never know who may write, or
//! what is committed: that is `partition`'s.
//!
//! - this file: [`Fetchers`], who follows the images and has a link for each leader
//! - `assignment`: which partitions a broker follows or leads, pure
//! - `link`: one leader: calls it, applies what it tells
//! - `session`: the follower's side of a call, pure; `serving`: the leader's, pure; `part`: what both know of a piece of a reply
//! - `throttle`: how much of that may be catching up

pub(crate) mod assignment;
mod link;
pub(crate) mod part;
pub(crate) mod serving;
mod session;
mod throttle;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, TopicId};
use floodmark_storage::random::Random;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use crate::cluster::ClusterImage;
use crate::registry::Registry;
use crate::rpc::Peers;
use assignment::Assignment;
use link::{LinkOptions, Orders};
use throttle::Throttle;

/// A partition, among all topics that ever were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartitionKey {
    pub(crate) topic: TopicId,
    pub(crate) index: u32,
}

/// What copying needs of the broker around it.
#[derive(Debug)]
pub struct FetcherOptions {
    /// This broker.
    pub node: BrokerId,
    /// Of its registration.
    pub broker_epoch: BrokerEpoch,
    /// Its partitions.
    pub registry: Registry,
    /// What the cluster agrees on.
    pub images: watch::Receiver<Arc<ClusterImage>>,
    /// The other brokers.
    pub peers: Peers,
    /// Bytes of one reply: `replica.fetch.max.bytes`.
    pub reply_bytes_max: u32,
    /// How long a leader waits for something to tell: `replica.fetch.wait.max.ms`.
    pub wait_max: Duration,
    /// What partitions far behind may take, of all leaders together; 0 without a limit: `replica.catchup.bytes.per.second`.
    pub catchup_bytes_per_second: u64,
    /// So that brokers do not call in step.
    pub random: Random,
    /// Where links run, in turn.
    pub runtimes: Vec<Handle>,
}

/// Everything that copies on one broker. Ends when dropped.
#[derive(Debug)]
pub struct Fetchers(JoinHandle<()>);

impl Fetchers {
    /// Copies what images give to this broker from here on. Needs a tokio runtime with time.
    #[must_use]
    pub fn start(options: FetcherOptions) -> Fetchers {
        let vitals = options.registry.vitals().clone();
        Fetchers(tokio::spawn(vitals.keep("choosing whom to copy from", follow(options))))
    }

    /// Copies no more.
    pub fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Fetchers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A leader, as whoever gives orders sees it. Ends when dropped.
struct Linked {
    orders: Arc<Orders>,
    partitions: usize,
    task: AbortHandle,
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(options: FetcherOptions) {
    let FetcherOptions { mut images, registry, runtimes, .. } = options;
    let link_options = LinkOptions {
        node: options.node,
        broker_epoch: options.broker_epoch,
        registry: registry.clone(),
        peers: options.peers,
        reply_bytes_max: options.reply_bytes_max,
        wait_max: options.wait_max,
        throttle: Throttle::new(options.catchup_bytes_per_second, Instant::now()),
        random: options.random,
    };
    let begin = |leader: BrokerId| {
        let orders = Arc::new(Orders::default());
        let run = link::run(leader, link_options.clone(), Arc::clone(&orders));
        let run = registry.vitals().keep("copying from a leader", run);
        let at = usize::try_from(leader.0).unwrap_or(0) % runtimes.len().max(1);
        let task = match runtimes.get(at) {
            Some(runtime) => runtime.spawn(run),
            None => tokio::spawn(run),
        };
        Linked { orders, partitions: 0, task: task.abort_handle() }
    };
    let mut present = Arc::new(ClusterImage::new(images.borrow().cluster_id()));
    let mut leaders: BTreeMap<PartitionKey, BrokerId> = BTreeMap::new();
    let mut links: BTreeMap<BrokerId, Linked> = BTreeMap::new();
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        // A replica does as the image says before it is asked where it is.
        registry.reconciled(image.version()).await;
        for (key, assignment) in assignment::changes(options.node, &present, &image) {
            let leader = match assignment {
                Assignment::Follows(leader) => Some(leader),
                Assignment::Leads | Assignment::Nothing => None,
            };
            let before = match leader {
                Some(leader) => leaders.insert(key, leader),
                None => leaders.remove(&key),
            };
            if before != leader {
                if let Some(link) = before.and_then(|before| links.get_mut(&before)) {
                    link.orders.give(key, false);
                    link.partitions -= 1;
                }
                if let Some(leader) = leader {
                    links.entry(leader).or_insert_with(|| begin(leader)).partitions += 1;
                }
            }
            if let Some(link) = leader.and_then(|leader| links.get(&leader)) {
                link.orders.give(key, true);
            }
        }
        links.retain(|_, link| link.partitions > 0);
        present = image;
        if images.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
