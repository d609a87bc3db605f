//! The same batches through both doors of one broker: bytes per second, and CPU of the broker per GiB.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use floodmark_benches::kafka_wire as wire;
use floodmark_benches::measure::{Compared, pairs_in_turns};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::server::{Placement, Server};
use floodmark_benches::workload::{Template, renew_memory};
use floodmark_proto::pb::v1 as pb;
use prost::Message as _;

use crate::Common;
use crate::http2::{self, Call};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    /// MiB moved by each side in each run
    #[arg(long, default_value_t = 512)]
    mib: usize,
    /// Requests on their way at once
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    /// Sizes of batches; each holds records of 1 KiB
    #[arg(long, value_delimiter = ',', default_values_t = [1024, 64])]
    batch_kib: Vec<usize>,
    /// Where the load and the broker run
    #[arg(long, value_enum, default_value = "two-cores")]
    placement: Placement,
}

const GIB: f64 = (1u64 << 30) as f64;
const RECORD_BYTES: usize = 1 << 10;
const SEGMENT_BYTES: &str = "268435456";
/// What a run takes beside its file: buffers on both sides of the socket.
const SPARE_BYTES: usize = 256 << 20;
/// Sent before it counts: the broker's memory of newest records is full then.
const WARM_UP_BYTES: usize = 96 << 20;
/// A topic's files are gone by then.
const DELETED_AFTER: Duration = Duration::from_millis(300);
/// Bytes that a reader is sent at once, and that it lets the broker send ahead.
const MESSAGE_BYTES: usize = 1 << 20;
const CREDIT_BYTES: u64 = 8 << 20;
const CREDIT_STEP: u64 = 2 << 20;

/// What a run came to.
struct Moved {
    mib_per_s: f64,
    cpu_per_gib: f64,
}

/// One way in.
#[derive(Clone, Copy)]
enum Door {
    Grpc,
    Kafka,
}

impl Args {
    pub(crate) fn run(&self, report: &mut Report) -> anyhow::Result<()> {
        let scratch = self.common.setup.scratch()?;
        let broker = self.placement.serve(|| self.common.broker(scratch.path()))?;
        self.placement.load(|| {
            for &kib in &self.batch_kib {
                let template = Template::of_records(kib << 10, RECORD_BYTES)?;
                self.compare_produce(&broker, &template, kib, report)?;
                self.compare_reading(&broker, &template, kib, report)?;
            }
            Ok(())
        })
    }

    fn compare_produce(
        &self,
        broker: &Server,
        template: &Template,
        kib: usize,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let run = |door| {
            let mut connection = wire::Connection::open(broker.address)?;
            self.create(&mut connection, "produced")?;
            let moved = self.produce(broker, door, "produced", template)?;
            wire::check_deleted(connection.ask(&wire::delete_topic("produced"))?)?;
            std::thread::sleep(DELETED_AFTER);
            Ok(moved)
        };
        let pairs =
            pairs_in_turns(self.common.setup.pairs, &mut (), |()| run(Door::Grpc), |()| run(Door::Kafka))?;
        tell(report, &format!("produce, batches of {kib} KiB"), &pairs);
        Ok(())
    }

    fn compare_reading(
        &self,
        broker: &Server,
        template: &Template,
        kib: usize,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let topic = format!("read-{kib}");
        self.create(&mut wire::Connection::open(broker.address)?, &topic)?;
        self.produce(broker, Door::Kafka, &topic, template)?;
        let pairs = pairs_in_turns(
            self.common.setup.pairs,
            &mut (),
            |()| self.subscribe(broker, &topic),
            |()| self.fetch(broker, &topic),
        )?;
        tell(report, &format!("subscribe over fetch, batches of {kib} KiB"), &pairs);
        Ok(())
    }

    fn create(&self, connection: &mut wire::Connection, topic: &str) -> anyhow::Result<()> {
        let settings = [("floodmark.sync", "none"), ("segment.bytes", SEGMENT_BYTES)];
        wire::check_created(connection.ask(&wire::create_topic(topic, 1, &settings))?)
    }

