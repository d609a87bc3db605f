//! Which brokers have been heard of, and for how long they may trust in it. Pure: the time comes in as an argument.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId};
use tokio::time::Instant;

use crate::cluster::ClusterImage;

/// Moments that are remembered of the image, in one session.
const MOMENTS: u32 = 64;
/// Of a session that everybody has to find a new controller, however long it cannot have had a lease.
const TIMES_TO_FIND: u32 = 8;

/// What a broker wants of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// To lead and to be in sync.
    Serve,
    /// To hand over what it leads, and go.
    Stop,
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who lives.
    pub broker: BrokerId,
    /// Of its registration.
    pub epoch: BrokerEpoch,
    /// Version of its image when it sent this.
    pub image_version: u64,
    /// What it wants.
    pub wants: Wants,
}

/// Why a heartbeat counts for nothing: the broker must register again, and so start again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeartbeatError {
    /// It is not registered.
    #[error("broker {broker} is not registered: it was removed from the cluster")]
    NotRegistered {
        /// The broker.
        broker: BrokerId,
    },
    /// It has registered again since.
    #[error("broker {broker} has been started again elsewhere: its registration is {current}, not {given}")]
    StaleEpoch {
        /// The broker.
        broker: BrokerId,
        /// What the heartbeat says.
        given: BrokerEpoch,
        /// What is true.
        current: BrokerEpoch,
    },
}

/// What is known of each broker's life. Made anew by each controller when it begins to decide.
#[derive(Debug)]
pub(crate) struct Liveness {
    session: Duration,
    sessions: BTreeMap<BrokerId, Session>,
    moments: Moments,
}

/// Of one registration.
#[derive(Debug, Clone, Copy)]
struct Session {
    epoch: BrokerEpoch,
    heard: Instant,
    /// The last heartbeat, where one came to this controller.
    last: Option<Heartbeat>,
    /// It has been decided to fence it; nothing it says changes that.
    is_given_up: bool,
}

/// When the image was last seen at which version.
#[derive(Debug)]
struct Moments {
    past: VecDeque<(u64, Instant)>,
    now: (u64, Instant),
    apart: Duration,
    kept_for: Duration,
}

impl Liveness {
    /// A controller begins. Everybody has a whole session to find it. The one that led before was given up by a majority: it has the rest
    /// of a session, given how long ago any controller before this one can have granted a lease.
    pub(crate) fn begin(
        image: &ClusterImage,
        session: Duration,
        led_before: Option<(BrokerId, Duration)>,
        now: Instant,
    ) -> Liveness {
        let heard = |broker| {
            let silent =
                led_before.filter(|(led, _)| *led == broker).map_or(Duration::ZERO, |(_, for_)| for_);
            now.checked_sub(silent.min(session - session / TIMES_TO_FIND)).unwrap_or(now)
        };
        let of = |broker: &crate::cluster::Broker| Session {
            epoch: broker.epoch,
            heard: heard(broker.id),
            last: None,
            is_given_up: false,
        };
        Liveness {
            session,
            sessions: image.brokers().map(|broker| (broker.id, of(broker))).collect(),
            moments: Moments {
                past: VecDeque::new(),
                now: (image.version(), now),
                apart: session / MOMENTS,
                kept_for: session,
            },
        }
    }

    /// The image is as it is now. Called with each heartbeat and each round of duties.
    pub(crate) fn on_image(&mut self, image: &ClusterImage, now: Instant) {
        self.moments.note(image.version(), now);
        self.sessions
            .retain(|broker, session| image.broker(*broker).is_some_and(|b| b.epoch == session.epoch));
        for broker in image.brokers() {
            let fresh = Session { epoch: broker.epoch, heard: now, last: None, is_given_up: false };
            let session = self.sessions.entry(broker.id).or_insert(fresh);
            if broker.fenced {
                // What was decided has been carried out.
                session.is_given_up = false;
            }
        }
    }

