//! One record at a time: how long until it is answered, and until a consumer has it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use floodmark_benches::kafka_wire as wire;
use floodmark_benches::measure::Compared;
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::server::{Placement, Server};
use floodmark_benches::workload::{Template, prewrite};
use hdrhistogram::Histogram;

use crate::{Common, bare};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Round trips in each run
    #[arg(long, default_value_t = 3000)]
    round_trips: usize,
    /// Where the two sides run, one report after the other
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["one-core", "two-cores", "free"])]
    placement: Vec<Placement>,
}

const WARM_UP: usize = 200;
const BARE_FILE_BYTES: u64 = 64 << 20;

/// p50 and p99 in microseconds.
type Times = (f64, f64);

impl Args {
    pub(crate) fn run(&self, report: &mut Report) -> anyhow::Result<()> {
        for &placement in &self.placement {
            let scratch = self.common.setup.scratch()?;
            let sides = placement.serve(|| {
                let broker = Server::floodmark(&self.common.program.path()?, &scratch.path().join("data"))?;
                Ok((broker, bare::start("echo", scratch.path())?))
            });
            let (broker, echo) = sides?;
            placement.load(|| self.compare(report, placement, &broker, &echo, scratch.path()))?;
        }
        Ok(())
    }

    fn compare(
        &self,
        report: &mut Report,
        placement: Placement,
        broker: &Server,
        echo: &Server,
        dir: &Path,
    ) -> anyhow::Result<()> {
        let template = Template::of_records(200, 100)?;
        let mut connection = wire::Connection::open(broker.address)?;
        for (topic, sync) in [("plain", "none"), ("synced", "ack")] {
            let settings = [("floodmark.sync", sync)];
            wire::check_created(connection.ask(&wire::create_topic(topic, 1, &settings))?)?;
        }
        let (mut plain, mut synced, mut end_to_end) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..=self.common.setup.pairs {
            let echoed = self.echo(echo, template.size_bytes())?;
            let answered = self.produce(broker, "plain", 1, &template)?;
            let answered_synced = self.produce(broker, "synced", -1, &template)?;
            let on_disk = self.sync(dir, &template)?;
            let consumed = self.consume(broker, "plain", &template)?;
            if pair > 0 {
                plain.push((answered, echoed));
                synced.push((answered_synced, (echoed.0 + on_disk.0, echoed.1 + on_disk.1)));
                end_to_end.push((consumed, echoed));
            }
        }
        // Where nobody says who runs where, a side that happens to be placed better wins.
        let aim = |limit| if placement == Placement::Free { Aim::None } else { Aim::AtMost(limit) };
        let name = placement.name();
        row(report, format!("{name}: produce, acks=1, over an echo"), aim(1.5), &plain);
        row(report, format!("{name}: produce, synced, over fdatasync + echo"), aim(1.3), &synced);
        row(report, format!("{name}: producer to consumer, over an echo"), aim(2.0), &end_to_end);
        Ok(())
    }

    fn produce(&self, broker: &Server, topic: &str, acks: i16, template: &Template) -> anyhow::Result<Times> {
        let mut connection = wire::Connection::open(broker.address)?;
        let frame = wire::produce(topic, 0, acks, template.as_bytes());
        self.times(|| wire::produced_at(topic, connection.ask(&frame)?).map(|_| ()))
    }

    fn echo(&self, echo: &Server, bytes: usize) -> anyhow::Result<Times> {
        let mut stream = TcpStream::connect(echo.address)?;
        stream.set_nodelay(true)?;
        let (frame, mut answer) = (vec![1; bytes], vec![0; bytes]);
        self.times(|| {
            stream.write_all(&frame)?;
            Ok(stream.read_exact(&mut answer)?)
        })
    }

    fn sync(&self, dir: &Path, template: &Template) -> anyhow::Result<Times> {
        let path = dir.join("bare");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        prewrite(&file, 0, BARE_FILE_BYTES)?;
        let mut at = 0;
        self.times(|| {
            file.write_all_at(template.as_bytes(), at)?;
            at = (at + template.size_bytes() as u64) % (BARE_FILE_BYTES / 2);
            Ok(file.sync_data()?)
        })
    }

    /// From the call that sends a record to the moment a consumer has it that had asked before.
    fn consume(&self, broker: &Server, topic: &str, template: &Template) -> anyhow::Result<Times> {
        let mut producer = wire::Connection::open(broker.address)?;
        let frame = wire::produce(topic, 0, 1, template.as_bytes());
        let mut from = wire::produced_at(topic, producer.ask(&frame)?)? + template.records();
        let mut consumer = wire::Connection::open(broker.address)?;
        let (arrived, arrivals) = sync_channel(1);
        let count = WARM_UP + self.round_trips;
        thread::scope(|scope| {
            let reader = scope.spawn(move || -> anyhow::Result<()> {
                consumer.send(&wire::fetch(topic, 0, from, 1 << 20, 10_000))?;
                for _ in 0..count {
                    let answer = consumer.receive()?;
                    let at = Instant::now();
                    from = wire::next_offset(wire::fetched(topic, answer)?)?.context("an empty answer")?;
                    consumer.send(&wire::fetch(topic, 0, from, 1 << 20, 10_000))?;
                    // The next record is sent once this was told, so the question for it is under way before it.
                    arrived.send(at)?;
                }
                Ok(())
            });
            let mut histogram = Histogram::<u64>::new(3)?;
            for n in 0..count {
                let sent = Instant::now();
                producer.ask(&frame)?;
                let took = arrivals.recv_timeout(Duration::from_secs(10))?.duration_since(sent);
                if n >= WARM_UP {
                    histogram.record(took.as_nanos() as u64)?;
                }
            }
            reader.join().ok().context("the consumer panicked")??;
            Ok(times_of(&histogram))
        })
    }

    fn times(&self, mut round_trip: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Times> {
        for _ in 0..WARM_UP {
            round_trip()?;
        }
        let mut histogram = Histogram::<u64>::new(3)?;
        for _ in 0..self.round_trips {
            let start = Instant::now();
            round_trip()?;
            histogram.record(start.elapsed().as_nanos() as u64)?;
        }
        Ok(times_of(&histogram))
    }
}

fn times_of(histogram: &Histogram<u64>) -> Times {
    let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    (micros(0.5), micros(0.99))
}

fn row(report: &mut Report, name: String, aim: Aim, pairs: &[(Times, Times)]) {
    let of = |part: fn(&Times) -> f64| {
        Compared::of_pairs(&pairs.iter().map(|(ours, bare)| (part(ours), part(bare))).collect::<Vec<_>>())
    };
    report.compared(format!("{name}: p50"), aim, &of(|t| t.0), "us");
    report.compared(format!("{name}: p99"), Aim::None, &of(|t| t.1), "us");
}
