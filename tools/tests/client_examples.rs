//! The example programs of the client, each against a broker of its own, as a reader would run them.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::path::Path;
use std::process::Command;

use floodmark_broker::{Broker, BrokerConfig};

/// Compiles what `cargo test --workspace` has compiled already, and all that there is for whoever runs this test alone.
fn build() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("client");
    let mut build = Command::new(env!("CARGO"));
    let built =
        build.args(["build", "--quiet", "--locked", "--examples"]).current_dir(client).status().unwrap();
    assert!(built.success());
}

#[test]
fn every_example_does_what_it_says() {
    build();
    let own = std::env::current_exe().unwrap();
    let programs = own.parent().and_then(Path::parent).unwrap().join("examples");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("client").join("examples");
    let mut count = 0;
    for source in std::fs::read_dir(sources).unwrap() {
        let name = source.unwrap().path().file_stem().unwrap().to_owned();
        let mut config = BrokerConfig::temporary().unwrap();
        config.set("group.initial.rebalance.delay.ms", "0").unwrap();
        let broker = Broker::start(config).unwrap();
        let server = broker.grpc_address().unwrap().to_string();
        let ran = Command::new(programs.join(&name)).env("FLOODMARK_SERVER", server).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{}: {said}", name.display());
        assert!(!ran.stdout.is_empty(), "{} says nothing", name.display());
        broker.stop();
        count += 1;
    }
    assert!(count >= 10, "{count} examples");
}
