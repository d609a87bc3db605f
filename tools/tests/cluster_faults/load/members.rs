//! Members of groups: they share the partitions, read from whoever leads them, commit after every read, and ask the coordinator where they
//! were whenever they have lost it or been given partitions anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
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
use floodmark_storage::random::SplitMix;
use floodmark_tools::history::{Op, Partition};

use super::{Load, PARTITIONS, TOPIC, values_from};
use crate::kafka_client::{FetchOf, Kafka};

pub(crate) const GROUPS: [&str; 3] = ["readers", "others", NATIVE_GROUP];
/// That of the native client's members; the others have members that are made here.
pub(crate) const NATIVE_GROUP: &str = "natives";
const PROTOCOL_TYPE: &str = "cluster-faults";
const PROTOCOL: &str = "round-robin";
/// Long enough to outlast a leader change, and shorter than a pause.
const SESSION_MS: i32 = 6_000;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(40);

struct Member {
    load: Load,
    reader: u32,
    group: usize,
    random: SplitMix,
    id: String,
    /// None where it has to join.
    generation: Option<i32>,
    owned: BTreeSet<Partition>,
    /// Where it goes on in what it owns.
    positions: BTreeMap<Partition, i64>,
    /// Who leads, and a connection to each of them.
    leaders: BTreeMap<Partition, SocketAddr>,
    connections: BTreeMap<SocketAddr, Kafka>,
}

/// Reads and commits until the load is over.
pub(super) fn spawn(load: &Load, group: usize, seed: u64) -> JoinHandle<()> {
    let mut member = Member {
        load: load.clone(),
        reader: load.readers.fetch_add(1, Ordering::Relaxed),
        group,
        random: SplitMix::new(seed),
        id: String::new(),
        generation: None,
        owned: BTreeSet::new(),
        positions: BTreeMap::new(),
        leaders: BTreeMap::new(),
        connections: BTreeMap::new(),
    };
    thread::spawn(move || {
        while !member.load.is_over() {
            if let Err(e) = member.run() {
                member.load.set_back(&format!("member: {:?}", e.kind()));
                let Member { load, random, .. } = &mut member;
                load.pause(random);
            }
        }
    })
}

