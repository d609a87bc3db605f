//! The checker as a program: histories in several files, and replicas on disk, each once as it should be and once not.
#![allow(clippy::disallowed_methods, reason = "the test writes the files that the program reads")]
#![allow(clippy::print_stdout, reason = "what was measured, for whoever asks for it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_tools::history::{Op, Recorder, Value};

/// Where a batch's leader epoch lies: behind its base offset and its length.
const EPOCH_AT: usize = 12;

/// Exit code and what was printed.
fn run(args: &[PathBuf]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_history-check")).args(args).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn replicas(dirs: &[PathBuf]) -> (i32, String) {
    let args: Vec<_> = dirs.iter().flat_map(|dir| [PathBuf::from("--replicas"), dir.clone()]).collect();
    run(&args)
}

fn recorder(path: &Path) -> Recorder {
    Recorder::new(Box::new(File::create(path).unwrap()))
}

fn send(producer: u32, first: u64, count: u64, acked_at: Option<i64>) -> Op {
    Op::Send { producer, idempotent: true, partition: 0, first, count, acked_at }
}

fn final_of(values: &[(u32, u64)]) -> Op {
    let records = (0..).zip(values.iter().map(|of| Value::from(*of))).collect();
    Op::Final { partition: 0, replica: 1, from: 0, records, ends: true }
}

#[test]
fn histories_of_several_processes_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other, end] = ["one", "other", "end"].map(|name| dir.path().join(name));
    let recorders = [&one, &other, &end].map(|path| recorder(path));
    // The second producer begins when the first one's record is acknowledged.
    recorders[0].end(recorders[0].begin(), send(1, 0, 1, Some(0)));
    std::thread::sleep(std::time::Duration::from_millis(1));
    recorders[1].end(recorders[1].begin(), send(2, 0, 1, Some(1)));
    recorders[2].end(recorders[2].begin(), final_of(&[(1, 0), (2, 0)]));
    for recorder in &recorders {
        recorder.finish().unwrap();
    }
    let (code, said) = run(&[end, other.clone(), one.clone()]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("sends_acked: 2") && said.contains("no promise is broken"), "{said}");

    // In one file that says that the later one lies before, the records differ and the moments count.
    let turned = dir.path().join("turned");
    let recorder = recorder(&turned);
    recorder.end(recorder.begin(), final_of(&[(2, 0), (1, 0)]));
    recorder.finish().unwrap();
    let (code, said) = run(&[turned, other, one]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("LostAcked") && said.contains("\"two_values\": 2"), "{said}");
}

#[test]
fn what_is_no_history_is_not_judged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    let line = |begun, ended| {
        format!(
            r#"{{"begun":{begun},"ended":{ended},"did":{{"resume":{{"group":"g","partition":0,"offset":null}}}}}}"#
        )
    };
    let outcome = |text: &str| {
        fs::write(&path, text).unwrap();
        run(std::slice::from_ref(&path))
    };
    assert_eq!(outcome(&format!("{}\n{}\n", line(1, 2), line(1, 3))).0, 0);
    for (text, complaint) in [
        (format!("{}\n{}\n", line(1, 3), line(1, 2)), "line 2 stands behind one that ended later"),
        (line(3, 2), "line 1 is not as a recorder writes it"),
        (format!("{}\n{}", line(1, 2), &line(1, 3)[..40]), "line 2 is no event"),
        (line(1, 2).replace("resume", "rest"), "line 1 is no event"),
    ] {
        let (code, said) = outcome(&text);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(complaint), "{said}");
    }
    assert_eq!(run(&[dir.path().join("none")]).0, 2);
    assert_eq!(run(&[]).0, 2);
}

/// A replica's directory with these batches, of one record each.
fn replica_of(dir: &Path, name: &str, batches: &[Vec<u8>]) -> PathBuf {
    let replica = dir.join(name);
    let log = replica.join("logs/events-0");
    fs::create_dir_all(&log).unwrap();
    fs::write(log.join("00000000000000000000.log"), batches.concat()).unwrap();
    replica
}

