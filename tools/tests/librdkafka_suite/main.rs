//! The test-suite of librdkafka, unmodified, run test by test against a broker. What is not expected to pass stands in
//! `not_expected.txt`, each with its reason. A run of its own, because it takes half an hour.
//!
//! - `suite`: what the suite says of itself; `expected`: what is not expected of the broker
#![allow(
    clippy::disallowed_methods,
    reason = "the test looks at files from outside, and waits for other programs"
)]
#![allow(clippy::unwrap_used, reason = "the harness is test code as a whole; a panic is its answer")]

#[path = "../kafka_clients/document.rs"]
mod document;
mod expected;
#[allow(dead_code, unused_imports, reason = "shared with the interop tests, which use the rest of it")]
#[path = "../kafka_reference/mod.rs"]
mod kafka_reference;
#[allow(dead_code, reason = "shared with the clients' tests, which use the rest of it")]
#[path = "../kafka_clients/server.rs"]
mod server;
mod suite;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use document::Part;
use kafka_reference::process::{await_exit, read, run};
use kafka_reference::toolchain::lock;
use kafka_reference::{Kafka, files_with};
use server::Server;
use suite::{Ending, Scenario};

/// The package that ships librdkafka's sources with their tests.
const PACKAGE: &str = "@confluentinc/kafka-javascript@1.10.1";
const LIBRDKAFKA: &str = "2.15.1";
const COMMAND: &str = "cargo test -p floodmark-tools --test librdkafka_suite -- --ignored --nocapture";
/// Version the tests take the broker for.
const BROKER_VERSION: &str = "4.3.0";
/// Runs of its program at the same time; most of their time they wait.
const JOBS: usize = 3;
const BUILD_DEADLINE: Duration = Duration::from_secs(3600);
/// Longest time for one test; the suite's own limits are shorter.
const TEST_DEADLINE: Duration = Duration::from_secs(900);
/// Takes several times as long as any other, so it begins first.
const LONGEST: &str = "0113_cooperative_rebalance";
/// Measures latencies, so it runs by itself. On a machine that has other work, too, a part of it counts if it holds once in three times.
const MEASURES: &str = "0055_producer_latency";
const MEASURED_TRIES: usize = 3;

/// Where everything is put: `target/librdkafka-suite`.
fn home() -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("librdkafka-suite");
    fs::create_dir_all(&home).unwrap();
    home
}

/// Runs a step of the build in a directory; a panic where it fails.
fn step(dir: &Path, name: &str, program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir);
    let finished = run(command, &home(), name, BUILD_DEADLINE);
    let said = finished.stdout + &finished.stderr;
    let tail: Vec<&str> = said.lines().rev().take(20).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    assert!(finished.status.success(), "{name} failed:\n{}", tail.join("\n"));
}

/// Fetches and builds the suite unless it is there; returns the directory of its tests.
fn build() -> PathBuf {
    let home = home();
    let _lock = lock(&home.join(".lock"));
    let tests = home.join("package/deps/librdkafka/tests");
    let stamp = home.join("built");
    if read(&stamp) == PACKAGE {
        return tests;
    }
    // Without it two tests are left out, which is told after all the others have run.
    step(
        &home,
        "look-for-rapidjson-dev",
        "c++",
        &["-fsyntax-only", "-include", "rapidjson/schema.h", "-x", "c++", "/dev/null"],
    );
    step(&home, "pack", "npm", &["pack", "--silent", "--pack-destination", ".", PACKAGE]);
    let archives = files_with(&home, &["tgz"]);
    let archive = archives.last().unwrap().to_str().unwrap();
    step(&home, "unpack", "tar", &["-xzf", archive, "package/deps/librdkafka"]);
    let sources = tests.parent().unwrap();
    step(sources, "configure", "./configure", &["--disable-curl", "--disable-gssapi"]);
    step(sources, "make-libs", "make", &["-j2", "libs"]);
    step(sources, "make-tests", "make", &["-j2", "-C", "tests", "build"]);
    fs::write(stamp, PACKAGE).unwrap();
    tests
}

