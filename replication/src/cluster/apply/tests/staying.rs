//! Who stays in sync while its broker does not serve.

use super::super::super::image::InSyncDefaults;
use super::partitions::elect;
use super::*;

const SYNCED: InSyncDefaults = InSyncDefaults { is_synced: true, min_insync_replicas: 1 };
const UNSYNCED: InSyncDefaults = InSyncDefaults { is_synced: false, min_insync_replicas: 1 };

/// A start of a broker whose program knows the third level.
fn start(broker: i32, incarnation: u128, defaults: Option<InSyncDefaults>) -> Command {
    let mut command = register(broker, incarnation);
    if let Command::RegisterBroker { feature_levels, in_sync_defaults, .. } = &mut command {
        (*feature_levels, *in_sync_defaults) = ((1, 3), defaults);
    }
    command
}

/// Live brokers 1 to `count` at a level.
fn at_level(level: u16, count: i32) -> ClusterImage {
    let mut image = ClusterImage::new(ClusterId::from_bytes([3; 16]));
    done(&mut image, &Command::SetFeatureLevel { level });
    for broker in 1..=count {
        done(&mut image, &start(broker, 1, Some(SYNCED)));
        let command = unfence(&image, broker);
        done(&mut image, &command);
    }
    image
}

fn make(image: &mut ClusterImage, settings: &[(&str, &str)], brokers: &[i32]) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let assignments = replicas(&[brokers]);
    done(image, &Command::CreateTopic { name: "t".to_owned(), id: id(5), assignments, settings });
}

/// With one topic on three brokers, of which broker 1 leads.
fn three(level: u16, settings: &[(&str, &str)]) -> ClusterImage {
    let mut image = at_level(level, 3);
    make(&mut image, settings, &[1, 2, 3]);
    image
}

const TWO: &[(&str, &str)] = &[("min.insync.replicas", "2")];

fn set(image: &mut ClusterImage, resource: ConfigResource, name: &str, value: Option<&str>) {
    let (name, value) = (name.to_owned(), value.map(str::to_owned));
    let changes = vec![ConfigChange { name, value, only_over: ExpectedValue::Any }];
    done(image, &Command::SetConfig { resource, changes });
}

fn is_synced(image: &ClusterImage) -> bool {
    image.topic("t").unwrap().is_synced
}

/// What is done to a broker of three; a letter each.
fn go(image: &mut ClusterImage, steps: &str) {
    for step in steps.split_whitespace() {
        let broker: i32 = step[1..].parse().unwrap();
        let command = match &step[..1] {
            "s" => start(broker, u128::from(image.version()) + 100, Some(SYNCED)),
            "u" => unfence(image, broker),
            "f" => fence(image, broker),
            "z" => Command::BeginShutdown { broker: BrokerId(broker), epoch: epoch(image, broker) },
            "l" => Command::LoseReplicas {
                broker: BrokerId(broker),
                epoch: epoch(image, broker),
                partitions: vec![(id(5), 0)],
            },
            other => panic!("{other}"),
        };
        done(image, &command);
    }
}

