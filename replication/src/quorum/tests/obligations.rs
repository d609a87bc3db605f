//! What openraft demands of its store and of whoever runs it, one test each, and what other systems got wrong there.

use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{EntryPayload, RaftLogReader, RaftSnapshotBuilder};

use super::*;
use crate::quorum::types::{Entry, LogId, Membership, Proposal, Vote, log_id};

fn blank(term: u64, index: u64) -> Entry {
    Entry { log_id: log_id(term, 1, index), payload: EntryPayload::Blank }
}

pub(super) async fn opened(disk: &SimDisk) -> Result<(LogStore, StateMachine, Closed), QuorumError> {
    let pressure = Arc::new(DiskPressure::default());
    let opened = open_alone(&options(disk), &pressure).await?;
    let growth = Growth { bytes: 0, limit_bytes: u64::MAX, is_large: Arc::default() };
    let (machine, _) = StateMachine::new(opened.state, opened.snapshots, growth);
    let (store, closed) = LogStore::spawn(opened.log, pressure).unwrap();
    Ok((store, machine, closed))
}

/// The disk as a power cut leaves it when nothing unsynced survives.
fn cut(disk: &SimDisk) -> SimDisk {
    disk.image().power_cut(0)
}

#[test]
fn obligation_1_votes_and_entries_are_durable_when_they_are_answered() {
    let disk = new_disk();
    block_on(async {
        let (mut store, _, _) = opened(&disk).await.unwrap();
        store.blocking_append([blank(0, 0)]).await.unwrap();
        for term in 1..5 {
            let vote = Vote::new(term, 1);
            store.save_vote(&vote).await.unwrap();
            let (mut left, _, _) = opened(&cut(&disk)).await.unwrap();
            assert_eq!(left.read_vote().await.unwrap(), Some(vote));
            store.blocking_append([blank(term, term)]).await.unwrap();
            let (mut left, _, _) = opened(&cut(&disk)).await.unwrap();
            assert_eq!(left.get_log_state().await.unwrap().last_log_id, Some(log_id(term, 1, term)));
        }
    });
}

#[test]
fn obligation_1_a_sync_that_fails_is_never_answered_as_done() {
    for path_ends in [".log", "node.state.tmp"] {
        let disk = new_disk();
        block_on(async {
            let (mut store, _, _) = opened(&disk).await.unwrap();
            store.blocking_append([blank(0, 0)]).await.unwrap();
            let path_ends = path_ends.to_owned();
            disk.inject(Fault { on: FaultOn::Sync, path_ends, after: 0, times: 1, kind: FaultKind::Eio });
            let voted = store.save_vote(&Vote::new(1, 1)).await;
            let appended = store.blocking_append([blank(1, 1)]).await;
            assert!(voted.is_err() != appended.is_err(), "{voted:?} {appended:?}");
            assert_eq!(disk.faults_taken(), 1);
        });
    }
}

#[test]
fn obligation_2_the_log_has_no_holes() {
    block_on(async {
        let disk = new_disk();
        let (mut store, _, _) = opened(&disk).await.unwrap();
        store.blocking_append((0..10).map(|n| blank(1, n))).await.unwrap();
        assert!(store.blocking_append([blank(1, 11)]).await.is_err(), "entry 10 is missing");
        store.truncate(log_id(1, 1, 6)).await.unwrap();
        let indexes = |entries: Vec<Entry>| entries.iter().map(|e| e.log_id.index).collect::<Vec<_>>();
        assert_eq!(indexes(store.try_get_log_entries(..).await.unwrap()), (0..6).collect::<Vec<_>>());
        store.purge(log_id(1, 1, 2)).await.unwrap();
        assert_eq!(indexes(store.try_get_log_entries(..).await.unwrap()), [3, 4, 5]);
        store.blocking_append([blank(2, 6)]).await.unwrap();
        let last = store.get_log_state().await.unwrap();
        assert_eq!(last.last_log_id, Some(log_id(2, 1, 6)));
        assert_eq!(last.last_purged_log_id, Some(log_id(1, 1, 2)));
    });
}

