//! A log that hangs: its replica answers nobody in the name of a leader of the past, and holds up nobody else.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle as Thread;

use floodmark_storage::log::CompactionControl;

use super::*;

/// A log that hangs until this is dropped.
struct Hang(Option<(SyncSender<()>, Thread<()>)>);

impl Hang {
    fn of(partition: &PartitionHandle) -> Hang {
        let partition = partition.clone();
        let (goes_on, until) = sync_channel::<()>(1);
        let (tell, held) = sync_channel(1);
        let holder = std::thread::spawn(move || {
            partition.hold_log(|| {
                tell.send(()).unwrap();
                let _ = until.recv();
            });
        });
        held.recv().unwrap();
        Hang(Some((goes_on, holder)))
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        let (goes_on, holder) = self.0.take().unwrap();
        drop(goes_on);
        holder.join().unwrap();
    }
}

/// Fences the broker and lets it in again: every partition is led in the epoch after the next.
fn lead_anew(cluster: &mut Cluster, mut each: impl FnMut(&Cluster)) {
    let broker = cluster.0.broker(NODE).unwrap().epoch;
    for command in [
        Command::FenceBroker { broker: NODE, epoch: broker },
        Command::UnfenceBroker { broker: NODE, epoch: broker },
    ] {
        cluster.change(command);
        each(cluster);
    }
}

/// A broker is let in again on the strength of an image that it has, and holds its lease then. A partition that a disk keeps from following
/// that image must not answer under that lease in the name of a leader of the past. The others must follow it.
#[test]
fn a_log_that_hangs_answers_nobody_and_holds_up_no_other() {
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let id = cluster.create("t", 1, 3);
    let registry = open(&disk, &cluster);
    let (sender, images) = watch::channel(Arc::clone(&cluster.0));
    let entered = runtime.0.enter();
    let follower = registry.spawn_follower(images);
    drop(entered);
    let partitions = [0, 1, 2].map(|n| registry.get(id, n).unwrap());
    let [before, late, behind] = &partitions;
    let old = late.leader_epoch();
    runtime.block_on(append(late));
    let hang = Hang::of(late);
    let waiting = late.committed(Offset(5), old);
    let queued = late.append(vec![batch()], AppendOptions::CLIENT);
    let mut heard = registry.heard();
    // More than once: what comes while it hangs must not queue up behind it.
    for _ in 0..3 {
        lead_anew(&mut cluster, |cluster| {
            sender.send(Arc::clone(&cluster.0)).unwrap();
            let version = cluster.0.version();
            runtime.block_on(async { drop(heard.wait_for(|heard| *heard >= version).await.unwrap()) });
        });
        runtime.block_on(registry.reconciled(cluster.0.version()));
        for partition in [before, behind] {
            assert_eq!(partition.duty().role.epoch(), partition.leader_epoch());
            assert!(matches!(partition.role(), Role::Leader { epoch } if epoch > old));
            runtime.block_on(append(partition));
        }
        assert_eq!(late.duty().role, Role::Leader { epoch: old }, "its duty has reached it after all");
        assert!(late.is_late() && !before.is_late());
        assert!(matches!(late.role(), Role::NotLeader { epoch } if epoch > old));
        let written = runtime.block_on(late.append(vec![batch()], AppendOptions::CLIENT));
        assert!(matches!(written, Err(PartitionError::NotLeader { .. })), "{written:?}");
        let told = runtime.block_on(late.committed(Offset(0), old));
        assert!(matches!(told, Err(PartitionError::NotLeader { .. })), "{told:?}");
    }
    assert!(matches!(runtime.block_on(waiting), Err(PartitionError::NotLeader { .. })));
    drop(hang);
    let told = runtime.block_on(queued);
    assert!(
        matches!(told, Err(PartitionError::NotLeader { .. } | PartitionError::FencedEpoch { .. })),
        "{told:?}"
    );
    // Nobody has to ask, and no image has to come.
    until(|| !late.is_late());
    let led = cluster.0.topic_by_id(id).unwrap().partition(1).unwrap().leader_epoch;
    until(|| late.role() == Role::Leader { epoch: led });
    runtime.block_on(append(late));
    follower.abort();
}

/// What hangs was waited for once: images that come later go on at once.
#[test]
fn a_log_that_hangs_is_waited_for_once() {
    let (disk, mut cluster) = (SimDisk::new(), Cluster::new());
    let id = cluster.create("t", 1, 2);
    let registry = open(&disk, &cluster);
    let late = registry.get(id, 0).unwrap();
    let hang = Hang::of(&late);
    lead_anew(&mut cluster, |cluster| drop(registry.0.follow(&cluster.0)));
    let begun = Stopwatch::start();
    for _ in 0..10 {
        lead_anew(&mut cluster, |cluster| drop(registry.0.follow(&cluster.0)));
    }
    assert!(begun.elapsed() < 10 * super::super::PATIENCE, "{:?}", begun.elapsed());
    drop(hang);
    until(|| !late.is_late());
    let epoch = cluster.0.topic_by_id(id).unwrap().partition(0).unwrap().leader_epoch;
    assert_eq!(late.duty().role, Role::Leader { epoch }, "the last one counts");
    let past = registry.get(id, 1).unwrap().duty();
    assert_eq!(past.role, Role::Leader { epoch });
}

