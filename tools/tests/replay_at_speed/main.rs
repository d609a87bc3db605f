//! A replay into another topic at ten times the original speed, by real processes: its pace, and that the copy has each record once and in
//! order however often the replay, the broker or both are killed with SIGKILL meanwhile.
//!
//! - `source`: what is copied; each record tells its number, and everything else about it follows from that
//! - `processes`: the broker and the replay; `watch` sees when records arrive in the copy; `pace` makes speeds of that
//! - `whole`: whether the copy is what it should be; knows the source by its rule alone
//!
//! In the gate forty thousand records; ten million by a command of its own (docs/TESTING.md), which holds the pace against the aim.
#![allow(clippy::disallowed_methods, reason = "real clocks and files, from outside the broker")]
#![allow(clippy::print_stdout, reason = "figures, for whoever asks for them")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

#[path = "../../../broker/tests/free_ports/mod.rs"]
mod free_ports;
mod pace;
mod processes;
#[path = "../events_under_kill/served.rs"]
mod served;
mod source;
mod watch;
mod whole;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use floodmark_client::admin::NewTopic;
use floodmark_client::{Client, ClientConfig};
use tokio::runtime::Runtime;

use pace::{Arrival, Pace};
use processes::Replaying;
use served::Served;
use source::Source;
use watch::Watch;

const FROM: &str = "written";
const INTO: &str = "copied";
const TIMES: f64 = 10.0;
/// Nothing new in the copy for so long is a failure of its own.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    Replay,
    /// Also the one that goes on, while it looks for what is there.
    ReplayTwice,
    /// The replay goes on by itself.
    Broker,
    /// The broker first.
    Both,
}

const KILLS: [Kill; 6] =
    [Kill::Replay, Kill::Broker, Kill::ReplayTwice, Kill::Both, Kill::Replay, Kill::Broker];

/// One broker with its source, and what drives it.
struct Stage {
    dir: PathBuf,
    runtime: Runtime,
    served: Option<Served>,
    grpc: String,
    client: Client,
    source: Source,
}

impl Stage {
    fn set(dir: &Path, source: Source) -> Stage {
        // It comes back to the same place, which nobody takes while it is gone.
        let [port] = free_ports::free_ports();
        let served = Served::start(dir, &format!("127.0.0.1:{port}"));
        let grpc = served.grpc.clone();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let client = runtime.block_on(Client::with(ClientConfig::new([grpc.clone()]))).unwrap();
        let began = Instant::now();
        runtime.block_on(source.write(&client, FROM));
        println!("{} records written in {:.1} s", source.records, began.elapsed().as_secs_f64());
        Stage { dir: dir.to_owned(), runtime, served: Some(served), grpc, client, source }
    }

    fn replaying(&self, into: &str) -> Replaying {
        Replaying::start(&self.dir, &self.grpc, FROM, into, TIMES)
    }

    fn watch(&self, into: &str) -> Watch {
        let topic = NewTopic::new(into).partitions(source::PARTITIONS);
        self.runtime.block_on(self.client.admin().create_topic(topic)).unwrap();
        Watch::start(&self.runtime, &self.client, into, self.source.records)
    }

    fn kill_broker(&mut self) {
        self.served.take().unwrap().kill();
    }

    fn start_broker(&mut self) {
        self.served = Some(Served::start(&self.dir, &self.grpc));
    }