    fn produce(
        &self,
        broker: &Server,
        door: Door,
        topic: &str,
        template: &Template,
    ) -> anyhow::Result<Moved> {
        let mut send = match door {
            Door::Grpc => self.by_grpc(broker, topic, template)?,
            Door::Kafka => self.by_kafka(broker, topic, template)?,
        };
        renew_memory((self.mib << 20) + WARM_UP_BYTES + SPARE_BYTES)?;
        send(template.count_in(WARM_UP_BYTES as u64))?;
        let requests = template.count_in((self.mib << 20) as u64);
        moved(broker, || {
            send(requests)?;
            Ok(requests * template.size_bytes())
        })
    }

    /// Sends so many requests over one stream.
    fn by_grpc(
        &self,
        broker: &Server,
        topic: &str,
        template: &Template,
    ) -> anyhow::Result<Box<dyn FnMut(usize) -> anyhow::Result<()>>> {
        let address = broker.grpc.context("the broker has no gRPC door")?;
        let mut call = Call::open(address, "/floodmark.v1.Data/Produce")?;
        let request = pb::ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(0),
            acks: pb::Acks::Leader.into(),
            payload: Some(pb::produce_request::Payload::Batch(template.as_bytes().to_vec().into())),
            ..Default::default()
        };
        let message = http2::message(&request.encode_to_vec());
        let in_flight = self.in_flight;
        Ok(Box::new(move |requests| {
            let mut waiting = 0;
            for _ in 0..requests {
                call.send(&message)?;
                waiting += 1;
                if waiting == in_flight {
                    check_produced(call.receive()?)?;
                    waiting -= 1;
                }
            }
            (0..waiting).try_for_each(|_| check_produced(call.receive()?))
        }))
    }

    fn by_kafka(
        &self,
        broker: &Server,
        topic: &str,
        template: &Template,
    ) -> anyhow::Result<Box<dyn FnMut(usize) -> anyhow::Result<()>>> {
        let mut connection = wire::Connection::open(broker.address)?;
        let frame = wire::produce(topic, 0, 1, template.as_bytes());
        let (in_flight, topic) = (self.in_flight, topic.to_owned());
        Ok(Box::new(move |requests| {
            let mut waiting = 0;
            for _ in 0..requests {
                connection.send(&frame)?;
                waiting += 1;
                if waiting == in_flight {
                    wire::produced_at(&topic, connection.receive()?)?;
                    waiting -= 1;
                }
            }
            (0..waiting).try_for_each(|_| wire::produced_at(&topic, connection.receive()?).map(|_| ()))
        }))
    }

    fn subscribe(&self, broker: &Server, topic: &str) -> anyhow::Result<Moved> {
        use pb::subscribe_request::Request;
        let address = broker.grpc.context("the broker has no gRPC door")?;
        let mut call = Call::open(address, "/floodmark.v1.Data/Subscribe")?;
        let ask = |request| http2::message(&pb::SubscribeRequest { request: Some(request) }.encode_to_vec());
        let at = pb::position::At::Special(pb::position::Special::Start.into());
        let start = pb::SubscribeStart {
            parts: vec![pb::SubscribePart {
                topic: topic.to_owned(),
                partition: Some(0),
                from: Some(pb::Position { at: Some(at) }),
            }],
            credit_bytes: CREDIT_BYTES,
            encoding: pb::Encoding::Batches.into(),
            message_bytes_max: MESSAGE_BYTES as u32,
            ..Default::default()
        };
        let (start, credit) = (ask(Request::Start(start)), ask(Request::CreditBytes(CREDIT_STEP)));
        moved(broker, || {
            call.send(&start)?;
            let (mut bytes, mut used) = (0, 0);
            while bytes < self.read_bytes() {
                let payload = pushed(call.receive()?)?;
                bytes += payload;
                used += payload as u64;
                while used >= CREDIT_STEP {
                    call.send(&credit)?;
                    used -= CREDIT_STEP;
                }
            }
            Ok(bytes)
        })
    }

    fn fetch(&self, broker: &Server, topic: &str) -> anyhow::Result<Moved> {
        let mut connection = wire::Connection::open(broker.address)?;
        moved(broker, || {
            let (mut from, mut bytes) = (0, 0);
            while bytes < self.read_bytes() {
                let answer = connection.ask(&wire::fetch(topic, 0, from, MESSAGE_BYTES as i32, 1000))?;
                let records = wire::fetched(topic, answer)?;
                bytes += records.len();
                from = wire::next_offset(records)?.context("an empty answer")?;
            }
            Ok(bytes)
        })
    }

    /// What is read of a topic that holds at least this.
    fn read_bytes(&self) -> usize {
        (self.mib << 20).saturating_sub(2 << 20)
    }
}

