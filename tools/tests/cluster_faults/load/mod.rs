//! Clients that go on working whatever happens to the brokers: producers that want every record kept once, and groups that read and
//! commit. What they ask and are told is recorded. They know addresses of brokers and nothing else.

mod members;
mod native;
mod producers;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use floodmark_proto::kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use floodmark_storage::random::SplitMix;
use floodmark_tools::history::{Recorder, Value};

use crate::kafka_client::Kafka;

pub(crate) use members::{GROUPS, NATIVE_GROUP};
pub(crate) use producers::value_in;

pub(crate) const TOPIC: &str = "faults";
pub(crate) const PARTITIONS: u32 = 12;
pub(crate) const PRODUCERS: u32 = 10;
/// A connection that takes longer to come about, or an answer to come, is given up.
const CONNECT_WITHIN: Duration = Duration::from_millis(700);
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Where the partitions of a topic are led, as one broker sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes {
    pub(crate) endpoints: BTreeMap<i32, SocketAddr>,
    pub(crate) controller: i32,
    pub(crate) partitions: BTreeMap<u32, Route>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    pub(crate) leader: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) in_sync: Vec<i32>,
}

/// What all clients share.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) recorder: Recorder,
    /// Addresses that brokers had at the start.
    bootstrap: Arc<[SocketAddr]>,
    /// Those of their doors for the native client.
    grpc: Arc<[SocketAddr]>,
    is_over: Arc<AtomicBool>,
    /// Batches acknowledged, by partition.
    acks: Arc<[AtomicU64]>,
    /// When what was acknowledged last was sent, by partition: of Kafka's clients, and of the native one.
    sent: [Arc<[AtomicU64]>; 2],
    /// Commits acknowledged, by group.
    commits: Arc<[AtomicU64]>,
    readers: Arc<AtomicU32>,
    /// What no broker may say to a client that does everything right.
    complaints: Arc<Mutex<Vec<String>>>,
    /// What made clients try again, and how often.
    setbacks: Arc<Mutex<BTreeMap<String, u64>>>,
    pub(crate) since: Instant,
}

impl Load {
    pub(crate) fn new(
        recorder: Recorder,
        (bootstrap, grpc): (Vec<SocketAddr>, Vec<SocketAddr>),
        since: Instant,
    ) -> Load {
        let by_partition = || (0..PARTITIONS).map(|_| AtomicU64::new(0)).collect();
        Load {
            recorder,
            bootstrap: bootstrap.into(),
            grpc: grpc.into(),
            is_over: Arc::default(),
            acks: by_partition(),
            sent: [by_partition(), by_partition()],
            commits: GROUPS.iter().map(|_| AtomicU64::new(0)).collect(),
            readers: Arc::default(),
            complaints: Arc::default(),
            setbacks: Arc::default(),
            since,
        }
    }

