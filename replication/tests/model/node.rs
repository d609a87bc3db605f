//! A broker of the model and its one replica: the machines of the product, and a log in memory on which their decisions are carried out
//! as `PartitionHandle` carries them out on a real one.

use std::sync::Arc;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, Offset};
use floodmark_replication::cluster::settings::SyncPolicy;
use floodmark_replication::cluster::{ClusterImage, Partition};
use floodmark_replication::partition::follower::{Following, Step};
use floodmark_replication::partition::leader::{Agreement, Leader, LeaderDuty};
use floodmark_replication::partition::{Fetched, ReplicaFetch};

use crate::guards::Guards;
use crate::log::{Log, Record};
use crate::world::TOPIC;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: BrokerId,
    pub(crate) is_up: bool,
    /// It has registered, and not opened its log yet.
    pub(crate) is_starting: bool,
    pub(crate) incarnation: u128,
    pub(crate) broker_epoch: BrokerEpoch,
    /// What it knows of the cluster.
    pub(crate) image: Arc<ClusterImage>,
    /// Also while it is down: then it is what lies on its disk.
    pub(crate) replica: Option<Replica>,
    /// The log that it gave up or lost when it was in sync no more, until it is again: an acknowledgement under way may have counted it.
    pub(crate) left: Option<Log>,
    /// It lost its disk while it was in sync, and has not been taken out of the set since.
    pub(crate) has_lost: bool,
    /// Counts the logs it has begun and opened.
    pub(crate) opened: u64,
}

#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) log: Log,
    pub(crate) part: Part,
    /// As the broker knows it.
    pub(crate) state: Partition,
    pub(crate) waits: Vec<Wait>,
    /// The set it proposed last.
    pub(crate) proposed: Vec<BrokerId>,
}

#[derive(Debug)]
pub(crate) enum Part {
    Leads(Leader),
    Follows(Following),
    Idles,
}

/// A producer that waits for its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) end: i64,
    pub(crate) offset: i64,
    pub(crate) record: Record,
}

impl Node {
    /// Does as a newer image says.
    pub(crate) fn observe(&mut self, image: &Arc<ClusterImage>, guards: Guards) {
        self.image = Arc::clone(image);
        let Some(state) = image.topic_by_id(TOPIC.id()).and_then(|t| t.partition(0)).cloned() else { return };
        if !state.replicas.contains(&self.id) {
            self.left = self.replica.take().map(|replica| replica.log).or(self.left.take());
            return;
        }
        let id = self.id;
        let mut state = state;
        if !guards.waits_for_all_members && state.leader == Some(id) {
            state.isr = state.isr.iter().copied().filter(|r| image.is_live(*r)).collect();
        }
        self.opened += u64::from(self.replica.is_none());
        let replica = self.replica.get_or_insert_with(|| Replica::new(Log::default(), state.clone()));
        replica.take_up(id, state, guards);
    }

    pub(crate) fn leader(&mut self) -> Option<&mut Replica> {
        self.replica.as_mut().filter(|replica| self.is_up && replica.leads())
    }

    /// No process of it runs.
    pub(crate) fn is_down(&self) -> bool {
        !self.is_up && !self.is_starting
    }

    /// What the follower asks, and of whom.
    pub(crate) fn fetch(&self, guards: Guards) -> Option<(BrokerId, ReplicaFetch)> {
        let replica = self.replica.as_ref()?;
        let Part::Follows(following) = &replica.part else { return None };
        let mut position = following.position(&replica.log.view());
        if !guards.follower_tells_synced {
            position.synced_end = position.fetch_offset;
        }
        Some((position.leader, position.said_by(self.id, self.broker_epoch)))
    }
}

impl Replica {
    pub(crate) fn new(log: Log, state: Partition) -> Replica {
        let state = Partition { leader: None, leader_epoch: floodmark_proto::ids::LeaderEpoch(-1), ..state };
        Replica { log, part: Part::Idles, state, waits: Vec::new(), proposed: Vec::new() }
    }