/// Kafka's shell scripts as far as the suite calls them: a directory with `bin/kafka-topics.sh`.
fn scripts(kafka: &Kafka) -> PathBuf {
    let home = home().join("kafka");
    fs::create_dir_all(home.join("bin")).unwrap();
    let java = kafka.java();
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
    let words: Vec<String> = std::iter::once(java.get_program()).chain(java.get_args()).map(quoted).collect();
    let script = home.join("bin/kafka-topics.sh");
    let text = format!("#!/bin/sh\nexec {} org.apache.kafka.tools.TopicCommand \"$@\"\n", words.join(" "));
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    home
}

/// One run of the suite's program.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Task {
    scenario: Scenario,
    /// The tests that it runs; they share their number.
    tests: Vec<String>,
    /// The one part of the test that is run, where not all of it is.
    part: Option<String>,
}

impl Task {
    /// What it is called in logs and lists.
    fn name(&self) -> String {
        let part = self.part.as_ref().map_or_else(String::new, |part| format!("/{part}"));
        format!("{}{part}", self.tests[0])
    }
}

/// What is to be run: everything that is expected to pass, or what `FLOODMARK_CASES` names by number, whatever is expected of it.
fn tasks(directory: &Path) -> Vec<Task> {
    let wanted = env::var("FLOODMARK_CASES").ok();
    let reasons = expected::reasons();
    let is_due = |name: &str| match &wanted {
        Some(wanted) => wanted.split(',').any(|n| n == suite::number(name)),
        None => !reasons.contains_key(name),
    };
    let all = suite::tests(&read(&directory.join("test.c")));
    assert!(all.len() > 90, "the suite's table is not what it was: {all:?}");
    let mut known: BTreeSet<String> = all.iter().map(|t| t.name.clone()).collect();
    let mut tasks: Vec<Task> = Vec::new();
    for test in all {
        if expected::is_in_parts(&test.name) {
            let source = files_with(directory, &["c", "cpp"]).into_iter().find(|f| {
                f.file_name().is_some_and(|f| f.to_string_lossy().starts_with(suite::number(&test.name)))
            });
            let parts = suite::parts(&test.name, &read(&source.unwrap()));
            known.extend(parts.iter().map(|part| format!("{}/{part}", test.name)));
            let parts = parts.into_iter().filter(|part| is_due(&format!("{}/{part}", test.name)));
            tasks.extend(parts.map(|part| Task {
                scenario: test.scenario,
                tests: vec![test.name.clone()],
                part: Some(part),
            }));
        } else if is_due(&test.name) {
            match tasks.last_mut() {
                Some(last)
                    if last.part.is_none()
                        && last.scenario == test.scenario
                        && suite::number(&last.tests[0]) == suite::number(&test.name) =>
                {
                    last.tests.push(test.name);
                }
                _ => tasks.push(Task { scenario: test.scenario, tests: vec![test.name], part: None }),
            }
        }
    }
    let unknown: Vec<_> = reasons.keys().filter(|name| !known.contains(**name)).collect();
    assert!(unknown.is_empty(), "not_expected.txt names what the suite does not have: {unknown:?}");
    tasks.sort_by_key(|task| task.tests[0] != LONGEST);
    tasks
}

/// The broker of one scenario, and what the suite's program is told of it.
struct Setup {
    server: Server,
    config: PathBuf,
}

