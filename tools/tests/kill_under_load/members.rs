//! Members of a consumer group: they share the partitions, read, commit after every read, and ask the broker where they were whenever
//! they have lost it or been given partitions anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use floodmark_proto::kafka::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use floodmark_proto::kafka::messages::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};

use floodmark_tools::history::{Op, Partition};

use crate::kafka_client::{FetchOf, Kafka};
use crate::{GROUP, Load, PARTITIONS, TOPIC, producers};

const PROTOCOL_TYPE: &str = "kill-under-load";
const PROTOCOL: &str = "round-robin";
/// Between two tries where the coordinator is not ready.
const PAUSE: Duration = Duration::from_millis(5);

struct Member {
    load: Load,
    reader: u32,
    id: String,
    /// None where it has to join.
    generation: Option<i32>,
    owned: BTreeSet<Partition>,
}

/// Reads and commits until the load is over.
pub(crate) fn spawn(load: &Load) -> JoinHandle<()> {
    let reader = load.readers.fetch_add(1, Ordering::Relaxed);
    let load = load.clone();
    let mut member = Member { load, reader, id: String::new(), generation: None, owned: BTreeSet::new() };
    thread::spawn(move || {
        while !member.load.is_over() {
            let mut kafka = member.load.connect();
            // The broker was killed; the member is still one when it comes back.
            let _ = member.run(&mut kafka);
        }
    })
}

