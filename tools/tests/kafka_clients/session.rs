//! One client under test: its running programs, and what every case does with them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::adapter::{Adapter, Failure, Got, Header, Hello, Polled, Record, parse, produce_request};
use crate::ensure;

/// Longest wait for one answer. Clients have time-outs of 30 s themselves.
const ANSWER: Duration = Duration::from_secs(60);

/// Longest wait until a change is seen.
const SETTLED: Duration = Duration::from_secs(10);

/// How to start a client's program, and the address that it gets.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) program: Vec<String>,
    pub(crate) bootstrap: String,
    /// Where what it says is kept.
    pub(crate) dir: PathBuf,
}

/// A client's programs; the first does everything, the others are further members of groups.
pub(crate) struct Session {
    start: Start,
    programs: Vec<Adapter>,
    pub(crate) hello: Hello,
    /// Stands in where the client under test cannot set a case up.
    helper: Option<Box<Session>>,
    helper_start: Option<Start>,
    /// Begins every name that this session makes.
    prefix: String,
    pub(crate) size: Size,
}

/// How much the cases do, and what the broker under test serves of it.
#[derive(Debug, Clone)]
pub(crate) struct Size {
    /// Topics whose metadata is asked for; they begin with this.
    pub(crate) many_prefix: String,
    pub(crate) many_count: usize,
    pub(crate) serves_transactions: bool,
}

impl Session {
    pub(crate) fn open(
        start: Start,
        helper: Option<Start>,
        prefix: &str,
        size: Size,
    ) -> Result<Session, Failure> {
        let hello = Hello { version: String::new(), codecs: Vec::new(), lacks: Vec::new() };
        let mut session = Session {
            start,
            programs: Vec::new(),
            hello,
            helper: None,
            helper_start: helper,
            prefix: prefix.to_owned(),
            size,
        };
        session.hello = parse(session.call(json!({"op": "hello"}))?)?;
        Ok(session)
    }

    pub(crate) fn lacks(&self, what: &str) -> bool {
        self.hello.lacks.iter().any(|l| l == what)
    }

    /// A name that no other case has.
    pub(crate) fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    fn program(&mut self, at: usize) -> &mut Adapter {
        while self.programs.len() <= at {
            let mut command = Command::new(&self.start.program[0]);
            command.args(&self.start.program[1..]).arg(&self.start.bootstrap);
            let said = self.start.dir.join(format!("{}-{}.err", self.prefix, self.programs.len()));
            self.programs.push(Adapter::start(command, &said));
        }
        &mut self.programs[at]
    }

    pub(crate) fn call(&mut self, request: Value) -> Result<Value, Failure> {
        self.program(0).call(&request, ANSWER)
    }

    /// The same with another longest wait.
    pub(crate) fn call_within(&mut self, request: &Value, deadline: Duration) -> Result<Value, Failure> {
        self.program(0).call(request, deadline)
    }

    /// Asks one of the members.
    pub(crate) fn call_member(&mut self, member: usize, request: Value) -> Result<Value, Failure> {
        self.program(member).call(&request, ANSWER)
    }

    /// Asks several members at once and waits for all.
    pub(crate) fn poll_members(&mut self, members: &[usize], ms: u64) -> Result<Vec<Polled>, Failure> {
        for &member in members {
            self.program(member).ask(&json!({"op": "poll", "ms": ms}))?;
        }
        // Every answer is read, also after one that failed, so that none is taken for the answer to a later request.
        let answers: Vec<_> = members.iter().map(|&m| self.program(m).answer(ANSWER)).collect();
        answers.into_iter().map(|answer| parse(answer?)).collect()
    }

    /// Ends a member without a farewell; the next use of it starts it anew.
    pub(crate) fn kill_from(&mut self, member: usize) {
        self.programs.truncate(member);
    }

    /// Calls the client, or the helper where the client cannot.
    pub(crate) fn call_or_help(&mut self, request: Value) -> Result<Value, Failure> {
        match self.call(request.clone()) {
            Err(Failure::Unsupported(why)) => match self.helper()? {
                Some(helper) => helper.call(request),
                None => Err(Failure::Unsupported(why)),
            },
            answer => answer,
        }
    }

    /// The helper; `None` in the helper itself.
    pub(crate) fn helper(&mut self) -> Result<Option<&mut Session>, Failure> {
        if self.helper.is_none() {
            let Some(start) = self.helper_start.clone() else { return Ok(None) };
            let helper = Session::open(start, None, &format!("{}-helper", self.prefix), self.size.clone())?;
            self.helper = Some(Box::new(helper));
        }
        Ok(self.helper.as_deref_mut())
    }

    /// Makes a topic for a case and waits until it can be used; returns its name.
    pub(crate) fn topic(&mut self, what: &str, partitions: i32, configs: Value) -> Result<String, Failure> {
        let topic = self.name(what);
        self.call_or_help(
            json!({"op": "create_topic", "topic": topic, "partitions": partitions, "configs": configs}),
        )?;
        // Apache Kafka answers before its partitions have leaders, and some clients then send what they have sent once more.
        let partitions: Vec<i32> = (0..partitions).collect();
        let asked = json!({"op": "list_offsets", "topic": topic, "partitions": partitions, "at": "end"});
        match self.helper()? {
            Some(helper) => helper.ask_until(&asked, |_| true)?,
            None => self.ask_until(&asked, |_| true)?,
        };
        Ok(topic)
    }