impl Setup {
    /// `None` where the broker that is given is set up otherwise.
    fn of(scenario: Scenario) -> Option<Setup> {
        // The suite's own setup has four partitions where a test does not say.
        let auto = if scenario == Scenario::Default { "true" } else { "false" };
        let server = Server::start_with(&[
            ("num.partitions", "4"),
            ("auto.create.topics.enable", auto),
            // What the members of a group see depends on it: with none, the first to come has a generation of its own.
            ("group.initial.rebalance.delay.ms", "3000"),
        ]);
        if matches!(server, Server::Given(_)) && scenario != Scenario::Default {
            return None;
        }
        let config = home().join(format!("{}.conf", scenario.name()));
        // Several tests run beside each other on few cores, so waits are given more time than by themselves.
        let text = format!("bootstrap.servers={}\ntest.timeout.multiplier=2\n", server.bootstrap());
        fs::write(&config, text).unwrap();
        Some(Setup { server, config })
    }
}

/// Runs a task; how each of its tests ended.
fn run_task(directory: &Path, scripts: &Path, setup: &Setup, task: &Task) -> Vec<(String, Ending)> {
    let is_odd = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let log = home().join("logs").join(format!("{}.log", task.name().replace(is_odd, "-")));
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    let out = File::create(&log).unwrap();
    let mut command = Command::new("./test-runner");
    // Never `-Q`: it makes tests pass that have done nothing.
    command.args(["-p1", "-L", "-K", "-s", task.scenario.name()]).current_dir(directory).stdin(Stdio::null());
    command.stdout(out.try_clone().unwrap()).stderr(out);
    command.env("TESTS", suite::number(&task.tests[0])).env("TEST_KAFKA_VERSION", BROKER_VERSION);
    if let Some(part) = &task.part {
        command.env("SUBTESTS", suite::pattern(part));
    }
    // The suite leaves out what it measures where it sees this, and what is left out has shown nothing.
    command.env_remove("CI");
    command.env("RDKAFKA_TEST_CONF", &setup.config).env("LD_LIBRARY_PATH", "../src:../src-cpp");
    command.env("KAFKA_PATH", scripts).env("BROKERS", setup.server.bootstrap());
    let mut process = command.spawn().unwrap();
    let ended = await_exit(&mut process, TEST_DEADLINE);
    if ended.is_none() {
        let _ = process.kill();
        let _ = process.wait();
    }
    let said = read(&log);
    let endings = suite::endings(&said);
    let why = || {
        suite::first_failure(&said)
            .unwrap_or_else(|| format!("the last line is {:?}", said.lines().last().unwrap_or_default()))
    };
    let judged = task.tests.iter().map(|name| {
        let ending = match (ended, endings.get(name)) {
            (None, _) => Ending::Failed(format!("no end after {TEST_DEADLINE:?}; {}", why())),
            // It ends with success where no test ran, so its table is what counts. After a failure it may end without one.
            (Some(_), None | Some(Ending::Failed(_))) => Ending::Failed(why()),
            (Some(status), Some(Ending::Passed)) if !status.success() => {
                Ending::Failed(format!("the program ended with {status}; {}", why()))
            }
            (Some(_), Some(Ending::Passed))
                if task.part.as_ref().is_some_and(|part| !suite::has_passed(part, &said)) =>
            {
                Ending::Failed(format!("the part did not run; {}", why()))
            }
            (Some(_), Some(ending)) => ending.clone(),
        };
        let part = task.part.as_ref().map_or_else(String::new, |part| format!("/{part}"));
        (format!("{name}{part}"), ending)
    });
    judged.collect()
}