impl Member {
    fn name(&self) -> &'static str {
        GROUPS[self.group]
    }

    fn run(&mut self) -> io::Result<()> {
        let mut coordinator = self.find_coordinator()?;
        while !self.load.is_over() {
            if self.generation.is_none() {
                self.join(&mut coordinator)?;
            }
            self.resume(&mut coordinator)?;
            while !self.load.is_over() && self.generation.is_some() {
                self.beat(&mut coordinator)?;
                for partition in self.owned.clone() {
                    self.read(partition);
                }
                self.commit(&mut coordinator)?;
                thread::sleep(BETWEEN_ROUNDS);
            }
        }
        Ok(())
    }

    fn find_coordinator(&mut self) -> io::Result<Kafka> {
        let found = self.load.coordinator_of(self.name(), &mut self.random)?;
        found.map_err(|code| self.judge(code))
    }

    fn join(&mut self, kafka: &mut Kafka) -> io::Result<()> {
        let (generation, members) = self.join_as(kafka)?;
        let assigned: Vec<(&str, Vec<u8>)> = members
            .iter()
            .enumerate()
            .map(|(n, id)| {
                let all = (0..PARTITIONS).filter(|partition| *partition as usize % members.len() == n);
                (id.as_str(), all.map(|partition| partition as u8).collect())
            })
            .collect();
        let request = SyncGroupRequest {
            group_id: self.name(),
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
            return Err(self.judge(synced.error_code));
        }
        let partitions: BTreeSet<Partition> = synced.assignment.iter().map(|p| Partition::from(*p)).collect();
        self.generation = Some(generation);
        self.owned.clone_from(&partitions);
        let (group, member) = (self.name().to_owned(), self.id.clone());
        self.load.recorder.end(begun, Op::Own { group, generation, member, partitions });
        Ok(())
    }

    /// The generation, and for the leader of the group all members.
    fn join_as(&mut self, kafka: &mut Kafka) -> io::Result<(i32, Vec<String>)> {
        loop {
            let request = JoinGroupRequest {
                group_id: self.name(),
                session_timeout_ms: SESSION_MS,
                rebalance_timeout_ms: SESSION_MS,
                member_id: &self.id,
                protocol_type: PROTOCOL_TYPE,
                protocols: vec![JoinGroupRequestProtocol { name: PROTOCOL, metadata: b"" }],
                ..Default::default()
            };
            // It may take as long as the slowest member.
            kafka.socket.set_read_timeout(Some(Duration::from_millis(SESSION_MS as u64 * 2)))?;
            let answer = kafka.ask(7, &request)?;
            kafka.socket.set_read_timeout(Some(super::ANSWER_WITHIN))?;
            let joined = answer.read::<JoinGroupResponse<'_>>();
            self.id = joined.member_id.to_owned();
            match joined.error_code {
                0 => {
                    let members = joined.members.iter().map(|member| member.member_id.to_owned()).collect();
                    return Ok((joined.generation_id, members));
                }
                code if code == ErrorCode::MemberIdRequired.code() => {}
                code => return Err(self.judge(code)),
            }
        }
    }

    /// Where the group stands in what this member owns; where it has committed nothing, that is the start.
    fn resume(&mut self, kafka: &mut Kafka) -> io::Result<()> {
        self.positions.clear();
        for partition in self.owned.clone() {
            let begun = self.load.recorder.begin();
            let offset = match kafka.committed(self.name(), TOPIC, partition as i32)? {
                Ok(offset) => (offset != -1).then_some(offset),
                Err(code) => return Err(self.judge(code)),
            };
            let group = self.name().to_owned();
            self.load.recorder.end(begun, Op::Resume { group, partition, offset });
            let (reader, offset) = (self.reader, offset.unwrap_or(0));
            self.load.recorder.end(self.load.recorder.begin(), Op::Seek { reader, partition, offset });
            self.positions.insert(partition, offset);
        }
        Ok(())
    }

    fn beat(&mut self, kafka: &mut Kafka) -> io::Result<()> {
        let Some(generation_id) = self.generation else { return Ok(()) };
        let (group_id, member_id) = (self.name(), self.id.as_str());
        let request = HeartbeatRequest { group_id, generation_id, member_id, group_instance_id: None };
        let answer = kafka.ask(4, &request)?;
        match answer.read::<HeartbeatResponse>().error_code {
            0 => Ok(()),
            code => Err(self.judge(code)),
        }
    }

    /// Reads on in one partition; where that fails, another time.
    fn read(&mut self, partition: Partition) {
        if let Err(e) = self.try_read(partition) {
            self.load.set_back(&format!("read: {:?}", e.kind()));
            if let Some(leader) = self.leaders.remove(&partition) {
                self.connections.remove(&leader);
            }
        }
    }

    fn try_read(&mut self, partition: Partition) -> io::Result<()> {
        let leader = self.leader_of(partition)?;
        let Some(&from) = self.positions.get(&partition) else { return Ok(()) };
        let kafka = match self.connections.remove(&leader) {
            Some(kafka) => kafka,
            None => self.load.connect(leader)?,
        };
        let kafka = self.connections.entry(leader).or_insert(kafka);
        let begun = self.load.recorder.begin();
        let fetch = FetchOf {
            max_wait_ms: 5,
            partition_max_bytes: 1 << 17,
            ..FetchOf::new(TOPIC, partition as i32, from)
        };
        let fetched = kafka.fetch(fetch)?;
        if fetched.error_code != 0 {
            let who = format!("reader {} of partition {partition} at {from}", self.reader);
            return Err(self.load.judge(&who, fetched.error_code, &[]));
        }
        let records = values_from(from, fetched.records());
        if let Some((last, _)) = records.last() {
            self.positions.insert(partition, last + 1);
            let reader = self.reader;
            self.load.recorder.end(begun, Op::Read { reader, partition, from, records });
        }
        Ok(())
    }

    fn leader_of(&mut self, partition: Partition) -> io::Result<SocketAddr> {
        if !self.leaders.contains_key(&partition) {
            let routes = self.load.routes(&mut self.random)?;
            let leaders = routes
                .partitions
                .iter()
                .filter_map(|(partition, route)| Some((*partition, *routes.endpoints.get(&route.leader)?)));
            self.leaders = leaders.collect();
        }
        self.leaders.get(&partition).copied().ok_or_else(|| io::Error::other("no leader"))
    }

    fn commit(&mut self, kafka: &mut Kafka) -> io::Result<()> {
        let Some(generation) = self.generation else { return Ok(()) };
        let begun = self.load.recorder.begin();
        let offsets: Vec<(i32, i64, &str)> =
            self.positions.iter().map(|(p, at)| (*p as i32, *at, "")).collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let outcome = kafka.commit_as(self.name(), (&self.id, generation), TOPIC, &offsets);
        for (&partition, &offset) in &self.positions {
            let (group, acked) = (self.name().to_owned(), matches!(outcome, Ok(0)));
            self.load.recorder.end(begun, Op::Commit { group, partition, offset, acked });
        }
        match outcome? {
            0 => {
                self.load.commits[self.group].fetch_add(1, Ordering::AcqRel);
                Ok(())
            }
            code => Err(self.judge(code)),
        }
    }

    /// What a coordinator says that has lost this member, or is not the coordinator any more.
    fn judge(&mut self, code: i16) -> io::Error {
        let known = ErrorCode::from_code(code);
        if known == Some(ErrorCode::UnknownMemberId) {
            self.id.clear();
        }
        let rejoin =
            [ErrorCode::UnknownMemberId, ErrorCode::IllegalGeneration, ErrorCode::RebalanceInProgress];
        if known.is_some_and(|code| rejoin.contains(&code)) {
            self.generation = None;
        }
        let who = format!("member {} of {}", self.reader, self.name());
        self.load.judge(&who, code, &rejoin)
    }
}
