//! kill -9 under load, twenty times: a real process on real sockets, producers with and without idempotence, and a group that commits.
//! What was acknowledged is there in the end, once and in order, and the group goes on from its commits.
//!
//! A kill leaves the system's page cache alone, so that this shows what recovery, producer state and coordinator make of files that
//! stop anywhere. What a power cut does is shown on the simulated disk (storage/tests/crash_images.rs and the partitions' tests).
#![allow(clippy::disallowed_methods, reason = "real clocks and files, from outside the broker")]
#![allow(clippy::print_stdout, reason = "what was done, for whoever asks for it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

#[path = "../../../broker/tests/kafka_client/mod.rs"]
mod kafka_client;
mod members;
mod producers;
mod served;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use floodmark_tools::history::{Op, Recorder, check_files};
use kafka_client::Kafka;
use served::Served;

const KILLS: usize = 20;
const TOPIC: &str = "kills";
const PARTITIONS: u32 = 4;
const GROUP: &str = "readers";
/// What the broker must have acknowledged between two kills, so that each of them has something to lose.
const ACKS_BETWEEN: u64 = 50;
const COMMITS_BETWEEN: u64 = 10;
/// Nothing acknowledged for so long is a failure of its own.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// What all clients share.
#[derive(Clone)]
struct Load {
    recorder: Recorder,
    /// Where the broker is now; it changes with every start.
    address: Arc<Mutex<Option<SocketAddr>>>,
    is_over: Arc<AtomicBool>,
    acks: Arc<AtomicU64>,
    commits: Arc<AtomicU64>,
    /// What no broker may say to a client that does everything right. Ends the load, so that the history shows why.
    complaints: Arc<Mutex<Vec<String>>>,
    /// How many readers there are; each has a number.
    readers: Arc<AtomicU32>,
}

impl Load {
    fn recorded_in(history: &Path) -> Load {
        Load {
            recorder: Recorder::new(Box::new(File::create(history).unwrap())),
            address: Arc::default(),
            is_over: Arc::default(),
            acks: Arc::default(),
            commits: Arc::default(),
            complaints: Arc::default(),
            readers: Arc::default(),
        }
    }

    /// A connection, as soon as the broker takes one.
    fn connect(&self) -> Kafka {
        let since = Instant::now();
        loop {
            let address = *self.address.lock().unwrap();
            if let Some(connected) = address.and_then(|address| Kafka::connect(address).ok()) {
                return connected;
            }
            assert!(since.elapsed() < PROGRESS_WITHIN, "the broker takes no connections");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn complain(&self, complaint: String) {
        self.complaints.lock().unwrap().push(complaint);
        self.is_over.store(true, Ordering::Release);
    }

    /// Waits until clients have got somewhere since the last start.
    fn await_progress(&self, kill: usize) {
        let before = [&self.acks, &self.commits].map(|count| count.load(Ordering::Acquire));
        let since = Instant::now();
        while !self.is_over() && self.has_stood_still(before) {
            assert!(since.elapsed() < PROGRESS_WITHIN, "no progress before kill {kill}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn has_stood_still(&self, before: [u64; 2]) -> bool {
        self.acks.load(Ordering::Acquire) < before[0] + ACKS_BETWEEN
            || self.commits.load(Ordering::Acquire) < before[1] + COMMITS_BETWEEN
    }
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn what_was_acknowledged_survives_twenty_kills() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let history = dir.path().join("history.jsonl");
    let load = Load::recorded_in(&history);
    let mut served = Served::start(dir.path());
    let mut admin = Kafka::connect(served.address).unwrap();
    // Small files, so that the log has rolled when it is recovered.
    let settings = [("segment.bytes", "1048576")];
    assert_eq!(admin.create_topic(TOPIC, PARTITIONS as i32, &settings).unwrap(), 0);
    *load.address.lock().unwrap() = Some(served.address);

    let producers: Vec<_> = (0..4).map(|n| producers::spawn(&load, n, n % 2 == 0)).collect();
    let members: Vec<_> = (0..2).map(|_| members::spawn(&load)).collect();
    let mut numbers = Numbers(3);
    for kill in 0..KILLS {
        load.await_progress(kill);
        if load.is_over() {
            break;
        }
        thread::sleep(Duration::from_millis(numbers.below(60)));
        served.kill();
        match kill % 4 {
            // In the middle of its recovery.
            1 => Served::start_and_kill(dir.path(), Duration::from_millis(numbers.below(40))),
            // When it has recovered, and before anybody has found it.
            3 => Served::start(dir.path()).kill(),
            _ => {}
        }
        served = Served::start(dir.path());
        *load.address.lock().unwrap() = Some(served.address);
    }
    load.await_progress(KILLS);
    load.is_over.store(true, Ordering::Release);
    for thread in producers.into_iter().chain(members) {
        thread.join().unwrap();
    }
    let of_producers = read_to_the_end(&load);
    load.recorder.finish().unwrap();
    judge(&history, &load.complaints.lock().unwrap(), dir.path());
    assert!(of_producers.iter().all(|count| *count > KILLS), "{of_producers:?}");
}

/// How many records of each producer there are.
fn read_to_the_end(load: &Load) -> [usize; 4] {
    let mut kafka = load.connect();
    let mut of_producers = [0; 4];
    for partition in 0..PARTITIONS {
        let begun = load.recorder.begin();
        let from = kafka.offset_at(TOPIC, partition as i32, -2).unwrap();
        let records = kafka.read_from(TOPIC, partition as i32, from).unwrap();
        let records: Vec<_> =
            records.into_iter().map(|(offset, bytes)| (offset, producers::value_in(&bytes))).collect();
        for (_, value) in &records {
            of_producers[value.producer as usize] += 1;
        }
        load.recorder.end(begun, Op::Final { partition, replica: 0, from, records, ends: true });
        let begun = load.recorder.begin();
        let offset = kafka.committed(GROUP, TOPIC, partition as i32).unwrap().unwrap();
        let offset = (offset != -1).then_some(offset);
        load.recorder.end(begun, Op::Resume { group: GROUP.to_owned(), partition, offset });
    }
    of_producers
}

fn judge(history: &Path, complaints: &[String], dir: &Path) {
    let verdict = check_files(&[history.to_owned()]).unwrap();
    if !verdict.is_clean() || !complaints.is_empty() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kill-under-load");
        fs::create_dir_all(&kept).unwrap();
        fs::copy(history, kept.join("history.jsonl")).unwrap();
        fs::copy(dir.join("serve.err"), kept.join("serve.err")).unwrap();
        let shown = &verdict.anomalies[..verdict.anomalies.len().min(20)];
        let (counts, kept) = (&verdict.counts, kept.display());
        panic!("{complaints:#?}\n{counts:?}, of which {shown:#?}; the history is in {kept}");
    }
    // A run in which nothing was lost in the middle, and nobody had to come back, shows nothing.
    let seen = verdict.seen;
    println!("{seen:?}");
    let kills = KILLS as u64;
    assert!(seen.sends_acked > kills * ACKS_BETWEEN / 2, "{seen:?}");
    assert!(seen.sends_unknown_idempotent >= kills / 2 && seen.sends_unknown_plain >= kills / 2, "{seen:?}");
    assert!(seen.resumes >= kills && seen.reads > kills, "{seen:?}");
}
