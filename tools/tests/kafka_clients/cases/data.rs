//! Produce and consume.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{header, noise, record, records};
use crate::adapter::{Failure, Record, parse};
use crate::ensure;
use crate::session::{Session, expect_same};

/// Longest wait for a refusal of what is not served.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);

/// Every codec the client has: read back exactly, and really compressed on the broker's disk.
pub(crate) fn codecs(session: &mut Session) -> Result<String, Failure> {
    let value = |n: usize| format!("{n} {}", "the quick brown fox ".repeat(50)).into_bytes();
    let sent: Vec<Record> = (0..200)
        .map(|n| record(n % 2, Some(format!("k{n}").into_bytes()), Some(value(n as usize))))
        .collect();
    let raw: usize = sent.iter().filter_map(|r| r.value.as_ref()).map(Vec::len).sum();
    for codec in session.hello.codecs.clone() {
        let topic = session.topic(&format!("codec-{codec}"), 2, json!({}))?;
        session.produce_as(&topic, &sent, &codec, "all", false)?;
        session.expect_topic(&topic, 2, &sent).map_err(|e| within(&codec, e))?;
        let told = session.call_or_help(json!({"op": "log_dirs", "topic": topic}));
        let size: usize = match told {
            Ok(mut told) => parse(told["size"].take())?,
            // No helper, no look at the disk.
            Err(Failure::Unsupported(_)) => continue,
            Err(other) => return Err(other),
        };
        let is_compressed = size < raw / 2;
        ensure!(size > 0, "{codec}: nothing on the disk");
        ensure!(is_compressed == (codec != "none"), "{codec}: {raw} bytes take {size} on the disk");
    }
    Ok(session.hello.codecs.join(", "))
}

fn within(what: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Wrong(text) => Failure::Wrong(format!("{what}: {text}")),
        Failure::Refused { text, code } => Failure::Refused { text: format!("{what}: {text}"), code },
        Failure::Unsupported(why) => Failure::Unsupported(why),
    }
}

/// Null, empty and binary keys and values, headers of every kind, timestamps; and the client's own choice of partitions by key.
pub(crate) fn keys_headers(session: &mut Session) -> Result<String, Failure> {
    // Some records are older than what a broker keeps by default.
    let topic = session.topic("keys", 3, json!({"retention.ms": "-1"}))?;
    let binary: Vec<u8> = (0..=255).collect();
    let text = |t: &str| Some(t.as_bytes().to_vec());
    let mut sent = vec![
        record(0, text("key"), text("value")),
        record(0, None, text("no key")),
        record(0, text("tombstone"), None),
        record(1, Some(binary.clone()), Some(binary.clone())),
        record(1, text("ключ"), text("значение 漢字 🦀")),
        record(2, None, text("last")),
    ];
    if !session.lacks("empty") {
        sent.push(record(2, text(""), text("empty key")));
        sent.push(record(2, text("empty value"), text("")));
    }
    if !session.lacks("null record") {
        sent.push(record(2, None, None));
    }
    sent[0].headers =
        vec![header("one", Some(b"1")), header("two", Some(b"2")), header("one", Some(b"again"))];
    if session.lacks("header order") {
        sent[0].headers.swap(1, 2);
    }
    sent[1].headers = vec![header("имя", Some("значение".as_bytes()))];
    if !session.lacks("binary header") {
        sent[3].headers = vec![header("binary", Some(&binary))];
    }
    if !session.lacks("empty header") {
        sent[3].headers.push(header("empty", Some(b"")));
    }
    if !session.lacks("null header") {
        sent[4].headers = vec![header("null", None)];
    }
    if !session.lacks("timestamp") {
        sent[0].timestamp = Some(1_600_000_000_123);
        sent[1].timestamp = Some(1_500_000_000_000);
        if session.lacks("falling timestamps") {
            sent[1].timestamp = Some(1_600_000_000_124);
        }
        if session.lacks("distant timestamps") {
            sent[2].timestamp = Some(1_600_000_000_125);
        }
    }
    let told = session.produce(&topic, &sent)?;
    let got = session.expect_topic(&topic, 3, &sent)?;
    if !session.lacks("offsets") {
        let places: Vec<_> = got.iter().map(|g| (g.partition, g.offset)).collect();
        ensure!(told.iter().all(|place| places.contains(place)), "told {told:?}, consumed at {places:?}");
    }
    by_key(session)?;
    Ok(session.hello.lacks.iter().map(|l| format!("no {l}")).collect::<Vec<_>>().join(", "))
}

