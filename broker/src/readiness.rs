//! Whether clients can be served, and whether the next broker may be taken down, for those who watch the process from outside.

use std::sync::OnceLock;

use floodmark_proto::ids::BrokerId;
use floodmark_replication::cluster::{ClusterImage, Partition};
use floodmark_replication::quorum::QuorumHandle;
use floodmark_replication::registry::{OutOfOrder, Registry};
use parking_lot::Mutex;

use crate::shutdown::Drain;

/// Goes from starting to serving to stopping.
#[derive(Debug)]
pub(crate) struct Readiness {
    /// What a broker that starts waits for.
    waiting: Mutex<String>,
    /// There once logs are open.
    serving: OnceLock<(QuorumHandle, BrokerId, Registry)>,
    drain: Drain,
}

impl Readiness {
    pub(crate) fn new(drain: Drain) -> Readiness {
        let waiting = Mutex::new("the broker starts".to_owned());
        Readiness { waiting, serving: OnceLock::new(), drain }
    }

    /// What a start waits for now, in words for whoever wonders why it takes so long.
    pub(crate) fn waits_for(&self, what: impl Into<String>) {
        *self.waiting.lock() = what.into();
    }

    /// What it waits for, in those words.
    pub(crate) fn waiting(&self) -> String {
        self.waiting.lock().clone()
    }

    /// Logs are open, and clients are served.
    pub(crate) fn serve(&self, quorum: QuorumHandle, broker: BrokerId, registry: Registry) {
        // A broker begins to serve once.
        let _ = self.serving.set((quorum, broker, registry));
    }

    /// Why clients cannot be served; `None` where they can.
    pub(crate) fn unavailable(&self) -> Option<String> {
        let Some((quorum, broker, _)) = self.serving.get() else { return Some(self.waiting()) };
        if self.drain.has_begun() {
            return Some("the broker stops".to_owned());
        }
        if quorum.heard_leader().is_none() {
            return Some("no leader of the metadata is heard that a majority follows".to_owned());
        }
        fenced(&quorum.image(), *broker)
    }

    /// Why another broker must not be taken down now; `None` where this one carries its share: clients are served, and it has everything
    /// that its replicas ought to have, in logs that take more.
    pub(crate) fn unready(&self) -> Option<String> {
        self.unavailable().or_else(|| {
            let (quorum, broker, registry) = self.serving.get()?;
            failed(&registry.out_of_order()).or_else(|| behind(&quorum.image(), *broker))
        })
    }
}

fn fenced(image: &ClusterImage, broker: BrokerId) -> Option<String> {
    match image.broker(broker) {
        None => Some("the cluster does not know this broker".to_owned()),
        Some(broker) if broker.fenced => {
            Some("the controller has not let this broker serve: it is fenced".to_owned())
        }
        Some(_) => None,
    }
}

/// Partitions that this broker should serve and cannot, whatever others do.
fn failed(found: &OutOfOrder) -> Option<String> {
    match found.count {
        0 => None,
        1 => Some(format!("this broker cannot use {}", found.first)),
        all => Some(format!("this broker cannot use {all} of its partitions, {} among them", found.first)),
    }
}

/// Partitions in which this broker does not have all that is committed. One that it is given by a move is not counted: the others hold it.
fn behind(image: &ClusterImage, broker: BrokerId) -> Option<String> {
    let is_behind = |p: &Partition| {
        p.replicas.contains(&broker) && !p.isr.contains(&broker) && !p.adding.contains(&broker)
    };
    let mut behind = image.topics().flat_map(|topic| {
        let partitions = topic.partitions.iter().filter(|(_, partition)| is_behind(partition));
        partitions.map(|(index, _)| format!("{}-{index}", topic.name))
    });
    let first = behind.next()?;
    Some(match behind.count() {
        0 => format!("partition {first} of this broker is not in sync yet"),
        others => format!("{} partitions of this broker are not in sync yet, {first} among them", others + 1),
    })
}

#[cfg(test)]
mod tests {
    use floodmark_replication::cluster::Command;

    use super::*;
    use crate::test_cluster::{create, done, live};

    #[test]
    fn nobody_is_served_before_logs_are_open() {
        let drain = Drain::default();
        let readiness = Readiness::new(drain.clone());
        assert_eq!(readiness.unready().unwrap(), "the broker starts");
        readiness.waits_for("two of three voters do not answer");
        assert_eq!(readiness.unready().unwrap(), "two of three voters do not answer");
        assert_eq!(readiness.unavailable().unwrap(), "two of three voters do not answer");
        drain.begin();
        assert!(readiness.unready().is_some());
    }

    #[test]
    fn partitions_that_cannot_be_used_are_counted_and_one_is_named() {
        let found = |count, first: &str| OutOfOrder { count, first: first.to_owned() };
        assert_eq!(failed(&found(0, "")), None);
        assert_eq!(
            failed(&found(1, "partition t-0: full")).unwrap(),
            "this broker cannot use partition t-0: full"
        );
        let many = failed(&found(3, "partition t-0: full")).unwrap();
        assert_eq!(many, "this broker cannot use 3 of its partitions, partition t-0: full among them");
    }

    #[test]
    fn a_broker_carries_its_share_once_it_is_unfenced_and_in_sync() {
        let mut image = live(3);
        create(&mut image, "a", &[&[1, 2], &[2, 3]]);
        create(&mut image, "b", &[&[2, 1]]);
        let two = BrokerId(2);
        assert_eq!((fenced(&image, two), behind(&image, two)), (None, None));
        assert!(fenced(&image, BrokerId(9)).unwrap().contains("does not know"));
        let epoch = image.broker(two).unwrap().epoch;
        done(&mut image, &Command::FenceBroker { broker: two, epoch });
        assert!(fenced(&image, two).unwrap().contains("fenced"));
        done(&mut image, &Command::UnfenceBroker { broker: two, epoch });
        // It is back, and lacks what was written meanwhile.
        assert_eq!(fenced(&image, two), None);
        let reason = behind(&image, two).unwrap();
        assert_eq!(reason, "3 partitions of this broker are not in sync yet, a-0 among them");
        assert_eq!(behind(&image, BrokerId(1)), None);
        let topic = image.topic("b").unwrap().id;
        done(&mut image, &Command::MovePartition { topic, partition: 0, replicas: vec![BrokerId(3)] });
        // It gets that one from the others, who have it as long as it has not.
        assert_eq!(behind(&image, BrokerId(3)), None);
    }
}
