//! The unit of systemd: what it starts, and what systemd itself says of it where it is at hand.

use std::fs;
use std::process::Command;

use crate::{deploy, effective, text, value};

fn setting<'a>(unit: &'a str, key: &str) -> &'a str {
    unit.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {key}"))
}

#[test]
fn the_unit_starts_a_broker_and_lets_it_stop() {
    let unit = text("systemd/floodmark.service");
    let started: Vec<&str> = setting(&unit, "ExecStart").split(' ').collect();
    let ["/usr/bin/floodmark", "serve", "--config", "/etc/floodmark/broker.toml"] = started[..] else {
        panic!("{started:?}")
    };
    let settings = effective(&["--config", deploy("broker.toml").to_str().unwrap()], &[]);
    let dir = format!("/var/lib/{}", setting(&unit, "StateDirectory"));
    assert_eq!(value(&settings, "data.dirs"), dir);
    let patience: u64 = setting(&unit, "TimeoutStopSec").parse().unwrap();
    assert!(patience * 1000 > value(&settings, "shutdown.timeout.ms").parse::<u64>().unwrap());
}

#[test]
fn systemd_takes_the_unit() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("skipped: systemd-analyze is not on this machine");
        return;
    }
    // It wants the program to be there.
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("floodmark.service");
    let unit =
        text("systemd/floodmark.service").replace("/usr/bin/floodmark", env!("CARGO_BIN_EXE_floodmark"));
    fs::write(&path, unit).unwrap();
    let output = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = told.lines().filter(|line| line.contains("floodmark")).collect();
    assert!(output.status.success() && ours.is_empty(), "{told}");
}
