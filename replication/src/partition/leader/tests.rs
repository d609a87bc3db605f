//! What followers say, and what becomes committed, proposed and answered by it.

use floodmark_storage::leader_epochs::LeaderEpochs;

use super::*;
use crate::cluster::CommandError;

const EPOCH: LeaderEpoch = LeaderEpoch(9);
const LAG_MS: u64 = 1_000;

fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
    let mut epochs = LeaderEpochs::new();
    for (epoch, start) in entries {
        epochs.assign(LeaderEpoch(*epoch), Offset(*start));
    }
    epochs
}

/// A leader's log, and what its duty says. Broker 1 leads.
struct Office {
    leader: Leader,
    epochs: LeaderEpochs,
    start: Offset,
    end: Offset,
    durable: Offset,
    isr: Vec<BrokerId>,
    partition_epoch: i32,
    sync: SyncPolicy,
}

const REPLICAS: [BrokerId; 3] = [BrokerId(1), BrokerId(2), BrokerId(3)];

impl Office {
    /// Begins at `end`, with a watermark that is known from before.
    fn new(isr: &[i32], end: i64, high_watermark: i64) -> Office {
        let epochs = epochs(&[(1, 0), (3, 10), (9, end)]);
        let isr: Vec<_> = isr.iter().copied().map(BrokerId).collect();
        let (start, end) = (Offset(0), Offset(end));
        let view =
            LogView { start, end, durable: end, high_watermark: Offset(high_watermark), epochs: &epochs };
        let duty = LeaderDuty {
            node: BrokerId(1),
            epoch: EPOCH,
            replicas: &REPLICAS,
            isr: &isr,
            partition_epoch: 4,
            sync: SyncPolicy::Ack,
        };
        let leader = Leader::new(&duty, &view);
        Office { leader, epochs, start, end, durable: end, isr, partition_epoch: 4, sync: SyncPolicy::Ack }
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Leader, &LogView<'_>) -> T) -> T {
        let view = LogView {
            start: self.start,
            end: self.end,
            durable: self.durable,
            high_watermark: Offset(0),
            epochs: &self.epochs,
        };
        f(&mut self.leader, &view)
    }

    fn append_to(&mut self, end: i64, durable: i64) {
        (self.end, self.durable) = (Offset(end), Offset(durable));
    }

    fn watermark(&mut self) -> i64 {
        self.with(|leader, log| leader.advance(log)).0
    }

    fn image_says(&mut self, isr: &[i32], partition_epoch: i32) {
        self.isr = isr.iter().copied().map(BrokerId).collect();
        self.partition_epoch = partition_epoch;
        let duty = LeaderDuty {
            node: BrokerId(1),
            epoch: EPOCH,
            replicas: &REPLICAS,
            isr: &self.isr,
            partition_epoch,
            sync: self.sync,
        };
        self.leader.on_duty(&duty);
    }

    /// A follower says that it has everything up to `end` of this log, and `synced` on its disk.
    fn hears(&mut self, replica: i32, end: i64, synced: i64, now_ms: u64) -> Heard {
        let said = self.fetch(replica, end, synced);
        self.with(|leader, log| leader.on_position(&said, log, now_ms)).unwrap()
    }

    fn fetch(&self, replica: i32, end: i64, synced: i64) -> ReplicaFetch {
        ReplicaFetch {
            replica: BrokerId(replica),
            broker_epoch: BrokerEpoch(i64::from(replica) * 10),
            leader_epoch: EPOCH,
            partition_epoch: self.partition_epoch,
            fetch_offset: Offset(end),
            last_fetched_epoch: self.epochs.epoch_for_offset(Offset(end - 1)),
            synced_end: Offset(synced),
            log_start: Offset(0),
        }
    }

    fn proposes(&mut self, now_ms: u64) -> Option<Vec<i32>> {
        let proposed = self.with(|leader, log| leader.isr_proposal(log, now_ms, LAG_MS))?;
        assert_eq!((proposed.leader, proposed.leader_epoch), (BrokerId(1), EPOCH));
        assert_eq!(proposed.partition_epoch, self.partition_epoch);
        for (broker, epoch) in &proposed.isr {
            // Who joins does so as the start of its broker that fetched.
            let joins = !self.isr.contains(broker);
            assert_eq!(*epoch, joins.then_some(BrokerEpoch(i64::from(broker.0) * 10)));
        }
        Some(proposed.isr.iter().map(|(broker, _)| broker.0).collect())
    }
}

fn ineligible(broker: i32) -> Result<i32, CommandError> {
    Err(CommandError::IneligibleReplica { broker: BrokerId(broker), reason: "it is fenced".into() })
}

