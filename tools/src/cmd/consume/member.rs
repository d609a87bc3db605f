//! Reads as a member of a group. An offset is committed only when its record has been printed, so that whoever takes over after a crash
//! leaves none out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use floodmark_client::admin::OffsetCommit;
use floodmark_client::{
    Client, Consumer, ConsumerConfig, Error, Rebalance, RebalanceChange, Record, Reset, TopicPartition,
};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::printer::Printer;
use super::stuck::Stuck;
use super::{ConsumeArgs, IsolationArg};
use crate::input::position::Position;
use crate::output::note;
use crate::remote::Interrupts;

/// How often it is looked whether the end is reached.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often a member without partitions asks whether others have them all.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What a crash may cause to be printed once more.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(
    args: &ConsumeArgs,
    group: &str,
    client: &Client,
    mut printer: Printer,
    mut interrupts: Interrupts,
) -> anyhow::Result<()> {
    let progress = Progress::default();
    let listener = progress.clone();
    let mut config = ConsumerConfig::group(group, [args.topic.as_str()]).manual();
    config.filter = args.filter.clone();
    config.isolation = args.isolation.isolation();
    config.reset = if args.from == Position::End { Reset::End } else { Reset::Start };
    let config = config.on_rebalance(move |rebalance| {
        let progress = listener.clone();
        async move { progress.on_rebalance(rebalance).await }
    });
    let mut reading = Reading {
        args,
        group: group.to_owned(),
        client,
        asked_at: Instant::now(),
        consumer: client.consumer(config).await?,
        printer: &mut printer,
        progress: progress.clone(),
        ends: HashMap::new(),
        stuck: Stuck::default(),
    };
    let ended = tokio::select! {
        ended = reading.until_the_end() => ended,
        () = interrupts.next() => Ok(()),
    };
    reading.note_untouched();
    let consumer = reading.consumer;
    // Whatever ended it, what has been printed is committed, unless nobody has seen it.
    let committed = match printer.flush() {
        Ok(()) => {
            progress.seen();
            progress.commit(&consumer).await.map_err(anyhow::Error::new)
        }
        Err(e) => Err(e.into()),
    };
    let closed = consumer.close().await;
    ended?;
    committed?;
    Ok(closed?)
}

/// What has been printed of each partition, shared with the task that gives partitions away.
#[derive(Clone, Default)]
struct Progress {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Where each partition goes on behind what was printed but may not have been seen.
    printed: BTreeMap<TopicPartition, i64>,
    /// The same for what has been seen and is not committed.
    seen: BTreeMap<TopicPartition, i64>,
    /// What was committed last.
    committed: BTreeMap<TopicPartition, i64>,
    /// Given away: whoever has them now commits for them.
    gone: BTreeSet<TopicPartition>,
}

impl Progress {
    fn printed(&self, partition: TopicPartition, next_offset: i64) {
        let mut state = self.state.lock();
        if !state.gone.contains(&partition) {
            state.printed.insert(partition, next_offset);
        }
    }

    /// Everything that was printed has left this program.
    fn seen(&self) {
        let mut state = self.state.lock();
        let printed = std::mem::take(&mut state.printed);
        state.seen.extend(printed);
    }

    async fn on_rebalance(&self, rebalance: Rebalance) {
        let mut commits = Vec::new();
        {
            let mut state = self.state.lock();
            for partition in &rebalance.partitions {
                if rebalance.change == RebalanceChange::Assigned {
                    state.gone.remove(partition);
                    continue;
                }
                state.gone.insert(partition.clone());
                state.printed.remove(partition);
                state.committed.remove(partition);
                if let Some(offset) = state.seen.remove(partition) {
                    commits.push(OffsetCommit::new(partition.clone(), offset));
                }
            }
        }
        // Whoever has lost a partition may not commit it any more.
        if rebalance.change == RebalanceChange::Revoked
            && !commits.is_empty()
            && let Err(e) = rebalance.consumer.commit_offsets(&commits).await
        {
            note(&format!("offsets are not committed, so some records will be read again: {e}"));
        }
    }

    async fn commit(&self, consumer: &Consumer) -> Result<(), Error> {
        let seen = std::mem::take(&mut self.state.lock().seen);
        let commits: Vec<OffsetCommit> =
            seen.iter().map(|(partition, offset)| OffsetCommit::new(partition.clone(), *offset)).collect();
        if commits.is_empty() {
            return Ok(());
        }
        let committed = consumer.handle().commit_offsets(&commits).await;
        let mut state = self.state.lock();
        if committed.is_ok() {
            state.committed.extend(seen);
        } else {
            for (partition, offset) in seen {
                // Unless more has been seen meanwhile, or it has been given away.
                if !state.gone.contains(&partition) {
                    state.seen.entry(partition).or_insert(offset);
                }
            }
        }
        committed
    }
}

struct Reading<'a> {
    args: &'a ConsumeArgs,
    group: String,
    /// When the group was last asked who has what.
    asked_at: Instant,
    client: &'a Client,
    consumer: Consumer,
    printer: &'a mut Printer,
    progress: Progress,
    /// Where partitions ended when this member got them.
    ends: HashMap<TopicPartition, i64>,
    stuck: Stuck,
}

