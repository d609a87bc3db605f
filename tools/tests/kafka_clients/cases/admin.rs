//! Administration.

use serde_json::{Value, json};

use super::records;
use crate::adapter::{Failure, parse};
use crate::ensure;
use crate::session::Session;

/// A topic as it was asked for, and a refusal to make it twice.
pub(crate) fn create_topic(session: &mut Session) -> Result<String, Failure> {
    let topic = session.name("created");
    let asked = json!({"op": "create_topic", "topic": topic, "partitions": 3, "configs": {"retention.ms": "86400000"}});
    session.call(asked.clone())?;
    let mut remarks = Remarks::default();
    expect_partitions(session, &mut remarks, &topic, 3)?;
    let describe = json!({"op": "describe_configs", "topic": topic});
    let is_set = |told: &Value| told["configs"]["retention.ms"] == "86400000";
    if let Some(told) = remarks.ask_until(session, &describe, is_set)? {
        ensure!(told["configs"]["retention.ms"] == "86400000", "configs of the new topic: {told}");
    }
    let Err(Failure::Refused { text, code }) = session.call(asked) else {
        return Err(Failure::wrong("the same topic could be made twice"));
    };
    let is_known = code.map_or_else(|| text.contains("xist"), |c| c == 36);
    ensure!(is_known, "the topic exists, but that is not the reason given: {text}");
    Ok(remarks.text())
}

fn expect_partitions(
    session: &mut Session,
    remarks: &mut Remarks,
    topic: &str,
    count: usize,
) -> Result<(), Failure> {
    let asked = json!({"op": "describe_topic", "topic": topic});
    let are_all = |told: &Value| told["partitions"].as_array().is_some_and(|p| p.len() == count);
    let Some(mut told) = remarks.ask_until(session, &asked, are_all)? else { return Ok(()) };
    // Number, leader, replicas, replicas in sync.
    let mut partitions: Vec<(usize, i64, i64, i64)> = parse(told["partitions"].take())?;
    partitions.sort_unstable();
    ensure!(partitions.iter().map(|p| p.0).eq(0..count), "{partitions:?} where {count} partitions are");
    ensure!(
        partitions.iter().all(|p| p.1 >= 0 && p.2 == 1 && p.3 == 1),
        "a leader, one replica, in sync: {partitions:?}"
    );
    Ok(())
}

/// What the client cannot do, for the report.
#[derive(Default)]
struct Remarks(Vec<String>);

impl Remarks {
    /// The answer, `None` where the client has no such function.
    fn ask(&mut self, session: &mut Session, request: Value) -> Result<Option<Value>, Failure> {
        let told = session.call(request);
        self.note(told)
    }