/// s: it starts, u: it serves, f: it is fenced, z: it is about to stop, l: it says that its log is lost.
#[test]
fn a_replica_stays_where_the_others_could_acknowledge_nothing() {
    for (min, steps, leader, isr) in [
        // All are killed, two come back; whichever stays away, whoever is told of it first.
        ("2", "s2", Some(1), &[1, 3][..]),
        ("2", "s2 s3", Some(1), &[1, 3]),
        ("2", "s2 s3 u2 u3 f1", Some(3), &[1, 3]),
        ("2", "s2 s3 f1", None, &[1, 3]),
        ("2", "s2 s3 f1 u2", None, &[1, 3]),
        ("2", "s2 s3 f1 u2 u3", Some(3), &[3]),
        ("2", "s2 u2 s3 u3 f1", Some(3), &[1, 3]),
        ("2", "s1 s3 f2 u1 u3", Some(3), &[3]),
        ("2", "s1 s2 u1 u2 f3", Some(2), &[2, 3]),
        ("2", "f1 s2 s3 u2 u3", Some(2), &[2]),
        ("2", "f1 s2 s3", None, &[2, 3]),
        ("2", "f1 s2 s3 u3", Some(3), &[3]),
        // The one that was away comes back, before another has led or after.
        ("2", "s2 s3 f1 s1 u1", Some(1), &[1]),
        ("2", "s2 s3 f1 u3 s1 u1", Some(3), &[3]),
        // It starts again and again, and never serves.
        ("2", "s2 s3 s3 s3 f1 u3", Some(3), &[3]),
        ("2", "s2 s3 s2 s3 f1 u2 u3", Some(3), &[3]),
        // All come back.
        ("2", "s1 s2 s3 u1 u2 u3", Some(2), &[2]),
        ("2", "s1 s2 s3 u3", Some(3), &[3]),
        // One could have acknowledged alone.
        ("1", "s2 s3", Some(1), &[1]),
        ("1", "s2 s3 u2 u3 f1", None, &[1]),
        ("3", "s2 s3", Some(1), &[1, 2, 3]),
        ("3", "s2 s3 u2 u3 f1", Some(2), &[1, 2, 3]),
        // They are fenced before they come back.
        ("2", "s3 f2 s2 f1 u2 u3", Some(2), &[2]),
        ("2", "f1 f2 f3 s2 u2", Some(2), &[2]),
        ("2", "f1 f2 f3 s1 u1", None, &[2, 3]),
        // Where enough go on, who is silent is not waited for.
        ("2", "f3", Some(1), &[1, 2]),
        ("2", "f3 f2", Some(1), &[1, 2]),
        ("1", "f3 f2", Some(1), &[1]),
        ("2", "f1 f2", Some(3), &[2, 3]),
        ("2", "f3 f2 s1", None, &[1, 2]),
        ("2", "f3 f2 f1 u2 u3", Some(2), &[2]),
        // The last one in sync.
        ("1", "f3 f2 s1", None, &[1]),
        ("1", "f3 f2 f1 u2 u3", None, &[1]),
        // All stop in order; nobody can take over, and nobody is waited for.
        ("2", "z1 z2 z3 f1 f2 f3", None, &[3]),
        ("2", "z3 z2 z1 f1 s1 u1", Some(1), &[1, 2, 3]),
        // A disk is lost, of one that stayed or of one that is away: the other has it all.
        ("2", "s2 s3 l3", Some(1), &[1]),
        ("2", "s2 s3 f1 l3 u3", None, &[1]),
        ("2", "s2 s3 f1 l3 u3 s1 u1", Some(1), &[1]),
        ("2", "s2 s3 f1 s1 l1 u1", None, &[3]),
        ("2", "s2 s3 f1 s1 l1 u3", Some(3), &[3]),
        ("2", "s2 s3 f1 l3 s1 l1 u1 u3", None, &[1]),
    ] {
        let mut image = three(3, &[("min.insync.replicas", min)]);
        go(&mut image, steps);
        let (found, _, members) = first_partition(&image, "t");
        assert_eq!((found, &members[..]), (leader, isr), "min {min}: {steps}");
    }
}

/// As before: programs that know no more make the same image.
#[test]
fn below_the_third_level_everybody_leaves() {
    for (steps, leader, isr) in [
        ("s2 s3", Some(1), &[1][..]),
        ("s2 s3 u2 u3 f1", None, &[1]),
        ("f1 s2 s3 u2 u3", Some(3), &[3]),
        ("f1 f2 s3", None, &[3]),
    ] {
        let mut image = three(2, TWO);
        assert!(!is_synced(&image) && image.broker(BrokerId(1)).unwrap().in_sync_defaults.is_none());
        go(&mut image, steps);
        let (found, _, members) = first_partition(&image, "t");
        assert_eq!((found, &members[..]), (leader, isr), "{steps}");
        // Nothing is known of what was written before.
        done(&mut image, &Command::SetFeatureLevel { level: 3 });
        assert!(!is_synced(&image));
    }
}

