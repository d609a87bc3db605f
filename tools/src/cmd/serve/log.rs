//! The log of a broker: lines go to a thread of their own, so that a terminal or pipe that takes no more stops nobody but itself. Lines that
//! find the queue full are lost, and counted.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use floodmark_broker::BrokerConfig;
use floodmark_broker::config::LogFormat;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written. The queue is of a kind that takes memory for those that do wait: at rest that is none.
const LINES_MAX: usize = 4096;
/// How long an ending program waits for its last lines to be taken: a second.
const FLUSH_TRIES: u32 = 100;
const FLUSH_PAUSE: Duration = Duration::from_millis(10);

/// Writes what waits when dropped.
pub(in crate::cmd) struct Log(Sender<Message>);

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Starts the log of this process.
pub(in crate::cmd) fn start(config: &BrokerConfig) -> anyhow::Result<Log> {
    let filter = EnvFilter::try_new(&config.logging_filter)
        .with_context(|| format!("logging.filter cannot be {:?}", config.logging_filter))?;
    let queue = start_writer(io::stderr(), config.logging_format)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue.clone());
    // Colours are for eyes; in a file they are noise.
    let log = log.with_ansi(io::stderr().is_terminal());
    let started = match config.logging_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| anyhow::anyhow!("the log cannot be started: {e}"))?;
    Ok(Log(queue.lines))
}

impl Drop for Log {
    fn drop(&mut self) {
        let (written, is_written) = sync_channel(1);
        let mut flush = Message::Flush(written);
        for _ in 0..FLUSH_TRIES {
            match self.0.try_send(flush) {
                Ok(()) => {
                    // Where nobody reads it there is nobody to tell.
                    let _ = is_written.recv_timeout(FLUSH_TRIES * FLUSH_PAUSE);
                    return;
                }
                Err(TrySendError::Full(unsent)) => flush = unsent,
                Err(TrySendError::Closed(_)) => return,
            }
            thread::sleep(FLUSH_PAUSE);
        }
    }
}

/// The end of the queue that lines are put into.
#[derive(Clone)]
struct Queue {
    lines: Sender<Message>,
    lost: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Queue;

    fn make_writer(&'a self) -> &'a Queue {
        self
    }
}

impl Write for &Queue {
    /// One call for each line, which is how the subscriber does it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start_writer(out: impl Write + Send + 'static, format: LogFormat) -> io::Result<Queue> {
    let (lines, queue) = channel(LINES_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    let is_lost = Arc::clone(&lost);
    thread::Builder::new()
        .name("fm-log".to_owned())
        .spawn(move || write_lines(queue, out, &is_lost, format))?;
    Ok(Queue { lines, lost })
}

fn write_lines(mut queue: Receiver<Message>, mut out: impl Write, lost: &AtomicU64, format: LogFormat) {
    while let Some(message) = queue.blocking_recv() {
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            // What cannot be written cannot be told either.
            let _ = out.write_all(lost_line(lost, format).as_bytes());
        }
        match message {
            Message::Line(line) => drop(out.write_all(&line)),
            Message::Flush(written) => drop(written.try_send(())),
        }
    }
}

fn lost_line(lost: u64, format: LogFormat) -> String {
    match format {
        LogFormat::Text => format!("{lost} lines of the log were lost: they were not read fast enough\n"),
        LogFormat::Json => {
            format!("{{\"level\":\"WARN\",\"message\":\"lines of the log were lost\",\"lost\":{lost}}}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// Takes nothing until it is opened.
    #[derive(Clone, Default)]
    struct Gate(Arc<State>);

    #[derive(Default)]
    struct State {
        is_open: Mutex<bool>,
        opened: Condvar,
        taken: Mutex<Vec<u8>>,
    }

    impl Gate {
        fn open(&self) {
            *self.0.is_open.lock().unwrap() = true;
            self.0.opened.notify_all();
        }
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut is_open = self.0.is_open.lock().unwrap();
            while !*is_open {
                is_open = self.0.opened.wait(is_open).unwrap();
            }
            self.0.taken.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_stops_nobody_and_learns_what_it_missed() {
        let gate = Gate::default();
        let queue = start_writer(gate.clone(), LogFormat::Text).unwrap();
        // One is with the writer, the rest fills the queue, the last ones are lost.
        for n in 0..LINES_MAX + 1000 {
            (&queue).write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        gate.open();
        drop(Log(queue.lines));
        let log = String::from_utf8(gate.0.taken.lock().unwrap().clone()).unwrap();
        let written = log.lines().filter(|line| line.parse::<usize>().is_ok()).count();
        let lost = log.lines().filter_map(|line| {
            line.strip_suffix(" lines of the log were lost: they were not read fast enough")
        });
        let lost: usize = lost.map(|count| count.parse::<usize>().unwrap()).sum();
        assert!(lost >= 999, "{lost}");
        assert_eq!(written + lost, LINES_MAX + 1000);
    }
}
