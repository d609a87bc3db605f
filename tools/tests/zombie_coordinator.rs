//! A coordinator that stands still while another takes over, and then goes on as if nothing had been: what it answers must not be old.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may panic")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use floodmark_proto::kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestTopic, OffsetFetchResponse,
};
use floodmark_storage::clock::Stopwatch;
use free_ports::free_ports;
use kafka_client::Kafka;

#[path = "../../broker/tests/free_ports/mod.rs"]
mod free_ports;
#[path = "../../broker/tests/kafka_client/mod.rs"]
mod kafka_client;

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(90);

/// A broker as a process of its own; it is killed when the test ends.
struct Node {
    process: Child,
    kafka: SocketAddr,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let done = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(done.success());
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Stopwatch::start();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Three brokers that form a cluster; what goes wrong in them is told.
fn start(dir: &std::path::Path) -> Vec<Node> {
    let at = free_ports::<6>().map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let voters: Vec<String> = (1..).zip(&at[..3]).map(|(id, at)| format!("{id}@{at}")).collect();
    let node = |n: usize| {
        let (id, dir) = ((n + 1).to_string(), dir.join(n.to_string()));
        let (cluster, kafka, voters) = (at[n].to_string(), at[n + 3].to_string(), voters.join(","));
        let mut program = Command::new(env!("CARGO_BIN_EXE_floodmark"));
        // What the environment of the test says is not for the brokers.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("FLOODMARK_") {
                program.env_remove(variable);
            }
        }
        let process = program
            .args(["serve", "--node-id", &id, "--data-dir", dir.to_str().unwrap()])
            .args(["--kafka-listen", &kafka, "--grpc-listen", "off", "--http-listen", "off"])
            .args(["--cluster-listen", &cluster, "--voters", &voters, "--log-filter", "error,openraft=off"])
            .env("FLOODMARK_OFFSETS_TOPIC_NUM_PARTITIONS", "3")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Node { process, kafka: at[n + 3] }
    };
    (0..3).map(node).collect()
}

/// Who coordinates group "g", by one that is asked.
fn coordinator(asked: SocketAddr) -> Option<i32> {
    let mut kafka = Kafka::connect(asked).ok()?;
    let request = FindCoordinatorRequest { coordinator_keys: vec!["g"], ..Default::default() };
    let answer = kafka.ask(4, &request).ok()?;
    let response = answer.read::<FindCoordinatorResponse<'_>>();
    let found = &response.coordinators[0];
    (found.error_code == 0).then_some(found.node_id)
}

#[test]
fn a_coordinator_that_was_replaced_while_it_stood_still_answers_nothing_old() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = start(dir.path());
    // As many replicas as there are brokers, so all must be there before the first topic is made.
    let old = until("a coordinator", || nodes.iter().find_map(|node| coordinator(node.kafka)));
    let at = |id: i32| &nodes[usize::try_from(id - 1).unwrap()];
    until("a topic", || {
        let code = Kafka::connect(at(old).kafka).ok()?.create_topic("t", 1, &[]).ok()?;
        (code == 0 || code == ErrorCode::TopicAlreadyExists.code()).then_some(())
    });
    let mut at_old = Kafka::connect(at(old).kafka).unwrap();
    until("a commit", || (at_old.commit("g", "t", 0, 1).unwrap() == 0).then_some(()));
    assert_eq!(at_old.committed("g", "t", 0).unwrap(), Ok(1));
    // It stands still, with a question on its way that it will read before anything else when it goes on.
    at(old).signal("-STOP");
    let topics = Some(vec![OffsetFetchRequestTopic { name: "t", partition_indexes: vec![0] }]);
    let question = OffsetFetchRequest { group_id: "g", topics, ..Default::default() };
    let asked = at_old.send(7, &question).unwrap();
    at_old.socket.flush().unwrap();
    let others: Vec<SocketAddr> = (1..=3).filter(|id| *id != old).map(|id| at(id).kafka).collect();
    let new = until("another coordinator", || coordinator(others[0]).filter(|id| *id != old));
    until("a newer commit", || {
        let code = Kafka::connect(at(new).kafka).ok()?.commit("g", "t", 0, 2).ok()?;
        (code == 0).then_some(())
    });
    at(old).signal("-CONT");
    let answer = at_old.receive(asked).unwrap();
    let response = answer.read::<OffsetFetchResponse<'_>>();
    let told = if response.error_code == 0 {
        let partition = &response.topics[0].partitions[0];
        if partition.error_code == 0 { Ok(partition.committed_offset) } else { Err(partition.error_code) }
    } else {
        Err(response.error_code)
    };
    assert_eq!(told, Err(ErrorCode::NotCoordinator.code()), "it told what it knew of: {told:?}");
    // And it takes no commit for one of its own.
    let code = at_old.commit("g", "t", 0, 1).unwrap();
    assert!(code != 0 || coordinator(at(new).kafka) == Some(old), "{code}");
    assert_eq!(
        until("the new one", || Kafka::connect(at(new).kafka).ok()?.committed("g", "t", 0).ok()?.ok()),
        2
    );
}