/// The client chooses: one key, one partition, in order.
fn by_key(session: &mut Session) -> Result<(), Failure> {
    let topic = session.topic("by-key", 4, json!({}))?;
    let sent: Vec<Record> = (0..100)
        .map(|n| {
            let key = format!("key {}", n % 10).into_bytes();
            let value = format!("{n:03}").into_bytes();
            Record { partition: None, ..record(0, Some(key), Some(value)) }
        })
        .collect();
    session.produce(&topic, &sent)?;
    session.assign(&topic, 4, json!("start"))?;
    let got = session.take(100)?;
    session.call(json!({"op": "close"}))?;
    let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for record in &got {
        by_key.entry(&record.key).or_default().push((record.partition, &record.value));
    }
    ensure!(by_key.len() == 10, "{} keys of 10", by_key.len());
    for (key, places) in by_key {
        ensure!(places.iter().all(|p| p.0 == places[0].0), "{key:?} in several partitions");
        ensure!(places.is_sorted_by_key(|p| p.1) && places.len() == 10, "{key:?} out of order");
    }
    Ok(())
}

/// Without an acknowledgement, with the leader's, with all: everything arrives.
pub(crate) fn acks(session: &mut Session) -> Result<String, Failure> {
    let topic = session.topic("acks", 1, json!({}))?;
    let mut sent = Vec::new();
    let mut without = Vec::new();
    for acks in ["all", "1", "0", "all"] {
        let more = records(&format!("acks {acks} {}", sent.len()), 1, 50);
        match session.produce_as(&topic, &more, "none", acks, false) {
            Ok(_) => sent.extend(more),
            Err(Failure::Unsupported(why)) => without.push(why),
            Err(other) => return Err(within(&format!("acks={acks}"), other)),
        }
    }
    session.expect_topic(&topic, 1, &sent)?;
    Ok(without.join(", "))
}

/// Two idempotent producers, one after the other: no gap, nothing twice, nothing out of order.
pub(crate) fn idempotent(session: &mut Session) -> Result<String, Failure> {
    let topic = session.topic("idempotent", 3, json!({}))?;
    let mut sent = Vec::new();
    for word in ["first", "second"] {
        let more = records(word, 3, 300);
        let told = session.produce_as(&topic, &more, "none", "all", true)?;
        if !session.lacks("offsets") {
            for partition in 0..3 {
                let offsets: Vec<i64> = told.iter().filter(|t| t.0 == partition).map(|t| t.1).collect();
                let first = (sent.len() / 3) as i64;
                ensure!(
                    offsets.iter().copied().eq(first..first + 300),
                    "{word}: partition {partition} was told {offsets:?}"
                );
            }
        }
        sent.extend(more);
    }
    session.expect_topic(&topic, 3, &sent)?;
    Ok(String::new())
}

/// A broker that serves no transactions says so at once, and nothing is left of the attempt; one that does serves this one.
pub(crate) fn transaction(session: &mut Session) -> Result<String, Failure> {
    let topic = session.topic("transaction", 1, json!({}))?;
    let asked =
        json!({"op": "transaction", "topic": topic, "transactional_id": session.name("transactional")});
    // The clients' own time-outs are longer, so whoever only waits for one gets no answer here.
    let told = session.call_within(&asked, REFUSED_WITHIN);
    let said = match (told, session.size.serves_transactions) {
        (Ok(_), true) => {
            session.assign(&topic, 1, json!("start"))?;
            let got = session.take(1)?;
            let value = got[0].value.as_deref().map(<[u8]>::to_ascii_lowercase);
            ensure!(value.as_deref() == Some(b"in a transaction"), "committed, but consumed is {got:?}");
            return Ok(String::new());
        }
        (Err(Failure::Refused { text, .. }), false) => text,
        (Ok(_), false) => return Err(Failure::wrong("a transaction was committed where none are served")),
        (Err(other), _) => return Err(other),
    };
    let sent = records("without one", 1, 10);
    session.produce(&topic, &sent)?;
    session.expect_topic(&topic, 1, &sent)?;
    let line = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    Ok(format!("refused: {line}"))
}

/// Two loads, all of it read from the start, twice.
pub(crate) fn from_start(session: &mut Session) -> Result<String, Failure> {
    let topic = session.topic("start", 2, json!({}))?;
    let mut sent = records("early", 2, 500);
    session.produce(&topic, &sent)?;
    session.expect_topic(&topic, 2, &sent)?;
    let more = records("late", 2, 500);
    session.produce(&topic, &more)?;
    sent.extend(more);
    session.expect_topic(&topic, 2, &sent)?;
    Ok(String::new())
}