fn stale() -> Result<i32, CommandError> {
    Err(CommandError::StalePartitionEpoch { given: 4, current: 5 })
}

/// Fails when logs are held against each other by their ends alone (R4), or by the last epoch alone (R2).
#[test]
fn r2_r4_a_follower_agrees_where_its_last_record_is_here_and_nowhere_else() {
    use Agreement::{Agrees, EndsBeforeStart, PartsAt};
    // Epochs 1 from 5, 3 from 10, 9 from 20; up to 30.
    let mut office = Office::new(&[1, 2, 3], 20, 0);
    (office.start, office.end) = (Offset(5), Offset(30));
    let parts = |epoch: i32, end: i64| PartsAt(LeaderEpoch(epoch), Offset(end));
    for (end, last, expected) in [
        (30, Some(9), Agrees),
        (20, Some(3), Agrees),
        (15, Some(3), Agrees),
        (10, Some(1), Agrees),
        (31, Some(9), parts(9, 30)),
        (21, Some(3), parts(3, 20)),
        (20, Some(8), parts(3, 20)),
        // As long as ours, of an epoch that ours does not have: two failovers, each with a record of its own (R2).
        (20, Some(2), parts(1, 10)),
        (12, Some(1), parts(1, 10)),
        // It knows a leader that this one never saw; what that leader wrote is not here.
        (30, Some(10), parts(9, 30)),
        (4, Some(1), EndsBeforeStart),
        (4, None, EndsBeforeStart),
        // Without any record there is nothing to part.
        (5, None, Agrees),
        (12, None, Agrees),
        (31, None, parts(9, 30)),
    ] {
        let from = ReplicaFetch { last_fetched_epoch: last.map(LeaderEpoch), ..office.fetch(2, end, end) };
        let found = office.with(|leader, log| leader.judge(&from, log)).unwrap();
        assert_eq!(found, expected, "{end} {last:?}");
        let heard = office.with(|leader, log| leader.on_position(&from, log, 0)).unwrap();
        assert!(expected == Agrees || heard == Heard::default());
    }
}

/// Fails when an empty log passes for a part of this one by its end alone: after an unclean election records that lie before it may have been
/// committed here only, and would be gone once that replica led.
#[test]
fn an_empty_log_that_starts_where_this_leader_has_written_begins_again() {
    let blank = Agreement::PartsAt(LeaderEpoch::UNKNOWN, Offset(5));
    for (isr, beyond) in [(&[1, 3][..], blank), (&[1, 2], Agreement::Agrees)] {
        let mut office = Office::new(isr, 20, 0);
        (office.start, office.end) = (Offset(5), Offset(30));
        for (end, expected) in [
            (5, Agreement::Agrees),
            (8, Agreement::Agrees),
            (20, Agreement::Agrees),
            (21, beyond),
            (30, beyond),
        ] {
            let from = ReplicaFetch {
                last_fetched_epoch: None,
                log_start: Offset(end),
                ..office.fetch(2, end, end)
            };
            let found = office.with(|leader, log| leader.judge(&from, log)).unwrap();
            assert_eq!(found, expected, "{isr:?} {end}");
        }
    }
}

/// Fails when a position of another epoch counts.
#[test]
fn r3_who_speaks_of_another_leader_or_is_no_replica_is_refused() {
    let mut office = Office::new(&[1, 2, 3], 20, 0);
    let good = office.fetch(2, 20, 20);
    let mut refused = |from| office.with(|leader, log| leader.on_position(&from, log, 0)).unwrap_err();
    let fenced = refused(ReplicaFetch { leader_epoch: LeaderEpoch(8), ..good });
    assert!(matches!(fenced, PartitionError::FencedEpoch { .. }), "{fenced:?}");
    let unknown = refused(ReplicaFetch { leader_epoch: LeaderEpoch(10), ..good });
    assert!(matches!(unknown, PartitionError::UnknownEpoch { .. }), "{unknown:?}");
    for broker in [1, 7] {
        let stranger = refused(ReplicaFetch { replica: BrokerId(broker), ..good });
        assert!(matches!(stranger, PartitionError::UnknownReplica { .. }), "{stranger:?}");
    }
    assert_eq!(office.watermark(), 0);
}