    /// From beginning to end without a fault; what arrived when.
    fn undisturbed(&self, into: &str) -> Vec<Arrival> {
        let watch = self.watch(into);
        let began = Instant::now();
        let replaying = self.replaying(into);
        // Asked for while it runs: one that has ended has none.
        let mut memory_peak_mib: f64 = 0.0;
        while !watch.has_all() {
            assert!(watch.stands_still_for() < PROGRESS_WITHIN, "the copy stands still");
            memory_peak_mib = memory_peak_mib.max(replaying.memory_peak_mib());
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("memory of the replay at its largest: {memory_peak_mib:.0} MiB");
        println!("it says: {}", replaying.end_well().trim());
        self.not_too_fast(began.elapsed());
        self.runtime.block_on(whole::check(&self.client, into, &self.source));
        watch.arrivals()
    }

    /// Killed again and again while it copies; what arrived when, and when something was killed.
    fn disturbed(&mut self, into: &str) -> (Vec<Arrival>, Vec<Duration>) {
        let watch = self.watch(into);
        let began = Instant::now();
        let mut replaying = self.replaying(into);
        let mut killed_at = Vec::new();
        for (at, kill) in (1..).zip(KILLS) {
            // Kills are spread over the whole of it.
            let count = self.source.records * at / (KILLS.len() as u64 + 1);
            while watch.count() < count {
                assert!(watch.stands_still_for() < PROGRESS_WITHIN, "the copy stands still before {kill:?}");
                std::thread::sleep(Duration::from_millis(2));
            }
            assert!(replaying.is_alive(), "the replay has ended before {kill:?}");
            killed_at.push(watch.elapsed());
            replaying = self.strike(kill, replaying, into);
            println!("{kill:?} after {} records", watch.count());
        }
        while !watch.has_all() {
            assert!(watch.stands_still_for() < PROGRESS_WITHIN, "the copy stands still");
            std::thread::sleep(Duration::from_millis(20));
        }
        replaying.end_well();
        self.not_too_fast(began.elapsed());
        self.runtime.block_on(whole::check(&self.client, into, &self.source));
        (watch.arrivals(), killed_at)
    }

    fn strike(&mut self, kill: Kill, replaying: Replaying, into: &str) -> Replaying {
        match kill {
            Kill::Replay => {
                replaying.kill();
                self.replaying(into)
            }
            Kill::ReplayTwice => {
                replaying.kill();
                let again = self.replaying(into);
                // It waits for half a second until the copy stands still, and then reads it.
                std::thread::sleep(Duration::from_millis(700));
                again.kill();
                self.replaying(into)
            }
            Kill::Broker => {
                self.kill_broker();
                std::thread::sleep(Duration::from_millis(300));
                self.start_broker();
                replaying
            }
            Kill::Both => {
                self.kill_broker();
                replaying.kill();
                self.start_broker();
                self.replaying(into)
            }
        }
    }

    /// However it was killed, a replay never gives a record out before its time, so that the whole takes at least as long as was asked for.
    fn not_too_fast(&self, took: Duration) {
        let asked = self.source.span().as_secs_f64() / TIMES;
        assert!(took.as_secs_f64() >= asked, "{took:?} for what was to take {asked} s");
    }
}

#[test]
fn a_copy_that_is_killed_is_whole() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Twelve seconds, so that a machine that is busy elsewhere has not let it end before the last kill.
    let mut stage = Stage::set(dir.path(), Source { records: 40_000, span_ms: 120_000 });
    let (arrivals, killed_at) = stage.disturbed(INTO);
    assert_eq!(killed_at.len(), KILLS.len());
    Pace::between(&arrivals, &killed_at, TIMES, Duration::from_millis(500)).print("between kills");
}

#[test]
#[ignore = "ten million records twice, 8 minutes and 6 GB of disk; docs/TESTING.md has its command"]
fn ten_million_records_keep_their_pace_and_survive_kills() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let source = Source { records: 10_000_000, span_ms: 1_600_000 };
    let mut stage = Stage::set(dir.path(), source);
    let window = Duration::from_secs(10);
    let calm = Pace::between(&stage.undisturbed(INTO), &[], TIMES, window);
    calm.print("undisturbed");
    let again = "copied-under-kills";
    let (arrivals, killed_at) = stage.disturbed(again);
    let killed = Pace::between(&arrivals, &killed_at, TIMES, window);
    killed.print("between kills");
    assert!(calm.windows.len() >= 10, "{} windows", calm.windows.len());
    calm.assert_within(0.02);
}