impl Member {
    fn run(&mut self, kafka: &mut Kafka) -> io::Result<()> {
        self.find_coordinator(kafka)?;
        while !self.load.is_over() {
            if self.generation.is_none() && !self.join(kafka)? {
                thread::sleep(PAUSE);
                continue;
            }
            let mut positions = self.resume(kafka)?;
            while !self.load.is_over() && self.is_well(kafka)? {
                for (partition, position) in &mut positions {
                    *position = self.read(kafka, *partition, *position)?;
                }
                if !self.commit(kafka, &positions)? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn find_coordinator(&self, kafka: &mut Kafka) -> io::Result<()> {
        loop {
            match kafka.find_coordinator(GROUP)? {
                0 => return Ok(()),
                code => self.must_be_passing(code)?,
            }
            thread::sleep(PAUSE);
        }
    }

    /// False where it has to be tried again.
    fn join(&mut self, kafka: &mut Kafka) -> io::Result<bool> {
        let request = JoinGroupRequest {
            group_id: GROUP,
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 30_000,
            member_id: &self.id,
            protocol_type: PROTOCOL_TYPE,
            protocols: vec![JoinGroupRequestProtocol { name: PROTOCOL, metadata: b"" }],
            ..Default::default()
        };
        let answer = kafka.ask(7, &request)?;
        let joined = answer.read::<JoinGroupResponse<'_>>();
        self.id = joined.member_id.to_owned();
        if joined.error_code != 0 {
            self.must_be_passing(joined.error_code)?;
            return Ok(false);
        }
        let generation = joined.generation_id;
        let members: Vec<&str> = joined.members.iter().map(|member| member.member_id).collect();
        let assigned: Vec<(&str, Vec<u8>)> = members
            .iter()
            .enumerate()
            .map(|(n, id)| {
                let all = (0..PARTITIONS).filter(|partition| *partition as usize % members.len() == n);
                (*id, all.map(|partition| partition as u8).collect())
            })
            .collect();
        let request = SyncGroupRequest {
            group_id: GROUP,
            generation_id: generation,
            member_id: &self.id,
            protocol_type: Some(PROTOCOL_TYPE),
            protocol_name: Some(PROTOCOL),
            assignments: assigned
                .iter()
                .map(|(member_id, assignment)| SyncGroupRequestAssignment { member_id, assignment })
                .collect(),
            ..Default::default()
        };
        let begun = self.load.recorder.begin();
        let answer = kafka.ask(5, &request)?;
        let synced = answer.read::<SyncGroupResponse<'_>>();
        if synced.error_code != 0 {
            self.must_be_passing(synced.error_code)?;
            return Ok(false);
        }
        let partitions: BTreeSet<Partition> = synced.assignment.iter().map(|p| Partition::from(*p)).collect();
        self.generation = Some(generation);
        self.owned.clone_from(&partitions);
        let member = self.id.clone();
        self.load.recorder.end(begun, Op::Own { group: GROUP.to_owned(), generation, member, partitions });
        Ok(true)
    }

    /// Where the group stands in what this member owns; where it has committed nothing, that is the start.
    fn resume(&mut self, kafka: &mut Kafka) -> io::Result<BTreeMap<Partition, i64>> {
        let mut positions = BTreeMap::new();
        for &partition in &self.owned {
            let offset = loop {
                let begun = self.load.recorder.begin();
                match kafka.committed(GROUP, TOPIC, partition as i32)? {
                    Ok(offset) => {
                        let offset = (offset != -1).then_some(offset);
                        let group = GROUP.to_owned();
                        self.load.recorder.end(begun, Op::Resume { group, partition, offset });
                        break offset;
                    }
                    Err(code) => self.must_be_passing(code)?,
                }
                thread::sleep(PAUSE);
            };
            let (reader, offset) = (self.reader, offset.unwrap_or(0));
            self.load.recorder.end(self.load.recorder.begin(), Op::Seek { reader, partition, offset });
            positions.insert(partition, offset);
        }
        Ok(positions)
    }

    /// False where it has to join again.
    fn is_well(&mut self, kafka: &mut Kafka) -> io::Result<bool> {
        let Some(generation_id) = self.generation else { return Ok(false) };
        let request =
            HeartbeatRequest { group_id: GROUP, generation_id, member_id: &self.id, group_instance_id: None };
        let answer = kafka.ask(4, &request)?;
        self.goes_on_after(answer.read::<HeartbeatResponse>().error_code)
    }

    /// Where the partition goes on.
    fn read(&self, kafka: &mut Kafka, partition: Partition, from: i64) -> io::Result<i64> {
        let begun = self.load.recorder.begin();
        let fetch = FetchOf { max_wait_ms: 5, ..FetchOf::new(TOPIC, partition as i32, from) };
        let fetched = kafka.fetch(fetch)?;
        let code = ErrorCode::from_code(fetched.error_code).unwrap();
        if code != ErrorCode::None && !code.is_retriable() {
            return self.refused(&format!("told {code:?} of partition {partition} at {from}"));
        }
        let wanted = fetched.records().into_iter().filter(|(offset, _)| *offset >= from);
        let records: Vec<_> = wanted.map(|(at, bytes)| (at, producers::value_in(&bytes))).collect();
        let next = records.last().map_or(from, |(last, _)| last + 1);
        let reader = self.reader;
        self.load.recorder.end(begun, Op::Read { reader, partition, from, records });
        Ok(next)
    }

    /// False where it has to join again.
    fn commit(&mut self, kafka: &mut Kafka, positions: &BTreeMap<Partition, i64>) -> io::Result<bool> {
        let Some(generation) = self.generation else { return Ok(false) };
        let begun = self.load.recorder.begin();
        let offsets: Vec<(i32, i64, &str)> = positions.iter().map(|(p, at)| (*p as i32, *at, "")).collect();
        let outcome = kafka.commit_as(GROUP, (&self.id, generation), TOPIC, &offsets);
        for (&partition, &offset) in positions {
            let (group, acked) = (GROUP.to_owned(), matches!(outcome, Ok(0)));
            self.load.recorder.end(begun, Op::Commit { group, partition, offset, acked });
        }
        let code = outcome?;
        self.load.commits.fetch_add(u64::from(code == 0), Ordering::AcqRel);
        self.goes_on_after(code)
    }

    /// Takes in what the coordinator says about this member.
    fn goes_on_after(&mut self, code: i16) -> io::Result<bool> {
        if code != 0 && !is_loading(code) {
            self.must_be_passing(code)?;
            self.generation = None;
        }
        Ok(code == 0)
    }

    /// Only what a rebalance or a start brings along may be told to a member that does everything right.
    fn must_be_passing(&self, code: i16) -> io::Result<()> {
        let code = ErrorCode::from_code(code).unwrap();
        let is_passing = matches!(code, ErrorCode::MemberIdRequired | ErrorCode::RebalanceInProgress)
            || code == ErrorCode::IllegalGeneration
            || is_loading(code.code());
        if is_passing { Ok(()) } else { self.refused(&format!("told {code:?}")) }
    }

    fn refused<T>(&self, what: &str) -> io::Result<T> {
        self.load.complain(format!("member {:?} is {what}", self.id));
        Err(io::Error::other("refused"))
    }
}

/// A coordinator that is not ready yet.
fn is_loading(code: i16) -> bool {
    [ErrorCode::CoordinatorLoadInProgress, ErrorCode::CoordinatorNotAvailable, ErrorCode::NotCoordinator]
        .iter()
        .any(|loading| loading.code() == code)
}