#[test]
fn obligation_3_a_limited_read_of_something_is_never_empty() {
    block_on(async {
        let (mut store, _, _) = opened(&new_disk()).await.unwrap();
        assert!(store.try_get_log_entries(0..5).await.unwrap().is_empty(), "openraft #1601: an empty log");
        let large = Entry {
            log_id: log_id(1, 1, 0),
            payload: EntryPayload::Normal(Proposal(Arc::new([Command::CreateTopic {
                name: "x".repeat(6 << 20),
                id: topic_id(1),
                assignments: Vec::new(),
                settings: Vec::new(),
            }]))),
        };
        store.blocking_append([large.clone(), blank(1, 1), blank(1, 2)]).await.unwrap();
        let read = store.limited_get_log_entries(0, 3).await.unwrap();
        assert_eq!(read, [large]);
        assert_eq!(store.limited_get_log_entries(1, 3).await.unwrap(), [blank(1, 1), blank(1, 2)]);
    });
}

#[test]
fn obligation_4_the_state_is_that_of_the_last_snapshot_and_what_is_committed() {
    let disk = new_disk();
    block_on(async {
        let (mut store, mut machine, closed) = opened(&disk).await.unwrap();
        let members = Membership::new(vec![[1].into()], ());
        let membership = Entry { log_id: log_id(0, 0, 0), payload: EntryPayload::Membership(members) };
        let command = Entry {
            log_id: log_id(1, 1, 1),
            payload: EntryPayload::Normal(Proposal(Arc::new([register(1)]))),
        };
        store.blocking_append([membership.clone(), command.clone()]).await.unwrap();
        machine.apply([membership, command]).await.unwrap();
        let built = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        store.save_committed(Some(log_id(1, 1, 1))).await.unwrap();
        store.blocking_append([blank(1, 2)]).await.unwrap();
        drop(store);
        closed.await.unwrap().unwrap();
        for left in [disk.clone(), cut(&disk)] {
            let (mut store, mut machine, _) = opened(&left).await.unwrap();
            let current = machine.get_current_snapshot().await.unwrap().unwrap();
            assert_eq!((&current.meta, &current.snapshot), (&built.meta, &built.snapshot));
            assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 1, 1)));
            assert_eq!(store.read_committed().await.unwrap(), Some(log_id(1, 1, 1)));
        }
    });
}

#[test]
fn obligation_4_a_half_installed_snapshot_does_not_survive() {
    block_on(async {
        let leader = new_disk();
        let (_, mut machine, _) = opened(&leader).await.unwrap();
        let command = EntryPayload::Normal(Proposal(Arc::new([register(1)])));
        machine.apply([Entry { log_id: log_id(1, 1, 3), payload: command }]).await.unwrap();
        let sent = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let follower = new_disk();
        let (_, mut machine, _) = opened(&follower).await.unwrap();
        follower.record_images();
        machine.install_snapshot(&sent.meta, sent.snapshot.clone()).await.unwrap();
        assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 1, 3)));
        let images = follower.take_images();
        assert!(images.len() > 3);
        for image in images {
            for seed in 0..8 {
                let (_, mut machine, _) = opened(&image.power_cut(seed)).await.unwrap();
                let applied = machine.applied_state().await.unwrap().0;
                let current = machine.get_current_snapshot().await.unwrap();
                assert_eq!(current.as_ref().and_then(|s| s.meta.last_log_id), applied);
                assert!(applied.is_none() || current.is_some_and(|s| s.snapshot == sent.snapshot));
            }
        }
        // What is damaged on the way changes nothing.
        let mut bad = sent.snapshot.to_vec();
        bad[40] ^= 1;
        let before = machine.applied_state().await.unwrap();
        assert!(machine.install_snapshot(&sent.meta, Box::new(bad.into())).await.is_err());
        assert_eq!(machine.applied_state().await.unwrap(), before);
    });
}

