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

/// The text of docs/COMPATIBILITY.md.
pub(crate) fn table(outcomes: &[Outcome], server: &str, command: &str) -> String {
    let mut text = format!(
        "# Compatibility\n\nUnmodified clients against {server}. Written by `{command}`; not edited by hand.\n\
         What each case does is told in `tools/tests/kafka_clients/cases`; every case passes against Apache Kafka with the same client first.\n\n"
    );
    let clients: BTreeMap<&str, &str> =
        outcomes.iter().map(|o| (o.client.as_str(), o.version.as_str())).collect();
    let mut cases: Vec<&str> = Vec::new();
    for outcome in outcomes {
        if !cases.contains(&outcome.case.as_str()) {
            cases.push(&outcome.case);
        }
    }
    let find = |client: &str, case: &str| outcomes.iter().find(|o| o.client == client && o.case == case);
    text.push_str("`+` passed, `–` the client cannot do it, **x** failed.\n\n| client | version |");
    for case in &cases {
        let _ = write!(text, " {} |", case.replace('_', " "));
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(cases.len()));
    for (client, version) in &clients {
        let _ = write!(text, "| {client} | {version} |");
        for case in &cases {
            let mark = match find(client, case).map(|o| o.ending) {
                Some(Ending::Ok) => "+",
                Some(Ending::Failed) => "**x**",
                Some(Ending::Unsupported) => "–",
                None => "",
            };
            let _ = write!(text, " {mark} |");
        }
        text.push('\n');
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