    /// Asks until the answer is as wanted: what a change does may be seen a moment after it was answered.
    pub(crate) fn ask_until(
        &mut self,
        request: &Value,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, Failure> {
        let start = Instant::now();
        loop {
            let answer = self.call(request.clone());
            match answer {
                Ok(told) if is_wanted(&told) => return Ok(told),
                Ok(_) | Err(Failure::Refused { .. }) if start.elapsed() < SETTLED => sleep(SETTLED / 50),
                answer => return answer,
            }
        }
    }

    /// Produces with every replica's acknowledgement.
    pub(crate) fn produce(&mut self, topic: &str, records: &[Record]) -> Result<Vec<(i32, i64)>, Failure> {
        self.produce_as(topic, records, "none", "all", false)
    }

    pub(crate) fn produce_as(
        &mut self,
        topic: &str,
        records: &[Record],
        codec: &str,
        acks: &str,
        idempotent: bool,
    ) -> Result<Vec<(i32, i64)>, Failure> {
        let mut told = self.call(produce_request(topic, records, codec, acks, idempotent))?;
        let offsets: Vec<(i32, i64)> = parse(told["offsets"].take())?;
        ensure!(offsets.len() == records.len(), "{} offsets for {} records", offsets.len(), records.len());
        Ok(offsets)
    }

    /// Puts the consumer on partitions of a topic.
    pub(crate) fn assign(&mut self, topic: &str, partitions: i32, start: Value) -> Result<(), Failure> {
        let partitions: Vec<i32> = (0..partitions).collect();
        self.call(json!({"op": "assign", "topic": topic, "partitions": partitions, "start": start})).map(drop)
    }

    /// What the consumer gives until it has given `count`, and then for a moment more, in which nothing may come.
    pub(crate) fn take(&mut self, count: usize) -> Result<Vec<Got>, Failure> {
        let start = Instant::now();
        let mut got = Vec::new();
        while got.len() < count {
            ensure!(start.elapsed() < ANSWER, "only {} of {count} records after {ANSWER:?}", got.len());
            got.extend(self.poll(1000)?.records);
        }
        got.extend(self.poll(200)?.records);
        ensure!(got.len() == count, "{} records where {count} were expected", got.len());
        Ok(got)
    }

    pub(crate) fn poll(&mut self, ms: u64) -> Result<Polled, Failure> {
        parse(self.call(json!({"op": "poll", "ms": ms}))?)
    }

    /// All of a topic from its start: exactly `sent`, in order for each partition, beginning at offset 0.
    pub(crate) fn expect_topic(
        &mut self,
        topic: &str,
        partitions: i32,
        sent: &[Record],
    ) -> Result<Vec<Got>, Failure> {
        self.assign(topic, partitions, json!("start"))?;
        let got = self.take(sent.len())?;
        self.call(json!({"op": "close"}))?;
        expect_same(sent, &got, 0)?;
        Ok(got)
    }
}

/// The records of `got` are those of `sent`, each partition's in order and without a gap from `first` on. Every sent record names its partition.
pub(crate) fn expect_same(sent: &[Record], got: &[Got], first: i64) -> Result<(), Failure> {
    let mut wanted: BTreeMap<i32, Vec<&Record>> = BTreeMap::new();
    for record in sent {
        let Some(partition) = record.partition else {
            return Err(Failure::wrong("a record to compare with names no partition"));
        };
        wanted.entry(partition).or_default().push(record);
    }
    let mut found: BTreeMap<i32, Vec<&Got>> = BTreeMap::new();
    for record in got {
        found.entry(record.partition).or_default().push(record);
    }
    ensure!(
        wanted.keys().eq(found.keys()),
        "partitions {:?} where {:?} were written",
        found.keys(),
        wanted.keys()
    );
    for (partition, wanted) in wanted {
        let found = &found[&partition];
        ensure!(
            wanted.len() == found.len(),
            "partition {partition}: {} records of {}",
            found.len(),
            wanted.len()
        );
        for ((offset, wanted), found) in (first..).zip(wanted).zip(found) {
            ensure!(
                found.offset == offset,
                "partition {partition}: offset {} where {offset} comes next",
                found.offset
            );
            expect_record(wanted, found)
                .map_err(|what| Failure::wrong(format!("partition {partition}, offset {offset}: {what}")))?;
        }
    }
    Ok(())
}

fn expect_record(sent: &Record, got: &Got) -> Result<(), String> {
    if sent.key != got.key {
        return Err(format!("key {:?} where {:?} was sent", shown(&got.key), shown(&sent.key)));
    }
    if sent.value != got.value {
        return Err(format!("value {:?} where {:?} was sent", shown(&got.value), shown(&sent.value)));
    }
    if sent.headers != got.headers {
        let shown =
            |headers: &[Header]| -> Vec<_> { headers.iter().map(|h| (h.0.clone(), shown(&h.1))).collect() };
        return Err(format!("headers {:?} where {:?} were sent", shown(&got.headers), shown(&sent.headers)));
    }
    match sent.timestamp {
        Some(timestamp) if timestamp != got.timestamp => {
            Err(format!("timestamp {} where {timestamp} was sent", got.timestamp))
        }
        None if got.timestamp < 1_500_000_000_000 => Err(format!("timestamp {} is none", got.timestamp)),
        _ => Ok(()),
    }
}

#[expect(clippy::ref_option, reason = "fields are handed on as they are")]
fn shown(bytes: &Option<Vec<u8>>) -> Option<String> {
    bytes.as_ref().map(|b| format!("{} bytes, {:?}", b.len(), String::from_utf8_lossy(&b[..b.len().min(40)])))
}
