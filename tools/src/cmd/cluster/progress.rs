//! Waits for moves to end, and shows how far they are.

use std::time::Duration;

use anyhow::bail;
use floodmark_client::admin::{MoveUnderWay, ReplicaState};
use floodmark_client::{Admin, TopicPartition};
use tokio::time::{Instant, sleep};

use crate::input::quantity::show_bytes;
use crate::output::{count_bar, note};
use crate::remote::Interrupts;

/// Between two looks. Each costs a call, and one more for each of a few partitions.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Partitions of which a look asks what their new replicas lack.
const ASKED_MAX: usize = 16;

/// How a wait for moves ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// None of them is under way any more.
    All,
    /// The user has seen enough; they go on.
    Interrupted,
}

/// Returns once none of `wanted` moves any more. Fails where that takes longer than `limit`; the moves go on.
pub(super) async fn wait(admin: &Admin, wanted: &[TopicPartition], limit: Duration) -> anyhow::Result<Ended> {
    let mut interrupts = Interrupts::new()?;
    let until = Instant::now() + limit;
    let total = wanted.len();
    let bar = count_bar(total as u64, "partitions");
    loop {
        let moves = admin.moves().await?;
        let left: Vec<&MoveUnderWay> = moves.iter().filter(|m| wanted.contains(&m.partition)).collect();
        bar.set_position(total.saturating_sub(left.len()) as u64);
        if left.is_empty() {
            bar.finish_and_clear();
            return Ok(Ended::All);
        }
        if !bar.is_hidden() {
            bar.set_message(missing(admin, &left).await);
        }
        if Instant::now() >= until {
            bar.finish_and_clear();
            bail!(
                "{} of {total} partitions still move after {} s; they go on: `floodmark cluster moves` shows them, `floodmark cluster cancel` \
                 takes them back",
                left.len(),
                limit.as_secs()
            );
        }
        tokio::select! {
            () = interrupts.next() => {
                bar.finish_and_clear();
                note(&format!(
                    "{} of {total} partitions still move, and go on: `floodmark cluster moves` shows them, `floodmark cluster cancel` takes \
                     them back",
                    left.len()
                ));
                return Ok(Ended::Interrupted);
            }
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// What the new replicas of some of these lack, in words.
async fn missing(admin: &Admin, left: &[&MoveUnderWay]) -> String {
    let (mut bytes, mut is_known) = (0, left.len() <= ASKED_MAX);
    for moved in left.iter().take(ASKED_MAX) {
        let replicas = new_replicas(admin, moved).await;
        is_known &= lacking(&replicas).is_some();
        bytes += replicas.iter().filter_map(|replica| replica.lag_bytes).sum::<u64>();
    }
    let about = if is_known { "" } else { "at least " };
    format!("{about}{} to copy", show_bytes(bytes))
}

/// The replicas that a move adds, as the leader knows them; none where it cannot be asked.
pub(super) async fn new_replicas(admin: &Admin, moved: &MoveUnderWay) -> Vec<ReplicaState> {
    let is_new = |replica: &ReplicaState| !moved.from.contains(&replica.broker);
    match admin.replicas(&moved.partition).await {
        Ok(replicas) => replicas.into_iter().filter(is_new).collect(),
        Err(_) => Vec::new(),
    }
}

/// Bytes; `None` where the leader has not heard of all of them.
pub(super) fn lacking(replicas: &[ReplicaState]) -> Option<u64> {
    sum(replicas.iter().map(|replica| replica.lag_bytes))
}

/// The sum of what is known of each; `None` of nothing.
pub(super) fn sum<T: std::iter::Sum>(mut of_each: impl ExactSizeIterator<Item = Option<T>>) -> Option<T> {
    if of_each.len() == 0 { None } else { of_each.by_ref().sum() }
}
