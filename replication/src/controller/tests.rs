//! The rounds of a controller over a real quorum of one voter, with brokers that are only registered.

use std::path::Path;

use floodmark_proto::ids::BrokerEpoch;
use floodmark_storage::TailBudget;
use floodmark_storage::clock::Clock;
use floodmark_storage::data_dir::DirectoryId;
use floodmark_storage::fs::{Disk, SimDisk, SyncPoint};
use floodmark_storage::log::LogContext;
use floodmark_storage::random::Random;

use super::*;
use crate::cluster::Output;
use crate::quorum::{FEATURE_LEVELS, QuorumOptions, QuorumTiming, SnapshotRule};

const SESSION: Duration = Duration::from_millis(2000);
const RULES: ControllerRules = ControllerRules {
    own: BrokerId(1),
    session: SESSION,
    rebalance_interval: None,
    feature_level_max: FEATURE_LEVELS.1,
};
/// How long anything may take that has to happen at all.
const PATIENCE: Duration = Duration::from_secs(60);

fn block_on(test: impl Future<Output = ()>) {
    let in_time = async { tokio::time::timeout(2 * PATIENCE, test).await.expect("the test hangs") };
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(in_time);
}

async fn quorum() -> QuorumHandle {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("data")).unwrap();
    disk.sync_dir(Path::new("."), SyncPoint::DataDirCreated).unwrap();
    let options = QuorumOptions {
        context: LogContext {
            disk: Arc::new(disk),
            clock: Clock::manual(1_700_000_000_000),
            random: Random::seeded(7),
            tail_budget: TailBudget::new(1 << 20),
        },
        data_dir: "data".into(),
        directory_id: DirectoryId(uuid::Uuid::from_u128(5)),
        holds_partitions: false,
        node_id: BrokerId(1),
        cluster_id: None,
        deadline: PATIENCE,
        snapshots: SnapshotRule::default(),
        voters: Vec::new(),
        address: None,
        timing: QuorumTiming::default(),
        vitals: crate::vital::Vitals::default(),
    };
    QuorumHandle::start(options).await.unwrap()
}

async fn register(quorum: &QuorumHandle, broker: i32) -> BrokerEpoch {
    let register = Command::RegisterBroker {
        broker: BrokerId(broker),
        incarnation: uuid::Uuid::from_u128(broker as u128),
        rack: None,
        endpoints: Vec::new(),
        feature_levels: FEATURE_LEVELS,
        directories: Vec::new(),
        in_sync_defaults: None,
    };
    match quorum.propose(register).await.unwrap() {
        Output::BrokerRegistered { epoch } => epoch,
        other => panic!("{other:?}"),
    }
}

fn beat(quorum: &QuorumHandle, broker: i32, wants: Wants) -> Heartbeat {
    let image = quorum.image();
    let broker = image.broker(BrokerId(broker)).unwrap();
    Heartbeat { broker: broker.id, epoch: broker.epoch, image_version: image.version(), wants }
}

/// A controller without a task: its rounds are called by hand.
fn by_hand(quorum: &QuorumHandle, leadership: watch::Receiver<Option<Leadership>>) -> Shared {
    let state = Mutex::default();
    Shared { quorum: quorum.clone(), leadership, rules: RULES, state, wake: Notify::new() }
}

