//! Unmodified clients with nothing set but an address, and the native one, while brokers are restarted one after the other: no error may
//! reach their application, and nothing may be lost or doubled, neither in the log nor in what a group reads.

mod native;
mod unmodified;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::brokers::present_program;
use crate::faults::Nemesis;
use crate::ground::{tell, wait_until};
use crate::load::PARTITIONS;

pub(crate) use unmodified::install;

/// What each producer sends.
const PER_SECOND: u64 = 200;
const JOINED_WITHIN: Duration = Duration::from_secs(90);
/// What was sent is read so long after the last of it at the latest.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// What is read twice, or was not sent, would come within this time.
const QUIET: Duration = Duration::from_secs(1);

/// A group whose members count together.
#[derive(Clone)]
struct Group {
    name: &'static str,
    /// As whom the history knows what the group reads: what one member was given is not to be given to the other one.
    reader: u32,
    read: Arc<AtomicU64>,
    /// Partitions that each member holds.
    held: [Arc<AtomicUsize>; 2],
    /// How often a member was given partitions, or lost some.
    changes: Arc<AtomicU64>,
}

/// When producers stop, and when members do.
#[derive(Clone, Default)]
struct Course {
    is_sent: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
}

/// What a producer was told.
struct Sent {
    name: &'static str,
    count: u64,
    errors: Vec<String>,
}

type Joined<T> = JoinHandle<Result<T, String>>;

impl Group {
    fn new(name: &'static str, reader: u32) -> Group {
        Group {
            name,
            reader,
            read: Arc::default(),
            held: [Arc::default(), Arc::default()],
            changes: Arc::default(),
        }
    }

    fn is_shared_out(&self) -> bool {
        let held = self.held.each_ref().map(|held| held.load(Ordering::Acquire));
        held.iter().all(|held| *held > 0) && held.iter().sum::<usize>() == PARTITIONS as usize
    }

    fn hold(&self, member: usize, count: usize) {
        if self.held[member].swap(count, Ordering::AcqRel) != count {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Nemesis {
    /// Restarts all brokers in turn, so many times.
    pub(crate) fn roll(
        &mut self,
        clients: &[Vec<String>],
        arguments: &Arguments,
        dir: &Path,
    ) -> Result<(), String> {
        let course = Course::default();
        let mut groups = Vec::new();
        let mut members = unmodified::join(self, clients, (&mut groups, &course), dir);
        members.extend(native::join(self, &mut groups, &course));
        let are_shared_out = wait_until(JOINED_WITHIN, || {
            groups.iter().all(Group::is_shared_out) || members.iter().any(JoinHandle::is_finished)
        });
        let changes_first: Vec<u64> = groups.iter().map(|g| g.changes.load(Ordering::Acquire)).collect();
        if !are_shared_out {
            return Err("a group has not shared out its partitions".to_owned());
        }
        tell(self.load.since, "groups have shared out their partitions");
        let mut producers = unmodified::produce(self, clients, &course, dir);
        producers.push(native::produce(self, producers.len() as u32, &course));
        let rolled = self.restart_all_in_turn(arguments);
        course.is_sent.store(true, Ordering::Release);
        let sent: Result<Vec<Sent>, String> = await_all(producers);
        let total: u64 = sent.iter().flatten().map(|sent| sent.count).sum();
        let counts = || -> Vec<u64> { groups.iter().map(|g| g.read.load(Ordering::Acquire)).collect() };
        wait_until(READ_WITHIN, || counts().iter().all(|read| *read >= total));
        thread::sleep(QUIET);
        course.is_over.store(true, Ordering::Release);
        let read: Result<Vec<()>, String> = await_all(members);
        for (group, first) in groups.iter().zip(changes_first) {
            let changes = group.changes.load(Ordering::Acquire) - first;
            let read = group.read.load(Ordering::Acquire);
            tell(self.load.since, &format!("group of {}: {read} read, {changes} rebalances", group.name));
        }
        rolled?;
        read?;
        for Sent { name, count, errors } in sent? {
            tell(self.load.since, &format!("producer {name}: {count} sent, {} errors", errors.len()));
            if let Some(error) = errors.first() {
                return Err(format!("producer {name}: {} errors, the first is {error}", errors.len()));
            }
        }
        if counts().iter().any(|read| *read != total) {
            return Err(format!("{total} records were sent, and groups read {:?}", counts()));
        }
        Ok(())
    }

    fn restart_all_in_turn(&mut self, arguments: &Arguments) -> Result<(), String> {
        let rounds = arguments.times.unwrap_or(1);
        let present = present_program();
        let programs: Vec<PathBuf> = match &arguments.upgrade_from {
            None => vec![present; rounds as usize],
            // Up, back as far as that may be, and up again.
            Some(older) => vec![present.clone(), older.clone(), present],
        };
        for program in programs {
            for place in 0..self.brokers.count() {
                self.restart(place, &program)?;
            }
            tell(self.load.since, &format!("all run {}", program.display()));
        }
        Ok(())
    }

    fn restart(&mut self, place: usize, program: &Path) -> Result<(), String> {
        let begun = Instant::now();
        self.brokers.stop(place)?;
        let stopped = begun.elapsed().as_millis();
        self.brokers.run_with(place, program);
        self.brokers.start(place);
        self.brokers.await_ready(place)?;
        let ready = begun.elapsed().as_millis();
        tell(
            self.load.since,
            &format!("broker {}: stopped in {stopped} ms, ready again after {ready} ms", place + 1),
        );
        Ok(())
    }
}

fn await_all<T>(threads: Vec<Joined<T>>) -> Result<Vec<T>, String> {
    threads.into_iter().map(|thread| thread.join().map_err(|_| "a client panicked")?).collect()
}
