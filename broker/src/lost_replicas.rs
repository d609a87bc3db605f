//! What this broker counts as holding and does not hold: it says so, and others lead. Where it alone was in sync nothing is said of a log
//! that may come back, because nobody could lead but by giving up what is in it.

use std::collections::BTreeSet;
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, TopicId};
use floodmark_replication::cluster::{ClusterImage, Command, Partition};
use floodmark_replication::quorum::QuorumHandle;
use floodmark_replication::registry::Registry;
use floodmark_storage::data_dir::DataDir;
use tokio::time::sleep;

/// How often logs are looked at for whether they have failed. What they lead is answered with an error meanwhile.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// Partitions that one line names.
const NAMED_MAX: usize = 20;
/// One try to say so.
const WITHIN: Duration = Duration::from_secs(5);

/// A partition in whose in-sync set this broker is, as the image has it.
type InSync<'a> = (TopicId, u32, &'a Partition);

/// What is lost when the broker starts, of the logs that are `missing`. The others were never made.
pub(crate) fn at_start(
    image: &ClusterImage,
    id: BrokerId,
    missing: &BTreeSet<(TopicId, u32)>,
    has_lost_directory: bool,
) -> Vec<(TopicId, u32)> {
    let is_lost = |(topic, index, partition): &InSync<'_>| {
        // A partition on this broker alone may be new: the broker ended before it had made the log. Then nobody has ever led it but
        // when it was made, and all that came to it since is that this broker has registered again.
        let may_be_new =
            partition.replicas.len() == 1 && !has_lost_directory && partition.partition_epoch <= 1;
        missing.contains(&(*topic, *index)) && !partition.is_lost && !may_be_new
    };
    in_sync(image, id).filter(is_lost).map(|(topic, index, _)| (topic, index)).collect()
}

/// What the broker cannot open when it starts, of what others have.
pub(crate) fn unopened(
    image: &ClusterImage,
    id: BrokerId,
    is_held: impl Fn(TopicId, i32) -> bool,
) -> Vec<(TopicId, u32)> {
    let is_lost = |(topic, index, partition): &InSync<'_>| {
        has_other(partition) && i32::try_from(*index).is_ok_and(|index| !is_held(*topic, index))
    };
    in_sync(image, id).filter(is_lost).map(|(topic, index, _)| (topic, index)).collect()
}

/// Says in the log which partitions those are, and what follows from it, which is another thing where nobody else has them.
pub(crate) fn tell_at_start(image: &ClusterImage, lost: &[(TopicId, u32)], data_dirs: &[DataDir]) {
    let (shared, alone) = by_others(image, lost);
    if !shared.is_empty() {
        tracing::warn!(
            count = shared.len(),
            partitions = some_of(&shared),
            "this broker does not have all that it had in sync; others have it, lead, and send it"
        );
    }
    if !alone.is_empty() {
        let dirs: Vec<String> = data_dirs.iter().map(|dir| dir.path().display().to_string()).collect();
        tracing::error!(
            count = alone.len(),
            partitions = some_of(&alone),
            data_dirs = dirs.join(", "),
            "partitions are in none of the data directories, nobody else has all of them, and nobody will lead them: where a disk was not mounted, stop the broker, mount it, and go on as docs/OPERATIONS.md says under \"A disk was not mounted\""
        );
    }
}

/// Says which partitions the cluster takes for lost since an earlier start, but for those that were still `missing` at this one. What is here of
/// the others may be what was missing then, or what was made in its place: nothing tells the two apart without a doubt.
pub(crate) fn tell_of_return(image: &ClusterImage, id: BrokerId, missing: &BTreeSet<(TopicId, u32)>) {
    let returned = returned(image, id, missing);
    if !returned.is_empty() {
        let (shared, alone) = by_others(image, &returned);
        tracing::warn!(
            count = returned.len(),
            partitions = some_of(&[alone, shared].concat()),
            "partitions were missing at an earlier start, and nobody leads them since: where what was missing is back, have them led again as docs/OPERATIONS.md says under \"A disk was not mounted\""
        );
    }
}

