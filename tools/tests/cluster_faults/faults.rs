//! What is done to brokers, one fault after the other. Each says how it is known that it took effect; a run in which one did not has failed.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use floodmark_storage::random::SplitMix;

use crate::brokers::Brokers;
use crate::ground::{tell, wait_until};
use crate::load::{Load, Routes};

/// Clients get on again so long after a fault at the latest.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);
/// Somebody else leads so long after a leader is gone at the latest.
const MOVED_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillLeader,
    KillFollower,
    KillController,
    KillAll,
    Pause,
    CutOneWay,
    CutBothWays,
    Isolate,
    Silence,
    PowerCutOne,
    PowerCutAll,
    DiskFull,
    RollingRestart,
}

impl Fault {
    pub(crate) const ALL: [Fault; 13] = [
        Fault::KillLeader,
        Fault::PowerCutAll,
        Fault::Isolate,
        Fault::Pause,
        Fault::CutOneWay,
        Fault::DiskFull,
        Fault::KillController,
        Fault::PowerCutOne,
        Fault::CutBothWays,
        Fault::RollingRestart,
        Fault::Silence,
        Fault::KillFollower,
        Fault::KillAll,
    ];

    /// Why it cannot be done here.
    pub(crate) fn is_left_out(self, brokers: &Brokers) -> Option<&'static str> {
        let needs_places = matches!(
            self,
            Fault::CutOneWay
                | Fault::CutBothWays
                | Fault::Isolate
                | Fault::Silence
                | Fault::PowerCutOne
                | Fault::PowerCutAll
                | Fault::DiskFull
        );
        let needs_others = matches!(
            self,
            Fault::CutOneWay | Fault::CutBothWays | Fault::Isolate | Fault::Silence | Fault::KillFollower
        );
        if needs_places && !brokers.ground.is_isolated {
            Some("no namespaces or loop devices on this machine")
        } else if needs_others && brokers.count() == 1 {
            Some("a broker alone")
        } else {
            None
        }
    }
}

/// Does faults to brokers under a load.
pub(crate) struct Nemesis {
    pub(crate) brokers: Brokers,
    pub(crate) load: Load,
    pub(crate) random: SplitMix,
    /// How long a pause or a cut lasts at least: longer than what brokers wait for each other.
    pub(crate) outlast: Duration,
    /// Copies of each partition.
    pub(crate) replicas: usize,
    /// How often each fault took effect.
    pub(crate) done: BTreeMap<Fault, u32>,
    /// From a leader's end until its partitions took records again, the slowest of each time.
    pub(crate) failovers: Vec<Duration>,
}

impl Nemesis {
    fn tell(&self, what: &str) {
        tell(self.load.since, what);
    }

    /// Does it, undoes it, and waits until clients get on.
    pub(crate) fn inflict(&mut self, fault: Fault) -> Result<(), String> {
        let routes = self.await_led()?;
        let victim = self.victim(fault, &routes);
        self.tell(&format!("{fault:?}, broker {}", victim + 1));
        match fault {
            Fault::KillLeader | Fault::KillFollower | Fault::KillController => {
                self.kill_and_start(victim, &routes, fault != Fault::KillFollower)?;
            }
            Fault::KillAll => self.end_all(false)?,
            Fault::PowerCutAll => self.end_all(true)?,
            Fault::PowerCutOne => {
                must(self.brokers.kill(&[victim]), "the broker had ended before it was killed")?;
                self.brokers.ground.cut_power(victim);
                self.hold();
                self.brokers.start_all()?;
            }
            Fault::Pause => {
                must(self.brokers.pause(victim), "the broker runs on")?;
                let moved = self.await_moved(victim, &routes);
                thread::sleep(self.outlast);
                self.brokers.resume(victim);
                moved?;
            }
            Fault::CutOneWay | Fault::CutBothWays | Fault::Isolate | Fault::Silence => {
                self.cut_and_heal(fault, victim, &routes)?;
            }
            Fault::DiskFull => self.fill_and_make_room(victim)?,
            Fault::RollingRestart => {
                for index in 0..self.brokers.count() {
                    self.brokers.stop(index)?;
                    self.brokers.start(index);
                    self.brokers.await_up(index)?;
                    self.await_in_sync()?;
                }
            }
        }
        self.await_progress(fault)?;
        *self.done.entry(fault).or_default() += 1;
        Ok(())
    }

    pub(crate) fn hold(&mut self) {
        thread::sleep(Duration::from_millis(300 + self.random.below(2_500)));
    }

