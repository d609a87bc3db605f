//! Fetches that wait, over a real partition on a simulated disk.

use std::time::Duration;

use floodmark_proto::batch::{BatchBuilder, NewRecord, RecordBatch};
use floodmark_replication::partition::AppendOptions;
use floodmark_storage::fs::SimDisk;
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};

use super::*;
use crate::ops::events::tests::open_with_tail;

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn batch(bytes: usize) -> RecordBatch {
    let (mut builder, value) = (BatchBuilder::new(), vec![b'v'; bytes]);
    let record = NewRecord { timestamp: 1, key: None, value: Some(&value), headers: &[] };
    builder.push(&record).unwrap();
    builder.build().unwrap()
}

async fn append(partition: &PartitionHandle, bytes: usize) {
    let appended = partition.append(vec![batch(bytes)], AppendOptions::CLIENT).await.unwrap();
    partition.committed(appended.end, appended.epoch).await.unwrap();
}

fn start(partition: &PartitionHandle, min_bytes: usize) -> tokio::task::JoinHandle<Vec<Part>> {
    let position = Position {
        partition: Ok(partition.clone()),
        from: Offset(0),
        max_bytes: 1 << 20,
        leader_epoch: None,
        last_fetched_epoch: None,
        source: ReadFrom::Leader,
    };
    let wanted = Wanted { min_bytes, max_bytes: 1 << 20, isolation: Isolation::Uncommitted };
    tokio::spawn(
        async move { fetch(vec![position], wanted, &Deadline::after(PATIENCE), &Arc::default()).await },
    )
}

async fn until_it_waits(partition: &PartitionHandle) {
    while !partition.is_watched() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_a_waiting_fetch_has_seen_is_not_read_again_at_each_append() {
    let disk = SimDisk::new();
    // The newest batch alone is in memory.
    let partition = open_with_tail(&disk, &[], 2_000);
    for _ in 0..10 {
        append(&partition, 1_000).await;
    }
    let waiting = start(&partition, 1 << 19);
    until_it_waits(&partition).await;
    let read = Fault {
        on: FaultOn::Read,
        path_ends: ".log".to_owned(),
        after: 0,
        times: 1_000,
        kind: FaultKind::Eio,
    };
    disk.inject(read);
    for _ in 0..10 {
        append(&partition, 10).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((disk.faults_taken(), waiting.is_finished()), (0, false));
    waiting.abort();
}

#[tokio::test]
async fn a_fetch_that_waited_gives_all_from_its_first_record_on() {
    let partition = open_with_tail(&SimDisk::new(), &[], 2_000);
    append(&partition, 1_000).await;
    let waiting = start(&partition, 3_000);
    until_it_waits(&partition).await;
    append(&partition, 1_000).await;
    append(&partition, 1_000).await;
    let parts = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(parts[0].error, None);
    assert_eq!(end_of(&parts[0].batches, Offset(0)).unwrap(), Offset(3));
    assert!(parts[0].size_bytes() > 3_000);
}

/// Fails when what is read for those who do not take their answers has no bound.
#[tokio::test]
async fn answers_shrink_to_one_batch_while_others_hold_the_memory() {
    let partition = open_with_tail(&SimDisk::new(), &[], 0);
    for _ in 0..20 {
        append(&partition, 100_000).await;
    }
    let memory = Arc::new(AnswerMemory::default());
    let fetch = || {
        let position = Position {
            partition: Ok(partition.clone()),
            from: Offset(0),
            max_bytes: 4 << 20,
            leader_epoch: None,
            last_fetched_epoch: None,
            source: ReadFrom::Leader,
        };
        let wanted = Wanted { min_bytes: 1, max_bytes: 4 << 20, isolation: Isolation::Uncommitted };
        let memory = Arc::clone(&memory);
        async move { fetch(vec![position], wanted, &Deadline::after(PATIENCE), &memory).await }
    };
    assert!(fetch().await[0].size_bytes() > 1_900_000);
    let others: Vec<_> = (0..60).map(|_| memory.take(55 << 20)).collect();
    let held = fetch().await;
    assert_eq!(end_of(&held[0].batches, Offset(0)).unwrap(), Offset(1));
    assert!(memory.held() > 60 * (64 << 10));
    drop(others);
    assert!(fetch().await[0].size_bytes() > 1_900_000);
    drop(held);
    assert_eq!(memory.held(), 0);
}
