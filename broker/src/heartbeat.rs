//! This broker's pulse: it tells the controller that it lives and what it wants, and keeps the lease that the answers grant. Knows nothing of
//! partitions.

use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId};
use floodmark_replication::cluster::ClusterImage;
use floodmark_replication::controller::{Controller, Heartbeat, HeartbeatAnswer, Wants, heartbeat_to};
use floodmark_replication::lease::Lease;
use floodmark_replication::quorum::QuorumHandle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Of a session that one heartbeat may wait for its answer, and of the interval until one that failed is sent again.
const PARTS: u32 = 4;

/// Whose pulse it is.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    pub(crate) quorum: QuorumHandle,
    /// This broker's own share in deciding: where it leads the quorum, heartbeats take no detour.
    pub(crate) controller: Controller,
    pub(crate) broker: BrokerId,
    /// Of its registration.
    pub(crate) epoch: BrokerEpoch,
    pub(crate) interval: Duration,
    pub(crate) session: Duration,
    pub(crate) lease: Lease,
}

/// A pulse that beats; it ends with this.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    wants: watch::Sender<Option<Wants>>,
    refused: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Heartbeats {
    /// Begins to beat once something is wanted. Needs a tokio runtime.
    pub(crate) fn spawn(pulse: Pulse) -> Heartbeats {
        let (wants, wanted) = watch::channel(None);
        let (refuses, refused) = watch::channel(None);
        let task = tokio::spawn(async move { pulse.run(wanted, refuses).await });
        Heartbeats { wants, refused, task }
    }

    /// The controller is told at once.
    pub(crate) fn want(&self, wants: Wants) {
        self.wants.send_replace(Some(wants));
    }

    /// Returns when this registration counts no more, with the reason: the process can only end.
    pub(crate) fn refused(&self) -> impl Future<Output = String> + Send + 'static {
        let mut refused = self.refused.clone();
        async move {
            let told = refused.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            match told {
                Some(reason) => reason,
                // It has stopped without a reason: the broker stops.
                None => std::future::pending().await,
            }
        }
    }

    /// Beats no more, and trusts in nothing any more.
    pub(crate) fn end(&self) {
        self.task.abort();
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns at the next change. Where there will be none because the quorum has ended, never: time goes on alone.
async fn change<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Pulse {
    async fn run(self, mut wanted: watch::Receiver<Option<Wants>>, refuses: watch::Sender<Option<String>>) {
        let mut images = self.quorum.watch();
        let mut leadership = self.quorum.leadership();
        // Told once, until it is over.
        let mut fails = false;
        loop {
            let wants = *wanted.borrow_and_update();
            let Some(wants) = wants else {
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            leadership.mark_unchanged();
            let seen = self.state(&images.borrow_and_update());
            let sent = Instant::now();
            let answer = self.beat(wants).await;
            let has_failed = answer.is_err();
            let (granted, next) = match answer {
                Ok(HeartbeatAnswer::Lease(lease)) => (lease, sent + self.interval),
                Ok(HeartbeatAnswer::Refused(reason)) => {
                    tracing::error!(%reason, "the cluster does not know this broker any more");
                    self.lease.give_up();
                    refuses.send_replace(Some(reason));
                    return;
                }
                Ok(HeartbeatAnswer::NotController { .. }) => (Duration::ZERO, sent + self.interval / PARTS),
                Err(error) => {
                    if !fails {
                        let error = error.message();
                        tracing::warn!(error, "the controller did not hear of this broker; it is told again");
                    }
                    (Duration::ZERO, sent + self.interval / PARTS)
                }
            };
            fails = has_failed;
            self.keep(sent, granted);
            // A broker that was just let in asks for its lease at once.
            let let_in = async {
                loop {
                    change(&mut images).await;
                    if self.state(&images.borrow_and_update()) != seen {
                        return;
                    }
                }
            };
            tokio::select! {
                () = sleep_until(next) => {}
                () = let_in => {}
                () = change(&mut wanted) => {}
                () = change(&mut leadership) => {}
            }
        }
    }

    /// Where nobody else votes nobody else can be elected: what this broker knows is new as long as it runs.
    fn keep(&self, sent: Instant, granted: Duration) {
        let is_only_voter = matches!(self.quorum.membership().voters[..], [(only, _)] if only == self.broker);
        let is_live = self.quorum.image().is_live(self.broker);
        if is_only_voter && is_live && !granted.is_zero() {
            self.lease.hold();
        } else if !is_only_voter {
            self.lease.extend(sent, granted);
        }
    }

    async fn beat(&self, wants: Wants) -> Result<HeartbeatAnswer, tonic::Status> {
        let image_version = self.quorum.image().version();
        let heartbeat = Heartbeat { broker: self.broker, epoch: self.epoch, image_version, wants };
        match self.quorum.leader() {
            None => Ok(HeartbeatAnswer::NotController { leader: None }),
            Some(leader) if leader == self.broker => Ok(self.controller.heartbeat(&heartbeat)),
            Some(leader) => heartbeat_to(self.quorum.peers(), leader, &heartbeat, self.session / PARTS).await,
        }
    }

    /// What of this broker the cluster has decided.
    fn state(&self, image: &ClusterImage) -> Option<(bool, bool)> {
        image.broker(self.broker).map(|broker| (broker.fenced, broker.stopping))
    }
}
