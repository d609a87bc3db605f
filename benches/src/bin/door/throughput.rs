//! CPU per GiB of the broker's process over that of a bare one, and the bytes per second with and without a sync, of both.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use floodmark_benches::kafka_wire as wire;
use floodmark_benches::measure::{Compared, take_turns};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::server::{Placement, Server};
use floodmark_benches::workload::{Template, fill_page_cache};

use crate::Common;
use crate::bare::{self, SOURCE_BYTES};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// MiB moved by each side in each run
    #[arg(long, default_value_t = 512)]
    mib: usize,
    /// Requests on their way at once; Kafka's clients have five
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
}

const GIB: f64 = (1u64 << 30) as f64;
/// Kafka's default `max.message.bytes` takes a batch of this size.
pub(crate) const BATCH_BYTES: usize = 1 << 20;
/// Small enough that a run never sees a roll in its first segment only.
const SEGMENT_BYTES: &str = "268435456";

/// What each side takes before it is measured: the broker's memory of newest records is full then, and lets go of one batch for each
/// that comes, as it does ever after.
const WARM_UP_BYTES: usize = 96 << 20;
/// A topic's files are gone by then.
pub(crate) const DELETED_AFTER: Duration = Duration::from_millis(300);

struct Sides {
    broker: Server,
    sink: Server,
    /// What the sink writes.
    sunk: PathBuf,
    sendfile: Server,
    mapped: Server,
}

/// The two sizes of records that must cost the same by the byte.
pub(crate) const LARGE: usize = 1 << 10;
const SMALL: usize = 100;
/// Of each size, read one after the other: where in memory a file lies makes more of a difference than what is in it.
const TOPICS: usize = 3;

/// How much each side moves in a run, and where its files lie.
#[derive(Clone, Copy)]
struct Load<'a> {
    mib: usize,
    in_flight: usize,
    dir: &'a Path,
}

impl Args {
    pub(crate) fn run(&self, report: &mut Report) -> anyhow::Result<()> {
        let scratch = self.common.setup.scratch()?;
        fill_page_cache(scratch.path(), (self.mib << 20) as u64)?;
        let filled = scratch.path().join("filled");
        fill(&filled, self.mib)?;
        let sunk = scratch.path().join("sunk");
        // On cores of their own: what one side has just written lies in the caches of the other where they share one.
        let sides = Placement::TwoCores.serve(|| {
            Ok(Sides {
                broker: Server::floodmark(&self.common.program.path()?, &scratch.path().join("data"))?,
                sink: bare::start("sink", &sunk)?,
                sunk,
                sendfile: bare::start("sendfile", &filled)?,
                mapped: bare::start("mapped", &filled)?,
            })
        });
        let mut sides = sides?;
        let load = Load { mib: self.mib, in_flight: self.in_flight, dir: scratch.path() };
        Placement::TwoCores.load(|| {
            self.compare_produce(load, &mut sides, report)?;
            self.compare_fetch(load, &mut sides, report)
        })?;
        drop(sides);
        self.compare_synced(load, report)
    }

    /// A run as short as this meets the disk on the synced side alone, so that side is held against a bare program's (ADR 0017).
    fn compare_synced(&self, load: Load<'_>, report: &mut Report) -> anyhow::Result<()> {
        let bare_of = |kind: &str| {
            let file = load.dir.join(format!("{kind}-beside"));
            Ok::<_, anyhow::Error>((bare::start(kind, &file)?, file))
        };
        let mut sides = (
            Server::floodmark(&self.common.program.path()?, &load.dir.join("synced"))?,
            bare_of("synced-sink")?,
            bare_of("sink")?,
        );
        let template = Template::of_records(BATCH_BYTES, LARGE)?;
        let frame = wire::produce("synced", 0, 1, template.as_bytes());
        let ours = |broker: &Server, sync| Ok(load.produce(broker, "synced", &template, sync)?.1);
        let bare = |(sink, file): &(Server, PathBuf)| Ok(load.sink(sink, file, &frame)?.1);
        let pairs = self.common.setup.pairs;
        let over_bare = take_turns(pairs, &mut sides, |s| ours(&s.0, "ack"), |s| bare(&s.1))?;
        report.compared("produce synced over a bare synced sink", Aim::AtLeast(0.7), &over_bare, "MiB/s");
        let over_own = take_turns(pairs, &mut sides, |s| ours(&s.0, "ack"), |s| ours(&s.0, "none"))?;
        report.compared("produce synced over unsynced", Aim::None, &over_own, "MiB/s");
        let of_bare = take_turns(pairs, &mut sides, |s| bare(&s.1), |s| bare(&s.2))?;
        report.compared("the same of the bare sinks", Aim::None, &of_bare, "MiB/s");
        Ok(())
    }

