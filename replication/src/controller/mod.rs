//! What the leader of the metadata quorum does for the whole cluster: it hears of every broker, fences the silent, lets in the ready,
//! relieves those that stop, ends moves and brings leaderships home. Runs on every broker, decides on one.
//!
//! - this file: [`Controller`]: the rounds, and heartbeats as they come in
//! - `liveness`: who has been heard of, and how long each may trust in it; pure
//! - `duties`: what is to be done; pure
//! - `service`: heartbeats from other brokers, and to them

mod duties;
mod liveness;
mod service;

use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::cluster::{ClusterImage, Command};
use crate::quorum::{Leadership, ProposeError, QuorumHandle};
use duties::Completed;
use liveness::Liveness;
pub use liveness::{Heartbeat, HeartbeatError, Wants};
pub use service::heartbeat_to;

/// Rounds that look at every partition, in one session.
const ROUNDS: u32 = 8;

/// How a controller decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControllerRules {
    /// This broker. While it decides it lives.
    pub own: BrokerId,
    /// A broker that is silent for so long is fenced.
    pub session: Duration,
    /// How often leaderships go back to preferred replicas; `None` for never.
    pub rebalance_interval: Option<Duration>,
    /// The highest feature level that this program knows.
    pub feature_level_max: u16,
}

/// A broker's share in deciding; clones share it, and it ends with the last of them.
#[derive(Debug, Clone)]
pub struct Controller {
    shared: Arc<Shared>,
    /// Ends the rounds when nobody could ask for their effect any more.
    _rounds: Arc<Rounds>,
}

#[derive(Debug)]
struct Rounds(AbortHandle);

#[derive(Debug)]
struct Shared {
    quorum: QuorumHandle,
    leadership: watch::Receiver<Option<Leadership>>,
    rules: ControllerRules,
    state: Mutex<State>,
    /// A heartbeat asks for something that can be done at once.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// While this broker decides.
    active: Option<Active>,
    /// The leader that was known last, until this broker has begun to decide after it.
    led: Option<BrokerId>,
    /// Whom this broker was about to fence when it could decide no more, and in which term.
    given_up: Option<(u64, Vec<(BrokerId, BrokerEpoch)>)>,
}

/// What is known in one term.
#[derive(Debug)]
struct Active {
    term: u64,
    liveness: Liveness,
    completed: Completed,
    next_scan: Instant,
    /// The image that was looked at partition by partition last.
    scanned: Option<u64>,
    next_rebalance: Option<Instant>,
}

/// What comes of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeartbeatAnswer {
    /// Nobody else is given what the broker leads for so long, from when the heartbeat was sent. Zero where it is fenced, or
    /// about to be.
    Lease(Duration),
    /// Another broker decides.
    NotController {
        /// Who, where that is known.
        leader: Option<BrokerId>,
    },
    /// The registration counts no more; why.
    Refused(String),
}

impl Controller {
    /// Begins to run. It decides whenever this broker leads the quorum. Needs a tokio runtime.
    #[must_use]
    pub fn spawn(quorum: QuorumHandle, rules: ControllerRules) -> Controller {
        let leadership = quorum.leadership();
        Controller::following(quorum, leadership, rules)
    }

    fn following(
        quorum: QuorumHandle,
        leadership: watch::Receiver<Option<Leadership>>,
        rules: ControllerRules,
    ) -> Controller {
        let state = Mutex::default();
        let shared = Arc::new(Shared { quorum, leadership, rules, state, wake: Notify::new() });
        let run = shared.quorum.vitals().keep("deciding for the cluster", run(Arc::clone(&shared)));
        let rounds = tokio::spawn(run).abort_handle();
        Controller { shared, _rounds: Arc::new(Rounds(rounds)) }
    }

    /// A broker lives. Does not wait for anything.
    #[must_use]
    pub fn heartbeat(&self, heartbeat: &Heartbeat) -> HeartbeatAnswer {
        self.shared.heartbeat(heartbeat, Instant::now())
    }
}

/// Runs until the quorum is gone.
async fn run(shared: Arc<Shared>) {
    let mut images = shared.quorum.watch();
    let mut leadership = shared.leadership.clone();
    loop {
        images.mark_unchanged();
        leadership.mark_unchanged();
        let (commands, next) = shared.round(Instant::now());
        shared.carry_out(commands).await;
        let has_ended = tokio::select! {
            changed = images.changed() => changed.is_err(),
            changed = leadership.changed() => changed.is_err(),
            () = shared.wake.notified() => false,
            () = sleep_until(next) => false,
        };
        if has_ended {
            return;
        }
    }
}

impl Shared {
    fn heartbeat(&self, heartbeat: &Heartbeat, now: Instant) -> HeartbeatAnswer {
        let mut state = self.state.lock();
        let since_quorum_ack = self.quorum.since_quorum_ack();
        let decides = self.decide(&mut state, since_quorum_ack, now).zip(since_quorum_ack);
        let Some(((active, image), since_quorum_ack)) = decides else {
            return HeartbeatAnswer::NotController { leader: self.quorum.leader() };
        };
        match active.liveness.on_heartbeat(&image, heartbeat, since_quorum_ack, now) {
            Ok(lease) => {
                let broker = image.broker(heartbeat.broker);
                let is_due = broker.is_some_and(|broker| match heartbeat.wants {
                    Wants::Serve => broker.fenced,
                    Wants::Stop => !broker.stopping,
                });
                if is_due {
                    self.wake.notify_one();
                }
                HeartbeatAnswer::Lease(lease)
            }
            Err(e) => HeartbeatAnswer::Refused(e.to_string()),
        }
    }

