//! Several nodes in one process, each with a simulated disk and a listener on loopback.

use std::cell::RefCell;

use tokio::net::{TcpListener, TcpSocket};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::*;
use crate::rpc::gate::Gate;

/// How long anything may take that has to happen at all.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What takes a machine that does not stand still is tried so often.
pub(super) const TRIES: usize = 10;

/// A broker as far as its quorum goes.
pub(super) struct Member {
    pub(super) id: i32,
    pub(super) disk: SimDisk,
    pub(super) quorum: QuorumHandle,
    pub(super) seat: Seat,
    server: Serving,
}

/// What a seat serves, until it is told to stop.
pub(super) struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    /// Closes the listener and every connection.
    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

/// Brokers that form a cluster, with places for more.
pub(super) struct Cluster {
    pub(super) voters: Vec<(BrokerId, Address)>,
    pub(super) nodes: BTreeMap<i32, Member>,
    pub(super) snapshots: SnapshotRule,
}

thread_local! {
    /// Ports of this test's brokers, kept from others while a broker is down: it comes back to the port that it had.
    static KEPT: RefCell<Vec<TcpSocket>> = const { RefCell::new(Vec::new()) };
}

/// A listener, and its address.
pub(super) async fn listen() -> (TcpListener, Address) {
    let kept = bound(0);
    let port = kept.local_addr().unwrap().port();
    KEPT.with_borrow_mut(|all| all.push(kept));
    (listen_at(port), Address { host: "127.0.0.1".to_owned(), port })
}

/// A listener where one was before.
fn listen_at(port: u16) -> TcpListener {
    bound(port).listen(1024).unwrap()
}

/// Several may be bound to one port as long as one at most listens.
fn bound(port: u16) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], port).into()).unwrap();
    socket
}

/// Serves what a seat serves.
pub(super) fn serve(seat: &Seat, listener: TcpListener) -> Serving {
    let mut routes = Routes::builder();
    seat.add_services(&mut routes);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().add_routes(routes.routes());
    let (stop, stopped) = oneshot::channel();
    let stopped = async move {
        let _ = stopped.await;
    };
    let task =
        tokio::spawn(async move { server.serve_with_incoming_shutdown(incoming, stopped).await.unwrap() });
    Serving { stop, task }
}

pub(super) fn options_of(id: i32, disk: &SimDisk) -> QuorumOptions {
    QuorumOptions {
        node_id: BrokerId(id),
        directory_id: directory(disk),
        context: LogContext { random: Random::System, ..context(disk) },
        deadline: PATIENCE,
        // Machines that run tests are busy.
        timing: QuorumTiming {
            heartbeat: Duration::from_millis(100),
            election_timeout: Duration::from_millis(400),
        },
        ..options(disk)
    }
}

/// Each disk is its own, and stays what it is: a directory id like that of a data directory, kept on it.
fn directory(disk: &SimDisk) -> DirectoryId {
    let path = Path::new(DATA_DIR).join("directory.id");
    if let Some(content) = disk.files().get(&path) {
        return DirectoryId(uuid::Uuid::from_slice(content).unwrap());
    }
    let id = u128::from(Random::System.next_u64()) << 64 | u128::from(Random::System.next_u64());
    let id = uuid::Uuid::from_u128(id);
    let syncs = floodmark_storage::fs::ReplaceSyncs {
        data: floodmark_storage::fs::SyncPoint::NodeStateData,
        rename: floodmark_storage::fs::SyncPoint::NodeStateRenamed,
    };
    floodmark_storage::fs::replace_file(disk, &path, id.as_bytes(), syncs).unwrap();
    DirectoryId(id)
}

impl Member {
    pub(super) async fn start(
        options: QuorumOptions,
        disk: SimDisk,
        listener: TcpListener,
    ) -> Result<Member, QuorumError> {
        let seat = Seat::new(&options);
        let server = serve(&seat, listener);
        let id = options.node_id.0;
        match QuorumHandle::start_at(options, &seat).await {
            Ok(quorum) => Ok(Member { id, disk, quorum, seat, server }),
            Err(e) => {
                server.stop().await;
                Err(e)
            }
        }
    }

    pub(super) async fn stop(self) {
        self.quorum.shutdown().await.unwrap();
        drop(self.quorum);
        self.server.stop().await;
    }
}

impl Cluster {
    /// Forms a cluster of so many voters.
    pub(super) async fn form(count: i32, snapshots: SnapshotRule) -> Cluster {
        let mut listeners = Vec::new();
        let mut voters = Vec::new();
        for id in 1..=count {
            let (listener, address) = listen().await;
            listeners.push((id, listener));
            voters.push((BrokerId(id), address));
        }
        let mut cluster = Cluster { voters, nodes: BTreeMap::new(), snapshots };
        let starting: Vec<_> = listeners
            .into_iter()
            .map(|(id, listener)| {
                let disk = new_disk();
                let options = cluster.options(id, &disk, &listener);
                tokio::spawn(Member::start(options, disk, listener))
            })
            .collect();
        for started in starting {
            let node = started.await.unwrap().unwrap();
            cluster.nodes.insert(node.id, node);
        }
        cluster
    }

