//! What librdkafka's test-suite says of itself: its table of tests, the parts of one test, and the rows that it prints at its end. Texts in,
//! facts out.

use std::collections::BTreeMap;

/// A test that needs a broker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    /// As in `0012_produce_consume`.
    pub(crate) name: String,
    pub(crate) scenario: Scenario,
}

/// How the suite wants the broker to be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    Default,
    /// Topics are not made by asking for them.
    NoAutoCreate,
}

impl Scenario {
    /// Its name in the suite.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Default => "default",
            Scenario::NoAutoCreate => "noautocreate",
        }
    }
}

/// How one test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Passed,
    Failed(String),
    /// The suite left it out, for this reason.
    Skipped(String),
}

/// The number that tests are chosen by: the first four digits of a name.
pub(crate) fn number(name: &str) -> &str {
    name.get(..4).unwrap_or(name)
}

/// All tests that need a broker, from the table in the suite's `test.c`: `_TEST(0012_name, flags…, .scenario = "…")`. Left out are those
/// that need none, that are started by hand, and one that is known there to fail.
pub(crate) fn tests(source: &str) -> Vec<Test> {
    let mut found = Vec::new();
    for entry in source.split("_TEST(").skip(1) {
        let entry = without_comments(entry.split(";").next().unwrap_or_default());
        let mut fields = entry.split([',', ')']).map(str::trim);
        let (name, flags) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let is_one = name.len() > 5 && name.bytes().take(4).all(|b| b.is_ascii_digit());
        let is_left_out = flags
            .split('|')
            .any(|f| matches!(f.trim(), "TEST_F_LOCAL" | "TEST_F_MANUAL" | "TEST_F_KNOWN_ISSUE"));
        if is_one && !is_left_out {
            let scenario =
                if entry.contains("\"noautocreate\"") { Scenario::NoAutoCreate } else { Scenario::Default };
            found.push(Test { name: name.to_owned(), scenario });
        }
    }
    found.sort();
    found
}

fn without_comments(text: &str) -> String {
    let mut parts = text.split("/*");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once("*/").map_or("", |(_, rest)| rest))
}

/// Parts of tests whose sub-tests are one function that runs several times, by what it says of each.
const REPEATED: &[(&str, &[&str])] = &[
    (
        "0055_producer_latency",
        &[
            "standard settings",
            "low linger.ms",
            "microsecond linger.ms",
            "high linger.ms",
            "linger.ms < 1000",
            "no acks",
            "idempotence",
            "transactions",
        ],
    ),
    ("0061_consumer_lag", &["without transactions", "with transactions"]),
];

/// The parts of a test that can be run one by one, as the suite names its sub-tests: functions of the test's source, or what one function
/// says of each of its runs.
pub(crate) fn parts(test: &str, source: &str) -> Vec<String> {
    match REPEATED.iter().find(|(name, _)| *name == test) {
        Some((_, parts)) => parts.iter().map(|part| (*part).to_owned()).collect(),
        None => functions(source),
    }
}

/// What the suite takes to choose a part.
pub(crate) fn pattern(part: &str) -> String {
    // A sub-test is called by its function, the line, and words.
    if part.starts_with("do_test_") { format!("{part}:") } else { format!(" {part}") }
}

/// Whether a part ran and passed, by what the suite said.
pub(crate) fn has_passed(part: &str, said: &str) -> bool {
    let pattern = pattern(part);
    said.lines().any(|line| line.contains(&pattern) && line.contains(": PASS ("))
}

/// Why a test failed, in its own words: the line behind the first that tells of a failure.
pub(crate) fn first_failure(said: &str) -> Option<String> {
    let at = said.lines().position(|line| line.contains("### Test \""))?;
    let lines = said.lines().skip(at).take(2).map(|line| without_colours(line).trim().to_owned());
    Some(lines.collect::<Vec<_>>().join(" "))
}

/// The functions of a source with a sub-test.
fn functions(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut current = None;
    for line in source.lines() {
        // The type of a function may stand on the line before; calls are indented.
        let definition = line.strip_prefix("static void ").unwrap_or(line);
        if definition.starts_with("do_test_") {
            current = definition.split_once('(').map(|(name, _)| name.to_owned());
        }
        if line.contains("SUB_TEST_QUICK(") || line.contains("SUB_TEST(") {
            found.extend(current.take());
        }
    }
    found
}

