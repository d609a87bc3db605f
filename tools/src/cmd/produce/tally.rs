//! What was written where: a table in the end, or a line of JSON for each record.

use std::collections::BTreeMap;

use floodmark_client::{Durability, Placed};
use serde::Serialize;

use crate::input::quantity::show_count;
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink};

pub(super) struct Tally {
    topic: String,
    format: Format,
    sink: Sink,
    partitions: BTreeMap<i32, Written>,
}

#[derive(Debug, Clone, Copy)]
struct Written {
    records: u64,
    first_offset: i64,
    last_offset: i64,
}

#[derive(Serialize)]
struct Acknowledged<'a> {
    /// Its place in the input, from 1 on.
    record: u64,
    topic: &'a str,
    partition: i32,
    /// Null where the broker knows only that a retry was one.
    offset: Option<i64>,
    /// The broker's time, where the topic has the broker's time.
    log_append_time_ms: Option<i64>,
    durability: &'static str,
}

impl Tally {
    pub(super) fn new(topic: String, format: Format) -> Tally {
        Tally { topic, format, sink: Sink::stdout(), partitions: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, record: u64, placed: &Placed) -> anyhow::Result<()> {
        let offset = placed.offset;
        let written = self.partitions.entry(placed.partition).or_insert(Written {
            records: 0,
            first_offset: offset,
            last_offset: offset,
        });
        written.records += 1;
        written.last_offset = written.last_offset.max(offset);
        if self.format == Format::Json {
            self.sink.json(&Acknowledged {
                record,
                topic: &self.topic,
                partition: placed.partition,
                offset: (offset >= 0).then_some(offset),
                log_append_time_ms: placed.log_append_time_ms,
                durability: durability(placed.durability),
            })?;
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.sink.flush()?)
    }

    /// In words.
    pub(super) fn written(&self) -> String {
        match self.partitions.values().map(|written| written.records).sum() {
            1 => "1 record".to_owned(),
            count => format!("{} records", show_count(count)),
        }
    }

    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        if self.format == Format::Table {
            self.sink.line(&format!("{} written to {}", self.written(), self.topic))?;
            let mut table =
                Pages::new(&["partition", "records", "first offset", "last offset"].map(Column::Number));
            for (partition, written) in &self.partitions {
                let numbers = [written.first_offset, written.last_offset].map(|offset| offset.to_string());
                let [first, last] = numbers;
                table.row(
                    &mut self.sink,
                    vec![partition.to_string(), written.records.to_string(), first, last],
                )?;
            }
            table.flush(&mut self.sink)?;
        }
        self.flush()
    }
}

fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Memory => "memory",
        Durability::SyncedHere => "synced_here",
        Durability::SyncedInSyncSet => "synced_in_sync_set",
        _ => "unknown",
    }
}
