//! Propose, watch, restart.

use super::*;
use crate::cluster::CommandError;

#[test]
fn the_first_start_makes_a_cluster_and_leads_it() {
    block_on(async {
        let quorum = start(&new_disk()).await;
        assert_eq!((quorum.leader(), quorum.heard_leader()), (Some(BrokerId(1)), Some(BrokerId(1))));
        assert_eq!(quorum.image().topic_count(), 0);
        quorum.shutdown().await.unwrap();
    });
}

#[test]
fn what_was_answered_is_in_the_image_and_after_a_restart() {
    let disk = new_disk();
    block_on(async {
        let quorum = start(&disk).await;
        let cluster_id = quorum.image().cluster_id();
        join(&quorum).await;
        for n in 0..5 {
            quorum.propose(create_topic(n)).await.unwrap();
            assert!(quorum.image().topic(&format!("topic{n}")).is_some());
        }
        let image = quorum.image();
        quorum.shutdown().await.unwrap();
        for _ in 0..3 {
            let quorum = start(&disk).await;
            assert_eq!(quorum.image(), image);
            assert_eq!(quorum.image().cluster_id(), cluster_id);
            quorum.shutdown().await.unwrap();
        }
    });
}

#[test]
fn a_refusal_changes_nothing_and_says_why() {
    block_on(async {
        let quorum = start(&new_disk()).await;
        join(&quorum).await;
        quorum.propose(create_topic(1)).await.unwrap();
        let before = quorum.image();
        let again = quorum.propose(create_topic(1)).await;
        let expected = CommandError::TopicExists { name: "topic1".to_owned() };
        assert_eq!(again, Err(ProposeError::Refused(expected)));
        assert_eq!(quorum.image(), before);
        quorum.shutdown().await.unwrap();
    });
}

#[test]
fn watchers_see_the_last_image() {
    block_on(async {
        let quorum = start(&new_disk()).await;
        let mut images = quorum.watch();
        join(&quorum).await;
        quorum.propose(create_topic(1)).await.unwrap();
        images.changed().await.unwrap();
        assert!(images.borrow_and_update().topic("topic1").is_some());
        quorum.shutdown().await.unwrap();
    });
}

#[test]
fn commands_that_wait_share_an_entry() {
    let disk = new_disk();
    block_on(async {
        let quorum = start(&disk).await;
        join(&quorum).await;
        let before = quorum.shared.raft.metrics().borrow().last_log_index.unwrap();
        let proposals = (0..500).map(|n| {
            let quorum = quorum.clone();
            tokio::spawn(async move { quorum.propose(create_topic(n)).await })
        });
        for proposal in proposals.collect::<Vec<_>>() {
            proposal.await.unwrap().unwrap();
        }
        assert_eq!(quorum.image().topic_count(), 500);
        let entries = quorum.shared.raft.metrics().borrow().last_log_index.unwrap() - before;
        assert!(entries < 10, "{entries} entries");
        quorum.shutdown().await.unwrap();
    });
}

#[test]
fn a_queue_that_is_full_and_a_command_too_large_are_refused() {
    block_on(async {
        let quorum = start(&new_disk()).await;
        // Nothing runs between these calls on a runtime of one thread, so nothing leaves the queue.
        let mut proposals: Vec<_> =
            (0..=WAITING_MAX as u64).map(|n| Box::pin(quorum.propose(create_topic(n)))).collect();
        let mut outcomes = Vec::new();
        for proposal in &mut proposals {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            outcomes.push(proposal.as_mut().poll(&mut context));
        }
        assert!(outcomes[..WAITING_MAX].iter().all(std::task::Poll::is_pending));
        assert_eq!(outcomes[WAITING_MAX], std::task::Poll::Ready(Err(ProposeError::Overloaded)));
        drop(proposals);
        let large = Command::SetConfig {
            resource: crate::cluster::command::ConfigResource::Cluster,
            changes: vec![crate::cluster::command::ConfigChange {
                name: "x".repeat(COMMAND_BYTES_MAX),
                value: None,
                only_over: crate::cluster::command::ExpectedValue::Any,
            }],
        };
        assert!(matches!(quorum.propose(large).await, Err(ProposeError::TooLarge { .. })));
        assert_eq!(quorum.image().version(), 0, "what nobody waits for is not proposed");
        quorum.shutdown().await.unwrap();
    });
}