/// How each test ended, from the table that the suite prints: `| name | PASSED | 1.2s | words`.
pub(crate) fn endings(said: &str) -> BTreeMap<String, Ending> {
    let mut found = BTreeMap::new();
    for line in said.lines() {
        let plain = without_colours(line);
        let cells: Vec<&str> = plain.split('|').map(str::trim).collect();
        let [_, name, state, _, words @ ..] = cells.as_slice() else { continue };
        let words = words.join(" ");
        let ending = match *state {
            "PASSED" => Ending::Passed,
            "SKIPPED" => Ending::Skipped(words),
            "FAILED" | "RUNNING" => Ending::Failed(words),
            _ => continue,
        };
        found.insert((*name).to_owned(), ending);
    }
    found
}

fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn the_table_is_read_with_its_flags_and_scenarios() {
    let source = "#define _TEST(NAME, FLAGS, ...) x
        _TEST(0000_unittests,\n TEST_F_LOCAL,\n .extra = \"x\"),
        _TEST(0001_multiobj, 0),
        _TEST(0011_produce_batch,\n /* Produces a lot (of messages) */\n 0,\n .extra = \"x\"),
        _TEST(0045_topic_remove, 0, TEST_BRKVER_TOPIC_ADMINAPI, .scenario = \"noautocreate\"),
        _TEST(0047_partial_buf_tmout, TEST_F_KNOWN_ISSUE),
        _TEST(0055_producer_latency, TEST_F_KNOWN_ISSUE_WIN32),
        _TEST(0049_conn_close, TEST_F_SOCKEM, TEST_BRKVER(0, 9, 0, 0)),
        _TEST(8000_idle, TEST_F_MANUAL),";
    let found: Vec<(String, Scenario)> = tests(source).into_iter().map(|t| (t.name, t.scenario)).collect();
    let expected = [
        ("0001_multiobj", Scenario::Default),
        ("0011_produce_batch", Scenario::Default),
        ("0045_topic_remove", Scenario::NoAutoCreate),
        ("0049_conn_close", Scenario::Default),
        ("0055_producer_latency", Scenario::Default),
    ];
    assert_eq!(found, expected.map(|(name, scenario)| (name.to_owned(), scenario)));
}

#[test]
fn rows_tell_what_passed_failed_and_was_left_out() {
    let said = "words | with | bars\n\
                |\u{1b}[32m 0001_multiobj                           |     PASSED |   1.234s \u{1b}[0m|\n\
                |\u{1b}[31m 0002_unkpart                           |     FAILED |   0.100s \u{1b}[0m|\u{1b}[31m why | so\u{1b}[0m\n\
                |\u{1b}[36m 0098_consumer_txn                      |    SKIPPED |   0.000s \u{1b}[0m|\u{1b}[36m no jar\u{1b}[0m\n";
    let found = endings(said);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found["0001_multiobj"], Ending::Passed);
    assert_eq!(found["0002_unkpart"], Ending::Failed("why so".to_owned()));
    assert_eq!(found["0098_consumer_txn"], Ending::Skipped("no jar".to_owned()));
}

#[test]
fn a_part_has_passed_where_the_suite_says_so() {
    let said = "[ do_test_One:78: words ]\n[ do_test_One:78: words: PASS (0.61s) ]\n[ do_test_lag:9: Test without transactions: PASS (1.00s) ]\n\
                \u{1b}[31m### Test \"0001 (do_test_Two:9)\" failed at x.c:1 ###\u{1b}[0m\nthe reason\nmore";
    assert!(has_passed("do_test_One", said));
    assert!(!has_passed("do_test_Two", said));
    assert!(!has_passed("do_test_O", said));
    assert_eq!(
        first_failure(said).unwrap(),
        "### Test \"0001 (do_test_Two:9)\" failed at x.c:1 ### the reason"
    );
}

#[test]
fn parts_are_functions_with_a_sub_test() {
    let source = "static void do_test_First(const char *what,\n int x) {\n SUB_TEST_QUICK(\"%s\", what);\n}\n\
                  static void do_test_apis(int x) {\n}\n\
                  static void\ndo_test_Second(void) {\n SUB_TEST();\n SUB_TEST_PASS();\n}\n";
    assert_eq!(parts("0081_admin", source), ["do_test_First", "do_test_Second"]);
    assert_eq!(parts("0061_consumer_lag", source), ["without transactions", "with transactions"]);
}