#[test]
fn a_replica_that_stays_leads_no_more_and_its_state_is_another() {
    let mut image = three(3, TWO);
    go(&mut image, "f2");
    let before = image.topic("t").unwrap().partition(0).unwrap().clone();
    assert_eq!((before.leader, &*before.isr), (Some(BrokerId(1)), &[BrokerId(1), BrokerId(3)][..]));
    go(&mut image, "s3");
    let after = image.topic("t").unwrap().partition(0).unwrap().clone();
    assert_eq!((&after.isr, after.leader_epoch), (&before.isr, before.leader_epoch));
    // R9: what its leader decided of the start before is refused.
    assert_eq!(after.partition_epoch, before.partition_epoch + 1);
    // Another registration of the same start changes nothing.
    let incarnation = image.broker(BrokerId(3)).unwrap().incarnation.as_u128();
    done(&mut image, &start(3, incarnation, Some(SYNCED)));
    assert_eq!(image.topic("t").unwrap().partition(0), Some(&after));
    // The leader goes: its lead passes on, it stays.
    go(&mut image, "u3 s1");
    assert_eq!(first_partition(&image, "t"), (Some(3), 1, vec![1, 3]));
}

/// R8, R9: who stays is not asked for anew, and nobody else gets in by its example.
#[test]
fn a_leader_may_name_a_fenced_member_that_it_has_and_no_other() {
    let mut image = three(3, TWO);
    go(&mut image, "s2 s3 u2");
    let propose = |image: &ClusterImage, isr: &[i32]| {
        let partition = image.topic("t").unwrap().partition(0).unwrap();
        Command::ChangeIsr {
            topic: id(5),
            partition: 0,
            leader: BrokerId(1),
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().map(|r| (BrokerId(*r), epoch(image, *r))).collect(),
        }
    };
    let mut of_before = propose(&image, &[1, 3]);
    if let Command::ChangeIsr { isr, .. } = &mut of_before {
        isr[1].1 = BrokerEpoch(isr[1].1.0 - 1);
    }
    assert!(matches!(refused(&image, &of_before), CommandError::IneligibleReplica { .. }));
    let members = |image: &ClusterImage| first_partition(image, "t").2;
    let command = propose(&image, &[1, 3]);
    done(&mut image, &command);
    assert_eq!(members(&image), [1, 3]);
    // Once enough serve, who does not is not waited for any longer.
    let command = propose(&image, &[1, 2, 3]);
    let before = image.topic("t").unwrap().partition(0).unwrap().partition_epoch;
    assert_eq!(done(&mut image, &command), Output::IsrChanged { partition_epoch: before + 1 });
    assert_eq!(members(&image), [1, 2]);
    assert_eq!(image.topic("t").unwrap().partition(0).unwrap().partition_epoch, before + 2);
    let told = refused(&image, &propose(&image, &[1, 2, 3]));
    assert!(matches!(told, CommandError::IneligibleReplica { broker: BrokerId(3), .. }), "{told}");
}

#[test]
fn who_lacks_a_directory_leaves_whatever_was_on_it() {
    let with = |broker, incarnation, directories: &[u128]| {
        let mut command = start(broker, incarnation, Some(SYNCED));
        if let Command::RegisterBroker { directories: held, .. } = &mut command {
            *held = directories.iter().copied().map(uuid::Uuid::from_u128).collect();
        }
        command
    };
    for (before, after, stays) in [
        (&[3, 77][..], &[3, 77][..], true),
        (&[3, 77], &[3, 78, 77], true),
        (&[3, 77], &[3], false),
        (&[3, 77], &[3, 78], false),
        (&[], &[3], false),
    ] {
        let mut image = at_level(3, 2);
        done(&mut image, &with(3, 1, before));
        let command = unfence(&image, 3);
        done(&mut image, &command);
        make(&mut image, TWO, &[1, 2, 3]);
        go(&mut image, "s2");
        done(&mut image, &with(3, 2, after));
        let expected = if stays { vec![1, 3] } else { vec![1] };
        assert_eq!(first_partition(&image, "t").2, expected, "{before:?} {after:?}");
    }
}

