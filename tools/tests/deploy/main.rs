//! What `deploy/` holds, checked as far as a machine without its engines can: it parses, its parts fit each other, each setting and flag that
//! it names is one, and each metric is told by a broker.
#![allow(clippy::disallowed_methods, reason = "the tests read files of the tree")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

mod containers;
mod kubernetes;
mod metrics;
mod namespaces;
mod systemd;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use yaml_rust2::{Yaml, YamlLoader};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap_or_else(|e| panic!("deploy/{path}: {e}"))
}

/// The documents of a file, with `<<` resolved.
fn yaml(path: &str) -> Vec<Yaml> {
    let documents = YamlLoader::load_from_str(&text(path)).unwrap_or_else(|e| panic!("deploy/{path}: {e}"));
    documents.into_iter().map(merged).collect()
}

/// What is under `<<` counts where a key is not given beside it.
fn merged(node: Yaml) -> Yaml {
    match node {
        Yaml::Array(items) => Yaml::Array(items.into_iter().map(merged).collect()),
        Yaml::Hash(mut entries) => {
            let base = entries.remove(&Yaml::String("<<".to_owned())).map(merged);
            let mut all = match base {
                Some(Yaml::Hash(base)) => base,
                _ => Default::default(),
            };
            all.extend(entries.into_iter().map(|(key, value)| (key, merged(value))));
            Yaml::Hash(all)
        }
        other => other,
    }
}

/// Scalars as a program that reads the file as text would see them.
fn scalar(node: &Yaml) -> String {
    match node {
        Yaml::String(text) | Yaml::Real(text) => text.clone(),
        Yaml::Integer(number) => number.to_string(),
        Yaml::Boolean(is_so) => is_so.to_string(),
        other => panic!("no scalar: {other:?}"),
    }
}

fn entries(node: &Yaml) -> impl Iterator<Item = (String, &Yaml)> {
    node.as_hash()
        .unwrap_or_else(|| panic!("no map: {node:?}"))
        .iter()
        .map(|(key, value)| (scalar(key), value))
}

fn items(node: &Yaml) -> &[Yaml] {
    node.as_vec().unwrap_or_else(|| panic!("no list: {node:?}"))
}

/// The settings that `floodmark serve` with these arguments and variables would have, by the program itself.
fn effective(args: &[&str], variables: &[(String, String)]) -> Vec<(String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodmark"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("FLOODMARK_") {
            command.env_remove(variable);
        }
    }
    command.args(["config", "show", "--output", "json"]).args(args);
    let output = command.envs(variables.iter().cloned()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let setting = |line: &str| {
        let shown: serde_json::Value = serde_json::from_str(line).unwrap();
        (shown["key"].as_str().unwrap().to_owned(), shown["value"].as_str().unwrap_or_default().to_owned())
    };
    lines.lines().map(setting).collect()
}

fn value<'a>(settings: &'a [(String, String)], key: &str) -> &'a str {
    &settings.iter().find(|(name, _)| name == key).unwrap_or_else(|| panic!("no {key} in {settings:?}")).1
}

/// Each of the brokers of one cluster, by its settings: they agree on who votes, and each advertises what the others were told.
fn check_cluster(brokers: &[Vec<(String, String)>]) {
    let voters = value(&brokers[0], "cluster.voters");
    for broker in brokers {
        assert_eq!(value(broker, "cluster.voters"), voters);
        let own = format!("{}@{}", value(broker, "node.id"), value(broker, "cluster.advertised"));
        assert!(voters.split(',').any(|voter| voter == own), "{own} is not among {voters}");
        for door in ["kafka", "grpc"] {
            let port =
                |key: &str| value(broker, &format!("{door}.{key}")).rsplit(':').next().unwrap().to_owned();
            assert_eq!(port("listen"), port("advertised"), "{door}");
        }
    }
    assert_eq!(voters.split(',').count(), brokers.len());
}

#[test]
fn the_settings_file_is_one() {
    let path = deploy("broker.toml");
    let settings = effective(&["--config", path.to_str().unwrap()], &[]);
    assert_eq!(value(&settings, "data.dirs"), "/var/lib/floodmark");
    let own = format!("{}@{}", value(&settings, "node.id"), value(&settings, "cluster.advertised"));
    assert!(value(&settings, "cluster.voters").contains(&own), "{own}");
}