    /// Starts all clients.
    pub(crate) fn begin(&self, seed: u64) -> Vec<JoinHandle<()>> {
        let mut random = SplitMix::new(seed);
        let mut threads = Vec::new();
        for producer in 0..PRODUCERS {
            for lane in 0..3 {
                let partition = (producer * 3 + lane * 5) % PARTITIONS;
                threads.push(producers::spawn(self, (producer, partition), random.next_u64()));
            }
        }
        for (group, name) in GROUPS.iter().enumerate() {
            if *name != NATIVE_GROUP {
                threads.extend((0..2).map(|_| members::spawn(self, group, random.next_u64())));
            }
        }
        threads.push(native::spawn(self, &self.grpc, random.next_u64()));
        threads
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn complain(&self, complaint: String) {
        let complaint = format!("{:.3} {complaint}", self.since.elapsed().as_secs_f64());
        self.complaints.lock().unwrap().push(complaint);
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    fn set_back(&self, by: &str) {
        *self.setbacks.lock().unwrap().entry(by.to_owned()).or_default() += 1;
    }

    pub(crate) fn setbacks(&self) -> BTreeMap<String, u64> {
        self.setbacks.lock().unwrap().clone()
    }

    /// An error that comes and goes leads to another try, any other is a complaint.
    fn judge(&self, who: &str, code: i16, also_passing: &[ErrorCode]) -> io::Error {
        let name = ErrorCode::from_code(code).map_or_else(|| code.to_string(), |code| code.name().to_owned());
        self.set_back(&name);
        let known = ErrorCode::from_code(code);
        if !known.is_some_and(|code| code.is_retriable() || also_passing.contains(&code)) {
            self.complain(format!("{who} is told {name}"));
        }
        io::Error::other(name)
    }

    pub(crate) fn acks(&self) -> Vec<u64> {
        self.acks.iter().map(|count| count.load(Ordering::Acquire)).collect()
    }

    /// A batch of a Kafka client was acknowledged, the attempt of which began then.
    fn acked(&self, partition: u32, begun: u64) {
        self.acks[partition as usize].fetch_add(1, Ordering::AcqRel);
        self.sent[0][partition as usize].fetch_max(begun, Ordering::AcqRel);
    }

    fn native_acked(&self, partition: u32, begun: u64) {
        self.sent[1][partition as usize].fetch_max(begun, Ordering::AcqRel);
    }

    /// For each partition whether something was acknowledged that was sent after `moment`: to Kafka's clients, and to the native one.
    pub(crate) fn goes_on_since(&self, moment: u64) -> [Vec<bool>; 2] {
        let goes_on = |sent: &Arc<[AtomicU64]>| {
            sent.iter().map(|sent| sent.load(Ordering::Acquire) > moment).collect::<Vec<_>>()
        };
        [goes_on(&self.sent[0]), goes_on(&self.sent[1])]
    }

    fn native_committed(&self) {
        if let Some(at) = GROUPS.iter().position(|group| *group == NATIVE_GROUP) {
            self.commits[at].fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn commits(&self) -> Vec<u64> {
        self.commits.iter().map(|count| count.load(Ordering::Acquire)).collect()
    }

    pub(crate) fn connect(&self, at: SocketAddr) -> io::Result<Kafka> {
        Kafka::connect_within(at, CONNECT_WITHIN, ANSWER_WITHIN)
    }

    /// Asks one broker after the other, beginning anywhere, where the partitions are led.
    pub(crate) fn routes(&self, random: &mut SplitMix) -> io::Result<Routes> {
        let first = random.below(self.bootstrap.len() as u64) as usize;
        let mut failed = io::Error::other("no broker");
        for at in self.bootstrap.iter().cycle().skip(first).take(self.bootstrap.len()) {
            match self.connect(*at).and_then(|mut kafka| routes(&mut kafka, TOPIC)) {
                Ok(routes) => return Ok(routes),
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }

    /// A connection to the leader of a partition.
    fn leader_of(&self, partition: u32, random: &mut SplitMix) -> io::Result<Kafka> {
        let routes = self.routes(random)?;
        let leader = routes.partitions.get(&partition).map_or(-1, |route| route.leader);
        let at = routes.endpoints.get(&leader).ok_or_else(|| io::Error::other("no leader"))?;
        self.connect(*at)
    }

    /// A connection to a group's coordinator, as any broker names it; or the code with which it does not.
    pub(crate) fn coordinator_of(
        &self,
        group: &str,
        random: &mut SplitMix,
    ) -> io::Result<Result<Kafka, i16>> {
        let routes = self.routes(random)?;
        let asked = random.below(routes.endpoints.len() as u64) as usize;
        let any = routes.endpoints.values().nth(asked).ok_or_else(|| io::Error::other("no broker"))?;
        let request = FindCoordinatorRequest { coordinator_keys: vec![group], ..Default::default() };
        let answer = self.connect(*any)?.ask(4, &request)?;
        let told = answer.read::<FindCoordinatorResponse<'_>>();
        let found = &told.coordinators[0];
        if found.error_code != 0 {
            return Ok(Err(found.error_code));
        }
        let ip = found.host.parse().map_err(io::Error::other)?;
        self.connect(SocketAddr::new(ip, found.port as u16)).map(Ok)
    }

    /// A moment before the next try.
    fn pause(&self, random: &mut SplitMix) {
        thread::sleep(PAUSE + Duration::from_millis(random.below(30)));
    }
}

/// What one broker says of a topic.
pub(crate) fn routes(kafka: &mut Kafka, topic: &str) -> io::Result<Routes> {
    let topics = Some(vec![MetadataRequestTopic { name: Some(topic), ..Default::default() }]);
    let request = MetadataRequest { topics, allow_auto_topic_creation: false, ..Default::default() };
    let answer = kafka.ask(12, &request)?;
    let told = answer.read::<MetadataResponse<'_>>();
    let mut routes = Routes { controller: told.controller_id, ..Default::default() };
    for broker in &told.brokers {
        let ip = broker.host.parse().map_err(io::Error::other)?;
        routes.endpoints.insert(broker.node_id, SocketAddr::new(ip, broker.port as u16));
    }
    for partition in told.topics.iter().flat_map(|topic| &topic.partitions) {
        let (replicas, in_sync) = (partition.replica_nodes.to_vec(), partition.isr_nodes.to_vec());
        let route = Route { leader: partition.leader_id, replicas, in_sync };
        routes.partitions.insert(partition.partition_index as u32, route);
    }
    Ok(routes)
}

/// Offsets and values of what was read, from `from` on.
pub(crate) fn values_from(from: i64, records: Vec<(i64, Vec<u8>)>) -> Vec<(i64, Value)> {
    let wanted = records.into_iter().filter(|(offset, _)| *offset >= from);
    wanted.map(|(at, bytes)| (at, value_in(&bytes))).collect()
}