fn batch(offset: i64, epoch: i32, value: &str) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { value: Some(value.as_bytes()), ..Default::default() }).unwrap();
    let mut bytes = builder.build().unwrap().as_bytes().to_vec();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes[EPOCH_AT..EPOCH_AT + 4].copy_from_slice(&epoch.to_be_bytes());
    bytes
}

#[test]
fn replicas_are_the_same_to_the_last_byte() {
    let dir = tempfile::tempdir().unwrap();
    let replica = |name, batches: &[Vec<u8>]| replica_of(dir.path(), name, batches);
    let batches = [batch(0, 1, "a"), batch(1, 1, "b"), batch(2, 2, "c")];
    let one = replica("one", &batches);
    // Zeros that were written ahead are no difference, and neither is where segments begin.
    let zeros = vec![0; 4096];
    let same = replica("same", &[batches[0].clone(), zeros]);
    let second = [&batches[1][..], &batches[2]].concat();
    fs::write(same.join("logs/events-0/00000000000000000001.log"), second).unwrap();
    let (code, said) = replicas(&[one.clone(), same.clone()]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("1 partitions"), "{said}");
    // Neither is a start that retention moved.
    let later = replica("later", &batches[1..]);
    assert_eq!(replicas(&[one.clone(), later.clone()]).0, 0);
    assert_eq!(replicas(&[later, one.clone()]).0, 0);

    let other_epoch = [batches[0].clone(), batch(1, 2, "b"), batches[2].clone()];
    let other_value = [batches[0].clone(), batches[1].clone(), batch(2, 2, "d")];
    for (name, differing) in [
        ("other_epoch", &other_epoch[..]),
        ("other_value", &other_value[..]),
        ("shorter", &batches[..2]),
        ("hole", &[batches[0].clone(), batches[2].clone()][..]),
        ("empty", &[]),
    ] {
        let differing = replica(name, differing);
        for dirs in [vec![one.clone(), differing.clone()], vec![differing, same.clone(), one.clone()]] {
            let (code, said) = replicas(&dirs);
            assert_eq!(code, 1, "{name}: {said}");
            assert!(said.contains("1 differ"), "{name}: {said}");
        }
    }
    let torn = batches.concat();
    let torn = replica("torn", &[torn[..torn.len() - 3].to_vec()]);
    assert_eq!(replicas(&[one, torn]).0, 2);
}

#[test]
#[ignore = "writes a gigabyte, to measure how long the checker takes for five million operations"]
fn five_million_operations() {
    const PARTITIONS: u32 = 12;
    const ROUNDS: u64 = 140_000;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("history");
    let recorder = recorder(&path);
    let value = |offset: u64| Value { producer: (offset / 5 % 10) as u32, n: offset / 50 * 5 + offset % 5 };
    let records = |from: u64, count| {
        let offsets = (from..from + count).zip(from as i64..);
        offsets.map(|(offset, at)| (at, value(offset))).collect::<Vec<_>>()
    };
    let mut operations = 0;
    let mut note = |op| {
        recorder.end(recorder.begin(), op);
        operations += 1;
    };
    for round in 0..ROUNDS {
        for partition in 0..PARTITIONS {
            let at = round * 5;
            let Value { producer, n } = value(at);
            let acked_at = Some(at as i64);
            note(Op::Send { producer, idempotent: true, partition, first: n, count: 5, acked_at });
            note(Op::Read { reader: partition, partition, from: at as i64, records: records(at, 5) });
            let (group, offset, acked) = ("readers".to_owned(), at as i64 + 5, true);
            note(Op::Commit { group, partition, offset, acked });
        }
    }
    for partition in 0..PARTITIONS {
        for from in (0..ROUNDS * 5).step_by(1000) {
            let (ends, records) = (from + 1000 == ROUNDS * 5, records(from, 1000));
            note(Op::Final { partition, replica: 1, from: from as i64, records, ends });
        }
    }
    recorder.finish().unwrap();
    let size = fs::metadata(&path).unwrap().len();
    let started = std::time::Instant::now();
    let (code, said) = run(&[path]);
    assert_eq!(code, 0, "{said}");
    println!("{operations} operations, {size} bytes: {:?}\n{said}", started.elapsed());
}
