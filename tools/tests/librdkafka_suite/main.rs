//! The test-suite of librdkafka, unmodified, run test by test against a broker. What is not expected to pass stands in
//! `not_expected.txt`, each with its reason. A run of its own, because it takes an hour.
#![allow(
    clippy::disallowed_methods,
    reason = "the test looks at files from outside, and waits for other programs"
)]
#![allow(clippy::unwrap_used, reason = "the harness is test code as a whole; a panic is its answer")]

#[allow(dead_code, unused_imports, reason = "shared with the interop tests, which use the rest of it")]
#[path = "../kafka_reference/mod.rs"]
mod kafka_reference;
#[allow(dead_code, reason = "shared with the clients' tests, which use the rest of it")]
#[path = "../kafka_clients/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kafka_reference::process::{await_exit, read, run};
use kafka_reference::toolchain::lock;
use server::Server;

/// The package that ships librdkafka's sources with their tests.
const PACKAGE: &str = "@confluentinc/kafka-javascript@1.10.1";
/// Version the tests take the broker for.
const BROKER_VERSION: &str = "4.3.0";
const BUILD_DEADLINE: Duration = Duration::from_secs(3600);
/// Longest time for one test; the suite's own limits are shorter.
const TEST_DEADLINE: Duration = Duration::from_secs(400);

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
    step(&home, "pack", "npm", &["pack", "--silent", "--pack-destination", ".", PACKAGE]);
    let archives = kafka_reference::files_with(&home, &["tgz"]);
    let archive = archives.last().unwrap().to_str().unwrap();
    step(&home, "unpack", "tar", &["-xzf", archive, "package/deps/librdkafka"]);
    let sources = tests.parent().unwrap();
    step(sources, "configure", "./configure", &["--disable-curl", "--disable-gssapi"]);
    step(sources, "make-libs", "make", &["-j2", "libs"]);
    step(sources, "make-tests", "make", &["-j2", "-C", "tests", "build"]);
    fs::write(stamp, PACKAGE).unwrap();
    tests
}

/// The numbers of all tests that need a broker, from the suite's own table: `_TEST(0012_name, flags…`.
fn numbers(tests: &Path) -> Vec<String> {
    let source = read(&tests.join("test.c"));
    let mut found = Vec::new();
    for entry in source.split("_TEST(").skip(1) {
        let mut fields = entry.split([',', ')']).map(str::trim);
        let (name, flags) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let number: String = name.chars().take_while(char::is_ascii_digit).collect();
        let is_left_out =
            ["TEST_F_LOCAL", "TEST_F_MANUAL", "TEST_F_SOCKEM"].iter().any(|f| flags.contains(f));
        if number.len() == 4 && name.len() > 5 && !is_left_out {
            found.push(number);
        }
    }
    found.sort();
    found.dedup();
    assert!(found.len() > 80, "the suite's table is not what it was: {found:?}");
    found
}

/// Number to reason, from `not_expected.txt`.
fn not_expected() -> BTreeMap<&'static str, &'static str> {
    include_str!("not_expected.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("no reason: {line}")))
        .collect()
}

/// How a test ended: passed, or its last words.
fn run_test(tests: &Path, config: &Path, number: &str) -> Result<(), String> {
    let log = home().join("logs").join(format!("{number}.log"));
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    let out = File::create(&log).unwrap();
    let mut command = Command::new("./test-runner");
    // Never `-Q`: it makes tests pass that have done nothing.
    command.args(["-p1", "-E", "-L", "-K"]).current_dir(tests).stdin(Stdio::null());
    command.stdout(out.try_clone().unwrap()).stderr(out);
    command.env("TESTS", number).env("TEST_KAFKA_VERSION", BROKER_VERSION).env("RDKAFKA_TEST_CONF", config);
    command.env("LD_LIBRARY_PATH", "../src:../src-cpp");
    let mut process = command.spawn().unwrap();
    let ended = await_exit(&mut process, TEST_DEADLINE);
    if ended.is_none() {
        let _ = process.kill();
        let _ = process.wait();
    }
    let said = read(&log);
    // Its own words count as well: where no test ran, it ends with success.
    let has_passed = said.contains("PASSED") && !said.contains("FAILED");
    match ended {
        None => Err(format!("no end after {TEST_DEADLINE:?}")),
        Some(status) if status.success() && has_passed => Ok(()),
        Some(_) => {
            let why = said
                .lines()
                .find(|l| l.contains("TEST FAILURE") || l.contains("Test failed") || l.contains("FAILED"));
            Err(why.or(said.lines().last()).unwrap_or_default().trim().chars().take(300).collect())
        }
    }
}

#[test]
#[ignore = "takes an hour; docs/TESTING.md has the command"]
fn librdkafkas_own_tests_pass() {
    let tests = build();
    let server = Server::start();
    let config = home().join("test.conf");
    fs::write(&config, format!("bootstrap.servers={}\n", server.bootstrap())).unwrap();
    let left_out = not_expected();
    let wanted = env::var("FLOODMARK_CASES").ok();
    let (mut passed, mut failed, mut surprising) = (0, Vec::new(), Vec::new());
    for number in numbers(&tests) {
        let is_named = wanted.as_ref().map(|w| w.split(',').any(|n| n == number));
        let reason = left_out.get(number.as_str());
        // A test that is not expected runs only where it is named.
        if is_named == Some(false) || (is_named.is_none() && reason.is_some()) {
            continue;
        }
        let began = Instant::now();
        let ended = run_test(&tests, &config, &number);
        let seconds = began.elapsed().as_secs();
        let line = match &ended {
            Ok(()) => format!("{number} ok {seconds} s\n"),
            Err(why) => format!("{number} failed {seconds} s: {why}\n"),
        };
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        match (ended, reason) {
            (Ok(()), None) => passed += 1,
            (Ok(()), Some(reason)) => surprising.push(format!("{number} passes: {reason}")),
            (Err(why), None) => failed.push(format!("{number}: {why}")),
            (Err(_), Some(_)) => {}
        }
    }
    let summary = format!(
        "{}: {passed} passed, {} failed, {} not expected\n",
        server.describe(),
        failed.len(),
        left_out.len()
    );
    std::io::stdout().write_all(summary.as_bytes()).unwrap();
    assert!(surprising.is_empty(), "not_expected.txt has tests that pass:\n{}", surprising.join("\n"));
    assert!(failed.is_empty(), "{} tests failed:\n{}", failed.len(), failed.join("\n"));
}