    fn victim(&mut self, fault: Fault, routes: &Routes) -> usize {
        let any = self.random.below(self.brokers.count() as u64) as usize;
        let partition = self.random.below(routes.partitions.len() as u64) as usize;
        let leader = routes.partitions.values().nth(partition).map(|route| route.leader);
        let named = match fault {
            Fault::KillLeader | Fault::Pause | Fault::Isolate | Fault::Silence => leader,
            Fault::KillController => Some(routes.controller),
            Fault::KillFollower => {
                let route = routes.partitions.values().nth(partition);
                route.and_then(|route| route.replicas.iter().find(|id| **id != route.leader).copied())
            }
            _ => None,
        };
        let place = named.and_then(|id| usize::try_from(id - 1).ok());
        place.filter(|place| *place < self.brokers.count()).unwrap_or(any)
    }

    fn kill_and_start(&mut self, victim: usize, routes: &Routes, leads: bool) -> Result<(), String> {
        must(self.brokers.kill(&[victim]), "the broker had ended before it was killed")?;
        let killed = Instant::now();
        if self.replicas > 2 && leads {
            self.measure_failover(victim, routes, killed)?;
        }
        self.hold();
        self.brokers.start_all()
    }

    /// Waits until what the victim led takes records again, and notes how long that took.
    fn measure_failover(&mut self, victim: usize, routes: &Routes, killed: Instant) -> Result<(), String> {
        // What had been acknowledged and is read late is no sign of life.
        thread::sleep(Duration::from_millis(20));
        let before = self.load.acks();
        let mut orphans: Vec<u32> = led_by(victim, routes);
        let count = orphans.len();
        let are_led = wait_until(MOVED_WITHIN, || {
            let now = self.load.acks();
            orphans.retain(|partition| now[*partition as usize] == before[*partition as usize]);
            orphans.is_empty()
        });
        if !are_led {
            return Err(format!(
                "partitions {orphans:?} take no records {MOVED_WITHIN:?} after their leader's end"
            ));
        }
        if count > 0 {
            let took = killed.elapsed();
            self.tell(&format!("  {count} partitions took records again {} ms after", took.as_millis()));
            self.failovers.push(took);
        }
        Ok(())
    }

    fn end_all(&mut self, is_power_cut: bool) -> Result<(), String> {
        let mut order: Vec<usize> = (0..self.brokers.count()).collect();
        must(self.brokers.kill(&order), "a broker had ended before it was killed")?;
        if is_power_cut {
            order.iter().for_each(|index| self.brokers.ground.cut_power(*index));
        }
        // Who comes back first decides what the others find.
        for n in (1..order.len()).rev() {
            order.swap(n, self.random.below(n as u64 + 1) as usize);
        }
        for index in order {
            self.brokers.start(index);
            thread::sleep(Duration::from_millis(self.random.below(1_000)));
        }
        (0..self.brokers.count()).try_for_each(|index| self.brokers.await_up(index))
    }

    fn cut_and_heal(&mut self, fault: Fault, victim: usize, routes: &Routes) -> Result<(), String> {
        let others: Vec<usize> = (0..self.brokers.count()).filter(|other| *other != victim).collect();
        let one = others[self.random.below(others.len() as u64) as usize];
        let cuts: Vec<(usize, usize)> = match fault {
            Fault::CutOneWay => vec![(victim, one)],
            Fault::CutBothWays => vec![(victim, one), (one, victim)],
            Fault::Isolate => others.iter().flat_map(|other| [(victim, *other), (*other, victim)]).collect(),
            _ => others.iter().map(|other| (victim, *other)).collect(),
        };
        let took_effect = cuts.iter().all(|(from, to)| self.brokers.ground.cut(*from, *to));
        let is_alone = others.len() == cuts.len().min(others.len()) && fault != Fault::CutOneWay;
        let moved = if is_alone && matches!(fault, Fault::Isolate | Fault::Silence) && others.len() > 1 {
            self.await_moved(victim, routes)
        } else {
            Ok(())
        };
        thread::sleep(self.outlast);
        cuts.iter().for_each(|(from, to)| self.brokers.ground.heal(*from, *to));
        must(took_effect, "connections come about across the cut")?;
        let heals = cuts.iter().all(|(from, to)| {
            wait_until(Duration::from_secs(60), || self.brokers.ground.reaches(*from, *to))
        });
        must(heals, "the cut does not heal")?;
        moved
    }

    fn fill_and_make_room(&mut self, victim: usize) -> Result<(), String> {
        let is_full = self.brokers.ground.fill(victim);
        self.hold();
        self.hold();
        self.brokers.ground.make_room(victim);
        must(is_full, "there is room on the disk")?;
        if let Some(status) = self.brokers.has_ended(victim) {
            self.tell(&format!("  broker {} ended: {status}; started again", victim + 1));
            self.brokers.kill(&[victim]);
            self.brokers.start_all()?;
        }
        Ok(())
    }

