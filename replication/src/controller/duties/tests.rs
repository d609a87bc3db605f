//! What is done in which situation.

use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, ClusterId};

use super::super::liveness::Heartbeat;
use super::*;
use crate::cluster::apply;

const SESSION: Duration = Duration::from_millis(2000);

fn done(image: &mut ClusterImage, command: &Command) {
    let (next, outcome) = apply(image, command);
    outcome.unwrap();
    *image = next;
}

fn all_done(image: &mut ClusterImage, commands: &[Command]) {
    for command in commands {
        done(image, command);
    }
}

fn register(broker: i32, incarnation: u128) -> Command {
    Command::RegisterBroker {
        broker: BrokerId(broker),
        incarnation: uuid::Uuid::from_u128(incarnation),
        rack: None,
        endpoints: Vec::new(),
        feature_levels: (1, 2),
        directories: vec![uuid::Uuid::from_u128(broker as u128)],
        in_sync_defaults: None,
    }
}

fn epoch(image: &ClusterImage, broker: i32) -> BrokerEpoch {
    image.broker(BrokerId(broker)).unwrap().epoch
}

fn fence(image: &ClusterImage, broker: i32) -> Command {
    Command::FenceBroker { broker: BrokerId(broker), epoch: epoch(image, broker) }
}

fn unfence(image: &ClusterImage, broker: i32) -> Command {
    Command::UnfenceBroker { broker: BrokerId(broker), epoch: epoch(image, broker) }
}

fn stop(image: &ClusterImage, broker: i32) -> Command {
    Command::BeginShutdown { broker: BrokerId(broker), epoch: epoch(image, broker) }
}

fn id(n: u128) -> TopicId {
    TopicId::from_bytes(n.to_be_bytes()).unwrap()
}

/// Live brokers 1 to 4, and topics with a partition on each list of brokers.
fn cluster(topics: &[&[i32]]) -> ClusterImage {
    let mut image = ClusterImage::new(ClusterId::from_bytes([3; 16]));
    done(&mut image, &Command::SetFeatureLevel { level: 2 });
    for broker in 1..=4 {
        done(&mut image, &register(broker, 1));
        let command = unfence(&image, broker);
        done(&mut image, &command);
    }
    for (n, replicas) in (5..).zip(topics) {
        let create = Command::CreateTopic {
            name: format!("t{n}"),
            id: id(n),
            assignments: vec![replicas.iter().copied().map(BrokerId).collect()],
            settings: Vec::new(),
        };
        done(&mut image, &create);
    }
    image
}

fn partition(image: &ClusterImage, topic: u128) -> Partition {
    image.topic_by_id(id(topic)).unwrap().partition(0).unwrap().clone()
}

fn isr(image: &ClusterImage, topic: u128, members: &[i32]) -> Command {
    let partition = partition(image, topic);
    Command::ChangeIsr {
        topic: id(topic),
        partition: 0,
        leader: partition.leader.unwrap(),
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        isr: members.iter().map(|m| (BrokerId(*m), epoch(image, *m))).collect(),
    }
}

/// A controller that has just begun, and hears of brokers what they say.
struct Round {
    liveness: Liveness,
    completed: Completed,
    now: Instant,
}

impl Round {
    fn new(image: &ClusterImage) -> Round {
        let now = Instant::now();
        let liveness = Liveness::begin(image, SESSION, None, now);
        Round { liveness, completed: Completed::default(), now }
    }

