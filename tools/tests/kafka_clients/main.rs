//! Unmodified Kafka clients of many languages, driven against a broker; docs/TESTING.md tells how to run one case of one client.
//!
//! - `cases`: what is done and what must come of it, once for all clients; `console`: Kafka's own tools, and Connect
//! - `mixed_group`: a Kafka client and the native one in one group
//! - `session`, `adapter`: a client's running programs and how they are spoken to; the programs are in `tests/clients`
//! - `install`: the list of clients, and how each becomes a program
//! - `server`: the broker under test; `report`: what came of it; `document`: where it is written
#![allow(
    clippy::disallowed_methods,
    reason = "the test looks at files from outside, and waits for other programs"
)]
#![allow(clippy::unwrap_used, reason = "the harness is test code as a whole; a panic is its answer")]

mod adapter;
mod cases;
mod console;
mod document;
mod install;
#[allow(dead_code, unused_imports, reason = "shared with the interop tests, which use the rest of it")]
#[path = "../kafka_reference/mod.rs"]
mod kafka_reference;
mod mixed_group;
mod report;
mod server;
mod session;

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use serde_json::json;

use adapter::Failure;
use cases::{CASES, Case};
use console::{TOOL_CASES, ToolCase, Tools};
use document::Part;
use install::{CLIENTS, Client, HELPER};
use kafka_reference::Kafka;
use report::{Ending, Outcome};
use server::Server;
use session::{Session, Size, Start};

/// Clients at work at the same time; most of their time they wait for rebalances.
const JOBS: usize = 4;

/// Kafka's own tools, as a client.
const TOOLS: &str = "kafka-tools";

/// What the environment asks for: lists of names with commas between them, all where unset.
fn is_wanted(variable: &str, name: &str) -> bool {
    env::var(variable).map_or(true, |names| names.split(',').any(|n| n == name))
}

/// Where the programs' own words and the results go.
fn out_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka-clients");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// A client that cannot be run here: said aloud, and a failure where nothing may be left out.
fn skip(client: &str, why: &str) {
    let must = env::var("FLOODMARK_REQUIRE_CLIENTS").is_ok_and(|v| v == "1");
    assert!(!must, "FLOODMARK_REQUIRE_CLIENTS=1, but {client} cannot be run: {why}");
    // `eprintln!` would be hidden by the test harness while tests pass.
    std::io::stderr().write_all(format!("SKIPPED: {client}: {why}\n").as_bytes()).unwrap();
}

/// How to start a client's program.
fn start(client: &Client, bootstrap: &str) -> Result<Start, String> {
    Ok(Start { program: client.install()?, bootstrap: bootstrap.to_owned(), dir: out_dir() })
}

/// Runs the cases of one client.
fn run_client(
    client: &Client,
    start: &Start,
    helper: Option<&Start>,
    size: &Size,
    extent: Extent,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut session = None;
    let mut opened = 0;
    for case in CASES.iter().filter(|c| extent.has_case(c.name)) {
        let began = Instant::now();
        let mut tried = 0;
        let mut before = String::new();
        let (version, ended) = loop {
            tried += 1;
            let (version, ended) = run_case(case, &mut session, || {
                opened += 1;
                let prefix = format!("fm{}-{}-{opened}", std::process::id(), client.name);
                Session::open(start.clone(), helper.cloned(), &prefix, size.clone())
            });
            if matches!(ended, Ok(_) | Err(Failure::Unsupported(_))) {
                break (version, ended.map(|remark| remark + &before));
            }
            // What it is in the middle of must not reach the next case.
            session = None;
            if tried == case.tries {
                break (version, ended);
            }
            before = format!("at the second try, the first ended with: {ended:?}");
        };
        let outcome = Outcome::of(client.name, &version, case.name, ended, began.elapsed());
        outcome.print();
        outcomes.push(outcome);
    }
    outcomes
}

/// Runs Kafka's own tools, all of them or the short set.
fn run_tools(tools: &Tools, extent: Extent) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let is_due = |c: &&ToolCase| (extent.has_all_tools || c.is_short) && extent.has_case(c.name);
    for case in TOOL_CASES.iter().filter(is_due) {
        let began = Instant::now();
        let outcome = Outcome::of(TOOLS, tools.version(), case.name, (case.run)(tools), began.elapsed());
        outcome.print();
        outcomes.push(outcome);
    }
    outcomes
}

fn run_case(
    case: &Case,
    session: &mut Option<Session>,
    open: impl FnOnce() -> Result<Session, Failure>,
) -> (String, Result<String, Failure>) {
    let session = match session {
        Some(session) => session,
        None => match open() {
            Ok(opened) => session.insert(opened),
            Err(failure) => return (String::new(), Err(failure)),
        },
    };
    (session.hello.version.clone(), (case.run)(session))
}

/// Makes the topics of `many_topics`.
fn make_many_topics(helper: &Start, size: &Size) {
    let prefix = size.many_prefix.trim_end_matches('-').to_owned();
    let mut session = Session::open(helper.clone(), None, &prefix, size.clone()).unwrap();
    let names: Vec<String> =
        (0..size.many_count).map(|n| cases::admin::many_name(&size.many_prefix, n)).collect();
    for names in names.chunks(500) {
        session.call(json!({"op": "create_topics", "topics": names})).unwrap();
    }
}

/// What one of the workers does.
enum Job {
    Client(&'static Client),
    Tools,
}

/// How much of everything is done.
#[derive(Clone, Copy)]
struct Extent {
    /// Only these clients, or all where there are none.
    clients: &'static [&'static str],
    /// Only these cases, or all where there are none.
    cases: &'static [&'static str],
    has_all_tools: bool,
    many_topics: usize,
}

