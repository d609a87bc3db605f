//! What a broker counts, each broker for itself. Counting touches atomics alone; names and labels are dealt with at the scrape.

mod changes;
mod cluster;
mod groups;
mod state;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

pub(crate) use changes::ClusterChanges;
pub(crate) use cluster::{Health as ClusterHealth, health as cluster_health, min_in_sync};
pub(crate) use state::{SeriesMax, State, StateSource};

/// Upper bounds of the buckets of a time, in microseconds; one without a bound follows.
const BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// All counters of one broker.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) kafka: Arc<DoorMetrics>,
    pub(crate) grpc: Arc<DoorMetrics>,
    /// Calls of the gRPC door that are open and have no end of their own.
    pub(crate) grpc_streams: Family<Api, Gauge>,
    request_memory: Gauge,
    /// What becomes of the partitions that this broker leads.
    pub(crate) changes: ClusterChanges,
    /// To be set once logs are open.
    pub(crate) state: StateSource,
}

/// What a door counts.
#[derive(Debug)]
pub(crate) struct DoorMetrics {
    /// One for each API that is served, in the order of the table.
    pub(crate) apis: Vec<ApiMetrics>,
    /// Connections that are open.
    connections: Gauge,
    opened: Counter,
    closed: Family<Reason, Counter>,
    errors: Family<ErrorOf, Counter>,
}