    pub(crate) fn leads(&self) -> bool {
        matches!(self.part, Part::Leads(_))
    }

    fn take_up(&mut self, id: BrokerId, state: Partition, guards: Guards) {
        let is_same_role = (state.leader, state.leader_epoch) == (self.state.leader, self.state.leader_epoch);
        if is_same_role {
            match &mut self.part {
                Part::Leads(leader) => leader.on_duty(&leader_duty(id, &state, guards)),
                Part::Follows(following) => following.partition_epoch = state.partition_epoch,
                Part::Idles => {}
            }
        } else {
            self.begin(id, &state, guards);
            if guards.waits_end_with_leadership {
                self.waits.clear();
            }
        }
        self.state = state;
        self.proposed.clear();
    }

    fn begin(&mut self, id: BrokerId, state: &Partition, guards: Guards) {
        let epoch = state.leader_epoch;
        self.part = match state.leader {
            Some(leader) if leader == id => {
                self.log.begin_epoch(epoch);
                let mut view = self.log.view();
                if !guards.joins_from_epoch_start {
                    view.end = view.high_watermark;
                }
                Part::Leads(Leader::new(&leader_duty(id, state, guards), &view))
            }
            other => {
                self.log.forget_epochs_without_records();
                if !guards.cuts_by_epoch {
                    self.log.cut(self.log.high_watermark);
                }
                let follow = |leader| Following { leader, epoch, partition_epoch: state.partition_epoch };
                other.map_or(Part::Idles, |leader| Part::Follows(follow(leader)))
            }
        };
    }

    /// The watermark follows; gives back whoever is to be acknowledged.
    pub(crate) fn advance(&mut self, min_isr: usize, guards: Guards) -> Vec<Wait> {
        if let Part::Leads(leader) = &mut self.part {
            let mut high_watermark = leader.advance(&self.log.view()).0;
            if !guards.counts_the_larger_set && !self.proposed.is_empty() {
                let partition_epoch = self.state.partition_epoch + 1;
                let isr = self.proposed.as_slice().into();
                let agreed = Partition { isr, partition_epoch, ..self.state.clone() };
                let mut eager = leader.clone();
                eager.on_duty(&leader_duty(self.proposed[0], &agreed, guards));
                high_watermark = eager.advance(&self.log.view()).0;
            }
            self.log.raise_watermark(high_watermark);
        }
        let high_watermark = self.log.high_watermark;
        let (done, waiting): (Vec<_>, Vec<_>) = self.waits.drain(..).partition(|w| w.end <= high_watermark);
        self.waits = waiting;
        let is_enough = self.state.isr.len() >= min_isr || !guards.acknowledges_by_min_isr;
        if is_enough { done } else { Vec::new() }
    }

    /// A producer's record, which comes with the sequence number that it should have. True where it is waited for.
    pub(crate) fn produce(&mut self, producer: u8, sequence: u32, min_isr: usize) -> bool {
        let epoch = self.state.leader_epoch.0;
        if !self.leads() || self.state.isr.len() < min_isr {
            return false;
        }
        let (offset, record) = match self.log.last_sequence(producer) {
            Some((offset, last)) if last == sequence => (offset, self.log.get(offset)),
            Some((_, last)) if last + 1 != sequence => return false,
            None if sequence != 0 => return false,
            _ => {
                self.log.append(Record { epoch, producer, sequence });
                (self.log.end() - 1, self.log.get(self.log.end() - 1))
            }
        };
        let Some(record) = record else { return false };
        self.waits.push(Wait { end: offset + 1, offset, record });
        true
    }

