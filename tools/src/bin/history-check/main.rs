//! Judges recorded histories, and compares replicas on disk: prints what was looked at and each broken promise; exits 1 if there is one,
//! 2 if it could not look.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use floodmark_tools::history::replicas::{Compared, compare};
use floodmark_tools::history::{Verdict, check_files};

/// Find lost, doubled, reordered and invented records in what clients took down, and replicas that differ on disk.
#[derive(Debug, Parser)]
#[command(
    name = "history-check",
    after_help = "Example:\n  history-check producers.jsonl consumers.jsonl --replicas /var/lib/a --replicas /var/lib/b"
)]
struct Args {
    /// Histories as JSON lines, one file for each process that wrote one; together they are one history.
    files: Vec<PathBuf>,
    /// A broker's data directory; several of them are compared, byte for byte. No records may come in meanwhile.
    #[arg(long, value_name = "DIR")]
    replicas: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            print_line(&format!("history-check: {e:#}"));
            ExitCode::from(2)
        }
    }
}

/// Whether all is well.
fn run(args: &Args) -> Result<bool> {
    if args.files.is_empty() && args.replicas.len() < 2 {
        bail!("name at least one history, or two data directories with --replicas");
    }
    let verdict = check_files(&args.files)?;
    if !args.files.is_empty() {
        print_verdict(&verdict);
    }
    let compared = if args.replicas.is_empty() { Compared::default() } else { compare(&args.replicas)? };
    if !args.replicas.is_empty() {
        print_compared(&compared);
    }
    Ok(verdict.is_clean() && compared.differences.is_empty())
}

fn print_verdict(verdict: &Verdict) {
    print_line(&format!("looked at {:?}", verdict.seen));
    for anomaly in &verdict.anomalies {
        print_line(&format!("{anomaly:?}"));
    }
    match verdict.counts.is_empty() {
        true => print_line("no promise is broken"),
        false => print_line(&format!("broken promises: {:?}", verdict.counts)),
    }
}

fn print_compared(compared: &Compared) {
    for difference in &compared.differences {
        print_line(&format!("{difference:?}"));
    }
    let Compared { partitions, bytes, differences } = compared;
    print_line(&format!("{partitions} partitions, {bytes} bytes of replicas, {} differ", differences.len()));
}

#[expect(clippy::print_stdout, reason = "a command line program speaks on its standard output")]
fn print_line(line: &str) {
    println!("{line}");
}
