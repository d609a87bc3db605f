//! Outcomes: one line of JSON each, and the table of docs/COMPATIBILITY.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::adapter::Failure;

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ending {
    Ok,
    Failed,
    /// The client cannot do it, with any broker.
    Unsupported,
}

/// One case of one client.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) client: String,
    pub(crate) version: String,
    pub(crate) case: String,
    #[serde(rename = "outcome")]
    pub(crate) ending: Ending,
    /// Why it failed, or what is left out.
    pub(crate) detail: String,
    pub(crate) ms: u64,
}

impl Outcome {
    pub(crate) fn of(
        client: &str,
        version: &str,
        case: &str,
        ended: Result<String, Failure>,
        took: Duration,
    ) -> Outcome {
        let (ending, detail) = match ended {
            Ok(remark) => (Ending::Ok, remark),
            Err(Failure::Unsupported(why)) => (Ending::Unsupported, why),
            Err(Failure::Refused { text, .. } | Failure::Wrong(text)) => (Ending::Failed, text),
        };
        let ms = took.as_millis() as u64;
        Outcome {
            client: client.to_owned(),
            version: version.to_owned(),
            case: case.to_owned(),
            ending,
            detail,
            ms,
        }
    }

    /// Prints it as one line, also where the test harness keeps output of tests that pass to itself.
    pub(crate) fn print(&self) {
        let line = serde_json::to_string(self).unwrap() + "\n";
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

/// The text of docs/COMPATIBILITY.md: a table of clients and cases, a list of Kafka's own tools, and what is to be said of single cases.
pub(crate) fn table(outcomes: &[Outcome], tools: &str, server: &str, command: &str) -> String {
    let (of_tools, of_clients): (Vec<&Outcome>, Vec<&Outcome>) =
        outcomes.iter().partition(|o| o.client == tools);
    let mut text = format!(
        "# Compatibility\n\nUnmodified clients against {server}. Written by `{command}`; not edited by hand.\n\
         What a case does is told in `tools/tests/kafka_clients/cases`; each passed against Apache Kafka 4.3.1 with the same client first.\n\
         No transactions are served: `transaction` passes where the client is told so at once instead of waiting, and works on without; what it \
         says is below.\n\n\
         `+` passed, `–` the client cannot do it, **x** failed.\n\n"
    );
    write_matrix(&mut text, &of_clients);
    let version = of_tools.first().map_or("", |o| &o.version);
    let _ = writeln!(text, "\n## Apache Kafka's tools and Connect, {version}\n\n| tools | |\n|---|---|");
    for outcome in &of_tools {
        let _ = writeln!(text, "| {} | {} |", outcome.case.replace('_', " "), mark(outcome.ending));
    }
    text.push_str("\n## Remarks\n\n| client | case | |\n|---|---|---|\n");
    for outcome in outcomes.iter().filter(|o| !o.detail.is_empty()) {
        let detail = outcome.detail.replace(['\n', '|'], " ");
        let word = if outcome.ending == Ending::Failed { "failed: " } else { "" };
        let _ =
            writeln!(text, "| {} | {} | {word}{detail} |", outcome.client, outcome.case.replace('_', " "));
    }
    text
}

fn mark(ending: Ending) -> &'static str {
    match ending {
        Ending::Ok => "+",
        Ending::Failed => "**x**",
        Ending::Unsupported => "–",
    }
}

fn write_matrix(text: &mut String, outcomes: &[&Outcome]) {
    let mut cases: Vec<&str> = Vec::new();
    let mut clients: BTreeMap<&str, (&str, BTreeMap<&str, Ending>)> = BTreeMap::new();
    for outcome in outcomes {
        if !cases.contains(&outcome.case.as_str()) {
            cases.push(&outcome.case);
        }
        let (_, endings) =
            clients.entry(&outcome.client).or_insert_with(|| (&outcome.version, BTreeMap::new()));
        endings.insert(&outcome.case, outcome.ending);
    }
    text.push_str("| client | version |");
    for case in &cases {
        let _ = write!(text, " {} |", case.replace('_', " "));
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(cases.len()));
    for (client, (version, endings)) in clients {
        let _ = write!(text, "| {client} | {version} |");
        for case in &cases {
            let _ = write!(text, " {} |", endings.get(case).copied().map_or("", mark));
        }
        text.push('\n');
    }
}