#[test]
fn the_log_is_replaced_by_a_snapshot_while_commands_are_under_way() {
    let disk = new_disk();
    block_on(async {
        let mut options = options(&disk);
        options.snapshots = SnapshotRule { log_bytes: 2000, keep_entries: 2 };
        let quorum = QuorumHandle::start(options.clone()).await.unwrap();
        join(&quorum).await;
        for round in 0..20 {
            let proposals: Vec<_> = (0..20)
                .map(|n| {
                    let quorum = quorum.clone();
                    tokio::spawn(async move { quorum.propose(create_topic(round * 20 + n)).await })
                })
                .collect();
            for proposal in proposals {
                proposal.await.unwrap().unwrap();
            }
        }
        let purged = || quorum.shared.raft.metrics().borrow().purged;
        while purged().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let image = quorum.image();
        quorum.shutdown().await.unwrap();
        let again = QuorumHandle::start(options).await.unwrap();
        assert_eq!(again.image(), image);
        assert_eq!(image.topic_count(), 400);
        again.shutdown().await.unwrap();
    });
    assert!(disk.violations().is_empty(), "{:?}", disk.violations());
}

#[test]
fn after_shutting_down_nothing_is_written() {
    for _ in 0..20 {
        let disk = new_disk();
        let operations = block_on(async {
            let mut options = options(&disk);
            options.snapshots = SnapshotRule { log_bytes: 0, keep_entries: 0 };
            let quorum = QuorumHandle::start(options).await.unwrap();
            join(&quorum).await;
            quorum.propose(create_topic(1)).await.unwrap();
            quorum.shutdown().await.unwrap();
            disk.operations()
        });
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(disk.operations(), operations);
    }
}

#[test]
fn a_full_disk_refuses_new_commands_and_goes_on_when_there_is_space() {
    let disk = new_disk();
    block_on(async {
        let quorum = start(&disk).await;
        join(&quorum).await;
        disk.limit_capacity(0);
        let waits = quorum.propose_within(create_topic(1), Duration::from_millis(300)).await;
        assert_eq!(waits, Err(ProposeError::TimedOut(Duration::from_millis(300))));
        // The log's thread may be late.
        while !quorum.shared.pressure.is_full() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(quorum.propose(create_topic(2)).await, Err(ProposeError::DiskFull));
        disk.heal();
        while quorum.image().topic("topic1").is_none() || quorum.shared.pressure.is_full() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        quorum.propose(create_topic(2)).await.unwrap();
        disk.limit_capacity(0);
        let waits = quorum.propose_within(create_topic(3), Duration::from_millis(50)).await;
        assert!(matches!(waits, Err(ProposeError::TimedOut(_))), "{waits:?}");
        // Also with a write that waits for space, shutting down ends.
        let _ = quorum.shutdown().await;
    });
}

#[test]
fn a_failed_sync_stops_the_quorum_for_good() {
    use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
    let disk = new_disk();
    block_on(async {
        let quorum = start(&disk).await;
        join(&quorum).await;
        let fault = Fault {
            on: FaultOn::Sync,
            path_ends: ".log".to_owned(),
            after: 0,
            times: 1,
            kind: FaultKind::Eio,
        };
        disk.inject(fault);
        let first = quorum.propose(create_topic(1)).await;
        assert!(matches!(first, Err(ProposeError::Stopped { .. })), "{first:?}");
        assert!(matches!(quorum.failed().await, QuorumError::Stopped { .. }));
        assert!(matches!(quorum.propose(create_topic(2)).await, Err(ProposeError::Stopped { .. })));
        assert_eq!(disk.faults_taken(), 1);
        let _ = quorum.shutdown().await;
    });
}