#[test]
fn nothing_is_committed_until_all_in_sync_have_spoken_and_synced() {
    let mut office = Office::new(&[1, 2, 3], 20, 12);
    assert_eq!(office.watermark(), 12);
    assert!(!office.hears(2, 20, 20, 0).moves_watermark);
    assert_eq!(office.watermark(), 12);
    assert!(office.hears(3, 20, 15, 0).moves_watermark, "what it synced, not what it was sent");
    assert_eq!(office.watermark(), 15);
    office.append_to(30, 17);
    office.hears(2, 30, 30, 0);
    office.hears(3, 30, 30, 0);
    assert_eq!(office.watermark(), 17, "the leader's own disk counts too");
    office.append_to(30, 30);
    assert_eq!(office.watermark(), 30);
    office.sync = SyncPolicy::None;
    office.image_says(&[1, 2, 3], 4);
    office.append_to(40, 30);
    assert_eq!(office.watermark(), 30);
    office.hears(2, 40, 0, 0);
    office.hears(3, 35, 0, 0);
    assert_eq!(office.watermark(), 35, "without synced acknowledgements the ends of logs count");
}

#[test]
fn what_comes_late_takes_nothing_back_and_another_start_of_a_broker_begins_anew() {
    let mut office = Office::new(&[1, 2], 20, 0);
    office.hears(2, 20, 20, 0);
    assert_eq!(office.watermark(), 20);
    assert!(!office.hears(2, 10, 8, 0).moves_watermark, "an older word");
    assert_eq!(office.watermark(), 20);
    office.append_to(30, 30);
    // It lost its disk, and says so in the name of its new start.
    let empty =
        ReplicaFetch { broker_epoch: BrokerEpoch(21), last_fetched_epoch: None, ..office.fetch(2, 0, 0) };
    office.with(|leader, log| leader.on_position(&empty, log, 0)).unwrap();
    assert_eq!(office.leader.progress(&office_view(&office), 0)[0].log_end, Some(Offset(0)));
    let before = office.fetch(2, 30, 30);
    let late = office.with(|leader, log| leader.on_position(&before, log, 0)).unwrap_err();
    assert!(matches!(late, PartitionError::UnknownReplica { .. }), "the start before it is over: {late:?}");
    assert_eq!(office.watermark(), 20);
    // Given the partition anew by the same start of its broker: the newer state tells.
    office.image_says(&[1, 2], 5);
    let again = ReplicaFetch { broker_epoch: BrokerEpoch(21), ..office.fetch(2, 30, 30) };
    office.with(|leader, log| leader.on_position(&again, log, 0)).unwrap();
    let older = ReplicaFetch { partition_epoch: 4, fetch_offset: Offset(25), ..again };
    assert_eq!(office.with(|leader, log| leader.on_position(&older, log, 0)).unwrap(), Heard::default());
    assert_eq!(office.leader.progress(&office_view(&office), 0)[0].log_end, Some(Offset(30)));
}

fn office_view(office: &Office) -> LogView<'_> {
    LogView {
        start: office.start,
        end: office.end,
        durable: office.durable,
        high_watermark: Offset(0),
        epochs: &office.epochs,
    }
}

/// Fails when a follower joins by the watermark alone: a new leader's may lie below what was committed (R7).
#[test]
fn r7_who_joins_has_all_that_earlier_leaders_may_have_committed() {
    let mut office = Office::new(&[1, 2], 20, 12);
    office.hears(2, 20, 20, 0);
    assert!(!office.hears(3, 19, 19, 0).could_join);
    assert_eq!(office.proposes(0), None);
    assert!(!office.hears(3, 20, 19, 0).could_join, "not synced");
    assert_eq!(office.proposes(0), None);
    assert!(office.hears(3, 20, 20, 0).could_join);
    office.append_to(30, 30);
    office.hears(2, 30, 30, 0);
    assert_eq!(office.watermark(), 30);
    assert_eq!(office.proposes(0), None, "the watermark has passed it meanwhile");
    office.hears(3, 30, 30, 0);
    // Said of the state before this one, in which it may have been another log.
    office.image_says(&[1, 2], 5);
    assert_eq!(office.proposes(0), None);
    office.hears(3, 30, 30, 0);
    assert_eq!(office.proposes(0), Some(vec![1, 2, 3]));
}

