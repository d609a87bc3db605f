//! Our tables held against the message definitions that others publish: those in Kafka's own jars, and those in a Python client.
//!
//! Every field in its order, with type, versions, nullable versions, tag and default. What the definitions say beyond that (what Kafka's
//! own code may drop, what a field means) is no part of the bytes.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub)]

mod fetched;
mod flat;
#[path = "../../../tools/tests/kafka_reference/process.rs"]
mod process;
#[path = "../tables/mod.rs"]
mod tables;

use std::collections::BTreeMap;
use std::path::Path;

use fetched::Fetched;
use flat::Facts;
use floodmark_proto::kafka::ErrorCode;
use serde_json::Value;

/// What is meant to differ from Kafka's own definitions: message, our line, theirs, and why.
const INTENDED: &[(&str, &str, &str, &str)] = &[
    (
        "OffsetCommitKey",
        "versions 0-1",
        "versions 0",
        "theirs tells the number in front of a key as its kind, with a kind of its own for the older 0; ours as its version",
    ),
    ("GroupMetadataKey", "versions 2", "versions 0", "the same: the number in front is 2"),
];

#[test]
fn tables_are_those_of_kafka() {
    let Some(kafka) = Fetched::kafka() else { return };
    let theirs = kafka.definitions();
    compare(&theirs, INTENDED, |_| false);
}

/// Records that only brokers know, and a request that it does not make, are not in it.
#[test]
fn tables_are_those_of_a_python_client() {
    let Some(python) = Fetched::kafka_python() else { return };
    let theirs = python.definitions();
    let unknown_to_clients = [
        "OffsetCommitKey",
        "OffsetCommitValue",
        "GroupMetadataKey",
        "GroupMetadataValue",
        "UnregisterBrokerRequest",
        "UnregisterBrokerResponse",
    ];
    compare(&theirs, &[], |name| unknown_to_clients.contains(&name));
}

/// All our messages against theirs; each line that differs must be meant to, and each that is meant to must differ.
fn compare(
    theirs: &BTreeMap<String, Value>,
    intended: &[(&str, &str, &str, &str)],
    absent: impl Fn(&str) -> bool,
) {
    let mut found = Vec::new();
    let mut compared = 0;
    for table in tables::all() {
        for name in &table.messages {
            // Said of requests alone, and true of their responses.
            let request = name.replace("Response", "Request");
            let unstable = theirs.get(&request).is_some_and(|json| json["latestVersionUnstable"] == true);
            let Some(theirs) = theirs.get(name) else {
                assert!(absent(name), "{name} is not among their definitions");
                continue;
            };
            let (ours, theirs) = (Facts::of_table(&table, name), Facts::of_json(theirs, unstable));
            compared += ours.lines.len();
            for at in 0..ours.lines.len().max(theirs.lines.len()) {
                let line = |facts: &Facts| facts.lines.get(at).cloned().unwrap_or_default();
                if line(&ours) != line(&theirs) {
                    found.push((name.clone(), line(&ours), line(&theirs)));
                }
            }
        }
    }
    let intended = intended.iter().map(|(name, ours, theirs, _)| [name, ours, theirs].map(|s| s.to_string()));
    let intended: Vec<_> = intended.map(|[name, ours, theirs]| (name, ours, theirs)).collect();
    let unmeant: Vec<_> = found.iter().filter(|difference| !intended.contains(difference)).collect();
    assert!(unmeant.is_empty(), "message, ours, theirs:\n{unmeant:#?}");
    let needless: Vec<_> = intended.iter().filter(|difference| !found.contains(difference)).collect();
    assert!(needless.is_empty(), "does not differ any more: {needless:?}");
    assert!(compared > 600, "only {compared} lines were compared");
}

#[test]
fn error_codes_are_those_of_kafka() {
    let Some(kafka) = Fetched::kafka() else { return };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka_definitions/ErrorCodes.java");
    let theirs = kafka.java(&source);
    let ours = ErrorCode::ALL
        .iter()
        .map(|error| format!("{} {} {}", error.code(), error.name(), error.is_retriable()))
        .collect::<Vec<_>>();
    assert_eq!(ours, theirs.lines().collect::<Vec<_>>());
}
