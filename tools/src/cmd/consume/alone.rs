//! Reads what it is told to, without a group.

use std::time::Duration;

use anyhow::bail;
use floodmark_client::{Begin, Client, Consumer, ConsumerConfig, Isolation, TopicPartition};
use tokio::time::{MissedTickBehavior, interval};

use super::printer::Printer;
use super::stops::Stops;
use super::stuck::Stuck;
use super::{ConsumeArgs, IsolationArg};
use crate::input::position::{Bounds, Position};
use crate::remote::Interrupts;

/// How often it is looked whether positions have moved on without records: behind a filter, or where markers are the last of a partition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) async fn run(
    args: &ConsumeArgs,
    partitions: i32,
    client: &Client,
    mut printer: Printer,
    mut interrupts: Interrupts,
) -> anyhow::Result<()> {
    if let Some(missing) = args.partition.iter().find(|partition| **partition >= partitions) {
        bail!("topic {} has no partition {missing}; it has {partitions}, from 0 on", args.topic);
    }
    let mut parts = Vec::new();
    for partition in 0..partitions {
        if args.partition.is_empty() || args.partition.contains(&partition) {
            parts.push(Part::find(args, client, partition).await?);
        }
    }
    if !args.follow {
        parts.retain(|part| part.begin < part.stop);
    }
    if parts.is_empty() {
        return Ok(());
    }
    let mut config = ConsumerConfig::assigned();
    config.filter = args.filter.clone();
    config.isolation = args.isolation.isolation();
    let consumer = client.consumer(config).await?;
    let assigned: Vec<(TopicPartition, Begin)> =
        parts.iter().map(|part| (part.place.clone(), Begin::Offset(part.begin))).collect();
    consumer.assign(&assigned).await?;
    let stops =
        (!args.follow).then(|| Stops::new(parts.iter().map(|part| (part.place.partition, part.stop))));
    let mut reading =
        Reading { topic: &args.topic, consumer, stops, stuck: Stuck::default(), printer: &mut printer };
    let ended = tokio::select! {
        ended = reading.until_the_end() => ended,
        () = interrupts.next() => Ok(()),
    };
    // What was printed before something went wrong is of use too.
    printer.flush()?;
    ended
}

/// One partition, and where reading it begins and ends.
struct Part {
    place: TopicPartition,
    begin: i64,
    stop: i64,
}

impl Part {
    async fn find(args: &ConsumeArgs, client: &Client, partition: i32) -> anyhow::Result<Part> {
        let place = TopicPartition::new(args.topic.as_str(), partition);
        let offset_of = async |position: Position| -> anyhow::Result<i64> {
            let offsets = client.admin().offsets(&place, position.time()).await?;
            let end = match args.isolation {
                IsolationArg::Uncommitted => offsets.high_watermark,
                IsolationArg::Committed => offsets.last_stable,
            };
            Ok(position.offset_within(Bounds {
                start: offsets.start,
                end,
                at_time: offsets.at.map(|(offset, _)| offset),
            }))
        };
        let begin = offset_of(args.from).await?;
        let stop = offset_of(args.to.unwrap_or(Position::End)).await?;
        Ok(Part { begin, stop, place })
    }
}

struct Reading<'a> {
    topic: &'a str,
    consumer: Consumer,
    /// `None` to go on for ever.
    stops: Option<Stops>,
    stuck: Stuck,
    printer: &'a mut Printer,
}

impl Reading<'_> {
    async fn until_the_end(&mut self) -> anyhow::Result<()> {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.printer.is_full() || self.stops.as_ref().is_some_and(Stops::is_everything_read) {
                return Ok(());
            }
            if !self.stuck.is_empty() {
                self.stuck.check(&self.left())?;
            }
            tokio::select! {
                biased;
                records = self.consumer.recv_batch() => {
                    let records = match records {
                        Ok(records) => records,
                        Err(error) => {
                            self.stuck.on_error(error, &self.left())?;
                            continue;
                        }
                    };
                    for record in records {
                        self.stuck.on_records(record.partition);
                        let is_wanted = self.stops.as_ref().is_none_or(|s| s.is_before(record.partition, record.offset));
                        if is_wanted {
                            self.printer.print(&record)?;
                        }
                        self.on_position(record.partition, record.offset + 1);
                    }
                }
                // Nothing is at hand: what was printed is to be seen.
                () = std::future::ready(()), if self.printer.is_dirty => self.printer.flush()?,
                _ = looks.tick() => self.look(),
            }
        }
    }

    /// Partitions of which more is to be read.
    fn left(&self) -> Vec<i32> {
        let all = || self.consumer.handle().assignment().iter().map(|at| at.partition).collect();
        self.stops.as_ref().map_or_else(all, Stops::partitions)
    }

    /// A partition that has been read to its end is not fetched any more.
    fn on_position(&mut self, partition: i32, position: i64) {
        let Some(stops) = &mut self.stops else { return };
        if stops.on_position(partition, position) && !stops.is_everything_read() {
            self.consumer.handle().pause(&[TopicPartition::new(self.topic, partition)]);
        }
    }

    fn look(&mut self) {
        let handle = self.consumer.handle();
        for partition in self.stops.as_ref().map(Stops::partitions).unwrap_or_default() {
            if let Some(position) = handle.position(&TopicPartition::new(self.topic, partition)) {
                self.on_position(partition, position);
            }
        }
    }
}

impl IsolationArg {
    pub(crate) fn isolation(self) -> Isolation {
        match self {
            IsolationArg::Uncommitted => Isolation::Uncommitted,
            IsolationArg::Committed => Isolation::Committed,
        }
    }
}
