//! The whole quorum, killed or cut off from power at every change of every file: what was answered is there.

use floodmark_storage::fs::SyncPoint;

use super::*;

/// Answered commands, each with how many changes the disk had seen by then.
struct History {
    disk: SimDisk,
    answered: Vec<(u64, u64)>,
}

fn snapshotting(disk: &SimDisk) -> QuorumOptions {
    QuorumOptions { snapshots: SnapshotRule { log_bytes: 300, keep_entries: 1 }, ..options(disk) }
}

/// Proposes topics one after the other, with a restart in between.
fn run(skip: Option<SyncPoint>) -> Result<History, QuorumError> {
    let disk = new_disk();
    if let Some(point) = skip {
        disk.skip_sync(point);
    }
    disk.record_images();
    let mut answered = Vec::new();
    for half in 0..2 {
        block_on(async {
            let quorum = QuorumHandle::start(snapshotting(&disk)).await?;
            join(&quorum).await;
            for n in half * 10..half * 10 + 10 {
                quorum.propose(create_topic(n)).await.unwrap();
                answered.push((disk.operations(), n));
            }
            while quorum.shared.raft.metrics().borrow().purged.is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            quorum.shutdown().await
        })?;
    }
    Ok(History { disk, answered })
}

/// What is wrong with what a cut left, if anything.
fn check(history: &History, operation: u64, left: &SimDisk) -> Option<String> {
    block_on(async {
        let quorum = match QuorumHandle::start(snapshotting(left)).await {
            Ok(quorum) => quorum,
            Err(e) => return Some(format!("does not start: {e}")),
        };
        let image = quorum.image();
        let lost = history.answered.iter().filter(|(at, _)| *at <= operation);
        let lost: Vec<u64> =
            lost.map(|(_, n)| *n).filter(|n| image.topic_by_id(topic_id(*n)).is_none()).collect();
        // And it takes more.
        join(&quorum).await;
        let more = quorum.propose(create_topic(1000)).await;
        quorum.shutdown().await.unwrap();
        (!lost.is_empty() || more.is_err()).then(|| format!("lost {lost:?}, then {more:?}"))
    })
}

fn first_failure(history: &History, seeds: &[Option<u64>], every: usize) -> (Option<String>, usize) {
    let mut cuts = 0;
    for image in history.disk.take_images().iter().step_by(every) {
        for seed in seeds {
            let left = seed.map_or_else(|| image.killed(), |seed| image.power_cut(seed));
            if left.list(Path::new(DATA_DIR)).is_err() {
                continue;
            }
            cuts += 1;
            if let Some(e) = check(history, image.operation(), &left) {
                return (Some(format!("operation {} seed {seed:?}: {e}", image.operation())), cuts);
            }
        }
    }
    (None, cuts)
}

#[test]
fn every_answered_command_survives_a_kill_or_power_cut_at_every_moment() {
    let history = run(None).unwrap();
    let (failure, cuts) = first_failure(&history, &[None, Some(0), Some(4), Some(5)], 1);
    assert_eq!(failure, None);
    assert!(cuts > 500, "{cuts} cuts");
}

#[test]
fn every_sync_of_the_snapshot_that_is_left_out_is_missed() {
    for point in [SyncPoint::ImageSnapshotData, SyncPoint::ImageSnapshotRenamed] {
        let missed = match run(Some(point)) {
            Ok(history) => first_failure(&history, &[Some(0), Some(4), Some(5)], 1).0,
            Err(e) => Some(e.to_string()),
        };
        assert!(missed.is_some(), "nobody misses {point:?}");
    }
}