fn returned(image: &ClusterImage, id: BrokerId, missing: &BTreeSet<(TopicId, u32)>) -> Vec<(TopicId, u32)> {
    let all = in_sync(image, id).filter(|(_, _, partition)| partition.is_lost);
    all.map(|(topic, index, _)| (topic, index)).filter(|key| !missing.contains(key)).collect()
}

/// Names of those of which others have everything, and of the rest.
fn by_others(image: &ClusterImage, lost: &[(TopicId, u32)]) -> (Vec<String>, Vec<String>) {
    let (mut shared, mut alone) = (Vec::new(), Vec::new());
    for (id, index) in lost {
        let Some(topic) = image.topic_by_id(*id) else { continue };
        let is_shared = topic.partition(*index).is_some_and(has_other);
        let names = if is_shared { &mut shared } else { &mut alone };
        names.push(format!("{}-{index}", topic.name));
    }
    (shared, alone)
}

/// A line of the log has an end.
fn some_of(names: &[String]) -> String {
    let (named, others) = names.split_at(names.len().min(NAMED_MAX));
    let rest = if others.is_empty() { String::new() } else { format!(" and {} others", others.len()) };
    named.join(", ") + &rest
}

/// How a log of this broker is while it runs.
#[derive(Debug, Clone, Copy)]
enum Log {
    /// It takes writes, or is being made.
    Well,
    /// It takes none any more.
    Failed,
    /// It could not be opened, and may be yet.
    Unusable,
}

/// What is lost while the broker runs: logs that take no more writes, and, where it leads, those that cannot be opened. A follower's leader
/// leaves it out. Were both to say so, each by an image in which it has the other, the second would be taken for the last, and what it lacks
/// for lost: nobody would lead once both have their logs.
fn failed(image: &ClusterImage, id: BrokerId, how: impl Fn(TopicId, i32) -> Log) -> Vec<(TopicId, u32)> {
    let is_lost = |(topic, index, partition): &InSync<'_>| {
        let how = i32::try_from(*index).map_or(Log::Well, |index| how(*topic, index));
        let is_told = match how {
            Log::Well => false,
            Log::Failed => true,
            Log::Unusable => partition.leader == Some(id),
        };
        is_told && has_other(partition)
    };
    in_sync(image, id).filter(is_lost).map(|(topic, index, _)| (topic, index)).collect()
}

/// Says which logs have failed or cannot be led, again and again until it is known. Runs until it is aborted.
pub(crate) async fn tell(quorum: QuorumHandle, (id, epoch): (BrokerId, BrokerEpoch), registry: Registry) {
    let how = |topic, index| match registry.get(topic, index) {
        Some(partition) if partition.stopped().is_some() => Log::Failed,
        // One that is not there yet, nor known to be out of order, is being made.
        None if registry.unusable(topic, index).is_some() => Log::Unusable,
        Some(_) | None => Log::Well,
    };
    loop {
        sleep(LOOK_AFTER).await;
        let partitions = failed(&quorum.image(), id, how);
        if partitions.is_empty() {
            continue;
        }
        let (shared, _) = by_others(&quorum.image(), &partitions);
        tracing::error!(
            count = partitions.len(),
            partitions = some_of(&shared),
            "logs have failed; other replicas take over"
        );
        let lose = Command::LoseReplicas { broker: id, epoch, partitions };
        if let Err(error) = quorum.propose_within(lose, WITHIN).await {
            tracing::warn!(%error, "the cluster was not told that logs have failed; it is told again");
        }
    }
}

fn in_sync(image: &ClusterImage, id: BrokerId) -> impl Iterator<Item = InSync<'_>> {
    let all = image.topics().flat_map(|topic| topic.partitions.iter().map(|(n, p)| (topic.id, *n, p)));
    all.filter(move |(_, _, partition)| partition.isr.contains(&id))
}

fn has_other(partition: &Partition) -> bool {
    partition.isr.len() > 1
}

#[cfg(test)]
mod tests {
    use floodmark_proto::ids::ClusterId;
    use floodmark_replication::cluster::{Output, apply};

