//! What a user is told where a command cannot do what was asked, and `floodmark completions`.

use crate::cluster::{Cluster, floodmark, run};
use crate::free_ports::free_ports;

fn refused(args: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = floodmark();
    command.args(args).envs(variables.iter().copied());
    let ran = run(command, b"");
    assert_eq!(ran.status.code(), Some(2), "{args:?}");
    assert!(ran.stdout.is_empty(), "{args:?}");
    ran.stderr
}

/// A port that nobody listens on, nor will: the system gives it to none of the brokers beside this test.
fn closed_port() -> String {
    let [port] = free_ports();
    format!("127.0.0.1:{port}")
}

#[test]
fn without_a_server_every_command_says_what_to_do() {
    let server = closed_port();
    let told = format!(
        "error: cannot reach {server}: connection refused; is `floodmark serve` running? --server HOST:PORT chooses another\n"
    );
    for args in [
        &["topic", "list"][..],
        &["produce", "t"],
        &["consume", "t"],
        &["consume", "t", "--group", "g"],
        &["offsets", "t"],
        &["group", "list"],
        &["group", "reset", "g", "--to", "start"],
        &["events", "append", "t", "k", "--value", "v"],
        &["events", "read", "t", "k"],
        &["bench", "produce"],
        &["top", "--output", "json"],
    ] {
        assert_eq!(refused(args, &[("FLOODMARK_SERVER", &server)]), told, "{args:?}");
    }
    // The flag counts more than the variable.
    let told = refused(&["topic", "list", "--server", &server], &[("FLOODMARK_SERVER", "127.0.0.1:1")]);
    assert!(told.contains(&server), "{told}");
    let told = refused(&["topic", "list", "--server", "localhost"], &[]);
    assert_eq!(told, "error: --server takes HOST:PORT, not \"localhost\"\n");
    let told = refused(&["topic", "list", "--server", "http://localhost:9093"], &[]);
    assert!(told.contains("no http:// before it"), "{told}");
}

#[test]
fn arguments_that_make_no_sense_are_explained() {
    for (args, part) in [
        (
            &["consume", "t", "--from", "yesterday"][..],
            "start, end, an offset, -N for N records before the end",
        ),
        (&["consume", "t", "--group", "g", "--from", "5"], "floodmark group reset"),
        (&["consume", "t", "--group", "g", "--partition", "1"], "cannot be used with"),
        (&["consume", "t", "--follow", "--to", "5"], "cannot be used with"),
        (&["group", "list", "--state", "Bogus"], "PreparingRebalance"),
        (&["consume", "t", "--format", "{valu}"], "known are {topic}"),
        (&["consume", "t", "--output", "json", "--format", "{value}"], "are for text"),
        (&["produce", "t", "--key-separator", ""], "cannot be empty"),
        (&["produce", "t", "--input", "json", "--key", "k"], "has its own"),
        (&["produce", "t", "--keep-partitions"], "--input json"),
        (&["produce", "t", "--header", "novalue"], "KEY=VALUE"),
        (&["offsets", "t", "--at", "12"], "a time is 2026-11-28T10:00:00Z"),
        (&["group", "reset", "g"], "--to <POSITION>"),
        (&["group", "reset", "g", "--to", "start", "--by", "5"], "cannot be used with"),
        (&["bench", "produce", "--duration", "10"], "write 10s"),
        (&["bench", "produce", "--record-size", "3"], "from 16 to"),
        (&["top"], "top draws on a terminal"),
    ] {
        let told = refused(args, &[]);
        assert!(told.contains(part), "{args:?}: {told}");
    }
}

#[test]
fn a_server_that_speaks_something_else_is_told_apart() {
    let cluster = Cluster::start();
    let kafka = cluster.kafka();
    let told = refused(&["topic", "list", "--timeout", "2s", "--server", &kafka], &[]);
    assert!(told.contains("not as Floodmark's gRPC door does"), "{told}");
}

#[test]
fn a_topic_that_is_not_there_is_told_with_what_makes_it() {
    let cluster = Cluster::start();
    for args in [&["produce", "none"][..], &["consume", "none"], &["consume", "none", "--group", "g"]] {
        let told = cluster.refused(args);
        assert!(told.contains("`floodmark topic create none`"), "{args:?}: {told}");
    }
    cluster.create("t", "2");
    for args in [&["produce", "t", "--partition", "2"][..], &["consume", "t", "--partition", "2"]] {
        assert!(cluster.refused(args).contains("has no partition 2; it has 2, from 0 on"), "{args:?}");
    }
}

#[test]
fn every_command_shows_an_example() {
    let mut commands: Vec<Vec<&str>> =
        vec![vec!["produce"], vec!["consume"], vec!["offsets"], vec!["top"], vec!["completions"]];
    for (command, subcommands) in [
        ("topic", &["create", "list", "describe", "alter", "delete", "extend"][..]),
        ("group", &["list", "describe", "offsets", "reset", "delete"]),
        ("events", &["append", "read"]),
        ("bench", &["produce", "consume", "latency", "end-to-end", "fan-out"]),
    ] {
        commands.extend(subcommands.iter().map(|subcommand| vec![command, subcommand]));
    }
    for command in commands {
        let mut asked = floodmark();
        asked.args(&command).arg("--help");
        let ran = run(asked, b"");
        let help = String::from_utf8(ran.stdout).unwrap();
        let example = format!("  floodmark {}", command.join(" "));
        assert!(
            ran.status.success() && help.replace("Example: ", "  ").contains(&example),
            "{command:?}: {help}"
        );
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let mut asked = floodmark();
        asked.args(["completions", shell]);
        let ran = run(asked, b"");
        let script = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status.success(), "{}", ran.stderr);
        for word in ["fan-out", "keep-partitions", "reset"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    // A script that bash takes, and that offers what can be typed.
    let mut asked = floodmark();
    asked.args(["completions", "bash"]);
    let script = String::from_utf8(run(asked, b"").stdout).unwrap();
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-s"]);
    let probe = "\nCOMP_WORDS=(floodmark gr) COMP_CWORD=1; _floodmark floodmark gr floodmark; echo \"${COMPREPLY[@]}\"\n";
    let ran = run(bash, (script + probe).as_bytes());
    assert_eq!(String::from_utf8(ran.stdout).unwrap().trim(), "group", "{}", ran.stderr);
}