    fn later(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn hears(&mut self, image: &ClusterImage, broker: i32, wants: Wants, image_version: u64) {
        let heartbeat =
            Heartbeat { broker: BrokerId(broker), epoch: epoch(image, broker), image_version, wants };
        self.liveness.on_heartbeat(image, &heartbeat, Duration::ZERO, self.now).unwrap();
    }

    /// All brokers want to serve and know everything.
    fn hears_all(&mut self, image: &ClusterImage, brokers: &[i32]) {
        for broker in brokers {
            self.hears(image, *broker, Wants::Serve, image.version());
        }
    }

    fn brokers(&mut self, image: &ClusterImage) -> Vec<Command> {
        self.liveness.on_image(image, self.now);
        for_brokers(image, &self.liveness, 2, self.now)
    }

    fn partitions(&mut self, image: &ClusterImage) -> Vec<Command> {
        self.liveness.on_image(image, self.now);
        for_partitions(image, &self.liveness, &mut self.completed, self.now)
    }
}

#[test]
fn a_silent_broker_is_fenced_and_one_that_comes_back_let_in() {
    let mut image = cluster(&[]);
    let mut round = Round::new(&image);
    assert_eq!(round.brokers(&image), []);
    round.later(1999);
    assert_eq!(round.brokers(&image), []);
    round.hears_all(&image, &[1, 3, 4]);
    round.later(1);
    let commands = round.brokers(&image);
    assert_eq!(commands, [fence(&image, 2)]);
    round.liveness.give_up(BrokerId(2), image.broker(BrokerId(2)).unwrap().epoch);
    // It speaks again before it is fenced. Too late: others may have what it led.
    round.hears_all(&image, &[2]);
    assert_eq!(round.brokers(&image), [fence(&image, 2)]);
    all_done(&mut image, &commands);
    assert_eq!(round.brokers(&image), [unfence(&image, 2)]);
    let command = unfence(&image, 2);
    done(&mut image, &command);
    assert_eq!(round.brokers(&image), []);
}

#[test]
fn a_broker_is_let_in_when_it_wants_to_serve_and_knows_of_itself() {
    let mut image = cluster(&[]);
    let mut round = Round::new(&image);
    done(&mut image, &register(2, 2));
    assert_eq!(round.brokers(&image), [], "it has said nothing yet");
    let registered = epoch(&image, 2).0 as u64;
    for (wants, version, lets_in) in [
        (Wants::Serve, registered, false),
        (Wants::Stop, registered + 1, false),
        (Wants::Serve, registered + 1, true),
    ] {
        round.hears(&image, 2, wants, version);
        let expected = if lets_in { vec![unfence(&image, 2)] } else { vec![] };
        assert_eq!(round.brokers(&image), expected, "{wants:?} {version}");
    }
    // With an image that has not moved for a while it must not lead.
    round.later(100);
    done(&mut image, &Command::SetFeatureLevel { level: 2 });
    for ms in [500, 1000, 500] {
        round.later(ms);
        round.hears_all(&image, &[1, 3, 4]);
        round.hears(&image, 2, Wants::Serve, registered + 1);
    }
    assert_eq!(round.brokers(&image), []);
    round.hears_all(&image, &[2]);
    assert_eq!(round.brokers(&image), [unfence(&image, 2)]);
}

#[test]
fn a_broker_that_fell_silent_while_it_was_fenced_is_not_let_in() {
    let mut image = cluster(&[]);
    done(&mut image, &register(2, 2));
    let mut round = Round::new(&image);
    round.hears_all(&image, &[2]);
    round.later(2000);
    round.hears_all(&image, &[1, 3, 4]);
    assert_eq!(round.brokers(&image), []);
}

#[test]
fn the_feature_level_rises_by_itself_once_all_know_it() {
    let mut image = ClusterImage::new(ClusterId::from_bytes([3; 16]));
    assert_eq!(Round::new(&image).brokers(&image), []);
    let mut old = register(1, 1);
    if let Command::RegisterBroker { feature_levels, .. } = &mut old {
        *feature_levels = (1, 1);
    }
    all_done(&mut image, &[old, register(2, 1)]);
    assert_eq!(Round::new(&image).brokers(&image), [], "broker 1 would not understand");
    done(&mut image, &register(1, 2));
    let mut round = Round::new(&image);
    assert_eq!(round.brokers(&image), [Command::SetFeatureLevel { level: 2 }]);
    assert_eq!(for_brokers(&image, &round.liveness, 1, round.now), [], "this program knows no more");
    done(&mut image, &Command::SetFeatureLevel { level: 2 });
    assert_eq!(round.brokers(&image), []);
}

#[test]
fn a_broker_that_wants_to_go_is_relieved() {
    let mut image = cluster(&[&[1, 2], &[1]]);
    let mut round = Round::new(&image);
    round.hears(&image, 1, Wants::Stop, image.version());
    let commands = round.brokers(&image);
    assert_eq!(commands, [stop(&image, 1)]);
    all_done(&mut image, &commands);
    assert_eq!(partition(&image, 5).leader, Some(BrokerId(2)));
    assert_eq!((round.brokers(&image), round.partitions(&image)), (vec![], vec![]));
}

/// Nobody could take over when it began to stop; now somebody can.
#[test]
fn what_a_stopping_broker_still_leads_goes_as_soon_as_somebody_can_take_it() {
    let mut image = cluster(&[&[1, 2]]);
    let shrunk = isr(&image, 5, &[1]);
    done(&mut image, &shrunk);
    let command = stop(&image, 1);
    done(&mut image, &command);
    let mut round = Round::new(&image);
    assert_eq!(round.partitions(&image), []);
    let grown = isr(&image, 5, &[1, 2]);
    done(&mut image, &grown);
    let commands = round.partitions(&image);
    assert_eq!(commands, [stop(&image, 1)]);
    all_done(&mut image, &commands);
    assert_eq!(partition(&image, 5).leader, Some(BrokerId(2)));
    assert_eq!(round.partitions(&image), []);
}

#[test]
fn a_partition_that_somebody_could_lead_does_not_stay_without_a_leader() {
    let mut image = cluster(&[&[1, 2]]);
    // Broker 2 is about to stop and gets nothing, then starts again: it is the only one in sync.
    let command = stop(&image, 2);
    done(&mut image, &command);
    let command = fence(&image, 1);
    done(&mut image, &command);
    assert_eq!(partition(&image, 5).leader, None);
    let mut round = Round::new(&image);
    assert_eq!(round.partitions(&image), []);
    done(&mut image, &register(2, 2));
    let command = unfence(&image, 2);
    done(&mut image, &command);
    assert_eq!(partition(&image, 5).leader, Some(BrokerId(2)));
    // The same where the election is missing for whatever reason.
    let mut topic = crate::cluster::Topic::clone(image.topic_by_id(id(5)).unwrap());
    topic.partitions.insert(0, Partition { leader: None, ..partition(&image, 5) });
    image.put_topic(std::sync::Arc::new(topic));
    let elect = Command::ElectLeader { topic: id(5), partition: 0, election: Election::InSync };
    assert_eq!(round.partitions(&image), [elect]);
}

#[test]
fn preferred_leaders_come_back_where_they_can() {
    let mut image = cluster(&[&[1, 2], &[1, 2], &[3, 4], &[1, 3]]);
    let command = fence(&image, 1);
    done(&mut image, &command);
    assert_eq!(preferred_leaders(&image), [], "it is away");
    let command = unfence(&image, 1);
    done(&mut image, &command);
    assert_eq!(preferred_leaders(&image), [], "it is not in sync");
    for topic in [5, 8] {
        let members: &[i32] = if topic == 5 { &[2, 1] } else { &[3, 1] };
        let command = isr(&image, topic, members);
        done(&mut image, &command);
    }
    let elect =
        |topic| Command::ElectLeader { topic: id(topic), partition: 0, election: Election::Preferred };
    let commands = preferred_leaders(&image);
    assert_eq!(commands, [elect(5), elect(8)]);
    let mut stopping = image.clone();
    let command = stop(&stopping, 1);
    done(&mut stopping, &command);
    assert_eq!(preferred_leaders(&stopping), [], "it is about to stop");
    all_done(&mut image, &commands);
    assert_eq!(preferred_leaders(&image), []);
}

#[test]
fn a_move_is_finished_when_those_that_leave_know_that_they_lead_no_more() {
    let mut image = cluster(&[&[1, 2]]);
    let replicas = vec![BrokerId(3), BrokerId(4)];
    done(&mut image, &Command::MovePartition { topic: id(5), partition: 0, replicas });
    let mut round = Round::new(&image);
    round.hears_all(&image, &[1, 2, 3, 4]);
    assert_eq!(round.partitions(&image), []);
    assert!(!round.completed.is_waiting());
    let command = isr(&image, 5, &[1, 2, 3, 4]);
    done(&mut image, &command);
    assert_eq!(partition(&image, 5).leader, Some(BrokerId(3)));
    let before = image.version() - 1;
    assert_eq!(round.partitions(&image), [], "neither 1 nor 2 has said that it knows");
    assert!(round.completed.is_waiting());
    round.hears_all(&image, &[2]);
    round.hears(&image, 1, Wants::Serve, before);
    assert_eq!(round.partitions(&image), [], "1 may still believe that it leads");
    let finish = |image: &ClusterImage| Command::FinishMove {
        topic: id(5),
        partition: 0,
        partition_epoch: partition(image, 5).partition_epoch,
    };
    // Where it is fenced its lease is over.
    let mut without = image.clone();
    let command = fence(&without, 1);
    done(&mut without, &command);
    let mut other = Round::new(&without);
    assert_eq!(other.partitions(&without), []);
    other.hears_all(&without, &[2]);
    assert_eq!(other.partitions(&without), [finish(&without)]);
    round.hears_all(&image, &[1, 2]);
    let commands = round.partitions(&image);
    assert_eq!(commands, [finish(&image)]);
    all_done(&mut image, &commands);
    assert_eq!(*partition(&image, 5).replicas, [BrokerId(3), BrokerId(4)]);
    assert_eq!(round.partitions(&image), []);
    assert!(!round.completed.is_waiting());
}