#[test]
fn obligation_8_a_directory_is_used_only_by_its_owner() {
    let disk = new_disk();
    block_on(async {
        let quorum = start(&disk).await;
        let cluster_id = quorum.image().cluster_id();
        quorum.shutdown().await.unwrap();
        let start_as = |change: fn(&mut QuorumOptions)| {
            let mut options = options(&disk);
            change(&mut options);
            QuorumHandle::start(options)
        };
        let foreign = |outcome: Result<QuorumHandle, QuorumError>| match outcome {
            Err(QuorumError::Foreign { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(foreign(start_as(|o| o.node_id = BrokerId(2)).await), "node id");
        assert_eq!(
            foreign(start_as(|o| o.cluster_id = Some(ClusterId::from_bytes([9; 16]))).await),
            "cluster id"
        );
        assert_eq!(
            foreign(start_as(|o| o.directory_id = DirectoryId(uuid::Uuid::from_u128(6))).await),
            "directory id"
        );
        let negative = start_as(|o| o.node_id = BrokerId(-1)).await;
        assert!(matches!(negative, Err(QuorumError::NegativeNodeId(BrokerId(-1)))));
        let mut own = options(&disk);
        own.cluster_id = Some(cluster_id);
        QuorumHandle::start(own).await.unwrap().shutdown().await.unwrap();
    });
}

#[test]
fn obligation_8_a_voter_that_lost_its_disk_does_not_vote_again() {
    block_on(async {
        // Partitions are there, metadata is not.
        let mut fresh = options(&new_disk());
        fresh.holds_partitions = true;
        assert!(matches!(QuorumHandle::start(fresh).await, Err(QuorumError::Lost { .. })));
        // Some of the metadata is there.
        for lost in ["node.state", "log", "image.snapshot"] {
            let disk = new_disk();
            let mut options = options(&disk);
            options.snapshots = SnapshotRule { log_bytes: 0, keep_entries: 0 };
            let quorum = QuorumHandle::start(options.clone()).await.unwrap();
            join(&quorum).await;
            while quorum.shared.raft.metrics().borrow().purged.is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            quorum.shutdown().await.unwrap();
            remove(&disk, &Path::new(DATA_DIR).join("metadata").join(lost));
            let outcome = QuorumHandle::start(options).await;
            assert!(matches!(outcome, Err(QuorumError::Lost { .. })), "{lost}: {outcome:?}");
        }
    });
}

fn remove(disk: &SimDisk, path: &Path) {
    if let Ok(entries) = disk.list(path) {
        for entry in entries {
            remove(disk, &path.join(entry.name));
        }
        disk.remove_dir(path).unwrap();
    } else {
        disk.remove_file(path).unwrap();
    }
}

#[test]
fn r34_what_is_committed_is_never_truncated() {
    block_on(async {
        let (mut store, _, _) = opened(&new_disk()).await.unwrap();
        store.blocking_append((0..5).map(|n| blank(1, n))).await.unwrap();
        store.save_committed(Some(log_id(1, 1, 2))).await.unwrap();
        assert!(store.truncate(log_id(1, 1, 2)).await.is_err());
        assert_eq!(store.try_get_log_entries(..).await.unwrap().len(), 5);
        store.truncate(log_id(1, 1, 3)).await.unwrap();
    });
}

/// openraft #1246. So many entries that applying them takes a while: who asks must wait for the last one.
#[test]
fn r37_a_leader_that_comes_back_serves_only_behind_an_entry_of_its_term() {
    const COMMANDS: u64 = 3_000;
    // Elected in term 2, and killed before that term's first entry was written; or well behind it.
    for first_of_term in [COMMANDS + 1, 3] {
        let disk = new_disk();
        // Threads, so that nobody waits for it by chance.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(in_time(async {
            let (mut store, _, closed) = opened(&disk).await.unwrap();
            let members = Membership::new(vec![[1].into()], BTreeMap::from([(1, Node::default())]));
            let mut entries =
                vec![Entry { log_id: log_id(0, 0, 0), payload: EntryPayload::Membership(members) }];
            for index in 1..=COMMANDS {
                let term = if index < first_of_term { 1 } else { 2 };
                let payload = match index == first_of_term {
                    true => EntryPayload::Blank,
                    false => EntryPayload::Normal(Proposal(Arc::new([register(index.into())]))),
                };
                entries.push(Entry { log_id: log_id(term, 1, index), payload });
            }
            store.blocking_append(entries).await.unwrap();
            store.save_vote(&Vote::new_committed(2, 1)).await.unwrap();
            drop(store);
            closed.await.unwrap().unwrap();
            let quorum = start(&disk).await;
            let blanks = u64::from(first_of_term <= COMMANDS);
            let version = quorum.image().version();
            assert_eq!(version, COMMANDS - blanks, "everything in the log of the only voter is committed");
            let last: Option<LogId> = quorum.shared.raft.metrics().borrow().last_applied;
            assert_eq!(last, Some(log_id(2, 1, COMMANDS + 1 - blanks)));
            quorum.shutdown().await.unwrap();
        }));
    }
}

