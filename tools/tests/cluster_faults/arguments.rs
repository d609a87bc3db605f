//! What a run is asked to do.

use std::path::PathBuf;
use std::time::Duration;

use crate::failover::Case;
use crate::faults::Fault;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Five minutes of faults, and what does not belong to the cluster.
    Gate,
    /// Every kind at least once, for minutes.
    Soak,
    /// Deaths of leaders, again and again, for their figures.
    Failover,
    /// Nothing but what does not belong to the cluster.
    Strangers,
    /// Clients of other hands, nothing but rolling restarts.
    Rolling,
}

#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    pub(crate) mode: Mode,
    pub(crate) seed: u64,
    pub(crate) brokers: usize,
    /// Copies of each partition. With one, only the metadata are replicated.
    pub(crate) replicas: usize,
    pub(crate) time: Duration,
    /// At most so many faults; so many rounds of restarts.
    pub(crate) times: Option<u32>,
    pub(crate) faults: Vec<Fault>,
    /// Whose deaths.
    pub(crate) cases: Vec<Case>,
    /// Brokers that wait shorter for each other than they do unless told.
    pub(crate) is_fast: bool,
    /// An older program, from which brokers are brought to this one, back as far as that may be, and here again.
    pub(crate) upgrade_from: Option<PathBuf>,
}

const USAGE: &str = "cluster_faults [soak|failover|strangers|rolling] [--seed N] [--minutes N] [--times N] [--brokers N] [--replicas N] [--only KIND,KIND] [--case CASE,CASE] [--fast] [--from PROGRAM]";

impl Arguments {
    /// Nothing where other tests are asked for, by a filter as test harnesses take it.
    pub(crate) fn of_process() -> Option<Arguments> {
        let seed = floodmark_storage::random::Random::System.next_u64() % 1_000_000;
        let mut arguments = Arguments {
            mode: Mode::Gate,
            seed,
            brokers: 3,
            replicas: 3,
            time: Duration::from_secs(5 * 60),
            times: None,
            faults: Fault::ALL.to_vec(),
            cases: Case::ALL.to_vec(),
            is_fast: false,
            upgrade_from: None,
        };
        let mut given = std::env::args().skip(1);
        while let Some(argument) = given.next() {
            let mut number =
                || given.next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{USAGE}"));
            match argument.as_str() {
                "soak" => (arguments.mode, arguments.time) = (Mode::Soak, Duration::from_secs(30 * 60)),
                "failover" => {
                    (arguments.mode, arguments.times) = (Mode::Failover, Some(10));
                }
                "strangers" => arguments.mode = Mode::Strangers,
                "rolling" => (arguments.mode, arguments.times) = (Mode::Rolling, Some(3)),
                "--from" => arguments.upgrade_from = given.next().map(PathBuf::from),
                "--seed" => arguments.seed = number(),
                "--minutes" => arguments.time = Duration::from_secs(number() * 60),
                "--times" => arguments.times = Some(number() as u32),
                "--brokers" => arguments.brokers = number() as usize,
                "--replicas" => arguments.replicas = number() as usize,
                "--only" => arguments.faults = named(&Fault::ALL, &given.next().unwrap_or_default()),
                "--case" => arguments.cases = named(&Case::ALL, &given.next().unwrap_or_default()),
                "--fast" => arguments.is_fast = true,
                "--list" => {
                    println!("cluster_faults: test");
                    return None;
                }
                "--ignored" | "--help" => {
                    println!("{USAGE}");
                    return None;
                }
                // What a test harness would take.
                "--nocapture" | "--include-ignored" | "--exact" | "--quiet" | "-q" => {}
                filter if !filter.starts_with('-') && "cluster_faults".contains(filter) => {}
                filter => {
                    println!("cluster_faults is left out: {filter:?} is not asked of it. {USAGE}");
                    return None;
                }
            }
        }
        Some(arguments)
    }

    /// Longer than all that brokers wait for each other.
    pub(crate) fn outlast(&self) -> Duration {
        Duration::from_millis(3_500)
    }
}

fn named<T: Copy + std::fmt::Debug>(all: &[T], names: &str) -> Vec<T> {
    let find = |name: &str| all.iter().find(|one| format!("{one:?}").eq_ignore_ascii_case(name));
    names.split(',').map(|name| *find(name).unwrap_or_else(|| panic!("no {name:?} among {all:?}"))).collect()
}
