//! A cluster of real processes under faults, while producers and groups work: nothing acknowledged may be lost, doubled or reordered, and
//! replicas are the same in the end. Brokers stand in network namespaces on small disks of their own (`ground`), clients outside; everything
//! that clients ask and are told is recorded and judged by `floodmark_tools::history`.
//!
//! No harness of tests, for it takes arguments and begins by going into other namespaces:
//!
//!     cargo test -p floodmark-tools --test cluster_faults -- soak --minutes 30 --seed 7
#![allow(clippy::disallowed_methods, reason = "real clocks and files, from outside the brokers")]
#![allow(clippy::print_stdout, reason = "what was done, for whoever watches")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

#[allow(dead_code, unused_macros, reason = "shared with the tests of clients, which use the rest of it")]
#[path = "../kafka_clients/adapter.rs"]
mod adapter;
mod arguments;
mod brokers;
mod failover;
mod faults;
mod floods;
mod ground;
#[allow(dead_code, reason = "shared with the tests of clients, which use the rest of it")]
#[path = "../kafka_clients/install.rs"]
mod install;
#[path = "../../../broker/tests/kafka_client/mod.rs"]
mod kafka_client;
#[allow(dead_code, unused_imports, reason = "shared with the interop tests, which use the rest of it")]
#[path = "../kafka_reference/mod.rs"]
mod kafka_reference;
mod load;
mod rolling;
mod settle;
mod strangers;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use floodmark_storage::random::SplitMix;
use floodmark_tools::history::Recorder;

use arguments::{Arguments, Mode};
use brokers::Brokers;
use faults::Nemesis;
use ground::{Ground, Place, tell, wait_until};
use load::{Load, PARTITIONS, TOPIC};

fn main() -> ExitCode {
    let Some(arguments) = Arguments::of_process() else { return ExitCode::SUCCESS };
    if !ground::is_entered()
        && arguments.mode == Mode::Rolling
        && let Err(why) = rolling::install()
    {
        println!("FAILED: clients cannot be installed: {why}");
        return ExitCode::FAILURE;
    }
    ground::enter();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("FAILED, seed {}: {why}", arguments.seed);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let since = Instant::now();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let history = dir.path().join("history.jsonl");
    let logs = dir.path().join("logs");
    fs::create_dir_all(&logs).unwrap();
    println!("cluster_faults {arguments:?}");
    // One place more is for strangers.
    let ground = Ground::for_brokers(arguments.brokers + 1, dir.path());
    let places = &ground.places[..arguments.brokers];
    let doors = (places.iter().map(Place::kafka).collect(), places.iter().map(Place::grpc).collect());
    let load = Load::new(Recorder::new(Box::new(File::create(&history).unwrap())), doors, since);
    let mut brokers = Brokers::new(ground, arguments.brokers, logs, &settings(arguments));
    if let Some(program) = &arguments.upgrade_from {
        (0..arguments.brokers).for_each(|index| brokers.run_with(index, program));
    }
    let random = SplitMix::new(arguments.seed);
    let (done, failovers) = (BTreeMap::new(), Vec::new());
    let (outlast, replicas) = (arguments.outlast(), arguments.replicas.min(arguments.brokers));
    let mut nemesis = Nemesis { brokers, load, random, outlast, replicas, done, failovers };
    let outcome = play(&mut nemesis, arguments, &history);
    nemesis.load.end();
    tell_figures(&nemesis);
    outcome.map_err(|why| {
        format!("{why}\nhistory and logs of brokers are in {}", nemesis.keep(&history).display())
    })
}

fn settings(arguments: &Arguments) -> Vec<(&'static str, String)> {
    if arguments.mode == Mode::Rolling {
        return Vec::new();
    }
    let mut settings = vec![("group.initial.rebalance.delay.ms", "0"), ("offsets.topic.num.partitions", "5")];
    let replicas = arguments.replicas.min(arguments.brokers).to_string();
    if arguments.brokers > 1 {
        settings.extend([("replica.lag.time.max.ms", "3000"), ("default.replication.factor", &replicas)]);
    }
    if arguments.mode == Mode::Failover {
        // Leaders stay where they were put.
        settings.push(("leader.rebalance.interval.ms", "0"));
    }
    if arguments.is_fast && arguments.brokers > 1 {
        settings.extend([
            ("broker.session.timeout.ms", "500"),
            ("broker.heartbeat.interval.ms", "100"),
            ("quorum.heartbeat.ms", "50"),
            ("quorum.election.timeout.ms", "150"),
        ]);
    }
    settings.into_iter().map(|(key, value)| (key, value.to_owned())).collect()
}