#[test]
fn a_topic_whose_log_hangs_is_deleted_and_its_name_is_free_when_that_has_ended() {
    let (disk, mut cluster, runtime) = (SimDisk::new(), Cluster::new(), runtime());
    let (id, other) = (cluster.create("t", 1, 1), cluster.create("other", 3, 1));
    let registry = open(&disk, &cluster);
    let late = registry.get(id, 0).unwrap();
    runtime.block_on(append(&late));
    let dir = late.dir().to_owned();
    let hang = Hang::of(&late);
    cluster.change(Command::DeleteTopic { topic: id });
    let again = cluster.create("t", 2, 1);
    let unusable = registry.0.follow(&cluster.0);
    assert_eq!(unusable.len(), 1, "{unusable:?}");
    assert!(registry.get(id, 0).is_none() && registry.get(again, 0).is_none());
    assert!(registry.unusable(again, 0).is_some() && registry.0.has_to_retry());
    assert!(disk.list(&dir).is_ok(), "the old one may still write there");
    // It is made by nobody who tries again, and goes as it came.
    assert_eq!(registry.0.follow(&cluster.0).len(), 1);
    cluster.change(Command::DeleteTopic { topic: again });
    assert!(registry.0.follow(&cluster.0).is_empty());
    assert!(disk.list(&dir).is_ok());
    let third = cluster.create("t", 4, 1);
    lead_anew(&mut cluster, |cluster| drop(registry.0.follow(&cluster.0)));
    assert_eq!(runtime.block_on(append(&registry.get(other, 0).unwrap())), Offset(0), "others go on");
    drop(hang);
    // Whoever ends its sync may have the log for a moment: it has ended for all that.
    assert!(registry.0.follow(&cluster.0).is_empty());
    let renewed = registry.get(third, 0).unwrap();
    assert_eq!(runtime.block_on(append(&renewed)), Offset(0), "it has nothing of the old one");
    assert!(!registry.0.has_to_retry() && late.stopped().is_some());
    registry.close(PATIENCE);
    drop(registry);
    assert_eq!(open(&disk, &cluster).get(third, 0).unwrap().log_end(), Offset(1));
}

#[test]
fn a_broker_stops_though_a_log_hangs_and_closes_the_others() {
    let (disk, mut cluster) = (SimDisk::new(), Cluster::new());
    let id = cluster.create("t", 1, 4);
    let registry = open(&disk, &cluster);
    let late = registry.get(id, 1).unwrap();
    let hang = Hang::of(&late);
    lead_anew(&mut cluster, |cluster| drop(registry.0.follow(&cluster.0)));
    assert_eq!(registry.close(Duration::from_secs(4)), Closed { cleanly: 3, uncleanly: 1 });
    assert!(registry.0.follow(&cluster.0).is_empty(), "nothing is opened any more");
    drop(hang);
}

/// What hangs uses up the time of a round. Logs that were let go of in that time have ended, though somebody has them when the round comes to
/// them.
#[test]
fn a_log_that_has_ended_is_not_taken_for_one_that_hangs() {
    let (disk, mut cluster) = (SimDisk::new(), Cluster::new());
    let id = cluster.create("t", 1, 2);
    let registry = open(&disk, &cluster);
    let [ends, hangs] = [0, 1].map(|n| registry.get(id, n).unwrap());
    let held = [&ends, &hangs].map(Hang::of);
    for partition in [&ends, &hangs] {
        registry.0.release(partition.id());
        assert!(partition.is_late());
    }
    let [let_go, hanging] = held;
    drop(let_go);
    let busy = Hang::of(&ends);
    registry.0.finish_leaving(|| Duration::ZERO);
    let has_files = |partition: &PartitionHandle| disk.list(partition.dir()).is_ok();
    assert!(!has_files(&ends) && has_files(&hangs));
    assert!(!registry.0.is_name_taken(ends.id()) && registry.0.is_name_taken(hangs.id()));
    drop((busy, hanging));
    registry.0.finish_leaving(|| Duration::ZERO);
    assert!(!has_files(&hangs) && !registry.0.is_anything_leaving());
}

/// The same of a compaction pass: it is told to end before anything is waited for.
#[test]
fn compaction_of_what_is_given_up_has_as_long_to_end_as_a_round_lasts() {
    let (disk, mut cluster) = (SimDisk::new(), Cluster::new());
    let id = cluster.create("t", 1, 1);
    let registry = open(&disk, &cluster);
    let partition = registry.get(id, 0).unwrap();
    let control = CompactionControl::new(|_| {});
    registry.0.upkeep.pretend_compaction_of(partition.id(), control.clone());
    registry.0.release(partition.id());
    assert!(control.is_cancelled());
}

/// Of several tries, because a machine may stand still for longer.
#[test]
fn logs_that_hang_are_waited_for_a_second_of_all_together() {
    let round = || {
        let (disk, mut cluster) = (SimDisk::new(), Cluster::new());
        let ids = [cluster.create("t", 1, 1), cluster.create("u", 2, 1)];
        let registry = open(&disk, &cluster);
        let hanging = ids.map(|id| Hang::of(&registry.get(id, 0).unwrap()));
        lead_anew(&mut cluster, |_| {});
        cluster.change(Command::DeleteTopic { topic: ids[1] });
        let begun = Stopwatch::start();
        assert!(registry.0.follow(&cluster.0).is_empty());
        let elapsed = begun.elapsed();
        drop(hanging);
        elapsed
    };
    assert!((0..5).any(|_| round() < 2 * super::super::PATIENCE));
}