    use super::*;

    const SHARED: u128 = 5;
    const ALONE: u128 = 6;
    const LAST: u128 = 7;

    fn id(n: u128) -> TopicId {
        TopicId::from_bytes(n.to_be_bytes()).unwrap()
    }

    fn done(image: &mut ClusterImage, command: &Command) -> Output {
        let (next, outcome) = apply(image, command);
        *image = next;
        outcome.unwrap()
    }

    /// Broker 1 shares one topic with broker 2, has one alone, and is the last in sync of one.
    fn image() -> ClusterImage {
        let mut image = ClusterImage::new(ClusterId::from_bytes([3; 16]));
        let mut epochs = Vec::new();
        for broker in [BrokerId(1), BrokerId(2)] {
            let register = Command::RegisterBroker {
                broker,
                incarnation: uuid::Uuid::from_u128(1),
                rack: None,
                endpoints: Vec::new(),
                feature_levels: (1, 2),
                directories: Vec::new(),
                in_sync_defaults: None,
            };
            let Output::BrokerRegistered { epoch } = done(&mut image, &register) else { panic!() };
            epochs.push((broker, epoch));
            done(&mut image, &Command::UnfenceBroker { broker, epoch });
        }
        for (n, replicas) in [(SHARED, &[1, 2][..]), (ALONE, &[1]), (LAST, &[1, 2]), (8, &[2])] {
            let assignments = vec![replicas.iter().copied().map(BrokerId).collect()];
            let (name, id) = (format!("t{n}"), id(n));
            done(&mut image, &Command::CreateTopic { name, id, assignments, settings: Vec::new() });
        }
        let last = image.topic_by_id(id(LAST)).unwrap().partition(0).unwrap().clone();
        let shrink = Command::ChangeIsr {
            topic: id(LAST),
            partition: 0,
            leader: BrokerId(1),
            leader_epoch: last.leader_epoch,
            partition_epoch: last.partition_epoch,
            isr: epochs[..1].to_vec(),
        };
        done(&mut image, &shrink);
        image
    }

    #[test]
    fn what_is_missing_is_lost_but_where_it_may_just_be_new() {
        let image = image();
        let missing: BTreeSet<_> = [SHARED, ALONE, LAST, 8].map(|n| (id(n), 0)).into();
        let lost = |has_lost_directory| at_start(&image, BrokerId(1), &missing, has_lost_directory);
        assert_eq!(lost(false), [(id(SHARED), 0), (id(LAST), 0)]);
        assert_eq!(lost(true), [(id(SHARED), 0), (id(ALONE), 0), (id(LAST), 0)]);
        assert_eq!(at_start(&image, BrokerId(1), &BTreeSet::new(), true), []);
    }

    /// A directory that vanished is not what a new partition looks like: this broker has led it since it was made.
    #[test]
    fn a_log_that_was_led_before_is_lost_also_where_nobody_else_has_a_copy() {
        let mut image = image();
        let missing: BTreeSet<_> = [(id(ALONE), 0)].into();
        let restart = |image: &mut ClusterImage, n, serves| {
            // What is missing is told under the registration before, behind a fence.
            let epoch = image.broker(BrokerId(1)).unwrap().epoch;
            done(image, &Command::FenceBroker { broker: BrokerId(1), epoch });
            let lost = at_start(image, BrokerId(1), &missing, false);
            let register = Command::RegisterBroker {
                broker: BrokerId(1),
                incarnation: uuid::Uuid::from_u128(n),
                rack: None,
                endpoints: Vec::new(),
                feature_levels: (1, 2),
                directories: Vec::new(),
                in_sync_defaults: None,
            };
            let Output::BrokerRegistered { epoch } = done(image, &register) else { panic!() };
            // Nor does that make a difference, where the cluster is too old to be told before.
            assert_eq!(at_start(image, BrokerId(1), &missing, false), lost);
            if serves {
                done(image, &Command::UnfenceBroker { broker: BrokerId(1), epoch });
            }
            lost
        };
        // However often it starts before it comes to make the log.
        assert_eq!(restart(&mut image, 2, false), []);
        assert_eq!(restart(&mut image, 3, false), []);
        assert_eq!(restart(&mut image, 4, true), []);
        assert_eq!(restart(&mut image, 5, true), [(id(ALONE), 0)]);
        done(&mut image, &Command::SetFeatureLevel { level: 2 });
        let epoch = image.broker(BrokerId(1)).unwrap().epoch;
        let lose = Command::LoseReplicas { broker: BrokerId(1), epoch, partitions: vec![(id(ALONE), 0)] };
        done(&mut image, &lose);
        assert_eq!(restart(&mut image, 6, true), [], "it is known");
    }