/// All of a run, until its verdict.
fn play(nemesis: &mut Nemesis, arguments: &Arguments, history: &std::path::Path) -> Result<(), String> {
    nemesis.brokers.start_all()?;
    make_topic(nemesis)?;
    tell(nemesis.load.since, "the topic is there");
    if arguments.mode == Mode::Rolling {
        let dir = history.parent().ok_or("no directory")?;
        nemesis.roll(&rolling::install()?, arguments, dir)?;
    } else {
        work_under_faults(nemesis, arguments)?;
    }
    if !nemesis.load.complaints().is_empty() {
        return Err(format!("{:#?}", nemesis.load.complaints()));
    }
    nemesis.await_in_sync()?;
    let read = nemesis.read_all()?;
    tell(nemesis.load.since, &format!("{read:?}"));
    let verdict = nemesis.judge(history)?;
    // A run in which little happened shows little.
    let (seen, is_rolling) = (verdict.seen, arguments.mode == Mode::Rolling);
    if is_rolling && seen.records_final != seen.records_acked {
        return Err(format!(
            "{} records are there of {} acknowledged",
            seen.records_final, seen.records_acked
        ));
    }
    let has_groups = is_rolling || seen.commits_acked >= 100;
    if seen.sends_acked < 500 || seen.reads < 100 || !has_groups {
        return Err(format!("the load did too little: {seen:?}"));
    }
    Ok(())
}

fn work_under_faults(nemesis: &mut Nemesis, arguments: &Arguments) -> Result<(), String> {
    let threads = nemesis.load.begin(arguments.seed);
    nemesis.await_progress("the start")?;
    match arguments.mode {
        Mode::Strangers => {}
        Mode::Failover => nemesis.fail_over(&arguments.cases, arguments.times.unwrap_or(10))?,
        _ => inflict_all(nemesis, arguments)?,
    }
    if nemesis.brokers.count() > 1 && matches!(arguments.mode, Mode::Gate | Mode::Strangers) {
        nemesis.meet_strangers()?;
    }
    nemesis.load.end();
    for thread in threads {
        thread.join().map_err(|_| "a client panicked")?;
    }
    Ok(())
}

fn make_topic(nemesis: &mut Nemesis) -> Result<(), String> {
    let at = nemesis.brokers.ground.places[0].kafka();
    let load = &nemesis.load;
    let mut last = String::new();
    let is_made = wait_until(Duration::from_secs(60), || {
        let made = load.connect(at).and_then(|mut kafka| {
            kafka.create_topic(TOPIC, PARTITIONS as i32, &[("segment.bytes", "1048576")])
        });
        last = format!("{made:?}");
        // 36: an attempt before went through without an answer.
        matches!(made, Ok(0 | 36))
    });
    if is_made { nemesis.await_in_sync() } else { Err(format!("no topic: {last}")) }
}

/// Faults in an order that the seed decides, each kind once before any of them comes again.
fn inflict_all(nemesis: &mut Nemesis, arguments: &Arguments) -> Result<(), String> {
    let begun = Instant::now();
    let mut kinds = arguments.faults.clone();
    kinds.retain(|fault| match fault.is_left_out(&nemesis.brokers) {
        Some(why) => {
            println!("!! LEFT OUT: {fault:?}: {why}");
            false
        }
        None => true,
    });
    let mut bag = Vec::new();
    let mut inflicted = 0;
    while begun.elapsed() < arguments.time && arguments.times.is_none_or(|times| inflicted < times) {
        if bag.is_empty() {
            bag.clone_from(&kinds);
            for n in (1..bag.len()).rev() {
                bag.swap(n, nemesis.random.below(n as u64 + 1) as usize);
            }
        }
        let Some(fault) = bag.pop() else { return Err("no fault can be done here".to_owned()) };
        nemesis.inflict(fault)?;
        inflicted += 1;
        std::thread::sleep(Duration::from_millis(200 + nemesis.random.below(1_000)));
    }
    if arguments.mode == Mode::Soak && arguments.times.is_none() {
        let missed: Vec<_> = kinds.iter().filter(|fault| !nemesis.done.contains_key(fault)).collect();
        if !missed.is_empty() {
            return Err(format!("too short for {missed:?}"));
        }
    }
    Ok(())
}

fn tell_figures(nemesis: &Nemesis) {
    println!("faults that took effect: {:?}", nemesis.done);
    println!("why clients tried again: {:?}", nemesis.load.setbacks());
    let mut times: Vec<u128> = nemesis.failovers.iter().map(Duration::as_millis).collect();
    times.sort_unstable();
    if let (Some(first), Some(last)) = (times.first(), times.last()) {
        println!(
            "from a leader's death until producers go on: {} times, {first} to {last} ms, median {} ms",
            times.len(),
            times[times.len() / 2]
        );
    }
}