    /// A broker lives. Answers how long it may trust in that, given how long ago a majority followed this controller.
    pub(crate) fn on_heartbeat(
        &mut self,
        image: &ClusterImage,
        heartbeat: &Heartbeat,
        since_quorum_ack: Duration,
        now: Instant,
    ) -> Result<Duration, HeartbeatError> {
        let Heartbeat { broker: id, epoch: given, .. } = *heartbeat;
        let broker = image.broker(id).ok_or(HeartbeatError::NotRegistered { broker: id })?;
        if broker.epoch != given {
            return Err(HeartbeatError::StaleEpoch { broker: id, given, current: broker.epoch });
        }
        self.on_image(image, now);
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(Duration::ZERO) };
        session.heard = now;
        session.last = Some(*heartbeat);
        // Whoever is to be fenced has nothing from here on: others are given what it leads.
        if session.is_given_up || broker.fenced {
            return Ok(Duration::ZERO);
        }
        // A broker with an old image may have lost a leadership without knowing it: its trust counts from when its image was new.
        let since_new = self.staleness(heartbeat.image_version, now).unwrap_or(self.session);
        Ok(self.session.saturating_sub(since_quorum_ack).saturating_sub(since_new))
    }

    /// The broker of this controller lives, whatever it wants.
    pub(crate) fn on_own_round(&mut self, own: BrokerId, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&own) {
            session.heard = now;
        }
    }

    /// The broker is to be fenced; it gets no lease any more.
    pub(crate) fn give_up(&mut self, broker: BrokerId, epoch: BrokerEpoch) {
        if let Some(session) = self.sessions.get_mut(&broker).filter(|session| session.epoch == epoch) {
            session.is_given_up = true;
        }
    }

    /// Those that are to be fenced, and of whom it is not known yet that they are.
    pub(crate) fn given_up(&self) -> Vec<(BrokerId, BrokerEpoch)> {
        let given_up = self.sessions.iter().filter(|(_, session)| session.is_given_up);
        given_up.map(|(broker, session)| (*broker, session.epoch)).collect()
    }

    /// True where it has been silent for a session, or is given up for that.
    pub(crate) fn is_silent(&self, broker: BrokerId, now: Instant) -> bool {
        self.sessions
            .get(&broker)
            .is_some_and(|session| session.is_given_up || session.heard + self.session <= now)
    }

    /// When the next broker will have been silent for a session, unless it says something.
    pub(crate) fn next_end(&self, image: &ClusterImage) -> Option<Instant> {
        let waited_for = |id: &BrokerId, session: &Session| {
            !session.is_given_up && image.broker(*id).is_some_and(|broker| !broker.fenced)
        };
        let sessions = self.sessions.iter().filter(|(id, session)| waited_for(id, session));
        sessions.map(|(_, session)| session.heard + self.session).min()
    }

    /// What a broker that lives said last to this controller.
    pub(crate) fn last(&self, broker: BrokerId, now: Instant) -> Option<&Heartbeat> {
        if self.is_silent(broker, now) {
            return None;
        }
        self.sessions.get(&broker)?.last.as_ref()
    }

    /// True where what a broker said of its image was true of the controller's within half a session.
    pub(crate) fn is_fresh(&self, image_version: u64, now: Instant) -> bool {
        self.staleness(image_version, now).is_some_and(|since| since <= self.session / 2)
    }

    /// How long ago the image was surely at this version; `None` for longer than a session.
    fn staleness(&self, image_version: u64, now: Instant) -> Option<Duration> {
        self.moments.last_at(image_version).map(|at| now.saturating_duration_since(at))
    }
}

impl Moments {
    fn note(&mut self, version: u64, now: Instant) {
        let (held, at) = self.now;
        let is_due =
            self.past.back().is_none_or(|(_, last)| at.saturating_duration_since(*last) >= self.apart);
        if version != held && is_due {
            self.past.push_back((held, at));
        }
        self.now = (version, now);
        while self.past.front().is_some_and(|(_, at)| now.saturating_duration_since(*at) > self.kept_for) {
            self.past.pop_front();
        }
    }

    /// The last moment at which the image was at this version or an older one, as far as is remembered.
    fn last_at(&self, version: u64) -> Option<Instant> {
        if version >= self.now.0 {
            return Some(self.now.1);
        }
        self.past.iter().rev().find(|(held, _)| *held <= version).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests;
