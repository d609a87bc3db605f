//! `floodmark replay`.

use std::path::Path;

use serde_json::Value;

use crate::cluster::{Cluster, eventually, objects};

fn fill(cluster: &Cluster, count: u32) {
    cluster.create("t", "2");
    let lines: String = (0..count).map(|n| format!("k{},{n}\n", n % 5)).collect();
    cluster.ok_with(&["produce", "t", "--key-separator", ","], lines.as_bytes());
}

fn values(records: &[Value]) -> Vec<u32> {
    let mut values: Vec<u32> =
        records.iter().map(|r| r["value"]["utf8"].as_str().unwrap().parse().unwrap()).collect();
    values.sort_unstable();
    values
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_range_is_printed_or_only_told() {
    let cluster = Cluster::start();
    fill(&cluster, 50);
    cluster.ok(&["topic", "create", "timed", "--set", "message.timestamp.type=LogAppendTime"]);
    assert_eq!(values(&cluster.json(&["replay", "t"])), (0..50).collect::<Vec<_>>());
    let of_key = cluster.json(&["replay", "t", "--key", "k3"]);
    assert_eq!(values(&of_key), (0..50).filter(|n| n % 5 == 3).collect::<Vec<_>>());
    let last = cluster.json(&["replay", "t", "--from", "-2"]);
    assert_eq!(last.len(), 4);
    let table = cluster.ok(&["replay", "t", "--dry-run"]);
    assert!(table.contains("offsets") && !table.contains("k3"), "{table}");
    let told = cluster.json(&["replay", "t", "--dry-run", "--from", "5", "--to", "9", "--partition", "1"]);
    assert_eq!(told, [serde_json::json!({"topic": "t", "partition": 1, "from": 5, "to": 9})]);
    for (args, part) in [
        (&["replay", "missing"][..], "missing"),
        (&["replay", "t", "--rate", "fast"], "10x"),
        (&["replay", "t", "--partition", "7"], "no partition 7"),
        (&["replay", "t", "--checkpoint", "c"], "--into or --file"),
        (&["replay", "t", "--into", "nowhere"], "nowhere"),
        (&["replay", "t", "--into", "timed"], "message.timestamp.type=LogAppendTime"),
    ] {
        let ran = cluster.run(args);
        assert_eq!(ran.status.code(), Some(2), "{args:?}");
        assert!(ran.stderr.contains(part), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn a_copy_that_is_killed_goes_on_and_has_each_record_once() {
    let cluster = Cluster::start();
    fill(&cluster, 400);
    cluster.create("copy", "2");
    let dir = tempfile::tempdir().unwrap();
    let job = path(dir.path(), "job");
    // So slow that it is not done before it is killed.
    let command = ["replay", "t", "--into", "copy", "--rate", "20/s", "--checkpoint", &job];
    let copied = || -> i64 {
        let offsets = cluster.json(&["offsets", "copy"]);
        offsets.iter().map(|partition| partition["high_watermark"].as_i64().unwrap()).sum()
    };
    for signal in ["KILL", "INT", "KILL"] {
        let before = copied();
        let mut running = cluster.spawn(&command);
        eventually("some are copied", || copied() >= before + 5);
        running.signal(signal);
        let ran = running.end();
        assert!(!ran.status.success());
        if signal == "INT" {
            assert!(ran.stderr.contains("goes on from"), "{}", ran.stderr);
        }
    }
    let mut last = command.to_vec();
    last[5] = "max";
    cluster.ok(&last);
    let copied = cluster.json(&["consume", "copy"]);
    assert_eq!(values(&copied), (0..400).collect::<Vec<_>>());
    let sources = copied.iter().filter(|record| record["headers"].to_string().contains("floodmark-source"));
    assert_eq!(sources.count(), 400);
    // Nothing is left to do.
    cluster.ok(&last);
    assert_eq!(cluster.json(&["consume", "copy"]).len(), 400);
    let other = cluster.refused(&["replay", "t", "--into", "copy", "--key", "k1", "--checkpoint", &job]);
    assert!(other.contains("another key"), "{other}");
}

/// Stops `command`, which is slow, once it has begun, and says the end of what it was: at full speed.
fn begin<'a>(cluster: &Cluster, command: &[&'a str]) -> Vec<&'a str> {
    let checkpoint = command[command.iter().position(|part| *part == "--checkpoint").unwrap() + 1];
    let mut running = cluster.spawn(command);
    eventually("it has noted where it begins", || Path::new(checkpoint).exists());
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.signal("INT");
    let ran = running.end();
    assert!(ran.stderr.contains("goes on from"), "{}", ran.stderr);
    let mut last = command.to_vec();
    last.truncate(last.len() - 2);
    last
}

#[test]
fn a_topic_that_was_made_anew_is_not_gone_on_with() {
    let cluster = Cluster::start();
    fill(&cluster, 400);
    cluster.create("copy", "2");
    let dir = tempfile::tempdir().unwrap();
    let (job, file_job) = (path(dir.path(), "job"), path(dir.path(), "file-job"));
    let file = path(dir.path(), "lines");
    let slowly = ["--rate", "20/s"];
    let copy = [&["replay", "t", "--into", "copy", "--checkpoint", &job][..], &slowly].concat();
    let copy = begin(&cluster, &copy);
    let lines = [&["replay", "t", "--file", &file, "--checkpoint", &file_job][..], &slowly].concat();
    let lines = begin(&cluster, &lines);
    let remake = |topic: &str| {
        cluster.ok(&["topic", "delete", topic]);
        cluster.create(topic, "2");
    };
    // The target first: it has fewer records than were copied, which is not what is looked at.
    remake("copy");
    let refused = cluster.refused(&copy);
    assert!(refused.contains("topic copy was deleted and made anew"), "{refused}");
    assert!(refused.contains(&format!("remove {job}")), "{refused}");
    std::fs::remove_file(&job).unwrap();
    let copy = begin(&cluster, &[&copy[..], &slowly].concat());
    cluster.ok(&["topic", "delete", "t"]);
    fill(&cluster, 600);
    let before = (std::fs::read(&job).unwrap(), std::fs::read(&file_job).unwrap());
    for (command, what) in
        [(&copy, format!("remove {job}; ")), (&lines, format!("remove {file_job} and {file}"))]
    {
        for dry in [&["--dry-run"][..], &[]] {
            let refused = cluster.refused(&[&command[..], dry].concat());
            assert!(refused.contains("topic t was deleted and made anew"), "{refused}");
            assert!(refused.contains(&what), "{refused}");
        }
    }
    assert_eq!(before, (std::fs::read(&job).unwrap(), std::fs::read(&file_job).unwrap()));
    // What it says to do helps.
    for done in [&job, &file_job, &file] {
        std::fs::remove_file(done).unwrap();
    }
    cluster.ok(&lines);
    assert_eq!(objects(&std::fs::read_to_string(&file).unwrap()).len(), 600);
}

#[test]
fn a_checkpoint_of_the_program_before_is_gone_on_with() {
    let cluster = Cluster::start();
    fill(&cluster, 400);
    cluster.create("copy", "2");
    let dir = tempfile::tempdir().unwrap();
    let job = path(dir.path(), "job");
    let copy = begin(&cluster, &["replay", "t", "--into", "copy", "--checkpoint", &job, "--rate", "20/s"]);
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&job).unwrap()).unwrap();
    kept["version"] = 1.into();
    assert!(kept.as_object_mut().unwrap().remove("topic_id").is_some());
    assert!(kept["target"]["topic"].as_object_mut().unwrap().remove("topic_id").is_some());
    std::fs::write(&job, kept.to_string()).unwrap();
    cluster.ok(&copy);
    assert_eq!(values(&cluster.json(&["consume", "copy"])), (0..400).collect::<Vec<_>>());
    let kept: Value = serde_json::from_slice(&std::fs::read(&job).unwrap()).unwrap();
    assert!(kept["topic_id"].is_string(), "{kept}");
}