    #[test]
    fn what_others_have_is_told_apart_from_what_nobody_has() {
        let image = image();
        let lost = [SHARED, ALONE, LAST, 99].map(|n| (id(n), 0));
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(by_others(&image, &lost), (names(&["t5-0"]), names(&["t6-0", "t7-0"])));
        assert_eq!(some_of(&names(&["a-0", "b-1"])), "a-0, b-1");
        let many: Vec<String> = (0..NAMED_MAX + 3).map(|n| format!("t-{n}")).collect();
        let told = some_of(&many);
        assert!(told.starts_with("t-0, t-1,") && told.ends_with(", t-19 and 3 others"), "{told}");
    }

    #[test]
    fn what_was_lost_once_and_is_there_is_told() {
        let mut image = image();
        let (broker, alone) = (BrokerId(1), (id(ALONE), 0));
        let none = BTreeSet::new();
        assert_eq!(returned(&image, broker, &none), []);
        let epoch = image.broker(broker).unwrap().epoch;
        done(&mut image, &Command::SetFeatureLevel { level: 2 });
        done(&mut image, &Command::LoseReplicas { broker, epoch, partitions: vec![alone] });
        assert_eq!(returned(&image, broker, &none), [alone]);
        assert_eq!(returned(&image, broker, &[alone].into()), [], "it has just been made");
        assert_eq!(returned(&image, BrokerId(2), &none), []);
    }

    #[test]
    fn what_cannot_be_opened_or_has_failed_is_lost_where_others_have_it() {
        let image = image();
        assert_eq!(unopened(&image, BrokerId(1), |_, _| false), [(id(SHARED), 0)]);
        assert_eq!(unopened(&image, BrokerId(1), |_, _| true), []);
        assert_eq!(failed(&image, BrokerId(1), |_, _| Log::Failed), [(id(SHARED), 0)]);
        let last = |topic: TopicId, _: i32| if topic == id(LAST) { Log::Failed } else { Log::Well };
        assert_eq!(failed(&image, BrokerId(1), last), []);
        assert_eq!(failed(&image, BrokerId(1), |_, _| Log::Well), []);
        assert_eq!(failed(&image, BrokerId(2), |_, _| Log::Failed), [(id(SHARED), 0)]);
    }

    /// Fails when brokers that all want for space, or descriptors, each say by the same image that they have lost their copy: the last one has
    /// nobody beside it by then, and what will be opened in a while is led by nobody.
    #[test]
    fn what_nobody_can_open_for_a_while_is_not_lost() {
        let mut image = image();
        let told: Vec<_> = [BrokerId(1), BrokerId(2)]
            .into_iter()
            .map(|broker| {
                let partitions = failed(&image, broker, |_, _| Log::Unusable);
                Command::LoseReplicas { broker, epoch: image.broker(broker).unwrap().epoch, partitions }
            })
            .collect();
        done(&mut image, &Command::SetFeatureLevel { level: 2 });
        for command in &told {
            done(&mut image, command);
        }
        let shared = image.topic_by_id(id(SHARED)).unwrap().partition(0).unwrap();
        assert_eq!((shared.leader, &*shared.isr), (Some(BrokerId(2)), &[BrokerId(2)][..]));
        assert!(!shared.is_lost);
        assert_eq!(failed(&image, BrokerId(2), |_, _| Log::Unusable), []);
    }
}