    /// Waits until each partition is led and says where.
    fn await_led(&mut self) -> Result<Routes, String> {
        let (load, random) = (&self.load, &mut self.random);
        let mut found = None;
        wait_until(PROGRESS_WITHIN, || {
            found = load.routes(random).ok().filter(|routes| {
                !routes.partitions.is_empty() && routes.partitions.values().all(|route| route.leader > 0)
            });
            found.is_some()
        });
        found.ok_or_else(|| format!("partitions without a leader for {PROGRESS_WITHIN:?}"))
    }

    /// Waits until nothing that the victim led is led by it any more, as the others see it.
    fn await_moved(&mut self, victim: usize, routes: &Routes) -> Result<(), String> {
        let led = led_by(victim, routes);
        if led.is_empty() || self.replicas < 3 {
            return Ok(());
        }
        let others: Vec<_> = (0..self.brokers.count()).filter(|other| *other != victim).collect();
        let others: Vec<_> = others.iter().map(|other| self.brokers.ground.places[*other].kafka()).collect();
        let is_moved = |routes: &Routes| {
            let leader = |partition: &u32| routes.partitions.get(partition).map_or(-1, |route| route.leader);
            led.iter().all(|partition| leader(partition) > 0 && leader(partition) != victim as i32 + 1)
        };
        let load = &self.load;
        let moved = wait_until(MOVED_WITHIN, || {
            others.iter().any(|at| {
                let routes = load
                    .connect(*at)
                    .and_then(|mut kafka| crate::load::routes(&mut kafka, crate::load::TOPIC));
                routes.is_ok_and(|routes| is_moved(&routes))
            })
        });
        if moved { Ok(()) } else { Err(format!("broker {} still leads for the others", victim + 1)) }
    }

    /// Waits until every replica of every partition is in sync.
    pub(crate) fn await_in_sync(&mut self) -> Result<(), String> {
        let (load, random) = (&self.load, &mut self.random);
        let mut last = Routes::default();
        let replicas = self.replicas;
        let is_in_sync = wait_until(PROGRESS_WITHIN, || {
            let Ok(routes) = load.routes(random) else { return false };
            last = routes;
            let whole = |route: &crate::load::Route| route.leader > 0 && route.in_sync.len() == replicas;
            !last.partitions.is_empty() && last.partitions.values().all(whole)
        });
        if is_in_sync {
            Ok(())
        } else {
            Err(format!("not in sync after {PROGRESS_WITHIN:?}: {:?}", last.partitions))
        }
    }

    /// Waits until each partition has taken records and each group has committed.
    pub(crate) fn await_progress(&mut self, after: impl std::fmt::Debug) -> Result<(), String> {
        let before = (self.load.acks(), self.load.commits(), self.load.recorder.begin());
        let since = Instant::now();
        let mut stuck = (Vec::new(), Vec::new());
        let is_moving = wait_until(PROGRESS_WITHIN, || {
            stuck = (behind(&before.0, &self.load.acks()), behind(&before.1, &self.load.commits()));
            let [_, native] = self.load.goes_on_since(before.2);
            let goes_on = stuck.0.is_empty() && stuck.1.is_empty() && !native.contains(&false);
            goes_on || !self.load.complaints().is_empty()
        });
        if !self.load.complaints().is_empty() {
            return Err(format!("after {after:?}: {:#?}", self.load.complaints()));
        }
        if !is_moving {
            let routes = self.load.routes(&mut self.random);
            return Err(format!(
                "after {after:?} no progress for {PROGRESS_WITHIN:?} in partitions {:?}, groups {:?}, of the native producer {:?}; {routes:?}",
                stuck.0,
                stuck.1,
                self.load.goes_on_since(before.2)[1]
            ));
        }
        self.tell(&format!("  all clients got on {} ms after its end", since.elapsed().as_millis()));
        Ok(())
    }
}

fn must(is_so: bool, otherwise: &str) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(format!("the fault took no effect: {otherwise}")) }
}

/// The partitions that a broker leads.
fn led_by(place: usize, routes: &Routes) -> Vec<u32> {
    let led = routes.partitions.iter().filter(|(_, route)| route.leader == place as i32 + 1);
    led.map(|(partition, _)| *partition).collect()
}

/// The places in which a count has not risen.
fn behind(before: &[u64], now: &[u64]) -> Vec<usize> {
    (0..before.len()).filter(|n| now[*n] <= before[*n]).collect()
}