fn moved(broker: &Server, run: impl FnOnce() -> anyhow::Result<usize>) -> anyhow::Result<Moved> {
    let (cpu, started) = (broker.cpu()?, Instant::now());
    let bytes = run()? as f64;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = broker.cpu()? - cpu;
    Ok(Moved {
        mib_per_s: bytes / f64::from(1 << 20) / seconds,
        cpu_per_gib: cpu.as_secs_f64() / (bytes / GIB),
    })
}

fn tell(report: &mut Report, name: &str, pairs: &[(Moved, Moved)]) {
    let rate = Compared::of_parts(pairs, |moved| moved.mib_per_s);
    report.compared(format!("{name}: bytes per second"), Aim::AtLeast(0.5), &rate, "MiB/s");
    let cpu = Compared::of_parts(pairs, |moved| moved.cpu_per_gib);
    report.compared(format!("{name}: broker CPU"), Aim::AtMost(2.0), &cpu, "s/GiB");
}

fn check_produced(reply: &[u8]) -> anyhow::Result<()> {
    use pb::partition_reply::Outcome;
    let reply = pb::ProduceReply::decode(reply)?;
    let outcome = reply.partitions.first().and_then(|partition| partition.outcome.as_ref());
    ensure!(matches!(outcome, Some(Outcome::Produced(_))), "producing was answered with {reply:?}");
    Ok(())
}

/// Bytes of batches in a reply of Subscribe; looks at nothing but the fields around them, as the other side does.
fn pushed(reply: &[u8]) -> anyhow::Result<usize> {
    let delivery = field(reply, 1)?.context("a reply without a delivery")?;
    let batches = field(delivery, 4)?.context("a delivery without batches")?;
    ensure!(batches.len() >= 61, "a delivery of {} bytes", batches.len());
    Ok(batches.len())
}

/// The bytes of the last field of this number.
fn field(mut message: &[u8], number: u32) -> anyhow::Result<Option<&[u8]>> {
    use prost::encoding::{WireType, decode_key, decode_varint};
    let mut found = None;
    while !message.is_empty() {
        let (tag, wire_type) = decode_key(&mut message)?;
        let value = decode_varint(&mut message)?;
        match wire_type {
            WireType::Varint => {}
            WireType::LengthDelimited => {
                let (bytes, rest) = message
                    .split_at_checked(usize::try_from(value)?)
                    .context("a field passes its message")?;
                message = rest;
                if tag == number {
                    found = Some(bytes);
                }
            }
            other => anyhow::bail!("a field of {other:?}"),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_found_in_a_reply() {
        let delivery = pb::Delivery {
            topic: "t".to_owned(),
            payload: Some(pb::delivery::Payload::Batches(vec![7; 300].into())),
            next_offset: 9,
            ..Default::default()
        };
        let reply = pb::SubscribeReply { reply: Some(pb::subscribe_reply::Reply::Delivery(delivery)) };
        assert_eq!(pushed(&reply.encode_to_vec()).unwrap(), 300);
        assert!(pushed(&pb::SubscribeReply::default().encode_to_vec()).is_err());
    }
}