    /// The same, asked until the answer is as wanted; then it is the caller's to say what is wrong with it.
    fn ask_until(
        &mut self,
        session: &mut Session,
        request: &Value,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> Result<Option<Value>, Failure> {
        let told = session.ask_until(request, is_wanted);
        self.note(told)
    }

    fn note(&mut self, told: Result<Value, Failure>) -> Result<Option<Value>, Failure> {
        match told {
            Ok(told) => Ok(Some(told)),
            Err(Failure::Unsupported(why)) => {
                if !self.0.contains(&why) {
                    self.0.push(why);
                }
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    fn text(self) -> String {
        self.0.join(", ")
    }
}

/// Everything that a client's administration offers.
pub(crate) fn admin(session: &mut Session) -> Result<String, Failure> {
    let topic = session.topic("admin", 2, json!({}))?;
    session.produce(&topic, &records("to look at", 2, 30))?;
    let mut remarks = Remarks::default();
    cluster(session, &mut remarks)?;
    topics(session, &mut remarks, &topic)?;
    offsets(session, &mut remarks, &topic)?;
    groups(session, &mut remarks, &topic)?;
    if remarks.ask(session, json!({"op": "delete_topic", "topic": topic}))?.is_some() {
        // Among all topics, because some clients have the broker make the topic that they ask for.
        let gone = |told: &Value| told["topics"].as_array().is_some_and(Vec::is_empty);
        let told = session.ask_until(&json!({"op": "metadata", "prefix": topic}), gone)?;
        ensure!(gone(&told), "the topic is still there: {told}");
    }
    Ok(remarks.text())
}

fn cluster(session: &mut Session, remarks: &mut Remarks) -> Result<(), Failure> {
    let Some(mut told) = remarks.ask(session, json!({"op": "describe_cluster"}))? else { return Ok(()) };
    let id = told["cluster_id"].take();
    ensure!(id.is_null() || id.as_str().is_some_and(|id| !id.is_empty()), "the cluster's id is {id}");
    let controller = told["controller"].as_i64();
    let brokers: Vec<(i64, String, i64)> = parse(told["brokers"].take())?;
    ensure!(brokers.len() == 1, "brokers {brokers:?}");
    ensure!(
        controller.is_none_or(|c| c == brokers[0].0),
        "controller {controller:?} is not the broker {brokers:?}"
    );
    ensure!(brokers[0].2 > 0, "brokers {brokers:?}");
    Ok(())
}

fn topics(session: &mut Session, remarks: &mut Remarks, topic: &str) -> Result<(), Failure> {
    let describe = json!({"op": "describe_configs", "topic": topic});
    if let Some(told) = remarks.ask(session, describe.clone())? {
        ensure!(told["configs"]["cleanup.policy"] == "delete", "configs of a plain topic: {told}");
    }
    let is_altered = |told: &Value| told["configs"]["retention.ms"] == "123456789";
    let altered = json!({"retention.ms": "123456789"});
    if remarks.ask(session, json!({"op": "alter_configs", "topic": topic, "configs": altered}))?.is_some()
        && let Some(told) = remarks.ask_until(session, &describe, is_altered)?
    {
        ensure!(told["configs"]["retention.ms"] == "123456789", "configs after the change: {told}");
    }
    let unknown = json!({"op": "alter_configs", "topic": topic, "configs": {"no.such.setting": "1"}});
    match session.call(unknown) {
        Ok(_) if session.lacks("config errors") => {}
        Ok(_) => return Err(Failure::wrong("a setting that does not exist was taken")),
        Err(Failure::Wrong(why)) => return Err(Failure::Wrong(why)),
        Err(Failure::Refused { .. } | Failure::Unsupported(_)) => {}
    }
    if remarks.ask(session, json!({"op": "create_partitions", "topic": topic, "count": 5}))?.is_some() {
        expect_partitions(session, remarks, topic, 5)?;
    }
    if let Some(told) = remarks.ask(session, json!({"op": "log_dirs", "topic": topic}))? {
        ensure!(told["size"].as_i64() > Some(30 * 20), "60 records take {told}");
    }
    Ok(())
}

fn offsets(session: &mut Session, remarks: &mut Remarks, topic: &str) -> Result<(), Failure> {
    let expect = |session: &mut Session, remarks: &mut Remarks, at: &str, expected: [i64; 2]| {
        let asked = json!({"op": "list_offsets", "topic": topic, "partitions": [0, 1], "at": at});
        // Some clients ask for all partitions, and Apache Kafka's newest ones have no leader for a moment.
        let Some(mut told) = remarks.ask_until(session, &asked, |_| true)? else { return Ok(()) };
        let mut offsets: Vec<(i32, i64)> = parse(told["offsets"].take())?;
        offsets.sort_unstable();
        let expected = [(0, expected[0]), (1, expected[1])];
        ensure!(offsets == expected, "offsets at {at} are {offsets:?}, not {expected:?}");
        Ok(())
    };
    expect(session, remarks, "start", [0, 0])?;
    expect(session, remarks, "end", [30, 30])?;
    let asked = json!({"op": "delete_records", "topic": topic, "partition": 1, "before": 10});
    if let Some(told) = remarks.ask(session, asked)? {
        ensure!(
            told["low"].is_null() || told["low"] == 10,
            "records before 10 deleted, the first one left is {told}"
        );
        expect(session, remarks, "start", [0, 10])?;
    }
    Ok(())
}

fn groups(session: &mut Session, remarks: &mut Remarks, topic: &str) -> Result<(), Failure> {
    let group = session.name("admin-group");
    let join = json!({
        "op": "subscribe", "topic": topic, "group": group, "strategy": "eager", "instance": null, "session_ms": 6000
    });
    session.call_member(1, join)?;
    for _ in 0..60 {
        if !session.poll_members(&[1], 500)?[0].records.is_empty() {
            break;
        }
    }
    session.call_member(1, json!({"op": "commit"}))?;
    let describe = json!({"op": "describe_group", "group": group});
    if let Some(told) = remarks.ask(session, describe.clone())? {
        let state = told["state"].as_str().unwrap_or_default().to_lowercase();
        ensure!(state == "stable" && told["members"] == 1, "a group at work: {told}");
    }
    if let Some(mut told) = remarks.ask(session, json!({"op": "list_groups"}))? {
        let groups: Vec<String> = parse(told["groups"].take())?;
        ensure!(groups.contains(&group), "{group} is not among {groups:?}");
    }
    if let Some(told) = remarks.ask(session, json!({"op": "group_offsets", "group": group}))? {
        ensure!(
            told["offsets"].as_array().is_some_and(|o| !o.is_empty()),
            "no offsets after a commit: {told}"
        );
    }
    let delete = json!({"op": "delete_group", "group": group});
    match session.call(delete.clone()) {
        Ok(_) => return Err(Failure::wrong("a group with a member could be deleted")),
        Err(Failure::Wrong(why)) => return Err(Failure::Wrong(why)),
        Err(Failure::Refused { .. } | Failure::Unsupported(_)) => {}
    }
    session.call_member(1, json!({"op": "close"}))?;
    if let Some(told) = remarks.ask(session, describe)? {
        let state = told["state"].as_str().unwrap_or_default().to_lowercase();
        ensure!(state == "empty" && told["members"] == 0, "a group without members: {told}");
    }
    if remarks.ask(session, delete)?.is_some()
        && let Some(mut told) = remarks.ask(session, json!({"op": "list_groups"}))?
    {
        let groups: Vec<String> = parse(told["groups"].take())?;
        ensure!(!groups.contains(&group), "{group} is deleted and still listed");
    }
    Ok(())
}

/// The metadata of many topics in one answer.
pub(crate) fn many_topics(session: &mut Session) -> Result<String, Failure> {
    let prefix = session.size.many_prefix.clone();
    let count = session.size.many_count;
    let mut told = session.call(json!({"op": "metadata", "prefix": prefix}))?;
    let mut topics: Vec<(String, i32)> = parse(told["topics"].take())?;
    topics.sort_unstable();
    let expected = (0..count).map(|n| (many_name(&prefix, n), 1));
    ensure!(topics.into_iter().eq(expected), "not the {count} topics that there are");
    Ok(format!("{count} topics"))
}

/// Name of one of the many topics; their order is that of the numbers.
pub(crate) fn many_name(prefix: &str, number: usize) -> String {
    format!("{prefix}{number:05}")
}