#[test]
fn a_file_that_was_begun_is_gone_on_with_and_produce_takes_it() {
    let cluster = Cluster::start();
    fill(&cluster, 300);
    let dir = tempfile::tempdir().unwrap();
    let (job, file) = (path(dir.path(), "job"), path(dir.path(), "lines"));
    let command = ["replay", "t", "--file", &file, "--rate", "20/s", "--checkpoint", &job];
    std::fs::write(&file, "somebody else's").unwrap();
    let taken = cluster.refused(&command);
    assert!(taken.contains("not replaced") && taken.contains("no checkpoint"), "{taken}");
    assert!(!Path::new(&job).exists());
    // What one leaves that is killed before its first checkpoint.
    std::fs::write(&file, "").unwrap();
    let mut running = cluster.spawn(&command);
    // Without a word of how far it is, a file that is there is somebody else's.
    eventually("it has noted where it begins", || Path::new(&job).exists());
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.signal("KILL");
    assert!(!running.end().status.success());
    let mut last = command.to_vec();
    last[5] = "max";
    cluster.ok(&last);
    let lines = std::fs::read(&file).unwrap();
    assert_eq!(values(&objects(std::str::from_utf8(&lines).unwrap())), (0..300).collect::<Vec<_>>());
    cluster.create("again", "2");
    cluster.ok_with(&["produce", "again", "--input", "json"], &lines);
    assert_eq!(cluster.json(&["consume", "again"]).len(), 300);
    let taken = cluster.refused(&["replay", "t", "--file", &file]);
    assert!(taken.contains("not replaced"), "{taken}");
}

/// What was read stayed in the program up to a MiB, however slowly it came.
#[test]
fn a_file_has_what_is_older_than_a_moment() {
    let cluster = Cluster::start();
    fill(&cluster, 10);
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "lines");
    // Nothing is due behind the first.
    let mut running = cluster.spawn(&["replay", "t", "--file", &file, "--rate", "0.001/s"]);
    eventually("a line is in the file", || std::fs::read(&file).is_ok_and(|lines| lines.ends_with(b"\n")));
    running.signal("KILL");
    assert!(!running.end().status.success());
    // What nobody wants does not make it slower: there is one record with this key.
    cluster.ok_with(&["produce", "t", "--key", "rare"], b"10\n");
    let rare = cluster.json(&["replay", "t", "--key", "rare", "--rate", "0.001/s"]);
    assert_eq!(values(&rare), [10]);
}
