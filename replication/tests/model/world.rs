//! Some brokers, the wires between them, the cluster's one image and what clients were told: everything that a seed decides, and one step of
//! it after the other.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, ClusterId, TopicId};
use floodmark_replication::cluster::command::{Command, CommandError, Output};
use floodmark_replication::cluster::{ClusterImage, Partition, apply};
use floodmark_replication::partition::follower::Step;
use floodmark_replication::partition::leader::Leader;
use floodmark_replication::partition::{Fetched, ReplicaFetch};
use floodmark_storage::random::SplitMix;

use crate::guards::Guards;
use crate::log::{Log, Record};
use crate::node::{Node, Part, Replica, Wait};

/// The only topic.
pub(crate) struct OnlyTopic;
pub(crate) const TOPIC: OnlyTopic = OnlyTopic;

impl OnlyTopic {
    pub(crate) fn id(&self) -> TopicId {
        TopicId::from_bytes([7; 16]).expect("no reserved id")
    }
}

/// Messages on the wires at most: beyond, the oldest is lost.
const WIRES_MAX: usize = 48;
/// Producers, each with its own sequence numbers.
pub(crate) const PRODUCERS: u8 = 2;
/// Steps of which a failure tells.
const EVENTS_KEPT: usize = 300;

#[derive(Debug, Clone)]
pub(crate) enum Message {
    Fetch { to: usize, said: ReplicaFetch },
    Answer { to: usize, fetched: Fetched, records: Vec<Record> },
    Propose { from: usize, command: Command },
    ProposalAnswer { to: usize, answer: Result<i32, CommandError> },
    Produce { to: usize, producer: u8, sequence: u32 },
    Acked { producer: u8, sequence: u32 },
}

/// What happened in a step, for whoever reads a failure.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) enum Event {
    Fetched { by: usize, of: usize, end: i64, synced: i64 },
    Copied { by: usize, end: i64, watermark: i64, was_taken: bool },
    Proposed { by: usize, members: usize, partition_epoch: i32 },
    Agreed { version: u64 },
    Refused,
    Appended { by: usize, producer: u8, sequence: u32, was_taken: bool },
    Acked { offset: i64, producer: u8, sequence: u32 },
    Synced { by: usize, end: i64 },
    Observed { by: usize, version: u64 },
    Read { of: usize, up_to: i64 },
    PowerCut { of: usize, end: i64 },
    Started { by: usize },
    Opened { by: usize },
    Stopped { by: usize },
    Wiped { of: usize },
    Deleted { by: usize, before: i64 },
    Dropped,
    Nothing,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) chance: SplitMix,
    /// Where starts that find no log end early. By itself, so that histories without such a start stay what they were.
    pub(crate) cut_starts: SplitMix,
    /// All faults have ended.
    pub(crate) is_healing: bool,
    pub(crate) guards: Guards,
    pub(crate) now_ms: u64,
    pub(crate) image: Arc<ClusterImage>,
    /// Earlier ones, which a broker may still come to see.
    images: VecDeque<Arc<ClusterImage>>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) wires: Vec<Message>,
    /// What takes so long that the world is another one when it arrives.
    pub(crate) slow: Vec<Message>,
    pub(crate) min_isr: usize,
    /// Of so many faults that could happen one does.
    calm: u64,
    /// Of so many messages one is slow.
    pub(crate) one_slow_of: u64,
    /// After which a replica that lacks something leaves the in-sync set.
    lag_ms: u64,
    /// By producer: what it was told of.
    told: Vec<Option<u32>>,
    pub(crate) truth: Truth,
    pub(crate) events: VecDeque<Event>,
    trace: DefaultHasher,
    pub(crate) incarnations: u128,
    /// The leader epoch, and the version of the image with which it began.
    pub(crate) epoch_since: (i32, u64),
}