    /// What is known, and the image to decide by; `None` where this broker does not decide. An image that is read while this
    /// broker leads has everything that was ever acknowledged.
    fn decide<'a>(
        &self,
        state: &'a mut State,
        since_quorum_ack: Option<Duration>,
        now: Instant,
    ) -> Option<(&'a mut Active, Arc<ClusterImage>)> {
        let Some(Leadership { term }) = *self.leadership.borrow() else {
            if let Some(Active { term, liveness, .. }) = state.active.take() {
                state.given_up = Some((term, liveness.given_up()));
            }
            // Elected, and not there yet: what counts is who led before.
            state.led = self.quorum.leader().filter(|leader| *leader != self.rules.own).or(state.led);
            return None;
        };
        // It may have stood still since it led: whom it has not heard of since then may live, and trust in another's word.
        if since_quorum_ack? > self.quorum.leader_lease() {
            return None;
        }
        let image = self.quorum.image();
        if state.active.as_ref().is_none_or(|active| active.term != term) {
            let since = self.quorum.followed_before(term).map(|at| now.saturating_duration_since(at));
            // Once for a term: in one that is taken up again after a while without a majority, this controller has granted leases itself.
            let led_before = state.led.take().zip(since);
            let mut liveness = Liveness::begin(&image, self.rules.session, led_before, now);
            // What it has proposed in this term may still be carried out. A later term begins behind it.
            let given_up = state.given_up.take().filter(|(of, _)| *of == term);
            for (broker, epoch) in given_up.into_iter().flat_map(|(_, given_up)| given_up) {
                liveness.give_up(broker, epoch);
            }
            state.active = Some(Active {
                term,
                liveness,
                completed: Completed::default(),
                next_scan: now,
                scanned: None,
                next_rebalance: self.rules.rebalance_interval.map(|interval| now + interval),
            });
        }
        state.active.as_mut().map(|active| (active, image))
    }

    /// What is to be done now, and when to look again.
    fn round(&self, now: Instant) -> (Vec<Command>, Instant) {
        let period = self.rules.session / ROUNDS;
        let mut state = self.state.lock();
        let Some((active, image)) = self.decide(&mut state, self.quorum.since_quorum_ack(), now) else {
            return (Vec::new(), now + period);
        };
        active.liveness.on_image(&image, now);
        // Where this runs, its broker lives: it is not fenced because the machine paused both.
        active.liveness.on_own_round(self.rules.own, now);
        let mut commands = duties::for_brokers(&image, &active.liveness, self.rules.feature_level_max, now);
        for command in &commands {
            if let Command::FenceBroker { broker, epoch } = command {
                // Before anybody could take it over, so that no heartbeat that comes meanwhile is granted a lease.
                active.liveness.give_up(*broker, *epoch);
            }
        }
        if now >= active.next_scan {
            active.next_scan = now + period;
            commands.append(&mut active.for_partitions(&image, &self.rules, now));
        }
        let next_end = active.liveness.next_end(&image).unwrap_or(active.next_scan);
        (commands, active.next_scan.min(next_end))
    }

    async fn carry_out(&self, commands: Vec<Command>) {
        // At once, so that they share an entry of the log.
        let mut under_way = JoinSet::new();
        for command in commands {
            tell(&command);
            let (quorum, within) = (self.quorum.clone(), self.rules.session);
            under_way.spawn(async move { quorum.propose_as_leader(command, within).await });
        }
        let mut failed = None;
        while let Some(outcome) = under_way.join_next().await {
            match outcome {
                Ok(Err(ProposeError::Refused(e))) => tracing::debug!(error = %e, "a duty was overtaken"),
                // Where that is no stop in good order, whoever waits for the quorum's failure tells it.
                Ok(Err(e @ ProposeError::Stopped { .. })) => {
                    tracing::debug!(error = %e, "the controller ends with the quorum");
                }
                Ok(Err(e)) => failed = Some(e),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
        if let Some(e) = failed {
            tracing::warn!(error = %e, "the controller could not do all that is to be done; it tries again");
        }
    }
}

impl Active {
    fn for_partitions(
        &mut self,
        image: &ClusterImage,
        rules: &ControllerRules,
        now: Instant,
    ) -> Vec<Command> {
        let mut commands = Vec::new();
        // In the same image the same is to be done, but for what heartbeats tell of moves.
        if self.scanned != Some(image.version()) || self.completed.is_waiting() {
            self.scanned = Some(image.version());
            commands = duties::for_partitions(image, &self.liveness, &mut self.completed, now);
        }
        if let (Some(due), Some(interval)) = (self.next_rebalance, rules.rebalance_interval)
            && now >= due
        {
            let mut elections = duties::preferred_leaders(image);
            // With more to do than one round takes, the next round goes on.
            let is_done = elections.len() < duties::ELECTIONS_MAX;
            self.next_rebalance = Some(if is_done { now + interval } else { now });
            commands.append(&mut elections);
        }
        commands
    }
}

fn tell(command: &Command) {
    match command {
        Command::FenceBroker { broker, .. } => {
            tracing::warn!(%broker, "the broker has been silent for a session: it leads nothing any more");
        }
        Command::UnfenceBroker { broker, .. } => tracing::info!(%broker, "the broker is ready: it may lead"),
        Command::BeginShutdown { broker, .. } => {
            tracing::info!(%broker, "the broker stops: others take over")
        }
        Command::SetFeatureLevel { level } => tracing::info!(level, "every broker knows this feature level"),
        _ => {}
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
