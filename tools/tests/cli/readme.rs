//! The quick start of the README, run as it stands, so that it stays true.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// A new group takes some seconds to form, and two members some more to part, on a machine that does much else.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS: usize = 2400;

/// The commands between the README's marks: what stands in its `sh` blocks, a line each.
fn commands(readme: &str) -> Vec<String> {
    let start = readme.find("## Quick start").expect("the README has a quick start");
    let section = &readme[start..];
    let end = section[3..].find("\n## ").map_or(section.len(), |at| at + 3);
    let mut commands = Vec::new();
    let mut is_code = false;
    for line in section[..end].lines() {
        match line {
            "```sh" => is_code = true,
            "```" => is_code = false,
            _ if is_code && !line.trim().is_empty() && !line.starts_with('#') => {
                commands.push(line.to_owned())
            }
            _ => {}
        }
    }
    commands
}

/// The commands as one script of a shell. Somebody else's terminal runs the server, nobody looks at `top` for long, a conflict is what is
/// wanted, and on a machine that does much else a group may take longer than the README waits.
fn script(commands: &[String], ports: &str) -> String {
    let mut script = String::from("set -e -o pipefail\n");
    for command in commands {
        let run = match command.as_str() {
            "floodmark serve" => {
                format!(
                    "floodmark serve {ports} > serve.log 2>&1 & echo $! > serve.pid; disown; wait_for_server"
                )
            }
            "floodmark top" => "floodmark top --samples 2 --interval 200ms --output json".to_owned(),
            described if described.contains("floodmark group describe") => {
                let described = described.trim_start_matches("sleep 10; ");
                format!(
                    "until {described} | grep -q 'Stable, 2 members.* lag'; do sleep 0.1; done; {described}"
                )
            }
            refused if refused.ends_with("# a conflict") => format!("if {refused}\nthen exit 9; fi"),
            other => other.to_owned(),
        };
        script += &format!("echo '$ {}'\n{run}\n", command.replace('\'', "'\\''"));
    }
    script
}

#[test]
fn the_quick_start_does_what_it_says() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let commands = commands(&readme);
    assert!(commands.len() >= 10, "{commands:#?}");
    for part in [
        "produce",
        "consume",
        "--group",
        "group describe",
        "group reset",
        "replay",
        "events append",
        "a conflict",
        "top",
    ] {
        assert!(commands.iter().any(|command| command.contains(part)), "no command shows {part}");
    }

    let dir = TempDir::new().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_floodmark")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let ports = "--kafka-listen 127.0.0.1:0 --grpc-listen 127.0.0.1:0 --http-listen off";
    // The README has the default port; here it may be taken. Whatever fails, nothing is left running.
    let head = "trap 'kill $(jobs -p) $(cat serve.pid) 2> /dev/null || true' EXIT
        wait_for_server() { until grep -q gRPC serve.log; do kill -0 $(cat serve.pid) || { cat serve.log; exit 8; }; sleep 0.05; done
        export FLOODMARK_SERVER=$(sed -n 's/^ *gRPC *//p' serve.log); }\n";
    fs::write(dir.path().join("script"), [head, &script(&commands, ports)].concat()).unwrap();
    let said = fs::File::create(dir.path().join("said")).unwrap();
    let mut shell = Command::new("bash");
    // What steers tests is no setting of a broker, which would refuse it.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLOODMARK_")) {
        shell.env_remove(name);
    }
    let mut shell = shell
        .arg("script")
        .current_dir(dir.path())
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(said.try_clone().unwrap())
        .stderr(said)
        .spawn()
        .unwrap();
    let mut status = None;
    for _ in 0..LOOKS {
        status = shell.try_wait().unwrap();
        if status.is_some() {
            break;
        }
        thread::sleep(LOOK_EVERY);
    }
    let shown = fs::read_to_string(dir.path().join("said")).unwrap();
    if status.is_none() {
        shell.kill().unwrap();
        panic!("the quick start is not over yet:\n{shown}");
    }
    assert!(status.unwrap().success(), "{shown}");
    for part in [
        "1,000 records written to orders",
        "group billing: Stable",
        "->",
        "error: conflict",
        "records_per_second",
    ] {
        assert!(shown.contains(part), "nothing shows {part}:\n{shown}");
    }
    let read: usize = ["one.txt", "two.txt"]
        .map(|name| fs::read_to_string(dir.path().join(name)).unwrap().lines().count())
        .iter()
        .sum();
    assert!(read <= 1_000 && read > 0, "{read} of 1000 records were read by the two members");
}