async fn until(quorum: &QuorumHandle, holds: impl Fn(&ClusterImage) -> bool) {
    let mut images = quorum.watch();
    let seen = async {
        while !holds(&images.borrow_and_update()) {
            images.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
}

/// R37: a leader whose own first entry is not applied may lack what others were told. It decides nothing and grants nothing.
#[test]
fn r37_nothing_is_decided_before_an_entry_of_the_own_term_is_applied() {
    block_on(async {
        let quorum = quorum().await;
        let epoch = register(&quorum, 2).await;
        quorum.propose(Command::UnfenceBroker { broker: BrokerId(2), epoch }).await.unwrap();
        register(&quorum, 3).await;
        let (leads, leadership) = watch::channel(None);
        let controller = by_hand(&quorum, leadership);
        let start = Instant::now();
        for broker in [2, 3] {
            let answer = controller.heartbeat(&beat(&quorum, broker, Wants::Serve), start);
            assert_eq!(answer, HeartbeatAnswer::NotController { leader: Some(BrokerId(1)) });
        }
        assert_eq!(controller.round(start + 2 * SESSION).0, []);
        leads.send_replace(Some(Leadership { term: 9 }));
        let now = start + 3 * SESSION;
        assert!(!controller.round(now).0.iter().any(|c| matches!(c, Command::FenceBroker { .. })));
        let answer = controller.heartbeat(&beat(&quorum, 2, Wants::Serve), now);
        assert_eq!(answer, HeartbeatAnswer::Lease(SESSION));
        let _ = controller.heartbeat(&beat(&quorum, 3, Wants::Serve), now);
        let image = quorum.image();
        let unfence =
            Command::UnfenceBroker { broker: BrokerId(3), epoch: image.broker(BrokerId(3)).unwrap().epoch };
        assert!(controller.round(now).0.contains(&unfence));
        // And nothing of it is left when the lead is lost.
        leads.send_replace(None);
        assert_eq!(controller.round(now + 2 * SESSION).0, []);
        assert!(controller.state.lock().active.is_none());
        quorum.shutdown().await.unwrap();
    });
}

/// Fails when a controller that has stood still decides before a majority has followed it again: it takes for silent whom it did not hear.
#[test]
fn nothing_is_decided_by_one_that_no_majority_has_followed_for_a_lease() {
    block_on(async {
        let quorum = quorum().await;
        let controller = by_hand(&quorum, quorum.leadership());
        let (lease, now) = (quorum.leader_lease(), Instant::now());
        let decides = |since| controller.decide(&mut controller.state.lock(), since, now).is_some();
        assert!(!decides(None) && !decides(Some(lease + Duration::from_millis(1))));
        assert!(controller.state.lock().active.is_none());
        assert!(decides(Some(lease)) && decides(Some(Duration::ZERO)));
        assert!(!decides(Some(lease * 2)), "also one that has begun");
        quorum.shutdown().await.unwrap();
    });
}

#[test]
fn no_heartbeat_is_granted_a_lease_between_the_decision_to_fence_and_the_fence() {
    block_on(async {
        let quorum = quorum().await;
        let epoch = register(&quorum, 2).await;
        quorum.propose(Command::UnfenceBroker { broker: BrokerId(2), epoch }).await.unwrap();
        let led = *quorum.leadership().borrow();
        let (leads, leadership) = watch::channel(led);
        let controller = by_hand(&quorum, leadership);
        let start = Instant::now();
        controller.round(start);
        let late = start + SESSION;
        let (commands, _) = controller.round(late);
        let fence = Command::FenceBroker { broker: BrokerId(2), epoch };
        assert_eq!(commands.first(), Some(&fence));
        let answer = controller.heartbeat(&beat(&quorum, 2, Wants::Serve), late);
        assert_eq!(answer, HeartbeatAnswer::Lease(Duration::ZERO));
        // Nor where no majority was heard for a while, in the same term: the fence is under way.
        leads.send_replace(None);
        controller.round(late);
        leads.send_replace(led);
        controller.round(late);
        let answer = controller.heartbeat(&beat(&quorum, 2, Wants::Serve), late);
        assert_eq!(answer, HeartbeatAnswer::Lease(Duration::ZERO));
        controller.carry_out(commands).await;
        assert!(!quorum.image().is_live(BrokerId(2)));
        quorum.shutdown().await.unwrap();
    });
}

#[test]
fn the_broker_that_decides_is_never_silent() {
    block_on(async {
        let quorum = quorum().await;
        let epoch = register(&quorum, 1).await;
        quorum.propose(Command::UnfenceBroker { broker: BrokerId(1), epoch }).await.unwrap();
        let controller = by_hand(&quorum, quorum.leadership());
        let start = Instant::now();
        controller.round(start);
        let (commands, _) = controller.round(start + 10 * SESSION);
        assert!(!commands.iter().any(|c| matches!(c, Command::FenceBroker { .. })), "{commands:?}");
        quorum.shutdown().await.unwrap();
    });
}

#[test]
fn the_leader_before_has_the_rest_of_a_session_since_it_was_followed_last() {
    block_on(async {
        let quorum = quorum().await;
        let epoch = register(&quorum, 2).await;
        quorum.propose(Command::UnfenceBroker { broker: BrokerId(2), epoch }).await.unwrap();
        let silent = SESSION / 3;
        let contact = quorum.contact();
        assert!(contact.stands(9, Instant::now() + 10 * SESSION));
        let followed = quorum.followed_before(9).unwrap() + SESSION;
        contact.granted(9, followed);
        let fence = Command::FenceBroker { broker: BrokerId(2), epoch };
        // The one that led; another; and where nobody knows when a leader was followed last.
        for (led, term, is_shorter) in [(2, 9, true), (3, 9, false), (2, 8, false)] {
            let (_leads, leadership) = watch::channel(Some(Leadership { term }));
            let controller = by_hand(&quorum, leadership);
            controller.state.lock().led = Some(BrokerId(led));
            let (_, next) = controller.round(followed + silent);
            assert!(next <= followed + SESSION, "it is looked at no later than it matters");
            let early = controller.round(followed + SESSION - Duration::from_millis(1)).0;
            assert!(!early.contains(&fence), "broker {led} in term {term} may still trust in its lease");
            let commands = controller.round(followed + SESSION).0;
            assert_eq!(commands.contains(&fence), is_shorter, "broker {led} in term {term}");
        }
        quorum.shutdown().await.unwrap();
    });
}

/// Fails when a term that goes on after a while without a majority counts the leader before as silent since that term began: it has been
/// heard of, and granted leases, since.
#[test]
fn the_leader_before_keeps_the_lease_that_it_was_granted_in_a_term_that_is_taken_up_again() {
    block_on(async {
        let quorum = quorum().await;
        let epoch = register(&quorum, 2).await;
        quorum.propose(Command::UnfenceBroker { broker: BrokerId(2), epoch }).await.unwrap();
        let contact = quorum.contact();
        assert!(contact.stands(9, Instant::now() + 10 * SESSION));
        let (leads, leadership) = watch::channel(Some(Leadership { term: 9 }));
        let controller = by_hand(&quorum, leadership);
        controller.state.lock().led = Some(BrokerId(2));
        let start = quorum.followed_before(9).unwrap() + 10 * SESSION;
        controller.round(start);
        let answer = controller.heartbeat(&beat(&quorum, 2, Wants::Serve), start);
        assert_eq!(answer, HeartbeatAnswer::Lease(SESSION));
        leads.send_replace(None);
        controller.round(start);
        leads.send_replace(Some(Leadership { term: 9 }));
        controller.round(start);
        let fence = Command::FenceBroker { broker: BrokerId(2), epoch };
        let early = controller.round(start + SESSION - Duration::from_millis(1)).0;
        assert!(!early.contains(&fence), "it may still trust in its lease");
        assert!(controller.round(start + SESSION).0.contains(&fence));
        quorum.shutdown().await.unwrap();
    });
}

#[test]
fn another_term_begins_with_fresh_sessions() {
    block_on(async {
        let quorum = quorum().await;
        let epoch = register(&quorum, 2).await;
        quorum.propose(Command::UnfenceBroker { broker: BrokerId(2), epoch }).await.unwrap();
        let (leads, leadership) = watch::channel(Some(Leadership { term: 9 }));
        let controller = by_hand(&quorum, leadership);
        let start = Instant::now();
        controller.round(start);
        leads.send_replace(Some(Leadership { term: 11 }));
        let fences = |commands: &[Command]| commands.iter().any(|c| matches!(c, Command::FenceBroker { .. }));
        assert!(!fences(&controller.round(start + SESSION).0));
        assert!(fences(&controller.round(start + 2 * SESSION).0));
        quorum.shutdown().await.unwrap();
    });
}

#[test]
fn it_runs_by_itself_and_lets_brokers_in_and_relieves_them() {
    block_on(async {
        let quorum = quorum().await;
        let controller = Controller::spawn(quorum.clone(), RULES);
        register(&quorum, 1).await;
        let answer = loop {
            match controller.heartbeat(&beat(&quorum, 1, Wants::Serve)) {
                HeartbeatAnswer::NotController { .. } => tokio::task::yield_now().await,
                answer => break answer,
            }
        };
        assert_eq!(answer, HeartbeatAnswer::Lease(Duration::ZERO));
        until(&quorum, |image| image.is_live(BrokerId(1)) && image.feature_level() == FEATURE_LEVELS.1).await;
        let answer = controller.heartbeat(&beat(&quorum, 1, Wants::Serve));
        assert_eq!(answer, HeartbeatAnswer::Lease(SESSION));
        let _ = controller.heartbeat(&beat(&quorum, 1, Wants::Stop));
        until(&quorum, |image| !image.may_lead(BrokerId(1))).await;
        let gone = Heartbeat { broker: BrokerId(7), ..beat(&quorum, 1, Wants::Serve) };
        let refused = "broker 7 is not registered: it was removed from the cluster".to_owned();
        assert_eq!(controller.heartbeat(&gone), HeartbeatAnswer::Refused(refused));
        quorum.shutdown().await.unwrap();
    });
}