    pub(super) fn options(&self, id: i32, disk: &SimDisk, listener: &TcpListener) -> QuorumOptions {
        let port = listener.local_addr().unwrap().port();
        QuorumOptions {
            voters: self.voters.clone(),
            address: Some(Address { host: "127.0.0.1".to_owned(), port }),
            snapshots: self.snapshots,
            ..options_of(id, disk)
        }
    }

    /// Starts a broker on a disk: a voter where it was, another anywhere.
    pub(super) async fn start(&mut self, id: i32, disk: SimDisk) -> Result<(), QuorumError> {
        let node = self.starting(id, disk).await.await?;
        self.nodes.insert(id, node);
        Ok(())
    }

    pub(super) async fn starting(
        &self,
        id: i32,
        disk: SimDisk,
    ) -> impl Future<Output = Result<Member, QuorumError>> + use<> {
        let listed = self.voters.iter().find(|(voter, _)| voter.0 == id);
        let listener = match listed {
            Some((_, address)) => listen_at(address.port),
            None => listen().await.0,
        };
        if let Some(node) = self.nodes.values().next() {
            Gate::of(node.quorum.image().cluster_id()).rejoin(id);
        }
        let options = self.options(id, &disk, &listener);
        Member::start(options, disk, listener)
    }

    /// Ends a broker as a power cut does, and hands back its disk.
    pub(super) async fn kill(&mut self, id: i32) -> SimDisk {
        let node = self.nodes.remove(&id).unwrap();
        // Nothing that it says from here on counts.
        let gate = Gate::of(node.quorum.image().cluster_id());
        gate.isolate(id, 1..10);
        gate.died(id);
        let left = node.disk.image().power_cut(7);
        drop(node.quorum);
        node.server.stop().await;
        left
    }

    pub(super) fn gate(&self) -> Gate {
        Gate::of(self.any().image().cluster_id())
    }

    pub(super) fn any(&self) -> &QuorumHandle {
        &self.nodes.values().next().unwrap().quorum
    }

    pub(super) fn at(&self, id: i32) -> &QuorumHandle {
        &self.nodes[&id].quorum
    }

    /// The broker that knows itself to lead, once there is one.
    pub(super) async fn leader(&self) -> i32 {
        let all: BTreeSet<i32> = self.nodes.keys().copied().collect();
        self.leader_among(&all).await
    }

    pub(super) async fn leader_among(&self, ids: &BTreeSet<i32>) -> i32 {
        eventually("a leader among the brokers", || {
            let mut leading = ids.iter().filter(|id| self.at(**id).leadership().borrow().is_some());
            leading.next().copied()
        })
        .await
    }

    pub(super) async fn stop(self) {
        for (_, node) in self.nodes {
            node.stop().await;
        }
    }
}

/// Waits for something that has to come.
pub(super) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn three() -> impl Future<Output = Cluster> {
    Cluster::form(3, SnapshotRule::default())
}

pub(super) fn block_on_cluster<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(in_time(future))
}

#[test]
fn three_brokers_form_one_cluster_and_each_can_propose_and_read() {
    block_on_cluster(async {
        let cluster = three().await;
        let ids: BTreeSet<_> = cluster.nodes.values().map(|node| node.quorum.image().cluster_id()).collect();
        assert_eq!(ids.len(), 1);
        join(cluster.at(2)).await;
        for (n, id) in [(1, 1), (2, 2), (3, 3)] {
            cluster.at(id).propose(create_topic(n)).await.unwrap();
            assert!(
                cluster.at(id).image().topic(&format!("topic{n}")).is_some(),
                "what was answered is seen"
            );
            for other in cluster.nodes.values() {
                let image = other.quorum.read_barrier().await.unwrap();
                assert!(image.topic(&format!("topic{n}")).is_some(), "broker {} of {id}", other.id);
            }
            // A refusal comes back whole from wherever it was asked for.
            let again = cluster.at(id).propose(create_topic(n)).await;
            let expected = crate::cluster::CommandError::TopicExists { name: format!("topic{n}") };
            assert_eq!(again, Err(ProposeError::Refused(expected)));
        }
        // A machine that stood still may have another elected meanwhile.
        eventually("one that leads, known to all", || {
            let leading = cluster.nodes.values().filter(|n| n.quorum.leadership().borrow().is_some());
            let [leader] = leading.map(|n| n.id).collect::<Vec<_>>()[..] else { return None };
            let knows = |node: &Member| {
                let is_told = node.quorum.leader() == Some(BrokerId(leader));
                is_told && node.quorum.since_quorum_ack().is_some() == (node.id == leader)
            };
            cluster.nodes.values().all(knows).then_some(())
        })
        .await;
        assert!(cluster.nodes.values().all(|node| node.seat.waits_for().is_none()));
        cluster.stop().await;
    });
}