/// What is counted for an API.
#[derive(Debug, Clone)]
pub(crate) struct ApiMetrics {
    seconds: Seconds,
    request_bytes: Counter,
    response_bytes: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Api {
    pub(crate) api: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorOf {
    api: &'static str,
    error: &'static str,
}

impl Metrics {
    /// Counters for the APIs of both doors, by their names.
    pub(crate) fn new(
        kafka: impl Iterator<Item = &'static str>,
        grpc: impl Iterator<Item = &'static str>,
    ) -> Metrics {
        let mut registry = Registry::with_prefix("floodmark");
        let (request_memory, grpc_streams) = (Gauge::default(), Family::default());
        let state = StateSource::default();
        registry.register_collector(Box::new(state.clone()));
        registry.register(
            "kafka_request_memory_free_bytes",
            "What is left of queued.max.request.bytes, which all doors share",
            request_memory.clone(),
        );
        registry.register("grpc_streams", "Calls that stream and are open", grpc_streams.clone());
        let changes = ClusterChanges::register(&mut registry);
        let kafka = Arc::new(DoorMetrics::register(registry.sub_registry_with_prefix("kafka"), kafka));
        let grpc = Arc::new(DoorMetrics::register(registry.sub_registry_with_prefix("grpc"), grpc));
        Metrics { registry, kafka, grpc, grpc_streams, request_memory, changes, state }
    }

    /// Everything as Prometheus reads it.
    pub(crate) fn text(&self, request_memory_free: usize) -> Result<String, fmt::Error> {
        self.request_memory.set(i64::try_from(request_memory_free).unwrap_or(i64::MAX));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl DoorMetrics {
    fn register(registry: &mut Registry, apis: impl Iterator<Item = &'static str>) -> DoorMetrics {
        let seconds = Family::<Api, Seconds>::default();
        let request_bytes = Family::<Api, Counter>::default();
        let response_bytes = Family::<Api, Counter>::default();
        let (connections, opened) = (Gauge::default(), Counter::default());
        let (closed, errors) = (Family::default(), Family::default());
        registry.register("request_seconds", "Time from a request's last byte to its reply", seconds.clone());
        registry.register("request_bytes", "Bytes of requests", request_bytes.clone());
        registry.register("response_bytes", "Bytes of replies", response_bytes.clone());
        registry.register("connections", "Connections that are open", connections.clone());
        registry.register("connections_opened", "Connections that were taken", opened.clone());
        registry.register("connections_closed", "Connections that ended, by reason", closed.clone());
        registry.register("errors", "Errors in replies", errors.clone());
        let apis = apis.map(|api| ApiMetrics {
            seconds: seconds.get_or_create_owned(&Api { api }),
            request_bytes: request_bytes.get_or_create_owned(&Api { api }),
            response_bytes: response_bytes.get_or_create_owned(&Api { api }),
        });
        DoorMetrics { apis: apis.collect(), connections, opened, closed, errors }
    }

    /// Counts a connection as open until the answer is dropped.
    pub(crate) fn open_connection(self: &Arc<Self>) -> OpenConnection {
        self.connections.inc();
        self.opened.inc();
        // Nobody says why where a handler panics.
        OpenConnection { metrics: Arc::clone(self), reason: "fault" }
    }

    /// A connection that was not taken.
    pub(crate) fn on_refused(&self, reason: &'static str) {
        self.closed.get_or_create_owned(&Reason { reason }).inc();
    }

    /// An error in a reply.
    pub(crate) fn on_error(&self, api: &'static str, error: &'static str) {
        self.errors.get_or_create_owned(&ErrorOf { api, error }).inc();
    }
}

/// A connection that is counted as open.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    metrics: Arc<DoorMetrics>,
    /// Why it ends.
    pub(crate) reason: &'static str,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.connections.dec();
        self.metrics.on_refused(self.reason);
    }
}

impl ApiMetrics {
    pub(crate) fn on_answered(&self, took: Duration, request_bytes: usize, response_bytes: usize) {
        self.seconds.observe(took);
        self.request_bytes.inc_by(request_bytes as u64);
        self.response_bytes.inc_by(response_bytes as u64);
    }

    /// A part of a reply that has no end.
    pub(crate) fn on_pushed(&self, bytes: usize) {
        self.response_bytes.inc_by(bytes as u64);
    }
}

/// A histogram of times that is counted into without a lock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seconds(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

impl Seconds {
    pub(crate) fn observe(&self, took: Duration) {
        let us = took.as_nanos().div_ceil(1000);
        let at = BOUNDS_US.partition_point(|&bound| u128::from(bound) < us);
        self.0.counts[at].fetch_add(1, Ordering::Relaxed);
        self.0.sum_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl TypedMetric for Seconds {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Seconds {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS_US.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.0.sum_ns.load(Ordering::Relaxed) as f64 / 1e9;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_that_bounds_them() {
        let metrics = Metrics::new(["Produce", "Fetch"].into_iter(), ["Data.Append"].into_iter());
        for us in [1, 50, 51, 30_000_000, 30_000_001] {
            metrics.kafka.apis[1].on_answered(Duration::from_micros(us), 10, 20);
        }
        let text = metrics.text(0).unwrap();
        for line in [
            r#"floodmark_kafka_request_seconds_bucket{le="0.00005",api="Fetch"} 2"#,
            r#"floodmark_kafka_request_seconds_bucket{le="0.0001",api="Fetch"} 3"#,
            r#"floodmark_kafka_request_seconds_bucket{le="30.0",api="Fetch"} 4"#,
            r#"floodmark_kafka_request_seconds_bucket{le="+Inf",api="Fetch"} 5"#,
            r#"floodmark_kafka_request_seconds_count{api="Fetch"} 5"#,
            r#"floodmark_kafka_request_seconds_count{api="Produce"} 0"#,
            r#"floodmark_kafka_request_bytes_total{api="Fetch"} 50"#,
            r#"floodmark_kafka_response_bytes_total{api="Fetch"} 100"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn connections_and_errors_are_told_by_reason() {
        let metrics = Metrics::new(["Fetch"].into_iter(), ["Data.Append"].into_iter());
        let _open = metrics.kafka.open_connection();
        metrics.kafka.open_connection().reason = "idle";
        drop(metrics.kafka.open_connection());
        metrics.kafka.on_refused("limit");
        metrics.kafka.on_error("Fetch", "OFFSET_OUT_OF_RANGE");
        metrics.grpc.on_error("Data.Append", "MESSAGE_TOO_LARGE");
        let text = metrics.text(0).unwrap();
        for line in [
            "floodmark_kafka_connections 1",
            "floodmark_kafka_connections_opened_total 3",
            r#"floodmark_kafka_connections_closed_total{reason="fault"} 1"#,
            r#"floodmark_kafka_connections_closed_total{reason="idle"} 1"#,
            r#"floodmark_kafka_connections_closed_total{reason="limit"} 1"#,
            r#"floodmark_kafka_errors_total{api="Fetch",error="OFFSET_OUT_OF_RANGE"} 1"#,
            r#"floodmark_grpc_errors_total{api="Data.Append",error="MESSAGE_TOO_LARGE"} 1"#,
            "floodmark_grpc_connections 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
