//! Brokers that die, lose their disks, start again and stop; and all of them at once, of which one stays away.

use floodmark_proto::ids::BrokerId;
use floodmark_replication::cluster::command::{Command, Election, Output};
use floodmark_replication::cluster::image::InSyncDefaults;

use crate::node::Replica;
use crate::world::{Event, Message, TOPIC, World};

impl World {
    pub(crate) fn power_cut(&mut self, n: usize) {
        let lucky = self.chance.below(3) as i64;
        let node = &mut self.nodes[n];
        node.is_starting = false;
        if !node.is_up {
            return self.note(Event::Nothing);
        }
        node.is_up = false;
        let mut lost = false;
        let end = node.replica.take().map(|mut replica| {
            let before = replica.log.end();
            replica.log.power_cut(lucky);
            let end = replica.log.end();
            node.replica = Some(Replica::new(replica.log, replica.state));
            lost = end < before;
            end
        });
        if lost {
            self.happened("unsynced records were lost");
        }
        self.truth.touched.push(n);
        self.note(Event::PowerCut { of: n, end: end.unwrap_or(-1) });
    }

    pub(crate) fn power_cut_all(&mut self) {
        for n in 0..self.nodes.len() {
            self.power_cut(n);
        }
        self.happened("all were killed");
    }

    /// A broker that is down starts: it says what it lacks, and registers.
    pub(crate) fn start(&mut self, n: usize) {
        if !self.nodes[n].is_down() {
            return self.note(Event::Nothing);
        }
        self.incarnations += 1;
        let broker = self.nodes[n].id;
        let has_to_tell = self.is_missing(n) && self.guards.says_what_it_lost;
        if has_to_tell && self.guards.tells_before_making {
            self.tell_lost(n);
            if self.is_cut_short(n) {
                return;
            }
        }
        let register = Command::RegisterBroker {
            broker,
            incarnation: uuid::Uuid::from_u128(self.incarnations),
            rack: None,
            endpoints: Vec::new(),
            feature_levels: (1, 3),
            directories: vec![uuid::Uuid::from_u128(1 + n as u128)],
            in_sync_defaults: Some(InSyncDefaults { is_synced: true, min_insync_replicas: 1 }),
        };
        let Ok(Output::BrokerRegistered { epoch }) = self.command(&register) else {
            self.truth.wrong = Some(format!("broker {broker} cannot register"));
            return;
        };
        if !self.guards.stays_as_it_starts {
            self.take_out(broker);
        }
        let node = &mut self.nodes[n];
        (node.is_starting, node.broker_epoch, node.incarnation) = (true, epoch, self.incarnations);
        self.truth.touched.push(n);
        self.note(Event::Started { by: n });
    }

    /// One that has registered opens what it has, and makes what it has not.
    pub(crate) fn open(&mut self, n: usize) {
        if !self.nodes[n].is_starting {
            return self.note(Event::Nothing);
        }
        let (broker, is_missing) = (self.nodes[n].id, self.is_missing(n));
        let node = &mut self.nodes[n];
        (node.is_starting, node.is_up) = (false, true);
        node.opened += 1;
        self.observe(n, true);
        if is_missing && self.is_cut_short(n) {
            return;
        }
        if is_missing && self.guards.says_what_it_lost {
            self.tell_lost(n);
        }
        // Whatever it had to say is said.
        self.nodes[n].has_lost &= self.counts_as_holding(broker) && self.state().is_lost;
        self.truth.touched.push(n);
        self.note(Event::Opened { by: n });
    }

    /// Whether everybody takes this broker for one that has all that was acknowledged.
    fn counts_as_holding(&self, broker: BrokerId) -> bool {
        self.image.topic_by_id(TOPIC.id()).is_some() && self.state().isr.contains(&broker)
    }

    fn is_missing(&self, n: usize) -> bool {
        self.nodes[n].replica.is_none() && self.counts_as_holding(self.nodes[n].id)
    }

    /// A broker says under its last registration that it has lost its log.
    fn tell_lost(&mut self, n: usize) {
        let broker = self.nodes[n].id;
        let Some(epoch) = self.image.broker(broker).map(|registered| registered.epoch) else { return };
        let _ = self.command(&Command::FenceBroker { broker, epoch });
        let partitions = vec![(TOPIC.id(), 0)];
        let _ = self.command(&Command::LoseReplicas { broker, epoch, partitions });
    }

    /// The process of a broker that starts is killed now and then. What it has made by then is there at its next start.
    fn is_cut_short(&mut self, n: usize) -> bool {
        if self.is_healing || self.cut_starts.below(3) > 0 {
            return false;
        }
        let node = &mut self.nodes[n];
        (node.is_up, node.is_starting) = (false, false);
        node.replica = node.replica.take().map(|replica| Replica::new(replica.log, replica.state));
        let end = node.replica.as_ref().map_or(-1, |replica| replica.log.end());
        self.happened("a start without its log was cut short");
        self.truth.touched.push(n);
        self.note(Event::PowerCut { of: n, end });
        true
    }

