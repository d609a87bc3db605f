//! One record at a time: how long until it is answered, and until a consumer has it.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use floodmark_benches::kafka_wire as wire;
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::round_trips::{RoundTrips, Times, WARM_UP, row, times_of};
use floodmark_benches::server::{Placement, Server};
use floodmark_benches::workload::Template;
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
        let (mut plain, mut synced) = (Vec::new(), Vec::new());
        let (mut end_to_end, mut watched) = (Vec::new(), Vec::new());
        for pair in 0..=self.common.setup.pairs {
            let trips = RoundTrips(self.round_trips);
            let echoed = trips.echo(echo.address, template.size_bytes())?;
            let answered = trips.produce(broker.address, "plain", 1, &template)?;
            let answered_synced = trips.produce(broker.address, "synced", -1, &template)?;
            let on_disk = trips.sync(&dir.join("bare"), &template)?;
            let (consumed, meanwhile) = self.consume(broker, "plain", &template)?;
            if pair > 0 {
                plain.push((answered, echoed));
                synced.push((answered_synced, (echoed.0 + on_disk.0, echoed.1 + on_disk.1)));
                end_to_end.push((consumed, echoed));
                watched.push((meanwhile, echoed));
            }
        }
        // Where nobody says who runs where, a side that happens to be placed better wins.
        let aim = |limit| if placement == Placement::Free { Aim::None } else { Aim::AtMost(limit) };
        let name = placement.name();
        row(report, &format!("{name}: produce, acks=1, over an echo"), aim(1.5), &plain);
        row(report, &format!("{name}: produce, synced, over fdatasync + echo"), aim(1.3), &synced);
        row(report, &format!("{name}: producer to consumer, over an echo"), aim(2.0), &end_to_end);
        row(report, &format!("{name}: that producer's answer, over an echo"), Aim::None, &watched);
        Ok(())
    }

    /// From the call that sends a record to the moment a consumer has it that had asked before, and to the producer's answer.
    fn consume(&self, broker: &Server, topic: &str, template: &Template) -> anyhow::Result<(Times, Times)> {
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
            let (mut histogram, mut answered) = (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?);
            for n in 0..count {
                let sent = Instant::now();
                producer.ask(&frame)?;
                let answer_took = sent.elapsed();
                let took = arrivals.recv_timeout(Duration::from_secs(10))?.duration_since(sent);
                if n >= WARM_UP {
                    histogram.record(took.as_nanos() as u64)?;
                    answered.record(answer_took.as_nanos() as u64)?;
                }
            }
            reader.join().ok().context("the consumer panicked")??;
            Ok((times_of(&histogram), times_of(&answered)))
        })
    }
}
