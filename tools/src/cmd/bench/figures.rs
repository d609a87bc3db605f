//! What a run found: counts, rates and percentiles, for people and for programs.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use crate::input::quantity::{show_bytes, show_count};
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink};

/// Longer ones count as this: whoever waits so long has given up.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// Times in nanoseconds, to three digits.
pub(super) struct Latencies {
    histogram: Histogram<u64>,
}

impl Latencies {
    pub(super) fn new() -> anyhow::Result<Latencies> {
        Ok(Latencies { histogram: Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3)? })
    }

    pub(super) fn add(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(nanoseconds);
    }

    pub(super) fn add_all(&mut self, others: &Latencies) -> anyhow::Result<()> {
        Ok(self.histogram.add(&others.histogram)?)
    }

    pub(super) fn summary(&self) -> LatencySummary {
        let at = |quantile: f64| self.histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        LatencySummary {
            count: self.histogram.len(),
            mean_us: self.histogram.mean() / 1_000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.histogram.max() as f64 / 1_000.0,
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct LatencySummary {
    count: u64,
    mean_us: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

/// Times of one kind.
#[derive(Debug, Serialize)]
pub(super) struct Times {
    /// From when to when.
    what: &'static str,
    #[serde(flatten)]
    summary: LatencySummary,
}

/// Records of one kind in the time that they took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Throughput {
    records: u64,
    /// Of values.
    bytes: u64,
    seconds: f64,
    records_per_second: f64,
    mib_per_second: f64,
}

impl Throughput {
    pub(super) fn new(records: u64, bytes: u64, elapsed: Duration) -> Throughput {
        let seconds = elapsed.as_secs_f64();
        // A run too short for the clock has no rate.
        let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        Throughput {
            records,
            bytes,
            seconds,
            records_per_second: per_second(records as f64),
            mib_per_second: per_second(bytes as f64 / f64::from(1 << 20)),
        }
    }
}

/// What was done, and what came of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    topic: String,
    record_size_bytes: usize,
    /// What was asked for, by name.
    #[serde(serialize_with = "by_name")]
    settings: Vec<(&'static str, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) written: Option<Throughput>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) read: Option<Throughput>,
    pub(super) times: Vec<Times>,
    /// What keeps the figures from meaning what they seem to.
    pub(super) warnings: Vec<String>,
}

fn by_name<S: Serializer>(settings: &[(&'static str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(settings.iter().map(|(name, value)| (name, value)))
}

impl Report {
    pub(super) fn new(bench: &'static str, topic: &str, record_size_bytes: usize) -> Report {
        Report {
            bench,
            topic: topic.to_owned(),
            record_size_bytes,
            settings: Vec::new(),
            written: None,
            read: None,
            times: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn setting(&mut self, name: &'static str, value: impl ToString) {
        self.settings.push((name, value.to_string()));
    }

    pub(super) fn times(&mut self, what: &'static str, latencies: &Latencies) {
        self.times.push(Times { what, summary: latencies.summary() });
    }

    pub(super) fn print(&self, format: Format) -> anyhow::Result<()> {
        let mut sink = Sink::stdout();
        match format {
            Format::Json => sink.json(self)?,
            Format::Table => self.print_tables(&mut sink)?,
        }
        Ok(sink.flush()?)
    }

    fn print_tables(&self, sink: &mut Sink) -> std::io::Result<()> {
        let settings = self.settings.iter().map(|(name, value)| format!(", {name} {value}"));
        let size = self.record_size_bytes;
        sink.line(&format!(
            "bench {}: topic {}, records of {size} bytes{}",
            self.bench,
            self.topic,
            settings.collect::<String>()
        ))?;
        let mut table = Pages::new(&[
            Column::Text(""),
            Column::Number("records"),
            Column::Number("bytes"),
            Column::Number("seconds"),
            Column::Number("records/s"),
            Column::Number("MiB/s"),
        ]);
        for (name, throughput) in [("written", &self.written), ("read", &self.read)] {
            let Some(t) = throughput else { continue };
            table.row(
                sink,
                vec![
                    name.to_owned(),
                    show_count(t.records),
                    show_bytes(t.bytes),
                    format!("{:.2}", t.seconds),
                    show_count(t.records_per_second.round() as u64),
                    format!("{:.1}", t.mib_per_second),
                ],
            )?;
        }
        table.flush(sink)?;
        let mut table = Pages::new(&[
            Column::Text("time in µs"),
            Column::Number("mean"),
            Column::Number("p50"),
            Column::Number("p90"),
            Column::Number("p99"),
            Column::Number("p99.9"),
            Column::Number("max"),
        ]);
        for times in &self.times {
            let s = &times.summary;
            let figures = [s.mean_us, s.p50_us, s.p90_us, s.p99_us, s.p999_us, s.max_us];
            let cells = figures.map(|us| show_count(us.round() as u64));
            table.row(sink, [times.what.to_owned()].into_iter().chain(cells).collect())?;
        }
        table.flush(sink)?;
        self.warnings.iter().try_for_each(|warning| sink.line(&format!("warning: {warning}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let mut latencies = Latencies::new().unwrap();
        for us in 1..=1_000 {
            latencies.add(Duration::from_micros(us));
        }
        let mut others = Latencies::new().unwrap();
        others.add(LATENCY_MAX * 2);
        let near =
            |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() < 0.002, "{found}, not {wanted}");
        let summary = latencies.summary();
        assert_eq!(summary.count, 1_000);
        near(summary.p50_us, 500.0);
        near(summary.p99_us, 990.0);
        near(summary.max_us, 1_000.0);
        near(summary.mean_us, 500.5);
        latencies.add_all(&others).unwrap();
        assert_eq!(latencies.summary().count, 1_001);
        near(latencies.summary().max_us, LATENCY_MAX.as_secs_f64() * 1e6);
    }

    #[test]
    fn a_rate_is_by_the_second() {
        let t = Throughput::new(1_000, 8 << 20, Duration::from_secs(4));
        assert_eq!((t.records_per_second, t.mib_per_second), (250.0, 2.0));
        assert_eq!(Throughput::new(1, 1, Duration::ZERO).records_per_second, 0.0);
    }
}
