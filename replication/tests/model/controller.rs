//! What a controller, an operator and time do to the cluster: fencing, elections, moves. And the end of a run, when all faults end and the
//! cluster has to become whole.

use floodmark_proto::ids::BrokerId;
use floodmark_replication::cluster::command::{Command, Election};

use crate::node::Part;
use crate::world::{Event, TOPIC, World};

impl World {
    /// `what` is below 95.
    pub(crate) fn control(&mut self, n: usize, what: usize) {
        let (topic, partition) = (TOPIC.id(), 0);
        let command = match what {
            0..4 => {
                // It is only not heard.
                let broker = BrokerId(self.mostly_leader(n) as i32);
                let is_now = self.is_bad_day();
                let Some(registered) = self.image.broker(broker).filter(|_| is_now) else {
                    return self.note(Event::Nothing);
                };
                let epoch = registered.epoch;
                return self.fence(broker, epoch);
            }
            4..10 => {
                let n = self.one_of(n, |world, node| !node.is_up && world.image.is_live(node.id));
                let broker = self.nodes[n].id;
                let Some(registered) = self.image.broker(broker).filter(|_| !self.nodes[n].is_up) else {
                    return self.note(Event::Nothing);
                };
                let epoch = registered.epoch;
                return self.fence(broker, epoch);
            }
            10..40 => {
                let n = self.one_of(n, |world, node| node.is_up && !world.image.is_live(node.id));
                return self.unfence(n);
            }
            40..64 => Command::ElectLeader { topic, partition, election: Election::Preferred },
            64..72 => Command::ElectLeader { topic, partition, election: Election::InSync },
            72..79 => Command::MovePartition { topic, partition, replicas: self.some_brokers() },
            79..85 => Command::CancelMove { topic, partition },
            _ => return self.finish_move(),
        };
        let _ = self.command(&command);
    }

    /// A broker that is up and sends heartbeats is let in again.
    pub(crate) fn unfence(&mut self, n: usize) {
        let (broker, epoch, is_up) = (self.nodes[n].id, self.nodes[n].broker_epoch, self.nodes[n].is_up);
        if !is_up || self.image.is_live(broker) {
            return self.note(Event::Nothing);
        }
        let _ = self.command(&Command::UnfenceBroker { broker, epoch });
    }

    fn some_brokers(&mut self) -> Vec<BrokerId> {
        let mut left: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        let count = 2 + self.below(2);
        (0..count).map(|_| left.remove(self.below(left.len()))).collect()
    }

    /// Once those that are taken out know that they lead no more.
    pub(crate) fn finish_move(&mut self) {
        let since = self.epoch_since.1;
        let state = self.state();
        let knows = |b: &BrokerId| {
            let node = &self.nodes[b.0 as usize];
            !node.is_up || node.image.version() >= since
        };
        if !state.is_moving() || !state.removing.iter().all(knows) {
            return self.note(Event::Nothing);
        }
        let partition_epoch = state.partition_epoch;
        let _ = self.command(&Command::FinishMove { topic: TOPIC.id(), partition: 0, partition_epoch });
    }

    /// All faults end: everybody starts, hears everything and is heard.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.wires.clear();
        self.slow.clear();
        self.one_slow_of = u64::MAX;
        self.is_healing = true;
        for _ in 0..400 {
            self.truth.touched.clear();
            self.now_ms += 400;
            let (topic, partition) = (TOPIC.id(), 0);
            for n in 0..self.nodes.len() {
                let is_stopping = self.image.broker(self.nodes[n].id).is_some_and(|b| b.stopping);
                if is_stopping {
                    self.nodes[n].is_up = false;
                }
                self.start(n);
                self.open(n);
                self.unfence(n);
            }
            if self.state().leader.is_none() {
                let election = Election::InSync;
                let _ = self.command(&Command::ElectLeader { topic, partition, election });
            }
            for n in 0..self.nodes.len() {
                self.observe(n, true);
                self.sync(n);
                self.fetch(n);
            }
            for n in 0..self.nodes.len() {
                self.propose_isr(n);
            }
            self.finish_move();
            // What these bring is delivered in the next round.
            for message in std::mem::take(&mut self.wires) {
                self.deliver(message);
            }
            self.truth.touched = (0..self.nodes.len()).collect();
            crate::invariants::check(self)?;
            if self.is_whole() {
                return Ok(());
            }
        }
        Err(format!("it does not become whole: {:?}", self.state()))
    }

    fn is_whole(&self) -> bool {
        let state = self.state();
        let holders: Vec<_> = self
            .nodes
            .iter()
            .filter(|n| state.replicas.contains(&n.id))
            .filter_map(|n| n.replica.as_ref())
            .collect();
        let Some(leader) = holders.iter().find(|r| matches!(r.part, Part::Leads(_))) else { return false };
        let log = &leader.log;
        !state.is_moving()
            && state.isr.len() == state.replicas.len()
            && holders.iter().all(|r| {
                let from = r.log.start.max(log.start);
                r.log.from(from) == log.from(from) && r.log.high_watermark == log.end()
            })
    }
}
