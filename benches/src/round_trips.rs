//! One thing at a time, timed each time: produce requests, and the bare echo and sync that they are held against.
#![allow(clippy::disallowed_methods, reason = "a load measures time, and writes the file of the bare side")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::kafka_wire as wire;
use crate::measure::Compared;
use crate::report::{Aim, Report};
use crate::workload::{Template, prewrite};

/// Round trips before those that count.
pub const WARM_UP: usize = 200;
const BARE_FILE_BYTES: u64 = 64 << 20;

/// p50 and p99 in microseconds.
pub type Times = (f64, f64);

/// How often each thing is done in a run, beside the warm-up.
#[derive(Debug, Clone, Copy)]
pub struct RoundTrips(pub usize);

impl RoundTrips {
    /// Produces one batch at a time to partition 0.
    pub fn produce(
        self,
        leader: SocketAddr,
        topic: &str,
        acks: i16,
        template: &Template,
    ) -> anyhow::Result<Times> {
        let mut connection = wire::Connection::open(leader)?;
        let frame = wire::produce(topic, 0, acks, template.as_bytes());
        self.times(|| wire::produced_at(topic, connection.ask(&frame)?).map(|_| ()))
    }

    /// Has a bare server answer as many bytes.
    pub fn echo(self, echo: SocketAddr, bytes: usize) -> anyhow::Result<Times> {
        let mut stream = TcpStream::connect(echo)?;
        stream.set_nodelay(true)?;
        let (frame, mut answer) = (vec![1; bytes], vec![0; bytes]);
        self.times(|| {
            stream.write_all(&frame)?;
            Ok(stream.read_exact(&mut answer)?)
        })
    }

    /// Writes the batch into a file that was written before, and syncs it.
    pub fn sync(self, path: &Path, template: &Template) -> anyhow::Result<Times> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        prewrite(&file, 0, BARE_FILE_BYTES)?;
        let mut at = 0;
        self.times(|| {
            file.write_all_at(template.as_bytes(), at)?;
            at = (at + template.size_bytes() as u64) % (BARE_FILE_BYTES / 2);
            Ok(file.sync_data()?)
        })
    }

    fn times(self, mut round_trip: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Times> {
        for _ in 0..WARM_UP {
            round_trip()?;
        }
        let mut histogram = Histogram::<u64>::new(3)?;
        for _ in 0..self.0 {
            let start = Instant::now();
            round_trip()?;
            histogram.record(start.elapsed().as_nanos() as u64)?;
        }
        Ok(times_of(&histogram))
    }
}

/// What a histogram of nanoseconds comes to.
#[must_use]
pub fn times_of(histogram: &Histogram<u64>) -> Times {
    let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    (micros(0.5), micros(0.99))
}

/// Two lines of a report: p50, which the aim is for, and p99.
pub fn row(report: &mut Report, name: &str, aim: Aim, pairs: &[(Times, Times)]) {
    let of = |part: fn(&Times) -> f64| {
        Compared::of_pairs(&pairs.iter().map(|(ours, bare)| (part(ours), part(bare))).collect::<Vec<_>>())
    };
    report.compared(format!("{name}: p50"), aim, &of(|t| t.0), "us");
    report.compared(format!("{name}: p99"), Aim::None, &of(|t| t.1), "us");
}