impl Reading<'_> {
    async fn until_the_end(&mut self) -> anyhow::Result<()> {
        let mut looks = interval(LOOK_EVERY);
        let mut commits = interval(COMMIT_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        commits.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.printer.is_full() {
                return Ok(());
            }
            tokio::select! {
                biased;
                _ = commits.tick() => self.commit().await?,
                records = self.consumer.recv_batch() => match records {
                    Ok(records) => self.print(&records)?,
                    Err(error) => self.stuck.on_error(error, &self.assigned())?,
                },
                // Nothing is at hand: what was printed is to be seen.
                () = std::future::ready(()), if self.printer.is_dirty => self.flush()?,
                _ = looks.tick() => {
                    self.follow_positions();
                    if self.args.follow && !self.stuck.is_empty() {
                        self.stuck.check(&self.assigned())?;
                    }
                    if !self.args.follow && self.is_at_the_end().await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// All of one partition. Those of one that has just been given away are for whoever has it now.
    fn print(&mut self, records: &[Record]) -> std::io::Result<()> {
        let Some(partition) = records.first().map(Record::topic_partition) else { return Ok(()) };
        self.stuck.on_records(partition.partition);
        if self.progress.state.lock().gone.contains(&partition) {
            return Ok(());
        }
        let mut next_offset = None;
        for record in records {
            if self.printer.print(record)? {
                next_offset = Some(record.offset + 1);
            }
        }
        if let Some(next_offset) = next_offset {
            self.progress.printed(partition, next_offset);
        }
        Ok(())
    }

    fn assigned(&self) -> Vec<i32> {
        self.consumer.handle().assignment().iter().map(|at| at.partition).collect()
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.printer.flush()?;
        self.progress.seen();
        Ok(())
    }

    /// A commit that comes amid a rebalance may be refused; what it says is committed later, or read again by whoever has the partition then.
    async fn commit(&mut self) -> anyhow::Result<()> {
        self.flush()?;
        match self.progress.commit(&self.consumer).await {
            Err(e) if !e.is_retryable() && !is_of_a_rebalance(&e) => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Positions move on without records behind a filter, and over markers of transactions. Only while nothing is at hand: then all that
    /// was handed out has been printed.
    fn follow_positions(&self) {
        let handle = self.consumer.handle();
        let mut state = self.progress.state.lock();
        for partition in handle.assignment() {
            let Some(position) = handle.position(&partition) else { continue };
            if !state.gone.contains(&partition) && state.committed.get(&partition) != Some(&position) {
                state.seen.insert(partition, position);
            }
        }
    }

    /// Partitions of which nothing was printed get an offset too, so that their lag is known and a group that begins at the end does not
    /// begin at a later one the next time.
    fn note_untouched(&self) {
        let handle = self.consumer.handle();
        let mut state = self.progress.state.lock();
        for partition in handle.assignment() {
            let is_known =
                [&state.printed, &state.seen, &state.committed].iter().any(|of| of.contains_key(&partition));
            if let Some(position) =
                handle.position(&partition).filter(|_| !is_known && !state.gone.contains(&partition))
            {
                state.seen.insert(partition, position);
            }
        }
    }

    async fn is_at_the_end(&mut self) -> anyhow::Result<bool> {
        let handle = self.consumer.handle();
        let assignment = handle.assignment();
        if assignment.is_empty() {
            return self.is_left_out().await;
        }
        self.ends.retain(|partition, _| assignment.contains(partition));
        let mut stuck = Vec::new();
        for partition in assignment {
            let end = match self.ends.get(&partition) {
                Some(end) => *end,
                None => {
                    let offsets = self.client.admin().offsets(&partition, None).await?;
                    let end = match self.args.isolation {
                        IsolationArg::Uncommitted => offsets.high_watermark,
                        IsolationArg::Committed => offsets.last_stable,
                    };
                    self.ends.insert(partition.clone(), end);
                    end
                }
            };
            if handle.position(&partition).is_none_or(|position| position < end) {
                if !self.stuck.is_stuck(partition.partition) {
                    return Ok(false);
                }
                stuck.push(partition.partition);
            }
        }
        self.stuck.check(&stuck)?;
        Ok(true)
    }

    /// Whether the group is done with sharing out, and others have every partition.
    async fn is_left_out(&mut self) -> anyhow::Result<bool> {
        if self.asked_at.elapsed() < ASK_EVERY {
            return Ok(false);
        }
        self.asked_at = Instant::now();
        let group = self.client.admin().group(&self.group).await?;
        let partitions = self.client.partition_count(&self.args.topic).await?;
        // This member may not be in the group yet, and what the group has given to it may not have arrived here.
        let own = &self.client.config().client_id;
        let (own, others): (Vec<_>, Vec<_>) =
            group.members.iter().partition(|member| member.client_id == *own);
        let of_others = others.iter().flat_map(|member| &member.partitions);
        let of_others = of_others.filter(|partition| *partition.topic == *self.args.topic).count();
        let is_left_out =
            group.state == "Stable" && !own.is_empty() && i32::try_from(of_others) == Ok(partitions);
        if is_left_out {
            note(&format!(
                "other members of group {} have all partitions; --follow waits for some",
                self.group
            ));
        }
        Ok(is_left_out)
    }
}

/// The group goes on without it, and so does this member.
fn is_of_a_rebalance(error: &Error) -> bool {
    let reason = match error {
        Error::Refused(refusal) => refusal.reason.as_str(),
        _ => "",
    };
    matches!(
        reason,
        "REBALANCE_IN_PROGRESS" | "ILLEGAL_GENERATION" | "UNKNOWN_MEMBER_ID" | "FENCED_INSTANCE_ID"
    )
}
