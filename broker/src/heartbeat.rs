//! This broker's pulse: it tells the controller that it lives and what it wants, and keeps the lease that the answers grant. Knows nothing of
//! partitions.

use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId};
use floodmark_replication::cluster::ClusterImage;
use floodmark_replication::controller::{Controller, Heartbeat, HeartbeatAnswer, Wants, heartbeat_to};
use floodmark_replication::lease::Lease;
use floodmark_replication::quorum::QuorumHandle;
use floodmark_replication::rpc::reason;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

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
    /// Up to which version of the image this broker has stopped to lead what others lead since.
    pub(crate) heard: watch::Receiver<u64>,
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
        let vitals = pulse.quorum.vitals().clone();
        let task = tokio::spawn(vitals.keep("the heartbeat", pulse.run(wanted, refuses)));
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

/// The version of the image that this broker says it knows. A lease is granted on the strength of that: whoever was told of a later one than
/// its partitions have heard of would answer under it for a leader of the past. They hear of it in a moment.
async fn heard_of(heard: &mut watch::Receiver<u64>, known: u64, patience: Duration) -> u64 {
    // Whoever has not heard by then, or never will, says so.
    let _ = timeout(patience, heard.wait_for(|heard| *heard >= known)).await;
    known.min(*heard.borrow())
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
                        let error = reason(&error);
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
        let known = self.quorum.image().version();
        let image_version = heard_of(&mut self.heard.clone(), known, self.session / PARTS).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_image_is_told_to_be_known_before_the_partitions_have_heard_of_it() {
        let (brief, long) = (Duration::from_millis(5), Duration::from_secs(60));
        let (hears, mut heard) = watch::channel(4);
        assert_eq!(heard_of(&mut heard, 4, long).await, 4);
        assert_eq!(heard_of(&mut heard, 3, long).await, 3, "they may be ahead");
        assert_eq!(heard_of(&mut heard, 5, brief).await, 4, "they hang");
        let soon = tokio::spawn(async move {
            tokio::time::sleep(brief).await;
            hears.send_replace(5);
        });
        assert_eq!(heard_of(&mut heard, 5, long).await, 5, "they are waited for");
        soon.await.unwrap();
        assert_eq!(heard_of(&mut heard, 6, long).await, 5, "they hear nothing any more");
    }
}