    fn compare_produce(&self, load: Load<'_>, sides: &mut Sides, report: &mut Report) -> anyhow::Result<()> {
        let [large, small] =
            [LARGE, SMALL].map(|record_bytes| Template::of_records(BATCH_BYTES, record_bytes));
        let (large, small) = (large?, small?);
        let ours = |sides: &mut Sides, template: &Template| {
            Ok(load.produce(&sides.broker, "produced", template, "none")?.0)
        };
        let bare = |sides: &mut Sides| {
            let frame = wire::produce("produced", 0, 1, large.as_bytes());
            Ok(load.sink(&sides.sink, &sides.sunk, &frame)?.0)
        };
        let of_large = self.take_turns(sides, |s| ours(s, &large), bare)?;
        report.compared("produce, 1 KiB records: CPU over a bare sink", Aim::AtMost(1.5), &of_large, "s/GiB");
        let of_small = self.take_turns(sides, |s| ours(s, &small), bare)?;
        report.compared("produce, 100 B records: CPU over a bare sink", Aim::AtMost(1.5), &of_small, "s/GiB");
        let by_size = self.take_turns(sides, |s| ours(s, &small), |s| ours(s, &large))?;
        report.compared("produce, 100 B over 1 KiB records: CPU", Aim::AtMost(1.1), &by_size, "s/GiB");
        Ok(())
    }

    fn compare_fetch(&self, load: Load<'_>, sides: &mut Sides, report: &mut Report) -> anyhow::Result<()> {
        for record_bytes in [LARGE, SMALL] {
            let template = Template::of_records(BATCH_BYTES, record_bytes)?;
            for topic in topics_of(record_bytes) {
                load.fill(&sides.broker, &topic, &template, "none")?;
            }
        }
        let ours = |sides: &mut Sides, record_bytes| {
            let each: anyhow::Result<Vec<f64>> =
                topics_of(record_bytes).iter().map(|topic| load.fetch(&sides.broker, topic)).collect();
            Ok(each?.iter().sum::<f64>() / TOPICS as f64)
        };
        for (name, record_bytes) in [("1 KiB", LARGE), ("100 B", SMALL)] {
            let over_map = self.take_turns(sides, |s| ours(s, record_bytes), |s| load.receive(&s.mapped))?;
            let row = format!("fetch, {name} records: CPU over a bare mapped write");
            report.compared(row, Aim::AtMost(1.3), &over_map, "s/GiB");
        }
        let over_sendfile = self.take_turns(sides, |s| ours(s, LARGE), |s| load.receive(&s.sendfile))?;
        report.compared("fetch, 1 KiB records: CPU over a bare sendfile", Aim::None, &over_sendfile, "s/GiB");
        let by_size = self.take_turns(sides, |s| ours(s, SMALL), |s| ours(s, LARGE))?;
        report.compared("fetch, 100 B over 1 KiB records: CPU", Aim::AtMost(1.1), &by_size, "s/GiB");
        Ok(())
    }

    fn take_turns(
        &self,
        sides: &mut Sides,
        ours: impl Fn(&mut Sides) -> anyhow::Result<f64>,
        bare: impl Fn(&mut Sides) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Compared> {
        take_turns(self.common.setup.pairs, sides, ours, bare)
    }
}

impl Load<'_> {
    /// CPU seconds per GiB, and MiB per second, of producing to a new topic, which is deleted afterwards.
    fn produce(
        &self,
        broker: &Server,
        topic: &str,
        template: &Template,
        sync: &str,
    ) -> anyhow::Result<(f64, f64)> {
        let (measured, topic) = self.fill(broker, topic, template, sync)?;
        topic.delete()?;
        Ok(measured)
    }

    /// What [`Load::produce`] measures; the topic stays.
    fn fill(
        &self,
        broker: &Server,
        topic: &str,
        template: &Template,
        sync: &str,
    ) -> anyhow::Result<((f64, f64), Topic)> {
        let mut topic = Topic::create(broker, topic, template, sync)?;
        let requests = template.count_in((self.mib << 20) as u64);
        self.fill_page_cache()?;
        topic.send(template.count_in(WARM_UP_BYTES as u64), self.in_flight)?;
        let (cpu, started) = (broker.cpu()?, Instant::now());
        topic.send(requests, self.in_flight)?;
        let seconds = started.elapsed();
        Ok((measured(broker.cpu()? - cpu, requests * template.size_bytes(), seconds), topic))
    }