/// What was promised to somebody so far.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// By offset: what some leader has counted as committed.
    pub(crate) committed: BTreeMap<i64, Record>,
    /// By offset: what some producer was told is kept.
    pub(crate) acked: BTreeMap<i64, Record>,
    /// By offset: what some consumer has read.
    pub(crate) read: BTreeMap<i64, Record>,
    /// By leader epoch: who led.
    pub(crate) leaders: BTreeMap<i32, BrokerId>,
    /// The watermark of each broker, as it was after the step before; `None` where it was down or had nothing.
    pub(crate) watermarks: Vec<Option<i64>>,
    /// Of which log of the broker that is true.
    pub(crate) opened: Vec<u64>,
    /// Offsets that the step has read for the first time.
    pub(crate) read_now: Vec<i64>,
    /// What the run has come to, and how often.
    pub(crate) happened: BTreeMap<&'static str, u64>,
    /// What a step found wrong by itself.
    pub(crate) wrong: Option<String>,
    /// Brokers that the step changed.
    pub(crate) touched: Vec<usize>,
    /// The in-sync set as it was when somebody led last, less those that moves have taken out since.
    pub(crate) last_led: Vec<BrokerId>,
    /// Of those, who has said since that it lost what it had.
    pub(crate) said_lost: Vec<BrokerId>,
}

impl World {
    pub(crate) fn new(seed: u64, guards: Guards) -> World {
        let mut chance = SplitMix::new(seed);
        let count = 3 + chance.below(3) as usize;
        let image = Arc::new(ClusterImage::new(ClusterId::from_bytes([3; 16])));
        let node = |n: usize| Node {
            id: BrokerId(n as i32),
            is_up: false,
            is_starting: false,
            incarnation: 0,
            broker_epoch: BrokerEpoch(-1),
            image: Arc::clone(&image),
            replica: None,
            left: None,
            has_lost: false,
            opened: 0,
        };
        let mut world = World {
            min_isr: 1 + chance.below(2) as usize,
            calm: [1, 3, 9][chance.below(3) as usize],
            one_slow_of: [3, 12][chance.below(2) as usize],
            lag_ms: [800, 2_000, 6_000][chance.below(3) as usize],
            chance,
            cut_starts: SplitMix::new(!seed),
            is_healing: false,
            guards,
            now_ms: 0,
            nodes: (0..count).map(node).collect(),
            images: VecDeque::new(),
            image,
            wires: Vec::new(),
            slow: Vec::new(),
            told: vec![None; usize::from(PRODUCERS)],
            truth: Truth { watermarks: vec![None; count], opened: vec![0; count], ..Truth::default() },
            events: VecDeque::new(),
            trace: DefaultHasher::new(),
            incarnations: 0,
            epoch_since: (0, 0),
        };
        world.found();
        world
    }

    fn found(&mut self) {
        let _ = self.command(&Command::SetFeatureLevel { level: 3 });
        for n in 0..self.nodes.len() {
            self.start(n);
            self.open(n);
            self.unfence(n);
        }
        let assignments = vec![(0..3).map(BrokerId).collect()];
        let settings = vec![("min.insync.replicas".to_owned(), self.min_isr.to_string())];
        let create = Command::CreateTopic { name: "t".into(), id: TOPIC.id(), assignments, settings };
        self.command(&create).expect("a good topic");
        for n in 0..self.nodes.len() {
            self.observe(n, true);
        }
    }

