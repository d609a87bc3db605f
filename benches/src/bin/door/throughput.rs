//! CPU per GiB of the broker's process over that of a bare one, and the bytes per second with and without a sync.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use floodmark_benches::measure::{Compared, take_turns};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::workload::Template;

use crate::bare::SOURCE_BYTES;
use crate::process::Server;
use crate::{Common, wire};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// MiB moved by each side in each run
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// Requests on their way at once
    #[arg(long, default_value_t = 4)]
    in_flight: usize,
}

const GIB: f64 = (1u64 << 30) as f64;
/// Kafka's default `max.message.bytes` takes a batch of this size.
const BATCH_BYTES: usize = 1 << 20;
/// Small enough that a run never sees a roll in its first segment only.
const SEGMENT_BYTES: &str = "268435456";

struct Sides {
    broker: Server,
    sink: Server,
    source: Server,
}

impl Args {
    pub(crate) fn run(&self, report: &mut Report) -> anyhow::Result<()> {
        let scratch = self.common.setup.scratch()?;
        let filled = scratch.path().join("filled");
        fill(&filled, self.mib)?;
        let mut sides = Sides {
            broker: Server::floodmark(&self.common.program, &scratch.path().join("data"))?,
            sink: Server::bare("sink", &scratch.path().join("sunk"))?,
            source: Server::bare("source", &filled)?,
        };
        let mut topics = 0;
        for (name, record_bytes) in [("1 KiB records", 1 << 10), ("100-byte records", 100)] {
            let template = Template::of_records(BATCH_BYTES, record_bytes)?;
            let produced = self.compare_produce(&mut sides, &template, &mut topics)?;
            report.compared(format!("produce, {name}: CPU"), Aim::AtMost(1.5), &produced, "s/GiB");
            let topic = format!("fetched-{record_bytes}");
            self.produce(&sides.broker, &topic, &template, "none")?;
            let fetched = self.compare_fetch(&mut sides, &topic)?;
            report.compared(format!("fetch, {name}: CPU"), Aim::AtMost(1.3), &fetched, "s/GiB");
        }
        let template = Template::of_records(BATCH_BYTES, 1 << 10)?;
        let synced = self.compare_sync(&mut sides, &template, &mut topics)?;
        report.compared(
            "produce synced over unsynced: bytes per second",
            Aim::AtLeast(0.7),
            &synced,
            "MiB/s",
        );
        Ok(())
    }

    fn compare_produce(
        &self,
        sides: &mut Sides,
        template: &Template,
        topics: &mut u32,
    ) -> anyhow::Result<Compared> {
        take_turns(
            self.common.setup.pairs,
            &mut (sides, topics),
            |(sides, topics)| {
                **topics += 1;
                let topic = format!("produced-{topics}");
                Ok(self.produce(&sides.broker, &topic, template, "none")?.0)
            },
            |(sides, _)| self.sink(&sides.sink, &wire::produce("produced-1", 0, 1, template.as_bytes())),
        )
    }

    fn compare_sync(
        &self,
        sides: &mut Sides,
        template: &Template,
        topics: &mut u32,
    ) -> anyhow::Result<Compared> {
        let rate = |(sides, topics): &mut (&mut Sides, &mut u32), sync| {
            **topics += 1;
            Ok(self.produce(&sides.broker, &format!("synced-{topics}"), template, sync)?.1)
        };
        take_turns(self.common.setup.pairs, &mut (sides, topics), |s| rate(s, "ack"), |s| rate(s, "none"))
    }

    fn compare_fetch(&self, sides: &mut Sides, topic: &str) -> anyhow::Result<Compared> {
        take_turns(
            self.common.setup.pairs,
            sides,
            |sides| self.fetch(&sides.broker, topic),
            |sides| self.receive(&sides.source),
        )
    }

