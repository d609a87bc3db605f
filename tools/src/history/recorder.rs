//! Takes down what the clients of one process do, as JSON lines in one file. Lines stand in the order in which things ended.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use super::{Event, Op};

/// Writes a history. Clones write the same one.
#[derive(Clone)]
pub struct Recorder(Arc<Mutex<Sink>>);

struct Sink {
    to: BufWriter<Box<dyn Write + Send>>,
    /// The first thing that went wrong; told by [`Recorder::finish`].
    failed: Option<io::Error>,
    ended_last: u64,
}

impl Recorder {
    /// A history that is written to `to`.
    #[must_use]
    pub fn new(to: Box<dyn Write + Send>) -> Recorder {
        let to = BufWriter::with_capacity(1 << 20, to);
        Recorder(Arc::new(Mutex::new(Sink { to, failed: None, ended_last: 0 })))
    }

    /// To be asked before anything is sent. The machine's clock since it started, so that all processes of a workload have the same.
    #[must_use]
    pub fn begin(&self) -> u64 {
        now_ns()
    }

    /// To be told after the answer has come, or will not come any more.
    pub fn end(&self, begun: u64, did: Op) {
        let mut sink = self.0.lock();
        let ended = now_ns().max(sink.ended_last);
        sink.ended_last = ended;
        let written = serde_json::to_writer(&mut sink.to, &Event { begun, ended, did })
            .map_err(io::Error::from)
            .and_then(|()| sink.to.write_all(b"\n"));
        if let Err(e) = written {
            sink.failed.get_or_insert(e);
        }
    }

    /// Writes out what is still in memory.
    ///
    /// # Errors
    /// The first error of the file, whenever it was: the history is not whole then.
    pub fn finish(&self) -> io::Result<()> {
        let mut sink = self.0.lock();
        if let Some(e) = sink.failed.take() {
            return Err(e);
        }
        sink.to.flush()
    }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
