//! Alarms and board: every metric that they ask for is told by a broker, and every alarm is explained.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use floodmark_broker::{Broker, BrokerConfig};
use serde_json::Value;

use crate::{items, scalar, text, yaml};

/// Names of ours in an expression.
fn names(expression: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c: char| !is_name(c));
    words.filter(|word| word.starts_with("floodmark_")).map(str::to_owned).collect()
}

/// Names that a broker tells, with those that histograms and counters have in queries.
fn told() -> BTreeSet<String> {
    let mut config = BrokerConfig::temporary().unwrap();
    config.set("http.listen", "127.0.0.1:0").unwrap();
    let broker = Broker::start(config).unwrap();
    let mut socket = TcpStream::connect(broker.http_address().unwrap()).unwrap();
    write!(socket, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let mut names = BTreeSet::new();
    for line in answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        match kind {
            "counter" => names.insert(format!("{name}_total")),
            "histogram" => {
                ["bucket", "count", "sum"].into_iter().all(|part| names.insert(format!("{name}_{part}")))
            }
            _ => names.insert(name.to_owned()),
        };
    }
    names
}

fn expressions_of_alarms() -> Vec<(String, String)> {
    let file = &yaml("prometheus/floodmark.rules.yaml")[0];
    let groups = items(&file["groups"]).iter().flat_map(|group| items(&group["rules"]));
    let rule = |rule: &yaml_rust2::Yaml| {
        assert!(!scalar(&rule["annotations"]["summary"]).is_empty());
        assert!(["warning", "critical"].contains(&scalar(&rule["labels"]["severity"]).as_str()));
        (scalar(&rule["alert"]), scalar(&rule["expr"]))
    };
    groups.map(rule).collect()
}

fn expressions_of_board() -> Vec<(String, String)> {
    let board: Value = serde_json::from_str(&text("grafana/floodmark.json")).unwrap();
    let mut ids = BTreeSet::new();
    let mut all = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "two panels with one number");
        let place = &panel["gridPos"];
        assert!(place["x"].as_i64().unwrap() + place["w"].as_i64().unwrap() <= 24, "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap().to_owned();
            all.push((title, target["expr"].as_str().unwrap().to_owned()));
        }
    }
    let variables = board["templating"]["list"].as_array().unwrap();
    for name in ["datasource", "job"] {
        assert!(variables.iter().any(|variable| variable["name"] == name), "{name}");
    }
    all
}

#[test]
fn each_metric_that_is_asked_for_is_told() {
    let told = told();
    let mut asked = 0;
    for (title, expression) in expressions_of_alarms().into_iter().chain(expressions_of_board()) {
        for name in names(&expression) {
            assert!(told.contains(&name), "{title}: no broker tells {name}; they tell {told:?}");
            asked += 1;
        }
        let (open, close) = (expression.matches('(').count(), expression.matches(')').count());
        assert_eq!(open, close, "{title}: {expression}");
    }
    assert!(asked > 40, "{asked}");
}

#[test]
fn each_alarm_is_explained() {
    let operations = include_str!("../../../docs/OPERATIONS.md");
    let alarms = expressions_of_alarms();
    for (name, _) in &alarms {
        assert!(operations.contains(&format!("| `{name}` |")), "{name} is not in docs/OPERATIONS.md");
    }
    let explained = operations.lines().filter(|line| line.starts_with("| `Floodmark")).count();
    assert_eq!(explained, alarms.len(), "an alarm is explained that there is not");
}