    /// CPU seconds per GiB, and MiB per second, of sending to a bare sink.
    fn sink(&self, sink: &Server, sunk: &Path, frame: &[u8]) -> anyhow::Result<(f64, f64)> {
        if sunk.exists() {
            std::fs::remove_file(sunk)?;
        }
        self.fill_page_cache()?;
        let mut stream = TcpStream::connect(sink.address)?;
        stream.set_nodelay(true)?;
        let requests = (self.mib << 20) / frame.len();
        let mut send = |requests| -> anyhow::Result<()> {
            let (mut waiting, mut answer) = (0, [0; 4]);
            for _ in 0..requests {
                stream.write_all(frame)?;
                waiting += 1;
                if waiting == self.in_flight {
                    stream.read_exact(&mut answer)?;
                    waiting -= 1;
                }
            }
            Ok((0..waiting).try_for_each(|_| stream.read_exact(&mut answer))?)
        };
        send(WARM_UP_BYTES / frame.len())?;
        let (cpu, started) = (sink.cpu()?, Instant::now());
        send(requests)?;
        Ok(measured(sink.cpu()? - cpu, requests * frame.len(), started.elapsed()))
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

    fn fill_page_cache(&self) -> anyhow::Result<()> {
        std::thread::sleep(DELETED_AFTER);
        fill_page_cache(self.dir, (self.mib << 20) as u64)
    }

    fn receive(&self, source: &Server) -> anyhow::Result<f64> {
        let mut stream = TcpStream::connect(source.address)?;
        stream.set_nodelay(true)?;
        let cpu = source.cpu()?;
        let mut piece = vec![0; SOURCE_BYTES];
        for n in 0..self.mib {
            stream.write_all(&((n * SOURCE_BYTES) as u64).to_be_bytes())?;
            stream.read_exact(&mut piece)?;
        }
        Ok(per_gib(source.cpu()? - cpu, (self.mib * SOURCE_BYTES) as f64))
    }
}

/// A new topic of one partition, and who sends to it.
pub(crate) struct Topic {
    name: String,
    connection: wire::Connection,
    frame: Vec<u8>,
}

impl Topic {
    pub(crate) fn create(
        broker: &Server,
        name: &str,
        template: &Template,
        sync: &str,
    ) -> anyhow::Result<Topic> {
        let mut connection = wire::Connection::open(broker.address)?;
        let settings = [("floodmark.sync", sync), ("segment.bytes", SEGMENT_BYTES)];
        wire::check_created(connection.ask(&wire::create_topic(name, 1, &settings))?)?;
        let acks = if sync == "ack" { -1 } else { 1 };
        let frame = wire::produce(name, 0, acks, template.as_bytes());
        Ok(Topic { name: name.to_owned(), connection, frame })
    }

    /// Sends so many requests, of which so many are on their way at once; returns when all are answered.
    pub(crate) fn send(&mut self, requests: usize, in_flight: usize) -> anyhow::Result<()> {
        let mut waiting = 0;
        for _ in 0..requests {
            self.connection.send(&self.frame)?;
            waiting += 1;
            if waiting == in_flight {
                wire::produced_at(&self.name, self.connection.receive()?)?;
                waiting -= 1;
            }
        }
        (0..waiting).try_for_each(|_| wire::produced_at(&self.name, self.connection.receive()?).map(|_| ()))
    }

    pub(crate) fn delete(mut self) -> anyhow::Result<()> {
        wire::check_deleted(self.connection.ask(&wire::delete_topic(&self.name))?)
    }
}

/// CPU seconds per GiB, and MiB per second.
fn measured(cpu: Duration, bytes: usize, took: Duration) -> (f64, f64) {
    (per_gib(cpu, bytes as f64), bytes as f64 / f64::from(1 << 20) / took.as_secs_f64())
}

fn per_gib(cpu: Duration, bytes: f64) -> f64 {
    cpu.as_secs_f64() / (bytes / GIB)
}

fn topics_of(record_bytes: usize) -> [String; TOPICS] {
    std::array::from_fn(|n| format!("fetched-{record_bytes}-{n}"))
}

/// A file in the page cache, for the bare sources.
fn fill(path: &Path, mib: usize) -> anyhow::Result<()> {
    let file = File::create_new(path)?;
    let piece = vec![7; 1 << 20];
    for n in 0..mib {
        file.write_all_at(&piece, (n << 20) as u64)?;
    }
    // The map of it asks for bytes that are on the disk.
    Ok(file.sync_data()?)
}