/// All clients and all cases; of what takes long, a part.
const COMMON: Extent = Extent { clients: &[], cases: &[], has_all_tools: false, many_topics: 200 };

/// Everything.
const FULL: Extent = Extent { has_all_tools: true, many_topics: 10_000, ..COMMON };

/// What the gate has time for: a client of each language, and what takes a few seconds for each.
const GATE: Extent = Extent {
    clients: &["kcat", "confluent-kafka-python", "kafka-clients", "franz-go", "kafkajs"],
    cases: &[
        "create_topic",
        "codecs",
        "keys_headers",
        "acks",
        "idempotent",
        "transaction",
        "from_start",
        "by_time",
        "large_message",
        "group_two",
        "commit_resume",
        "admin",
    ],
    ..COMMON
};

impl Extent {
    fn has_client(&self, name: &str) -> bool {
        is_wanted("FLOODMARK_CLIENTS", name) && (self.clients.is_empty() || self.clients.contains(&name))
    }

    fn has_case(&self, name: &str) -> bool {
        is_wanted("FLOODMARK_CASES", name) && (self.cases.is_empty() || self.cases.contains(&name))
    }
}

/// Runs all that is wanted against the server, some at a time; what came of it, in the order of the lists.
fn run_all(server: &Server, extent: Extent) -> Vec<Outcome> {
    let bootstrap = server.bootstrap();
    let many_prefix = format!("many{}-", std::process::id());
    let serves_transactions = matches!(server, Server::Kafka { .. });
    let size = Size { many_prefix, many_count: extent.many_topics, serves_transactions };
    let helper = match start(Client::named(HELPER), &bootstrap) {
        Ok(helper) => Some(helper),
        Err(why) => {
            skip("the helper of other clients", &why);
            None
        }
    };
    if let Some(helper) = &helper
        && extent.has_case("many_topics")
    {
        make_many_topics(helper, &size);
    }
    let clients = CLIENTS.iter().filter(|c| extent.has_client(c.name)).map(Job::Client);
    let tools = extent.has_client(TOOLS).then_some(Job::Tools);
    // The tools take longest, so they come first.
    let queue: Mutex<VecDeque<_>> = Mutex::new(tools.into_iter().chain(clients).enumerate().collect());
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some((at, job)) = next else { break };
                    let outcomes = run_job(&job, &bootstrap, helper.as_ref(), &size, extent);
                    found.lock().unwrap().push((at, outcomes));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().flat_map(|(_, outcomes)| outcomes).collect()
}

fn run_job(job: &Job, bootstrap: &str, helper: Option<&Start>, size: &Size, extent: Extent) -> Vec<Outcome> {
    let (name, done) = match job {
        Job::Client(client) => {
            let run = |start: Start| run_client(client, &start, helper, size, extent);
            (client.name, start(client, bootstrap).map(run))
        }
        Job::Tools => {
            let prefix = format!("fm{}-{TOOLS}", std::process::id());
            let tools = Kafka::try_obtain().map(|kafka| Tools {
                kafka,
                bootstrap: bootstrap.to_owned(),
                dir: out_dir(),
                prefix,
            });
            (TOOLS, tools.map(|tools| run_tools(&tools, extent)))
        }
    };
    done.unwrap_or_else(|why| {
        skip(name, &why);
        Vec::new()
    })
}

fn assert_none_failed(outcomes: &[Outcome]) {
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|o| o.ending == Ending::Failed)
        .map(|o| format!("{} {}: {}", o.client, o.case, o.detail))
        .collect();
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn a_few_clients_find_nothing_amiss() {
    let server = Server::start();
    assert_none_failed(&run_all(&server, GATE));
}

/// Kafka's own client and librdkafka, by either way of rebalancing.
#[test]
fn a_group_of_a_kafka_client_and_the_native_one_loses_nothing() {
    let server = Server::start();
    let Some(grpc) = server.grpc() else {
        return skip(
            "the native client",
            "the broker under test is told by its address, or has no door for it",
        );
    };
    let mut groups = Vec::new();
    for name in ["kafka-clients", "confluent-kafka-python"] {
        match start(Client::named(name), &server.bootstrap()) {
            Ok(start) => {
                groups.extend(["eager", "cooperative"].map(|strategy| (name, start.clone(), strategy)))
            }
            Err(why) => skip(name, &why),
        }
    }
    thread::scope(|scope| {
        for (name, start, strategy) in groups {
            scope.spawn(move || match mixed_group::run(name, start, grpc, strategy) {
                Ok(remark) => println!("{name}, {strategy}: {remark}"),
                Err(failure) => panic!("{name}, {strategy}: {failure:?}"),
            });
        }
    });
}

#[test]
#[ignore = "installs clients of many languages and takes minutes; docs/TESTING.md has its command"]
fn clients_find_nothing_amiss() {
    let server = Server::start();
    assert_none_failed(&run_all(&server, COMMON));
}

#[test]
#[ignore = "takes long; writes docs/COMPATIBILITY.md"]
fn full_run_for_the_table() {
    let server = Server::start();
    let outcomes = run_all(&server, FULL);
    let command = "cargo test -p floodmark-tools --test kafka_clients full -- --ignored";
    let text = report::table(&outcomes, TOOLS, &server.describe(), command);
    document::write_part(Part::Clients, &text);
    assert_none_failed(&outcomes);
}
