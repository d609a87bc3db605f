//! Runs every other program of this folder at a tiny size, and fails where one does. Its figures are for nothing but a look.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Programs, and what makes each end within a second or two.
const BENCHES: &[(&str, &str)] = &[
    ("append", "--pairs 2 --mib 16"),
    ("durable", "--pairs 1 --run-ms 100 --appends 50 --batch-kib 4 --segment-mib 8"),
    ("read", "--pairs 2 --mib 24 --segment-mib 8"),
    ("compaction", "--pairs 1 --bytes 4194304"),
    ("events", "--pairs 1 --events 20000 --streams 500 --appends 4000"),
    ("door", "throughput --pairs 1 --mib 8"),
    ("door", "sustained --pairs 1 --gib 0.03"),
    ("door", "latency --pairs 1 --round-trips 50 --placement free"),
    ("door", "footprint --pairs 1 --partitions 200 --connections 200"),
    ("replication", "--pairs 1 --mib 6 --batch-kib 64 --lacks-mib 96"),
    ("cluster", "size --partitions 12 --of-a-topic 6 --idle-seconds 1 --kill-controller false"),
    ("cluster", "latency --pairs 1 --round-trips 50 --placement free"),
    ("native", "throughput --pairs 1 --mib 8 --batch-kib 64 --placement free"),
    ("native", "latency --pairs 1 --round-trips 50 --placement free"),
    ("native", "client --pairs 1 --mib 4"),
    ("recovery", "--pairs 1 --large-mib 64 --small-mib 16 --unsynced-mib 4 --partitions 20 --segments 3"),
];

fn main() -> anyhow::Result<()> {
    let own = std::env::current_exe().context("find the programs beside this one")?;
    let folder = own.parent().context("a program lies in a folder")?;
    for (name, arguments) in BENCHES {
        run(&folder.join(name), arguments)?;
    }
    Ok(())
}

fn run(program: &Path, arguments: &str) -> anyhow::Result<()> {
    let status = Command::new(program).args(arguments.split(' ')).status().with_context(|| {
        format!(
            "start {}; build all with `cargo build --profile smoke -p floodmark-benches -p floodmark-tools --bins`",
            program.display()
        )
    })?;
    ensure!(status.success(), "{} {arguments}: {status}", program.display());
    Ok(())
}