    /// Has a member leave that should not, for a run that does without what keeps it.
    pub(crate) fn take_out(&mut self, broker: BrokerId) {
        let is_shared = self.image.topic_by_id(TOPIC.id()).is_some() && self.state().isr.len() > 1;
        let epoch = self.image.broker(broker).map(|broker| broker.epoch);
        if let Some(epoch) = epoch.filter(|_| is_shared && self.state().isr.contains(&broker)) {
            let partitions = vec![(TOPIC.id(), 0)];
            let _ = self.command(&Command::LoseReplicas { broker, epoch, partitions });
            self.truth.said_lost.retain(|r| *r != broker);
        }
    }

    /// A disk is lost, of a broker that is down: of the replicas in sync never half or more, but all but one where nobody leads.
    pub(crate) fn wipe(&mut self, n: usize) {
        let id = self.nodes[n].id;
        let (isr, leads) = (self.state().isr.to_vec(), self.state().leader.is_some());
        let lost = self.nodes.iter().filter(|node| node.has_lost && isr.contains(&node.id)).count();
        let is_few = 2 * (lost + 1) < isr.len() || (!leads && lost + 1 < isr.len());
        let is_covered = !isr.contains(&id) || is_few;
        if !self.nodes[n].is_down() || !is_covered {
            return self.note(Event::Nothing);
        }
        let log = self.nodes[n].replica.take().map(|replica| replica.log);
        if !isr.contains(&id) {
            self.nodes[n].left = log;
        }
        self.nodes[n].has_lost = true;
        self.happened("a disk was lost");
        self.truth.touched.push(n);
        self.note(Event::Wiped { of: n });
        // Only so that it is seen soon: seldom is one back before what was proposed of its start before is decided.
        if !self.guards.joins_by_registration && !isr.contains(&id) {
            self.start(n);
            self.open(n);
            self.unfence(n);
        }
    }

    pub(crate) fn stop_if_begun(&mut self, n: usize) {
        let has_begun = self.image.broker(self.nodes[n].id).is_some_and(|b| b.stopping);
        if has_begun { self.stop(n) } else { self.note(Event::Nothing) }
    }

    /// A broker stops in order, or says that it is about to.
    pub(crate) fn stop(&mut self, n: usize) {
        let (broker, epoch) = (self.nodes[n].id, self.nodes[n].broker_epoch);
        if !self.nodes[n].is_up {
            return self.note(Event::Nothing);
        }
        if self.image.broker(broker).is_some_and(|b| !b.stopping) {
            let _ = self.command(&Command::BeginShutdown { broker, epoch });
            return;
        }
        let _ = self.command(&Command::FenceBroker { broker, epoch });
        let node = &mut self.nodes[n];
        node.is_up = false;
        if let Some(mut replica) = node.replica.take() {
            replica.log.sync();
            replica.log.power_cut(0);
            node.replica = Some(Replica::new(replica.log, replica.state));
        }
        self.truth.touched.push(n);
        self.note(Event::Stopped { by: n });
    }

    /// All are killed in one moment, of a cluster that was whole, and all but one come back, in any order. Somebody must lead then, unless
    /// the one that stays away could have acknowledged alone.
    pub(crate) fn outage(&mut self) -> Result<(), String> {
        for _ in 0..60 {
            self.truth.touched.clear();
            let n = self.below(self.nodes.len());
            match self.below(4) {
                0 => self.produce(n),
                1 => self.fetch(n),
                2 => self.sync(n),
                _ => self.deliver_some(),
            }
            crate::invariants::check(self)?;
        }
        // What a leader proposed of its last breath would make another set of it.
        self.wires.retain(|message| !matches!(message, Message::Propose { .. }));
        self.slow.clear();
        self.power_cut_all();
        let (replicas, isr) = (self.state().replicas.clone(), self.state().isr.clone());
        let away = replicas[self.below(replicas.len())];
        let others: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].id != away).collect();
        for _ in 0..400 {
            self.truth.touched.clear();
            let n = others[self.below(others.len())];
            match self.below(5) {
                0 => self.start(n),
                1 => self.open(n),
                2 => self.unfence(n),
                3 => self.fence_away(away),
                _ => self.deliver_some(),
            }
            crate::invariants::check(self)?;
        }
        self.fence_away(away);
        let (topic, partition, election) = (TOPIC.id(), 0, Election::InSync);
        let _ = self.command(&Command::ElectLeader { topic, partition, election });
        let is_due = self.min_isr > 1 && isr.len() > 1;
        match self.state().leader {
            None if is_due => Err(format!("nobody leads while {away} is away: {:?}", self.state())),
            Some(_) if isr.len() > 1 => {
                self.happened("somebody led while one was away");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn fence_away(&mut self, broker: BrokerId) {
        if let Some(registered) = self.image.broker(broker).filter(|registered| !registered.fenced) {
            let epoch = registered.epoch;
            self.fence(broker, epoch);
        }
    }

    pub(crate) fn fence(&mut self, broker: BrokerId, epoch: floodmark_proto::ids::BrokerEpoch) {
        let done = self.command(&Command::FenceBroker { broker, epoch });
        if done.is_ok() && !self.guards.stays_as_it_is_fenced {
            self.take_out(broker);
        }
    }
}
