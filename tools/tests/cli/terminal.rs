//! `floodmark top`: as JSON, and on a pseudo terminal that another program provides.

use std::process::Command;

use crate::cluster::{Cluster, eventually};

#[test]
fn samples_hold_topics_rates_groups_and_lag() {
    let cluster = Cluster::start();
    cluster.create("t", "2");
    cluster.ok_with(&["produce", "t", "--partition", "1"], b"a\nb\nc\n");
    cluster.ok(&["consume", "t", "--group", "g", "--max", "1"]);
    let samples = cluster.json(&["top", "--samples", "2", "--interval", "100ms"]);
    let [_, last] = &samples[..] else { panic!("{samples:?}") };
    let topic = &last["topics"][0];
    assert_eq!(
        (&topic["topic"], &topic["partitions"], &topic["records"]),
        (&"t".into(), &2.into(), &3.into())
    );
    assert_eq!(topic["records_per_second"], 0.0);
    let group = &last["groups"][0];
    assert_eq!((&group["group"], &group["state"], &group["lag"]), (&"g".into(), &"Empty".into(), &2.into()));
    assert!(last["gaps"].is_null());
}

/// It waited for `--timeout` and said nothing.
#[test]
fn a_cluster_that_answers_no_more_is_told() {
    let cluster = Cluster::start();
    let mut top = cluster.spawn(&["top", "--output", "json", "--interval", "100ms", "--timeout", "5s"]);
    while top.read(1) != b"\n" {}
    drop(cluster);
    let ran = top.end();
    assert!(!ran.status.success());
    assert_eq!(ran.stderr.matches("no answer for 1 s").count(), 1, "{}", ran.stderr);
}

/// A terminal of tmux's, on a server of its own.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// `None` where there is no tmux.
    fn start(name: &str, command: &str) -> Option<Terminal> {
        let socket = format!("floodmark-{name}-{}", std::process::id());
        let terminal = Terminal { socket };
        let started = Command::new("tmux")
            .args([
                "-L",
                &terminal.socket,
                "-f",
                "/dev/null",
                "new-session",
                "-d",
                "-x",
                "110",
                "-y",
                "24",
                command,
            ])
            .status();
        started.is_ok_and(|status| status.success()).then_some(terminal)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux").args(["-L", &self.socket]).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn a_terminal_shows_the_cluster_and_is_given_back() {
    let cluster = Cluster::start();
    cluster.create("orders", "2");
    cluster.ok_with(&["produce", "orders"], b"a\nb\nc\n");
    let program = env!("CARGO_BIN_EXE_floodmark");
    let command = format!(
        "{program} top --server {} --interval 200ms; echo it ended with $?; sleep 60",
        cluster.server()
    );
    let Some(terminal) = Terminal::start("top", &command) else {
        eprintln!("skipped: tmux is not installed");
        return;
    };
    eventually("the topic is on the screen", || {
        let screen = terminal.screen();
        screen.contains("orders") && screen.contains("topics: 1")
    });
    terminal.press("p");
    eventually("it is paused", || terminal.screen().contains("PAUSED"));
    terminal.press("?");
    eventually("help is shown", || terminal.screen().contains("turn the order around"));
    terminal.press("Escape");
    eventually("help is gone", || !terminal.screen().contains("turn the order around"));
    terminal.press("q");
    eventually("it has ended well", || terminal.screen().contains("it ended with 0"));
    assert!(!terminal.screen().contains("topics: 1"), "{}", terminal.screen());
}

/// It was hidden wherever standard output was a terminal, though nothing goes there.
#[test]
fn a_replay_to_somewhere_else_shows_how_far_it_is() {
    let cluster = Cluster::start();
    for topic in ["t", "copy"] {
        cluster.create(topic, "1");
    }
    cluster.ok_with(&["produce", "t"], "line\n".repeat(2_000).as_bytes());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lines");
    let program = env!("CARGO_BIN_EXE_floodmark");
    for (name, target) in [("into", "--into copy".to_owned()), ("file", format!("--file {}", file.display()))]
    {
        let command = format!("{program} replay t --server {} --rate 20/s {target}", cluster.server());
        let Some(terminal) = Terminal::start(name, &command) else {
            eprintln!("skipped: tmux is not installed");
            return;
        };
        eventually("a bar is on the screen", || terminal.screen().contains("/2000 offsets, "));
    }
}