/// Runs all tasks, some beside each other; how each test ended, by name.
fn run_tasks(directory: &Path, scripts: &Path, tasks: Vec<Task>) -> BTreeMap<String, Ending> {
    let mut setups = BTreeMap::new();
    for task in &tasks {
        if !setups.contains_key(&task.scenario)
            && let Some(setup) = Setup::of(task.scenario)
        {
            setups.insert(task.scenario, setup);
        }
    }
    let found = Mutex::new(BTreeMap::new());
    let run = |task: &Task| {
        let began = Instant::now();
        let Some(setup) = setups.get(&task.scenario) else { return true };
        let endings = run_task(directory, scripts, setup, task);
        let has_passed = endings.iter().all(|(_, ending)| *ending == Ending::Passed);
        for (name, ending) in endings {
            let line = format!("{name} {ending:?} {} s\n", began.elapsed().as_secs());
            std::io::stdout().write_all(line.as_bytes()).unwrap();
            found.lock().unwrap().insert(name, ending);
        }
        has_passed
    };
    let (alone, others): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.tests[0] == MEASURES);
    for task in alone {
        (0..MEASURED_TRIES).any(|_| run(&task));
    }
    let queue = Mutex::new(VecDeque::from(others));
    thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some(task) = next else { break };
                    run(&task);
                }
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
#[ignore = "builds librdkafka and takes half an hour; docs/TESTING.md has the command"]
fn librdkafkas_own_tests_pass() {
    let directory = build();
    let kafka = Kafka::try_obtain().unwrap_or_else(|why| panic!("Kafka's topic tool is needed: {why}"));
    let scripts = scripts(&kafka);
    let tasks = tasks(&directory);
    let is_whole = env::var("FLOODMARK_CASES").is_err();
    let is_ours =
        ["FLOODMARK_TEST_BOOTSTRAP", "FLOODMARK_CLIENTS_AGAINST"].iter().all(|v| env::var(v).is_err());
    let found = run_tasks(&directory, &scripts, tasks);
    let reasons = expected::reasons();
    if is_whole && is_ours {
        document::write_part(Part::Suite, &report(&found, &reasons));
    }
    let (mut failed, mut surprising) = (Vec::new(), Vec::new());
    for (name, ending) in &found {
        match (ending, reasons.get(name.as_str())) {
            (Ending::Passed, None) => {}
            (Ending::Passed, Some(reason)) => surprising.push(format!("{name} passes: {reason}")),
            // What the suite leaves out has shown nothing, so it counts as failed unless the list says why.
            (ending, None) => failed.push(format!("{name}: {ending:?}")),
            (_, Some(_)) => {}
        }
    }
    let passed = found.values().filter(|e| **e == Ending::Passed).count();
    let summary = format!("{passed} passed, {} failed, {} not expected\n", failed.len(), reasons.len());
    std::io::stdout().write_all(summary.as_bytes()).unwrap();
    assert!(surprising.is_empty(), "not_expected.txt has tests that pass:\n{}", surprising.join("\n"));
    assert!(failed.is_empty(), "{} tests failed:\n{}", failed.len(), failed.join("\n"));
}

/// The part of docs/COMPATIBILITY.md that is about this suite.
fn report(found: &BTreeMap<String, Ending>, reasons: &BTreeMap<&str, &str>) -> String {
    let (passed, others): (Vec<_>, Vec<_>) = found.iter().partition(|(_, ending)| **ending == Ending::Passed);
    let version = PACKAGE.rsplit_once('@').map_or("", |(_, version)| version);
    let mut text = format!(
        "The suite of librdkafka {LIBRDKAFKA} (from the package @confluentinc/kafka-javascript {version}), unmodified, each test a run of its own \
         against `floodmark serve`, written by\n`{COMMAND}`.\nTests that need no broker, those started by hand, and one that librdkafka itself knows to \
         fail are not run. A test of which some parts are not expected is run part by part; {MEASURES}, which measures latencies, counts if it \
         holds once in three times.\n\n\
         {} passed, {} failed, {} not expected.\n",
        passed.len(),
        others.len(),
        reasons.len()
    );
    for (title, rows) in [
        (
            "failed",
            others.iter().map(|(name, ending)| (name.as_str(), format!("{ending:?}"))).collect::<Vec<_>>(),
        ),
        ("not expected", reasons.iter().map(|(name, reason)| (*name, (*reason).to_owned())).collect()),
    ] {
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n| {title} | |\n|---|---|");
        for (name, why) in rows {
            let _ = writeln!(text, "| {name} | {} |", why.replace(['\n', '|'], " "));
        }
    }
    let names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
    let _ = writeln!(text, "\nPassed: {}.", names.join(", "));
    text
}