    /// CPU seconds per GiB, and MiB per second, of producing to a new topic.
    fn produce(
        &self,
        broker: &Server,
        topic: &str,
        template: &Template,
        sync: &str,
    ) -> anyhow::Result<(f64, f64)> {
        let mut connection = wire::Connection::open(broker.address)?;
        let settings = [("floodmark.sync", sync), ("segment.bytes", SEGMENT_BYTES)];
        wire::check_created(connection.ask(&wire::create_topic(topic, 1, &settings))?)?;
        let acks = if sync == "ack" { -1 } else { 1 };
        let frame = wire::produce(topic, 0, acks, template.as_bytes());
        let requests = template.count_in((self.mib << 20) as u64);
        let (cpu, started) = (broker.cpu()?, Instant::now());
        let mut waiting = VecDeque::new();
        for _ in 0..requests {
            connection.send(&frame)?;
            waiting.push_back(());
            if waiting.len() == self.in_flight {
                waiting.pop_front();
                wire::produced_at(topic, connection.receive()?)?;
            }
        }
        for () in waiting {
            wire::produced_at(topic, connection.receive()?)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let bytes = (requests * template.size_bytes()) as f64;
        Ok((per_gib(broker.cpu()? - cpu, bytes), bytes / f64::from(1 << 20) / seconds))
    }

    fn sink(&self, sink: &Server, frame: &[u8]) -> anyhow::Result<f64> {
        let mut stream = TcpStream::connect(sink.address)?;
        stream.set_nodelay(true)?;
        let requests = (self.mib << 20) / frame.len();
        let cpu = sink.cpu()?;
        let mut waiting = 0;
        let mut answer = [0; 4];
        for _ in 0..requests {
            stream.write_all(frame)?;
            waiting += 1;
            if waiting == self.in_flight {
                std::io::Read::read_exact(&mut stream, &mut answer)?;
                waiting -= 1;
            }
        }
        for _ in 0..waiting {
            std::io::Read::read_exact(&mut stream, &mut answer)?;
        }
        Ok(per_gib(sink.cpu()? - cpu, (requests * frame.len()) as f64))
    }

    /// CPU seconds per GiB of reading the topic from its start.
    fn fetch(&self, broker: &Server, topic: &str) -> anyhow::Result<f64> {
        let mut connection = wire::Connection::open(broker.address)?;
        let cpu = broker.cpu()?;
        let (mut from, mut bytes) = (0, 0);
        // A broker with other limits may answer with less than was asked; what counts is what came.
        while bytes < (self.mib - 2) << 20 {
            let answer = connection.ask(&wire::fetch(topic, 0, from, SOURCE_BYTES as i32, 1000))?;
            let records = wire::fetched(topic, answer)?;
            bytes += records.len();
            let Some(next) = wire::next_offset(records)? else {
                anyhow::bail!("nothing came at offset {from}")
            };
            from = next;
        }
        Ok(per_gib(broker.cpu()? - cpu, bytes as f64))
    }

    fn receive(&self, source: &Server) -> anyhow::Result<f64> {
        let mut stream = TcpStream::connect(source.address)?;
        stream.set_nodelay(true)?;
        let cpu = source.cpu()?;
        let mut piece = vec![0; SOURCE_BYTES];
        for n in 0..self.mib {
            stream.write_all(&((n * SOURCE_BYTES) as u64).to_be_bytes())?;
            std::io::Read::read_exact(&mut stream, &mut piece)?;
        }
        Ok(per_gib(source.cpu()? - cpu, (self.mib * SOURCE_BYTES) as f64))
    }
}

fn per_gib(cpu: Duration, bytes: f64) -> f64 {
    cpu.as_secs_f64() / (bytes / GIB)
}

/// A file in the page cache, for the bare source.
fn fill(path: &Path, mib: usize) -> anyhow::Result<()> {
    let file = File::create_new(path)?;
    let piece = vec![7; 1 << 20];
    for n in 0..mib {
        file.write_all_at(&piece, (n << 20) as u64)?;
    }
    Ok(())
}
