//! What is looked at when the faults are over: every replica's records as a client reads them, the history, and the files on disk.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use floodmark_proto::kafka::ErrorCode;
use floodmark_tools::history::replicas::compare;
use floodmark_tools::history::{Op, Verdict, check_files};

use crate::faults::Nemesis;
use crate::ground::{tell, wait_until};
use crate::kafka_client::{FetchOf, Kafka};
use crate::load::{GROUPS, PARTITIONS, Route, Routes, TOPIC, values_from};

/// A follower knows the end of what is committed so long after its leader at the latest.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(60);

/// How many replicas clients could read beside the leaders.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) leaders: u32,
    pub(crate) followers: u32,
    pub(crate) followers_refused: u32,
}

impl Nemesis {
    /// Reads each partition to its end from each of its replicas, the leader first.
    pub(crate) fn read_all(&mut self) -> Result<Read, String> {
        let mut read = Read::default();
        for partition in 0..PARTITIONS {
            let (route, routes, range) = self.read_leader(partition)?;
            read.leaders += 1;
            for follower in route.replicas.iter().filter(|id| **id != route.leader) {
                let mut kafka = self.kafka_of(&routes, *follower)?;
                match self.read_replica(&mut kafka, (partition, *follower), range.clone())? {
                    true => read.followers += 1,
                    false => read.followers_refused += 1,
                }
            }
        }
        for group in GROUPS {
            self.ask_group(group)?;
        }
        Ok(read)
    }

    /// Reads a partition from its leader: where that was, and from where to where. Asks again while the lead moves, to the replica that it
    /// belongs to.
    fn read_leader(&mut self, partition: u32) -> Result<(Route, Routes, Range<i64>), String> {
        let mut found = Ok(None);
        wait_until(CAUGHT_UP_WITHIN, || {
            let Ok(routes) = self.load.routes(&mut self.random) else { return false };
            found = self.read_led(partition, routes);
            !matches!(found, Ok(None))
        });
        found?.ok_or_else(|| format!("no broker reads partition {partition} as its leader"))
    }

    /// Nothing where its leader is not the one that was told.
    fn read_led(
        &self,
        partition: u32,
        routes: Routes,
    ) -> Result<Option<(Route, Routes, Range<i64>)>, String> {
        let route = routes.partitions.get(&partition).ok_or("a partition is gone")?.clone();
        let Ok(mut leader) = self.kafka_of(&routes, route.leader) else { return Ok(None) };
        let ends = [-2, -1].map(|special| leader.offset_at(TOPIC, partition as i32, special));
        let [Ok(start), Ok(end)] = ends else { return Ok(None) };
        let is_read = self.read_replica(&mut leader, (partition, route.leader), start..end)?;
        Ok(is_read.then_some((route, routes, start..end)))
    }

    fn kafka_of(&self, routes: &Routes, id: i32) -> Result<Kafka, String> {
        let at = routes.endpoints.get(&id).ok_or_else(|| format!("broker {id} has no endpoint"))?;
        self.load.connect(*at).map_err(|e| format!("broker {id}: {e}"))
    }

    /// False where the replica is not read by consumers.
    fn read_replica(
        &self,
        kafka: &mut Kafka,
        (partition, id): (u32, i32),
        range: Range<i64>,
    ) -> Result<bool, String> {
        let (mut from, mut refused) = (range.start, None);
        let mut ends = false;
        wait_until(CAUGHT_UP_WITHIN, || {
            while from < range.end {
                let begun = self.load.recorder.begin();
                let fetch =
                    FetchOf { partition_max_bytes: 1 << 20, ..FetchOf::new(TOPIC, partition as i32, from) };
                let Ok(fetched) = kafka.fetch(fetch) else { return true };
                if fetched.error_code != 0 {
                    refused = ErrorCode::from_code(fetched.error_code);
                    return true;
                }
                let records = values_from(from, fetched.records());
                let Some((last, _)) = records.last() else { return false };
                let next = last + 1;
                ends = next >= range.end;
                let replica = id as u32;
                self.load.recorder.end(begun, Op::Final { partition, replica, from, records, ends });
                from = next;
            }
            true
        });
        if refused == Some(ErrorCode::NotLeaderOrFollower) && from == range.start {
            return Ok(false);
        }
        if let Some(code) = refused {
            return Err(format!("reading partition {partition} from broker {id} at {from}: {}", code.name()));
        }
        if !ends {
            let (replica, records) = (id as u32, Vec::new());
            let begun = self.load.recorder.begin();
            self.load.recorder.end(begun, Op::Final { partition, replica, from, records, ends: true });
        }
        Ok(true)
    }

    /// Where a group is, when all is over.
    fn ask_group(&mut self, group: &str) -> Result<(), String> {
        let (load, random) = (&self.load, &mut self.random);
        let mut told = 0;
        let is_told = wait_until(CAUGHT_UP_WITHIN, || {
            let Ok(Ok(mut kafka)) = load.coordinator_of(group, random) else { return false };
            while told < PARTITIONS {
                let begun = load.recorder.begin();
                let Ok(Ok(offset)) = kafka.committed(group, TOPIC, told as i32) else { return false };
                let (offset, group) = ((offset != -1).then_some(offset), group.to_owned());
                load.recorder.end(begun, Op::Resume { group, partition: told, offset });
                told += 1;
            }
            true
        });
        if is_told { Ok(()) } else { Err(format!("group {group} is not told where it is")) }
    }

    /// Stops all brokers, and holds everything against everything.
    pub(crate) fn judge(&mut self, history: &Path) -> Result<Verdict, String> {
        self.load.recorder.finish().map_err(|e| format!("the history cannot be written: {e}"))?;
        for index in 0..self.brokers.count() {
            self.brokers.stop(index)?;
        }
        let verdict = check_files(&[history.to_owned()]).map_err(|e| format!("{e:#}"))?;
        tell(self.load.since, &format!("{:?}", verdict.seen));
        if !verdict.is_clean() {
            let shown = &verdict.anomalies[..verdict.anomalies.len().min(20)];
            return Err(format!("broken promises: {:?}, of which {shown:#?}", verdict.counts));
        }
        let dirs: Vec<PathBuf> =
            (0..self.brokers.count()).map(|index| self.brokers.data_dir(index)).collect();
        let compared = compare(&dirs).map_err(|e| format!("{e:#}"))?;
        let (partitions, bytes) = (compared.partitions, compared.bytes);
        tell(self.load.since, &format!("{partitions} partitions, {bytes} bytes of replicas compared"));
        if !compared.differences.is_empty() {
            return Err(format!("replicas differ: {:#?}", compared.differences));
        }
        if self.replicas > 1 && (partitions < u64::from(PARTITIONS) || bytes == 0) {
            return Err("too few replicas to compare".to_owned());
        }
        Ok(verdict)
    }

    /// Leaves what helps to find out why.
    pub(crate) fn keep(&self, history: &Path) -> PathBuf {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster-faults");
        let _ = fs::remove_dir_all(&kept);
        fs::create_dir_all(&kept).unwrap();
        // The history of a run that failed in the middle.
        let _ = self.load.recorder.finish();
        let _ = fs::copy(history, kept.join("history.jsonl"));
        for index in 0..self.brokers.count() {
            let log = self.brokers.log(index);
            let _ = fs::copy(&log, kept.join(log.file_name().unwrap()));
        }
        kept
    }
}