    /// The partition as the cluster has agreed.
    pub(crate) fn state(&self) -> &Partition {
        self.image.topic_by_id(TOPIC.id()).and_then(|t| t.partition(0)).expect("the only partition")
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(crate) fn note(&mut self, event: Event) {
        event.hash(&mut self.trace);
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.chance.below(limit as u64) as usize
    }

    /// One step: something happens to somebody.
    pub(crate) fn step(&mut self) {
        self.truth.touched.clear();
        self.truth.read_now.clear();
        self.now_ms += self.chance.below(12);
        let n = self.below(self.nodes.len());
        let known = self.image.version();
        match self.below(1000) {
            0..20 => self.deliver_slow(),
            20..410 => self.deliver_some(),
            410..470 => self.fetch(n),
            470..560 => {
                let has_to = |node: &Node| node.replica.as_ref().is_some_and(|r| r.log.durable < r.log.end());
                let n = self.one_of(n, |_, node| node.is_up && has_to(node));
                self.sync(n);
            }
            560..640 => self.produce(n),
            640..660 => self.read(n),
            660..790 => {
                let n = self.one_of(n, |_, node| node.is_up && node.image.version() < known);
                self.observe(n, false);
            }
            790..842 => {
                let n = self.mostly_leader(n);
                self.propose_isr(n);
            }
            842..852 => {
                let n = self.mostly_leader(n);
                self.give_up_answer(n);
            }
            852..872 => {
                let n = self.one_of(n, |_, node| !node.is_up);
                if self.nodes[n].is_starting { self.open(n) } else { self.start(n) }
            }
            872..880 => {
                let n = self.one_of(n, |world, node| world.image.broker(node.id).is_some_and(|b| b.stopping));
                self.stop_if_begun(n);
            }
            880..900 if !self.is_bad_day() => self.note(Event::Nothing),
            880 => self.power_cut_all(),
            881..890 => self.power_cut(n),
            890..896 => {
                let n = self.one_of(n, |_, node| node.is_down() && node.replica.is_some());
                self.wipe(n);
            }
            896..900 => self.stop(n),
            900..905 => {
                let n = self.mostly_leader(n);
                self.delete(n);
            }
            other => self.control(n, other - 905),
        }
    }

    /// The first broker from `n` on of which something is true; `n` where it is of none.
    pub(crate) fn one_of(&self, n: usize, is_it: impl Fn(&World, &Node) -> bool) -> usize {
        let count = self.nodes.len();
        (0..count).map(|i| (n + i) % count).find(|n| is_it(self, &self.nodes[*n])).unwrap_or(n)
    }

    /// Whether what goes wrong now and then does so now: in some worlds often, in others seldom enough for much to get done.
    pub(crate) fn is_bad_day(&mut self) -> bool {
        self.chance.below(self.calm) == 0
    }

    /// The broker that leads by the cluster's word, or now and then `n`.
    pub(crate) fn mostly_leader(&mut self, n: usize) -> usize {
        let leader = self.state().leader.map_or(n, |leader| leader.0 as usize);
        if self.below(4) == 0 { n } else { leader }
    }

    pub(crate) fn send(&mut self, message: Message) {
        let is_slow = self.chance.below(self.one_slow_of) == 0;
        let wires = if is_slow { &mut self.slow } else { &mut self.wires };
        if wires.len() == WIRES_MAX {
            wires.remove(0);
        }
        wires.push(message);
    }

    pub(crate) fn deliver_some(&mut self) {
        if self.wires.is_empty() {
            return self.note(Event::Nothing);
        }
        // The older ones more often, so that some of it goes in order.
        let at = self.below(self.wires.len()).min(self.below(self.wires.len()));
        match self.below(10) {
            0 => {
                self.wires.remove(at);
                self.note(Event::Dropped);
            }
            1 => {
                let again = self.wires[at].clone();
                self.deliver(again);
            }
            _ => {
                let message = self.wires.remove(at);
                self.deliver(message);
            }
        }
    }

    pub(crate) fn deliver_slow(&mut self) {
        if self.slow.is_empty() {
            return self.note(Event::Nothing);
        }
        let at = self.below(self.slow.len());
        let message = self.slow.remove(at);
        self.happened("a slow message arrived");
        self.deliver(message);
    }

    pub(crate) fn happened(&mut self, what: &'static str) {
        *self.truth.happened.entry(what).or_insert(0) += 1;
    }

    pub(crate) fn deliver(&mut self, message: Message) {
        match message {
            Message::Fetch { to, said } => self.on_fetch(to, &said),
            Message::Answer { to, fetched, records } => {
                let guards = self.guards;
                let Some(replica) = self.up(to) else { return self.note(Event::Dropped) };
                let step = replica.on_fetched(&fetched, &records, guards);
                let was_taken = step.is_some();
                let (end, watermark) = (replica.log.end(), replica.log.high_watermark);
                self.truth.touched.push(to);
                match step {
                    Some(Step::Cut { .. }) => self.happened("a log was cut"),
                    Some(Step::Reset { .. }) => self.happened("a log began again"),
                    Some(Step::Append { .. }) | None => {}
                }
                self.note(Event::Copied { by: to, end, watermark, was_taken });
                // As a follower does: it asks on.
                if was_taken && self.below(3) > 0 {
                    self.fetch(to);
                }
            }
            Message::Propose { from, command } => {
                let answer = match self.command(&command) {
                    Ok(Output::IsrChanged { partition_epoch }) => Ok(partition_epoch),
                    Err(e) => Err(e),
                    Ok(other) => {
                        self.truth.wrong = Some(format!("a proposal was answered with {other:?}"));
                        return;
                    }
                };
                self.send(Message::ProposalAnswer { to: from, answer });
            }
            Message::ProposalAnswer { to, answer } => {
                if let Some(leader) = self.leader(to) {
                    leader.on_isr_answer(&answer);
                }
                self.note(Event::Nothing);
            }
            Message::Produce { to, producer, sequence } => {
                let min_isr = self.min_isr;
                let end = self.up(to).map(|replica| replica.log.end());
                let was_taken =
                    self.up(to).is_some_and(|replica| replica.produce(producer, sequence, min_isr));
                if was_taken && self.up(to).map(|replica| replica.log.end()) == end {
                    self.happened("a retry was found in the log");
                }
                self.note(Event::Appended { by: to, producer, sequence, was_taken });
                self.advance(to);
            }
            Message::Acked { producer, sequence } => {
                let told = &mut self.told[usize::from(producer)];
                *told = (*told).max(Some(sequence));
                self.note(Event::Nothing);
            }
        }
    }

    pub(crate) fn up(&mut self, n: usize) -> Option<&mut Replica> {
        let node = &mut self.nodes[n];
        node.replica.as_mut().filter(|_| node.is_up)
    }

    fn leader(&mut self, n: usize) -> Option<&mut Leader> {
        match &mut self.up(n)?.part {
            Part::Leads(leader) => Some(leader),
            Part::Follows(_) | Part::Idles => None,
        }
    }

    pub(crate) fn fetch(&mut self, n: usize) {
        let asked = if self.nodes[n].is_up { self.nodes[n].fetch(self.guards) } else { None };
        let Some((leader, said)) = asked else { return self.note(Event::Nothing) };
        let to = leader.0 as usize;
        self.note(Event::Fetched { by: n, of: to, end: said.fetch_offset.0, synced: said.synced_end.0 });
        self.send(Message::Fetch { to, said });
    }

    fn on_fetch(&mut self, to: usize, said: &ReplicaFetch) {
        let (guards, now_ms) = (self.guards, self.now_ms);
        let max = 1 + self.below(4);
        let from = self.nodes[to].id;
        let Some(replica) = self.up(to) else { return self.note(Event::Dropped) };
        let answer = replica.on_fetch(from, said, (now_ms, max), guards);
        self.advance(to);
        if let Some((fetched, records)) = answer {
            self.send(Message::Answer { to: said.replica.0 as usize, fetched, records });
        }
        self.note(Event::Nothing);
    }

    /// The watermark of a leader follows, and whoever waited for it is told.
    pub(crate) fn advance(&mut self, n: usize) {
        self.truth.touched.push(n);
        let (guards, min_isr) = (self.guards, self.min_isr);
        let Some(replica) = self.up(n) else { return };
        let before = replica.log.high_watermark;
        let done = replica.advance(min_isr, guards);
        if replica.leads() {
            let (epoch, after) = (replica.state.leader_epoch.0, replica.log.high_watermark);
            let passed: Vec<_> = (before..after).filter_map(|at| Some((at, replica.log.get(at)?))).collect();
            self.commit(n, epoch, &passed);
        }
        for wait in done {
            self.acknowledge(wait);
        }
    }

    fn commit(&mut self, n: usize, epoch: i32, passed: &[(i64, Record)]) {
        let id = self.nodes[n].id;
        let leads = *self.truth.leaders.entry(epoch).or_insert(id);
        if leads != id {
            self.truth.wrong = Some(format!("brokers {leads} and {id} both lead in epoch {epoch}"));
        }
        for (offset, record) in passed {
            let committed = *self.truth.committed.entry(*offset).or_insert(*record);
            if committed != *record {
                self.truth.wrong =
                    Some(format!("offset {offset} was committed as {committed:?} and as {record:?}"));
            }
        }
    }

    fn acknowledge(&mut self, Wait { offset, record, .. }: Wait) {
        let has_it = |node: &&Node| {
            let logs = node.replica.as_ref().map(|replica| &replica.log).into_iter().chain(&node.left);
            // What was deleted on purpose was there.
            let mut had = logs
                .map(|log| log.start > offset || (log.get(offset) == Some(record) && log.durable > offset));
            had.any(|had| had)
        };
        let copies = self.nodes.iter().filter(has_it).count();
        self.note(Event::Acked { offset, producer: record.producer, sequence: record.sequence });
        if copies < self.min_isr {
            self.truth.wrong =
                Some(format!("offset {offset} was acknowledged with {copies} copies on disks"));
        }
        if *self.truth.acked.entry(offset).or_insert(record) != record {
            self.truth.wrong = Some(format!("offset {offset} was acknowledged twice, once as {record:?}"));
        }
        self.send(Message::Acked { producer: record.producer, sequence: record.sequence });
    }

    pub(crate) fn sync(&mut self, n: usize) {
        let Some(replica) = self.up(n) else { return self.note(Event::Nothing) };
        replica.log.sync();
        let end = replica.log.end();
        self.note(Event::Synced { by: n, end });
        self.advance(n);
        if self.below(2) == 0 {
            self.fetch(n);
        }
    }

    /// A producer sends what it was not told of yet, or something after that, to whomever it takes for the leader.
    pub(crate) fn produce(&mut self, n: usize) {
        let producer = self.below(usize::from(PRODUCERS)) as u8;
        let next = self.told[usize::from(producer)].map_or(0, |told| told + 1);
        let sequence = next + self.below(2) as u32;
        self.note(Event::Nothing);
        let to = self.mostly_leader(n);
        self.send(Message::Produce { to, producer, sequence });
    }

    fn read(&mut self, n: usize) {
        let reads_below_watermark = self.guards.reads_below_watermark;
        let Some(replica) = self.up(n) else { return self.note(Event::Nothing) };
        if matches!(replica.part, Part::Idles) {
            return self.note(Event::Nothing);
        }
        let log = &replica.log;
        let up_to = if reads_below_watermark { log.high_watermark } else { log.end() };
        let seen: Vec<_> = (log.start..up_to).filter_map(|at| Some((at, log.get(at)?))).collect();
        for (offset, record) in seen {
            let truth = &mut self.truth;
            let before = *truth.read.entry(offset).or_insert_with(|| {
                truth.read_now.push(offset);
                record
            });
            if before != record {
                self.truth.wrong = Some(format!("readers saw {before:?} and {record:?} at offset {offset}"));
            }
        }
        self.note(Event::Read { of: n, up_to });
    }

    /// A broker sees the newest image, or one between it and what it knows.
    pub(crate) fn observe(&mut self, n: usize, newest: bool) {
        let known = self.nodes[n].image.version();
        if !self.nodes[n].is_up || known == self.image.version() {
            return self.note(Event::Nothing);
        }
        let newer: Vec<_> = self.images.iter().filter(|image| image.version() > known).cloned().collect();
        let at = self.below(newer.len());
        let image = if newest { Arc::clone(&self.image) } else { Arc::clone(&newer[at]) };
        let guards = self.guards;
        self.nodes[n].observe(&image, guards);
        self.note(Event::Observed { by: n, version: image.version() });
        let (id, leads) = (self.nodes[n].id, self.nodes[n].leader().map(|r| r.state.leader_epoch.0));
        if let Some(epoch) = leads {
            let first = *self.truth.leaders.entry(epoch).or_insert(id);
            if first != id {
                self.truth.wrong = Some(format!("brokers {first} and {id} both lead in epoch {epoch}"));
            }
        }
        self.advance(n);
    }

    pub(crate) fn propose_isr(&mut self, n: usize) {
        let (now_ms, lag_ms) = (self.now_ms, self.lag_ms);
        let image = Arc::clone(&self.nodes[n].image);
        let Some(replica) = self.up(n) else { return self.note(Event::Nothing) };
        let Part::Leads(leader) = &mut replica.part else { return self.note(Event::Nothing) };
        let Some(proposed) = leader.isr_proposal(&replica.log.view(), now_ms, lag_ms) else {
            return self.note(Event::Nothing);
        };
        let epoch_of = |b: BrokerId| image.broker(b).map_or(BrokerEpoch(-1), |broker| broker.epoch);
        let isr: Vec<_> =
            proposed.isr.iter().map(|(b, epoch)| (*b, epoch.unwrap_or_else(|| epoch_of(*b)))).collect();
        replica.proposed = isr.iter().map(|(b, _)| *b).collect();
        let (members, partition_epoch) = (isr.len(), proposed.partition_epoch);
        let command = Command::ChangeIsr {
            topic: TOPIC.id(),
            partition: 0,
            leader: proposed.leader,
            leader_epoch: proposed.leader_epoch,
            partition_epoch,
            isr,
        };
        self.note(Event::Proposed { by: n, members, partition_epoch });
        self.send(Message::Propose { from: n, command });
    }

    fn give_up_answer(&mut self, n: usize) {
        if let Some(leader) = self.leader(n) {
            leader.on_isr_unanswered();
        }
        self.note(Event::Nothing);
    }

    fn delete(&mut self, n: usize) {
        let keep = self.chance.below(6) as i64;
        let Some(replica) = self.up(n).filter(|r| r.leads()) else { return self.note(Event::Nothing) };
        let before = replica.log.high_watermark - keep;
        // No more than that what tells retries of producers from new records stays, whoever leads next.
        let known = (0..PRODUCERS).filter_map(|p| replica.log.last_committed(p)).min();
        let before = before.min(known.unwrap_or(0));
        replica.log.delete_before(before);
        self.note(Event::Deleted { by: n, before });
        self.advance(n);
    }

    /// The cluster carries a command out, or refuses it.
    pub(crate) fn command(&mut self, command: &Command) -> Result<Output, CommandError> {
        let mut command = command.clone();
        if let (false, Command::ChangeIsr { isr, .. }) = (self.guards.joins_by_registration, &mut command) {
            for (broker, epoch) in isr {
                *epoch = self.image.broker(*broker).map_or(*epoch, |broker| broker.epoch);
            }
        }
        let before = self.isr();
        let (image, outcome) = apply(&self.image, &command);
        if outcome.is_err() {
            self.note(Event::Refused);
            return outcome;
        }
        self.image = Arc::new(image);
        self.images.push_back(Arc::clone(&self.image));
        if self.images.len() > 8 {
            self.images.pop_front();
        }
        self.note(Event::Agreed { version: self.image.version() });
        match self.isr().len().cmp(&before.len()) {
            Ordering::Greater => self.happened("the in-sync set grew"),
            Ordering::Less => self.happened("the in-sync set shrank"),
            Ordering::Equal => {}
        }
        self.note_members(&command, &before);
        if self.image.topic_by_id(TOPIC.id()).is_some() {
            let (epoch, isr) = (self.state().leader_epoch.0, Arc::clone(&self.state().isr));
            if epoch != self.epoch_since.0 {
                self.epoch_since = (epoch, self.image.version());
            }
            for node in &mut self.nodes {
                // One may be taken in for what it said before its disk was lost.
                if isr.contains(&node.id) && !node.has_lost {
                    node.left = None;
                }
                // Had it been away only: as it starts it says so, and is in sync no more until it is again.
                node.has_lost &= !node.is_up || isr.contains(&node.id);
            }
            self.truth.touched.extend(0..self.nodes.len());
        }
        outcome
    }

    /// Who is in sync, where there is the partition yet.
    fn isr(&self) -> Arc<[BrokerId]> {
        let state = self.image.topic_by_id(TOPIC.id()).and_then(|t| t.partition(0));
        state.map_or_else(Arc::default, |state| Arc::clone(&state.isr))
    }

    fn note_members(&mut self, command: &Command, before: &[BrokerId]) {
        let isr = self.isr();
        let is_shared = isr.len() > 1;
        match command {
            Command::FinishMove { .. } => self.happened("a move was finished"),
            Command::RegisterBroker { broker, .. } if is_shared && isr.contains(broker) => {
                self.happened("a replica stayed as it started");
            }
            Command::FenceBroker { broker, .. } if is_shared && isr.contains(broker) => {
                self.happened("a replica stayed as it was fenced");
            }
            Command::LoseReplicas { broker, .. } => {
                self.truth.said_lost.push(*broker);
                if before.contains(broker) && !isr.contains(broker) {
                    self.happened("a replica that lost its disk left");
                }
            }
            _ => {}
        }
        let is_move = matches!(
            command,
            Command::MovePartition { .. } | Command::CancelMove { .. } | Command::FinishMove { .. }
        );
        let leads = self.image.topic_by_id(TOPIC.id()).is_some() && self.state().leader.is_some();
        if leads {
            self.truth.last_led = isr.to_vec();
            self.truth.said_lost.clear();
        } else if is_move {
            self.truth.last_led.retain(|r| isr.contains(r));
        }
    }

    /// For whoever looks at logs, wherever they are.
    pub(crate) fn logs(&self) -> impl Iterator<Item = (&Node, &Log)> {
        self.nodes.iter().filter_map(|node| Some((node, &node.replica.as_ref()?.log)))
    }
}
