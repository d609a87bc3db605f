//! One record at a time over gRPC, as a stream of requests and as a call for each, over an echo of as many bytes by the same client.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use floodmark_benches::kafka_wire as wire;
use floodmark_benches::measure::{Compared, pairs_in_turns};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::server::{Placement, Server};
use floodmark_proto::pb::v1 as pb;
use hdrhistogram::Histogram;
use prost::Message as _;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

use crate::verbatim::Verbatim;
use crate::{Common, echo};

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
const RECORD_BYTES: usize = 100;
const TOPIC: &str = "plain";
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// p50 and p99 in microseconds.
struct Times {
    p50: f64,
    p99: f64,
}

impl Args {
    pub(crate) fn run(&self, report: &mut Report) -> anyhow::Result<()> {
        for &placement in &self.placement {
            let scratch = self.common.setup.scratch()?;
            let (broker, echo) = placement
                .serve(|| Ok((self.common.broker(scratch.path())?, Server::bare(&["echo"], &[])?)))?;
            placement.load(|| self.compare(report, placement, &broker, &echo))?;
        }
        Ok(())
    }

    fn compare(
        &self,
        report: &mut Report,
        placement: Placement,
        broker: &Server,
        echo: &Server,
    ) -> anyhow::Result<()> {
        let mut connection = wire::Connection::open(broker.address)?;
        wire::check_created(connection.ask(&wire::create_topic(TOPIC, 1, &[("floodmark.sync", "none")]))?)?;
        let grpc = broker.grpc.context("the broker has no gRPC door")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let request = Bytes::from(request().encode_to_vec());
        let pairs = self.common.setup.pairs;
        let streams = pairs_in_turns(
            pairs,
            &mut (),
            |()| self.stream(&runtime, grpc, "/floodmark.v1.Data/Produce", &request, check_produced),
            |()| self.stream(&runtime, echo.address, echo::STREAM, &request, |_| Ok(())),
        )?;
        let calls = pairs_in_turns(
            pairs,
            &mut (),
            |()| self.unary(&runtime, grpc, "/floodmark.v1.Data/Append", &request, check_produced),
            |()| self.unary(&runtime, echo.address, echo::UNARY, &request, |_| Ok(())),
        )?;
        // Where nobody says who runs where, a side that happens to be placed better wins.
        let aim = if placement == Placement::Free { Aim::None } else { Aim::AtMost(2.0) };
        for (what, times) in [("on one stream", streams), ("a call for each", calls)] {
            let name = format!("{}: one record at a time, {what}, over an echo", placement.name());
            report.compared(format!("{name}: p50"), aim, &Compared::of_parts(&times, |t| t.p50), "us");
            report.compared(format!("{name}: p99"), Aim::None, &Compared::of_parts(&times, |t| t.p99), "us");
        }
        Ok(())
    }

    fn stream(
        &self,
        runtime: &Runtime,
        address: SocketAddr,
        method: &'static str,
        request: &Bytes,
        check: impl Fn(Bytes) -> anyhow::Result<()>,
    ) -> anyhow::Result<Times> {
        runtime.block_on(async {
            let mut grpc = connect(address).await?;
            let (requests, sent) = mpsc::channel(1);
            // Some servers begin to answer only when something was asked.
            requests.send(request.clone()).await?;
            let asked = Request::new(ReceiverStream::new(sent));
            let answers = grpc.streaming(asked, PathAndQuery::from_static(method), Verbatim).await?;
            let mut answers: Streaming<Bytes> = answers.into_inner();
            check(next(&mut answers).await?)?;
            let mut histogram = Histogram::<u64>::new(3)?;
            for n in 0..WARM_UP + self.round_trips {
                let start = Instant::now();
                requests.send(request.clone()).await?;
                check(next(&mut answers).await?)?;
                if n >= WARM_UP {
                    histogram.record(start.elapsed().as_nanos() as u64)?;
                }
            }
            Ok(times_of(&histogram))
        })
    }

    fn unary(
        &self,
        runtime: &Runtime,
        address: SocketAddr,
        method: &'static str,
        request: &Bytes,
        check: impl Fn(Bytes) -> anyhow::Result<()>,
    ) -> anyhow::Result<Times> {
        runtime.block_on(async {
            let mut grpc = connect(address).await?;
            let mut histogram = Histogram::<u64>::new(3)?;
            for n in 0..WARM_UP + self.round_trips {
                let start = Instant::now();
                grpc.ready().await?;
                let asked = Request::new(request.clone());
                let answer = grpc.unary(asked, PathAndQuery::from_static(method), Verbatim).await?;
                check(answer.into_inner())?;
                if n >= WARM_UP {
                    histogram.record(start.elapsed().as_nanos() as u64)?;
                }
            }
            Ok(times_of(&histogram))
        })
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<Grpc<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    let mut grpc = Grpc::new(endpoint.connect().await?);
    grpc.ready().await?;
    Ok(grpc)
}

async fn next(answers: &mut Streaming<Bytes>) -> anyhow::Result<Bytes> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, answers.message()).await.context("no answer came")?;
    answer?.context("the server has ended the stream")
}

fn request() -> pb::ProduceRequest {
    let record = pb::Record { value: Some(vec![7; RECORD_BYTES].into()), ..Default::default() };
    pb::ProduceRequest {
        topic: TOPIC.to_owned(),
        partition: Some(0),
        acks: pb::Acks::Leader.into(),
        payload: Some(pb::produce_request::Payload::Records(pb::Records { records: vec![record] })),
        ..Default::default()
    }
}

fn check_produced(reply: Bytes) -> anyhow::Result<()> {
    use pb::partition_reply::Outcome;
    let reply = pb::ProduceReply::decode(reply)?;
    let outcome = reply.partitions.first().and_then(|partition| partition.outcome.as_ref());
    ensure!(matches!(outcome, Some(Outcome::Produced(_))), "producing was answered with {reply:?}");
    Ok(())
}

fn times_of(histogram: &Histogram<u64>) -> Times {
    let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    Times { p50: micros(0.5), p99: micros(0.99) }
}