/// The number is the topic's, else one that was set while brokers run, else the starting broker's own.
#[test]
fn how_many_are_few_is_said_by_the_nearest() {
    let two = Some("2");
    for (topic, broker, cluster, own, stays) in [
        (None, None, None, 1, false),
        (None, None, None, 2, true),
        (Some("1"), two, two, 2, false),
        (two, Some("1"), Some("1"), 1, true),
        (None, Some("1"), two, 2, false),
        (None, two, Some("1"), 1, true),
        (None, None, two, 1, true),
        (None, Some("many"), two, 1, true),
    ] {
        let mut image = at_level(3, 3);
        let settings: Vec<_> = topic.iter().map(|min| ("min.insync.replicas", *min)).collect();
        make(&mut image, &settings, &[1, 2, 3]);
        set(&mut image, ConfigResource::Broker(BrokerId(3)), "min.insync.replicas", broker);
        set(&mut image, ConfigResource::Cluster, "min.insync.replicas", cluster);
        go(&mut image, "f2");
        let own = InSyncDefaults { min_insync_replicas: own, ..SYNCED };
        done(&mut image, &start(3, 9, Some(own)));
        let expected = if stays { vec![1, 3] } else { vec![1] };
        assert_eq!(first_partition(&image, "t").2, expected, "{topic:?} {broker:?} {cluster:?} {own:?}");
    }
}

/// Once a broker may have counted what was not synced, the topic is like any other, whatever is set later.
#[test]
fn a_topic_that_did_not_always_sync_keeps_nobody() {
    let topic = || ConfigResource::Topic(id(5));
    let (ack, none) = (Some("ack"), Some("none"));
    for (own, changes, expected) in [
        (None, vec![], true),
        (ack, vec![], true),
        (none, vec![], false),
        (Some("interval"), vec![], false),
        (None, vec![(topic(), none)], false),
        (None, vec![(topic(), ack)], true),
        (none, vec![(topic(), ack)], false),
        (ack, vec![(topic(), none), (topic(), ack)], false),
        (None, vec![(ConfigResource::Cluster, none)], false),
        (None, vec![(ConfigResource::Cluster, none), (ConfigResource::Cluster, None)], false),
        (None, vec![(ConfigResource::Broker(BrokerId(9)), none)], false),
        (ack, vec![(ConfigResource::Cluster, none), (ConfigResource::Broker(BrokerId(1)), none)], true),
        (ack, vec![(ConfigResource::Cluster, none), (topic(), None)], false),
        (None, vec![(topic(), Some("Ack"))], false),
    ] {
        let mut image = at_level(3, 3);
        let mut settings = TWO.to_vec();
        settings.extend(own.map(|own| ("floodmark.sync", own)));
        make(&mut image, &settings, &[1, 2, 3]);
        for (resource, value) in changes.clone() {
            set(&mut image, resource, "floodmark.sync", value);
        }
        assert_eq!(is_synced(&image), expected, "{own:?} {changes:?}");
        go(&mut image, "s2 s3");
        let isr = if expected { vec![1, 3] } else { vec![1] };
        assert_eq!(first_partition(&image, "t").2, isr, "{own:?} {changes:?}");
    }
}

#[test]
fn what_a_broker_takes_for_its_default_counts_from_its_start_on() {
    let mut image = three(3, TWO);
    assert!(is_synced(&image));
    // What was written until now is synced; what comes may not be.
    go(&mut image, "f2");
    done(&mut image, &start(3, 9, Some(UNSYNCED)));
    assert_eq!(first_partition(&image, "t").2, [1, 3]);
    assert!(!is_synced(&image));
    go(&mut image, "s3");
    assert_eq!(first_partition(&image, "t").2, [1]);
    // Of one that registered before the level rose it is not known, until it says it.
    let mut image = at_level(2, 3);
    done(&mut image, &Command::SetFeatureLevel { level: 3 });
    for (broker, expected) in [(1, false), (2, false), (3, true)] {
        done(&mut image, &start(broker, 1, Some(SYNCED)));
        let settings = Vec::new();
        let name = format!("t{broker}");
        let create = Command::CreateTopic { name, id: id(9), assignments: replicas(&[&[1]]), settings };
        done(&mut image, &create);
        assert_eq!(image.topic_by_id(id(9)).unwrap().is_synced, expected, "{broker}");
        done(&mut image, &Command::DeleteTopic { topic: id(9) });
        assert!(image.is_live(BrokerId(broker)), "the same start");
    }
}