    /// The leader hears a follower, and answers with at most `max` records.
    pub(crate) fn on_fetch(
        &mut self,
        from: BrokerId,
        said: &ReplicaFetch,
        (now_ms, max): (u64, usize),
        guards: Guards,
    ) -> Option<(Fetched, Vec<Record>)> {
        let Part::Leads(leader) = &mut self.part else { return None };
        let mut said = *said;
        if !guards.fences_epochs {
            said.leader_epoch = leader.epoch();
        }
        if !guards.positions_have_a_state {
            said.partition_epoch = self.state.partition_epoch;
        }
        let view = self.log.view();
        if !(guards.judges_each_fetch && guards.cuts_by_epoch) && said.last_fetched_epoch.is_some() {
            let before = Offset(said.fetch_offset.0.min(view.end.0) - 1);
            said.last_fetched_epoch = view.epochs.epoch_for_offset(before);
        }
        if !guards.judges_by_epoch
            && let Some(last) = said.last_fetched_epoch
        {
            said.last_fetched_epoch =
                view.epochs.end_offset_for(last, view.end).map(|here| here.epoch).or(Some(last));
        }
        let agreement = leader.judge(&said, &view).ok()?;
        leader.on_position(&said, &view, now_ms).ok()?;
        let records = match agreement {
            Agreement::Agrees => self.log.from(said.fetch_offset.0).iter().take(max).copied().collect(),
            Agreement::PartsAt(..) | Agreement::EndsBeforeStart => Vec::new(),
        };
        let diverging = match agreement {
            Agreement::PartsAt(epoch, end) => Some((epoch, end)),
            Agreement::Agrees | Agreement::EndsBeforeStart => None,
        };
        let fetched = Fetched {
            leader: from,
            leader_epoch: leader.epoch(),
            fetch_offset: said.fetch_offset,
            last_fetched_epoch: said.last_fetched_epoch,
            batches: Vec::new(),
            high_watermark: Offset(self.log.high_watermark),
            log_start: view.start,
            diverging,
        };
        Some((fetched, records))
    }

    /// The follower does what an answer asks for, and says what that was, where it took it.
    pub(crate) fn on_fetched(
        &mut self,
        fetched: &Fetched,
        records: &[Record],
        guards: Guards,
    ) -> Option<Step> {
        let Part::Follows(following) = &self.part else { return None };
        let mut fetched = fetched.clone();
        if !guards.fences_epochs {
            (fetched.leader, fetched.leader_epoch) = (following.leader, following.epoch);
        }
        let is_blind = !guards.knows_its_question && fetched.diverging.is_some();
        if is_blind || !(guards.judges_each_fetch && guards.cuts_by_epoch) {
            fetched.last_fetched_epoch = self.log.view().last_epoch();
        }
        if is_blind {
            fetched.fetch_offset = Offset(self.log.end());
        }
        let first_base = records.first().map(|_| fetched.fetch_offset);
        let step = following.step(&fetched, first_base, &self.log.view()).ok()?;
        let watermark_after = |end: i64| following.high_watermark_after(&fetched, Offset(end)).0;
        match step {
            Step::Cut { to } => {
                if !guards.cuts_before_watermark {
                    self.log.raise_watermark(watermark_after(self.log.end()));
                }
                self.log.cut(to.0);
            }
            Step::Reset { at } => {
                self.log.reset(at.0);
                if guards.reset_raises_watermark {
                    self.log.raise_watermark(at.0);
                }
            }
            Step::Append { .. } => {
                records.iter().for_each(|record| self.log.append(*record));
                self.log.raise_watermark(watermark_after(self.log.end()));
                let start = following.start_after(&fetched, Offset(self.log.high_watermark));
                self.log.delete_before(start.0);
            }
        }
        Some(step)
    }
}

fn leader_duty(node: BrokerId, state: &Partition, guards: Guards) -> LeaderDuty<'_> {
    LeaderDuty {
        node,
        epoch: state.leader_epoch,
        replicas: &state.replicas,
        isr: &state.isr,
        partition_epoch: state.partition_epoch,
        sync: if guards.leader_counts_synced { SyncPolicy::Ack } else { SyncPolicy::None },
    }
}
