//! How long producers stand still when a leader dies: of partitions, of the metadata quorum, of both. Each broker has a copy of everything, so
//! that a death holds up every partition, whoever leads it: what is acknowledged has to be with all that are in sync.

use std::thread;
use std::time::{Duration, Instant};

use floodmark_proto::kafka::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignableTopic,
};
use floodmark_proto::kafka::messages::elect_leaders::{ElectLeadersRequest, ElectLeadersResponse};

use crate::faults::Nemesis;
use crate::ground::{tell, wait_until};
use crate::load::{PARTITIONS, Routes, TOPIC};

/// Leaders are where they shall be so long after that was asked for at the latest.
const LED_WITHIN: Duration = Duration::from_secs(30);
/// Producers go on so long after a death at the latest.
const GO_ON_WITHIN: Duration = Duration::from_secs(30);
const TIMEOUT_MS: i32 = 30_000;

/// Whose death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// A broker that leads partitions, and not the quorum.
    Partitions,
    /// A broker that leads the quorum, and no partition.
    Quorum,
    /// A broker that leads both.
    Both,
}

impl Case {
    pub(crate) const ALL: [Case; 3] = [Case::Partitions, Case::Quorum, Case::Both];
}

impl Nemesis {
    /// So many deaths of each kind, one after the other, and how long each held up whom.
    pub(crate) fn fail_over(&mut self, cases: &[Case], times: u32) -> Result<(), String> {
        if self.replicas < self.brokers.count() || self.brokers.count() < 3 {
            return Err("each of three brokers or more needs a copy of everything".to_owned());
        }
        for case in cases {
            let mut figures = Vec::new();
            for _ in 0..times {
                figures.push(self.death(*case)?);
                // Who comes back is in no hurry, and neither is the next death.
                self.hold();
                self.brokers.start_all()?;
                self.await_in_sync()?;
                self.await_progress(case)?;
            }
            let (mut kafka, mut native): (Vec<u128>, Vec<u128>) = figures.into_iter().unzip();
            tell(self.load.since, &format!("{case:?}: until Kafka's producers go on, ms: {kafka:?}"));
            tell(self.load.since, &format!("{case:?}: until the native producer goes on, ms: {native:?}"));
            for (who, times) in [("Kafka's", &mut kafka), ("the native", &mut native)] {
                times.sort_unstable();
                let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
                tell(self.load.since, &format!("{case:?}: {who}: median {median} ms, worst {worst} ms"));
            }
        }
        Ok(())
    }

    /// Milliseconds until all partitions took records again that were sent afterwards: from Kafka's clients, and from the native one.
    fn death(&mut self, case: Case) -> Result<(u128, u128), String> {
        let routes = self.arranged(case)?;
        let leads = |id: i32| routes.partitions.values().filter(|route| route.leader == id).count();
        let others =
            (1..=self.brokers.count() as i32).filter(|id| *id != routes.controller && leads(*id) > 0);
        let others: Vec<i32> = others.collect();
        let victim = match case {
            Case::Partitions => others[self.random.below(others.len() as u64) as usize],
            Case::Quorum | Case::Both => routes.controller,
        };
        let (sent_after, killed) = (self.load.recorder.begin(), Instant::now());
        let place = victim as usize - 1;
        if !self.brokers.kill(&[place]) {
            return Err(format!("broker {victim} had ended before it was killed"));
        }
        let clock = jiff::Timestamp::now();
        let mut told = [None, None];
        let goes_on = wait_until(GO_ON_WITHIN, || {
            let now = self.load.goes_on_since(sent_after);
            for (told, now) in told.iter_mut().zip(&now) {
                if told.is_none() && now.iter().all(|goes_on| *goes_on) {
                    *told = Some(killed.elapsed().as_millis());
                }
            }
            told.iter().all(Option::is_some)
        });
        let [Some(kafka), Some(native)] = told else {
            return Err(format!(
                "not all partitions take records {GO_ON_WITHIN:?} after the death of broker {victim}: {:?}",
                self.load.goes_on_since(sent_after)
            ));
        };
        assert!(goes_on);
        let what = format!(
            "{case:?}: broker {victim}, which led {} partitions, killed at {clock}: on after {kafka} ms, the native client after {native} ms",
            leads(victim)
        );
        tell(self.load.since, &what);
        Ok((kafka, native))
    }

    /// Waits until leaders are where a case wants them.
    fn arranged(&mut self, case: Case) -> Result<Routes, String> {
        let count = self.brokers.count() as i32;
        let mut last = String::new();
        let mut found = None;
        wait_until(LED_WITHIN, || {
            let Ok(routes) = self.load.routes(&mut self.random) else { return false };
            let quorum = routes.controller;
            // Who is preferred in each partition: all in turn, or all but the one.
            let mut leaders: Vec<i32> = (1..=count).collect();
            if case == Case::Quorum {
                leaders.retain(|id| *id != quorum);
            }
            let replicas = |partition: u32| {
                let first = leaders[partition as usize % leaders.len()];
                let rest = (0..count).map(|n| (first - 1 + n) % count + 1);
                let (late, early): (Vec<i32>, Vec<i32>) =
                    rest.partition(|id| case == Case::Quorum && *id == quorum);
                [early, late].concat()
            };
            let is_there = |partition: u32| {
                let route = routes.partitions.get(&partition);
                route.is_some_and(|route| route.leader == replicas(partition)[0])
            };
            if quorum > 0 && (0..PARTITIONS).all(is_there) {
                found = Some(routes);
                return true;
            }
            let targets = (0..PARTITIONS).map(|partition| (partition as i32, replicas(partition))).collect();
            last = format!("{:?}", self.put(&routes, targets));
            thread::sleep(Duration::from_millis(100));
            false
        });
        found.ok_or_else(|| format!("leaders are not where they shall be after {LED_WITHIN:?}: {last}"))
    }

    /// Has partitions lie on these brokers, led by the first.
    fn put(&self, routes: &Routes, targets: Vec<(i32, Vec<i32>)>) -> Result<(), String> {
        let at = routes.endpoints.values().next().ok_or("no broker")?;
        let mut kafka = self.load.connect(*at).map_err(|e| e.to_string())?;
        let partitions = targets.into_iter().map(|(partition_index, replicas)| ReassignablePartition {
            partition_index,
            replicas: Some(replicas),
        });
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: TIMEOUT_MS,
            allow_replication_factor_change: true,
            topics: vec![ReassignableTopic { name: TOPIC, partitions: partitions.collect() }],
        };
        let answer = kafka.ask(1, &request).map_err(|e| e.to_string())?;
        let moved = answer.read::<AlterPartitionReassignmentsResponse<'_>>().error_code;
        let elect = ElectLeadersRequest { election_type: 0, topic_partitions: None, timeout_ms: TIMEOUT_MS };
        let answer = kafka.ask(1, &elect).map_err(|e| e.to_string())?;
        let elected = answer.read::<ElectLeadersResponse<'_>>().error_code;
        if moved == 0 && elected == 0 { Ok(()) } else { Err(format!("moved {moved}, elected {elected}")) }
    }
}