/// Nobody who does not serve is the only one that is left by a command that is not about it.
#[test]
fn copies_are_not_given_up_for_those_of_brokers_that_do_not_serve() {
    let mut image = three(3, TWO);
    go(&mut image, "s2 s3 f1");
    assert_eq!(first_partition(&image, "t"), (None, 1, vec![1, 3]));
    let remove = |broker| Command::RemoveBroker { broker: BrokerId(broker), keeps_replicas: true };
    let told = CommandError::LosesInSync { broker: BrokerId(1) };
    assert_eq!(refused(&image, &remove(1)), told);
    // A move to broker 3 cannot end while that may turn out to be empty.
    let to = |brokers: &[i32]| Command::MovePartition {
        topic: id(5),
        partition: 0,
        replicas: brokers.iter().copied().map(BrokerId).collect(),
    };
    done(&mut image, &to(&[3]));
    let partition_epoch = image.topic("t").unwrap().partition(0).unwrap().partition_epoch;
    let finish = Command::FinishMove { topic: id(5), partition: 0, partition_epoch };
    assert!(matches!(refused(&image, &finish), CommandError::NoMove { .. }));
    go(&mut image, "u3");
    let partition_epoch = image.topic("t").unwrap().partition(0).unwrap().partition_epoch;
    done(&mut image, &Command::FinishMove { topic: id(5), partition: 0, partition_epoch });
    assert_eq!(first_partition(&image, "t"), (Some(3), 2, vec![3]));
    // One that stayed and died again goes where another leads.
    let mut image = three(3, TWO);
    go(&mut image, "f2 s3");
    done(&mut image, &remove(3));
    assert_eq!(first_partition(&image, "t"), (Some(1), 0, vec![1]));
}

#[test]
fn an_order_gives_up_what_those_have_that_stay_away() {
    let mut image = three(3, TWO);
    go(&mut image, "s2 s3 f1 u2");
    assert_eq!(refused(&image, &elect(Election::InSync)), CommandError::NoEligibleLeader);
    done(&mut image, &elect(Election::Unclean));
    assert_eq!(first_partition(&image, "t").2, [2]);
    go(&mut image, "u3 s1 u1");
    assert_eq!(first_partition(&image, "t"), (Some(2), 2, vec![2]));
}

proptest! {
    /// What the rule says of members that do not serve, whatever happens.
    #[test]
    fn whoever_serves_is_not_kept_from_it_by_one_that_does_not(commands in commands()) {
        run(commands, |before, command, after| {
            for topic in after.topics() {
                let was = before.topic_by_id(topic.id);
                // Once lost, the mark does not come back; below the level nobody has it.
                assert!(!topic.is_synced || after.feature_level >= 3 && was.is_none_or(|was| was.is_synced));
                for (index, is) in topic.partitions.iter() {
                    let Some(before) = was.filter(|was| was.is_synced) else { continue };
                    let Some(was) = before.partition(*index) else { continue };
                    check_members(command, after, was, is);
                }
            }
        });
    }
}

fn check_members(command: &Command, after: &ClusterImage, was: &Partition, is: &Partition) {
    // A fenced member was one before, and nobody who takes office has to wait for one.
    let fenced: Vec<_> = is.isr.iter().filter(|r| !after.is_live(**r)).collect();
    assert!(fenced.iter().all(|r| was.isr.contains(r)), "{was:?} {is:?}");
    if was.leader.is_none() && is.leader.is_some() {
        assert!(fenced.is_empty(), "{was:?} {is:?}");
    }
    // Who dies or comes back takes nobody out of a set that nobody would lead then.
    let gone: Vec<_> = was.isr.iter().filter(|r| !is.isr.contains(r)).collect();
    let has_reason = match command {
        Command::FenceBroker { .. } => is.leader.is_some(),
        Command::LoseReplicas { .. }
        | Command::MovePartition { .. }
        | Command::CancelMove { .. }
        | Command::FinishMove { .. }
        | Command::ChangeIsr { .. }
        | Command::RegisterBroker { .. }
        | Command::ElectLeader { .. } => true,
        Command::UnfenceBroker { .. } => is.leader.is_some(),
        Command::RemoveBroker { .. } => is.isr.iter().any(|r| after.is_live(*r)),
        _ => false,
    };
    assert!(gone.is_empty() || has_reason, "{command:?} {was:?} {is:?}");
}