/// A consumer at the end gets what comes afterwards and nothing of what was there.
pub(crate) fn from_end(session: &mut Session) -> Result<String, Failure> {
    let topic = session.topic("end", 1, json!({}))?;
    session.produce(&topic, &records("old", 1, 100))?;
    session.assign(&topic, 1, json!("end"))?;
    // The position may be looked up late, so the first record that comes is not known; from then on none may be missing.
    let start = Instant::now();
    let (mut sent, mut got) = (Vec::new(), session.poll(500)?.records);
    while got.len() < 20 {
        ensure!(start.elapsed() < Duration::from_secs(60), "{} records came of {}", got.len(), sent.len());
        let more = records(&format!("new {}", sent.len()), 1, 5);
        session.produce(&topic, &more)?;
        sent.extend(more);
        got.extend(session.poll(500)?.records);
    }
    while got.last().is_some_and(|g| g.offset < 99 + sent.len() as i64) {
        ensure!(start.elapsed() < Duration::from_secs(60), "the last record does not come");
        got.extend(session.poll(500)?.records);
    }
    session.call(json!({"op": "close"}))?;
    let first = got[0].offset;
    ensure!(first >= 100, "the consumer at the end got offset {first}, which was there before");
    expect_same(&sent[(first - 100) as usize..], &got, first)?;
    Ok(String::new())
}

/// A consumer that starts at a time gets the first record of that time or later, in each partition.
pub(crate) fn by_time(session: &mut Session) -> Result<String, Failure> {
    let topic = session.topic("time", 2, json!({"retention.ms": "-1"}))?;
    let mut sent = records("timed", 2, 100);
    let time = if session.lacks("timestamp") {
        session.produce(&topic, &sent[..100])?;
        sleep(Duration::from_millis(50));
        session.produce(&topic, &sent[100..])?;
        let got = session.expect_topic(&topic, 2, &sent)?;
        got.iter().filter(|g| g.offset == 50).map(|g| g.timestamp).min().unwrap_or_default()
    } else {
        for (n, record) in sent.iter_mut().enumerate() {
            record.timestamp = Some(1_700_000_000_000 + (n / 2) as i64 * 1000);
        }
        session.produce(&topic, &sent)?;
        1_700_000_049_001
    };
    session.assign(&topic, 2, json!(time))?;
    let got = session.take(100)?;
    session.call(json!({"op": "close"}))?;
    expect_same(&sent[100..], &got, 50)?;
    let asked = json!({"op": "list_offsets", "topic": topic, "partitions": [0, 1], "at": time});
    match session.call(asked) {
        Ok(mut told) => {
            let mut offsets: Vec<(i32, i64)> = parse(told["offsets"].take())?;
            offsets.sort_unstable();
            ensure!(offsets == [(0, 50), (1, 50)], "offsets {offsets:?} for the time {time}");
            Ok(String::new())
        }
        Err(Failure::Unsupported(why)) => Ok(why),
        Err(other) => Err(other),
    }
}

/// 8 MiB in one record where the topic allows it, and a refusal where it does not.
pub(crate) fn large_message(session: &mut Session) -> Result<String, Failure> {
    let small = |n: u8| record(0, None, Some(vec![n; 10]));
    let topic = session.topic("large", 1, json!({"max.message.bytes": "9000000"}))?;
    let sent = [small(1), record(0, Some(b"large".to_vec()), Some(noise(8 << 20))), small(2)];
    for record in &sent {
        session.produce(&topic, std::slice::from_ref(record))?;
    }
    session.expect_topic(&topic, 1, &sent)?;

    let topic = session.topic("not-large", 1, json!({}))?;
    let refused = session.produce(&topic, &[record(0, None, Some(noise(2 << 20)))]);
    match refused {
        Err(Failure::Refused { code, text }) => {
            ensure!(code.is_none_or(|c| c == 10), "2 MiB were refused with another reason: {text}");
        }
        Err(other) => return Err(other),
        // kcat's answer, and the client's where it splits nothing, is an error; an offset means that it was taken.
        Ok(told) => return Err(Failure::wrong(format!("2 MiB were taken, at {told:?}"))),
    }
    session.produce(&topic, &[small(3)])?;
    session.expect_topic(&topic, 1, &[small(3)])?;
    Ok(String::new())
}