#[test]
fn whoever_was_proposed_counts_until_the_partition_is_in_another_state() {
    let mut office = Office::new(&[1, 2], 20, 12);
    office.hears(2, 20, 20, 0);
    office.hears(3, 20, 20, 0);
    assert_eq!(office.proposes(0), Some(vec![1, 2, 3]));
    assert_eq!(office.leader.counted(), 3);
    office.append_to(30, 30);
    office.hears(2, 30, 30, 0);
    assert_eq!(office.watermark(), 20, "3 may be in sync");
    assert_eq!(office.proposes(0), None, "one at a time");
    // The same state under other settings is no answer.
    office.image_says(&[1, 2], 4);
    assert_eq!((office.leader.counted(), office.watermark()), (3, 20));
    // Refused; but a copy of the proposal may still be on its way.
    office.leader.on_isr_answer(&ineligible(3));
    assert_eq!(office.watermark(), 20);
    // The set as it is, proposed, ends that.
    assert_eq!(office.proposes(1), Some(vec![1, 2]));
    office.leader.on_isr_answer(&Ok(5));
    assert_eq!((office.proposes(2), office.watermark()), (None, 20), "until the image says so");
    office.image_says(&[1, 2], 5);
    assert_eq!(office.watermark(), 30);
    office.hears(3, 30, 30, 3);
    assert_eq!(office.proposes(1_000), None, "it was refused just now");
    assert!(office.leader.needs_isr_watch(office.end));
    assert_eq!(office.proposes(2_000), Some(vec![1, 2, 3]));
    office.leader.on_isr_answer(&stale());
    assert_eq!(office.proposes(2_100), None, "the image that says why is on its way");
    assert_eq!(office.proposes(2_500), Some(vec![1, 2, 3]));
    office.leader.on_isr_unanswered();
    assert_eq!(office.proposes(2_900), None);
    assert_eq!(office.proposes(3_000), Some(vec![1, 2, 3]));
    assert_eq!(office.proposes(32_999), None);
    assert_eq!(office.proposes(33_000), Some(vec![1, 2, 3]), "given up");
    office.image_says(&[1, 2, 3], 6);
    office.leader.on_isr_answer(&Ok(6));
    office.hears(3, 30, 30, 33_001);
    assert_eq!(office.proposes(33_002), None);
    assert!(!office.leader.needs_isr_watch(office.end));
}

#[test]
fn who_lacks_something_for_too_long_is_left_out_and_who_keeps_up_is_not() {
    let mut office = Office::new(&[1, 2, 3], 20, 20);
    office.hears(2, 20, 20, 0);
    office.hears(3, 20, 20, 0);
    // However long nothing happens, who has everything has everything.
    assert_eq!(office.proposes(9_000), None);
    assert!(!office.leader.needs_isr_watch(office.end));
    office.append_to(30, 30);
    assert!(office.leader.needs_isr_watch(office.end));
    // Time counts from when it was first seen to lack something.
    assert_eq!(office.proposes(10_000), None);
    let mut now_ms = 10_000;
    for end in 31..60 {
        // 2 is always some records behind, and always where the leader was a moment ago; 3 says nothing.
        office.append_to(end, end);
        office.hears(2, end - 2, end - 2, now_ms);
        now_ms += 100;
        let expected = if now_ms == 11_000 { Some(vec![1, 2]) } else { None };
        assert_eq!(office.proposes(now_ms), expected, "{now_ms}");
        if expected.is_some() {
            assert_eq!(office.watermark(), 20, "3 counts until it is known to be out");
            office.leader.on_isr_answer(&Ok(5));
            office.image_says(&[1, 2], 5);
            assert_eq!(office.watermark(), end - 2);
        }
    }
    let progress = office.leader.progress(&office_view(&office), now_ms);
    assert_eq!((progress[0].broker, progress[0].is_in_sync), (BrokerId(2), true));
    assert!(progress[0].caught_up_ms_ago <= 300, "{progress:?}");
    assert!(progress[1].caught_up_ms_ago >= 1_000 && !progress[1].is_in_sync, "{progress:?}");
}

#[test]
fn a_leader_whose_followers_never_speak_leaves_them_out_in_time() {
    let mut office = Office::new(&[1, 2, 3], 20, 12);
    for unheard in office.leader.progress(&office_view(&office), 0) {
        assert_eq!((unheard.log_end, unheard.synced_end), (None, None), "nobody knows what it has");
    }
    assert_eq!(office.proposes(50_000), None);
    assert_eq!(office.proposes(50_999), None);
    assert_eq!(office.proposes(51_000), Some(vec![1]));
    office.image_says(&[1], 5);
    assert_eq!(office.watermark(), 20);
}

#[test]
fn a_state_that_was_overtaken_changes_nothing() {
    let mut office = Office::new(&[1, 2, 3], 20, 12);
    office.hears(2, 20, 20, 0);
    office.image_says(&[1, 2], 6);
    assert_eq!(office.watermark(), 20);
    office.append_to(30, 30);
    office.image_says(&[1], 5);
    assert_eq!(office.watermark(), 20);
}