#[test]
fn a_voter_among_several_neither_leads_alone_nor_pretends_to() {
    let disk = new_disk();
    block_on(async {
        let (mut store, _, closed) = opened(&disk).await.unwrap();
        let nodes = BTreeMap::from([(1, Node::default()), (2, Node::default())]);
        let members = Membership::new(vec![[1, 2].into()], nodes);
        let membership = Entry { log_id: log_id(0, 0, 0), payload: EntryPayload::Membership(members) };
        store.blocking_append([membership]).await.unwrap();
        drop(store);
        closed.await.unwrap().unwrap();
        let quorum = start(&disk).await;
        // It asks voter 2 for its vote and cannot reach it.
        quorum.shared.raft.trigger().elect().await.unwrap();
        let nobody = ProposeError::NotLeader { leader: None };
        let within = Duration::from_millis(100);
        assert_eq!(quorum.propose_within(register(1), within).await, Err(nobody.clone()));
        assert_eq!(quorum.read_barrier_within(within).await, Err(nobody));
        assert_eq!(*quorum.leadership().borrow(), None);
        assert_eq!(quorum.since_quorum_ack(), None);
        assert_eq!(quorum.leader(), None);
        quorum.shutdown().await.unwrap();
    });
}

#[test]
fn r42_damage_is_reported_and_never_taken_for_an_empty_cluster() {
    block_on(async {
        for file in ["node.state", "image.snapshot", "log/00000000000000000000.log"] {
            let disk = new_disk();
            let mut options = options(&disk);
            options.snapshots = SnapshotRule { log_bytes: 0, keep_entries: 1000 };
            let quorum = QuorumHandle::start(options.clone()).await.unwrap();
            join(&quorum).await;
            quorum.propose(create_topic(1)).await.unwrap();
            while quorum.shared.raft.metrics().borrow().snapshot.is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            quorum.shutdown().await.unwrap();
            let path = Path::new(DATA_DIR).join("metadata").join(file);
            // Within the last entry that is read again, or anywhere in the small files.
            let content = disk.files().get(&path).cloned().unwrap();
            let used = content.iter().rposition(|b| *b != 0).unwrap() as u64;
            disk.flip_bit(&path, used - 6, 3);
            let outcome = QuorumHandle::start(options.clone()).await;
            assert!(outcome.is_err(), "{file}: {outcome:?}");
            // Nor is one that is missing, but for a snapshot that stands for nothing yet: the log has all of it.
            if file == "image.snapshot" {
                continue;
            }
            disk.remove_file(&path).unwrap();
            let outcome = QuorumHandle::start(options).await;
            assert!(outcome.is_err(), "{file} is missing: {outcome:?}");
        }
    });
}

/// Were it, the log of the old cluster would be the new one's.
#[test]
fn r42_a_log_without_its_vote_is_not_taken_for_a_new_cluster() {
    let disk = new_disk();
    block_on(async {
        let quorum = start(&disk).await;
        join(&quorum).await;
        quorum.shutdown().await.unwrap();
        disk.remove_file(&Path::new(DATA_DIR).join("metadata/node.state")).unwrap();
        let outcome = QuorumHandle::start(options(&disk)).await;
        assert!(matches!(outcome, Err(QuorumError::Lost { .. })), "{outcome:?}");
    });
}
