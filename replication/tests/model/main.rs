//! A seeded model of a partition's replicas: the product's own rules for leaders, followers and metadata, logs in memory, and everything
//! that can go wrong between them. After each step the promises are looked at. One seed makes one history.
//!
//! `MODEL_SEED=n` runs one seed only, `MODEL_STEPS=n` so many steps of it or in all; what a failure prints says both.
//!
//! - `world`: brokers, wires, image, clients, and a step; `controller`: what is done to the cluster; `starts`: brokers that die and come
//!   back; `node`, `log`: one broker
//! - `invariants`: the promises, one a file; `guards`: rules that a run may do without, to show that it is noticed

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test: it fails with words, and tells what it saw"
)]

mod controller;
mod guards;
mod invariants;
mod log;
mod node;
mod starts;
mod world;

use std::collections::BTreeMap;

use guards::Guards;
use world::World;

/// Steps of one history, after which all faults end and the cluster has to become whole.
const STEPS_OF_A_RUN: u64 = 2_000;
/// Steps of all histories in the gate.
const STEPS: u64 = 1_000_000;
/// Within so many steps each broken rule must show.
const STEPS_TO_SHOW: u64 = 6_000_000;

/// Without these a run shows nothing of what the rules are for.
const HAS_TO_HAPPEN: [&str; 15] = [
    "a log was cut",
    "a log began again",
    "unsynced records were lost",
    "the in-sync set grew",
    "the in-sync set shrank",
    "a move was finished",
    "a disk was lost",
    "a replica stayed as it started",
    "a replica stayed as it was fenced",
    "a replica that lost its disk left",
    "all were killed",
    "somebody led while one was away",
    "a start without its log was cut short",
    "a retry was found in the log",
    "a slow message arrived",
];

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What a history ends with, and what was wrong with it.
type End = fn(&mut World) -> Result<(), String>;

/// Runs one history; tells at which step what went wrong.
fn run(seed: u64, steps: u64, guards: Guards) -> Result<World, Box<(u64, String, World)>> {
    let mut world = World::new(seed, guards);
    for step in 0..steps {
        world.step();
        if let Err(wrong) = invariants::check(&mut world) {
            return Err(Box::new((step, wrong, world)));
        }
        // Only an operator who gives up what is lost could go on from there.
        if world.state().is_lost {
            return Ok(world);
        }
    }
    let ends: [End; 3] = [World::heal, World::outage, World::heal];
    for end in ends {
        let ended = end(&mut world);
        if world.state().is_lost {
            return match invariants::check(&mut world) {
                Err(wrong) => Err(Box::new((steps, wrong, world))),
                Ok(()) => Ok(world),
            };
        }
        if let Err(wrong) = ended {
            return Err(Box::new((steps, wrong, world)));
        }
    }
    Ok(world)
}

#[test]
fn the_promises_hold_whatever_happens() {
    let steps = from_environment("MODEL_STEPS");
    let seeds = match from_environment("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..steps.unwrap_or(STEPS).div_ceil(STEPS_OF_A_RUN),
    };
    let of_a_run = if seeds.clone().count() == 1 { steps.unwrap_or(STEPS_OF_A_RUN) } else { STEPS_OF_A_RUN };
    let (mut acked, mut committed, mut epochs, mut read, mut lost) = (0, 0, 0, 0, 0);
    let mut happened: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds.clone() {
        match run(seed, of_a_run, Guards::ALL) {
            Err(failed) => {
                let (step, wrong, world) = *failed;
                let events: Vec<String> = world.events.iter().map(|event| format!("  {event:?}")).collect();
                panic!("{}\nMODEL_SEED={seed}, step {step}: {wrong}", events.join("\n"));
            }
            Ok(world) => {
                lost += usize::from(world.state().is_lost);
                acked += world.truth.acked.len();
                for (what, times) in world.truth.happened {
                    *happened.entry(what).or_insert(0) += times;
                }
                committed += world.truth.committed.len();
                epochs += world.truth.leaders.len();
                read += world.truth.read.len();
            }
        }
    }
    eprintln!(
        "{acked} acked, {committed} committed, {epochs} epochs, {read} read, {lost} lost; {happened:?}"
    );
    // A world in which nothing gets done would keep every promise.
    let runs = seeds.count();
    assert!(acked > runs && read > runs && epochs > 2 * runs, "{acked} {committed} {epochs} {read}");
    if runs > 100 {
        for what in HAS_TO_HAPPEN {
            assert!(happened.contains_key(what), "this never happened: {what}");
        }
    }
}

#[test]
fn one_seed_makes_one_history() {
    for seed in [1, 2, 3, 4, 5] {
        let trace = || {
            run(seed, STEPS_OF_A_RUN, Guards::ALL).map(|w| w.trace()).map_err(|failed| (failed.0, failed.1))
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
    let other = |seed| run(seed, STEPS_OF_A_RUN, Guards::ALL).map(|w| w.trace()).ok();
    assert_ne!(other(1), other(2));
}

/// Without one rule, some history must go wrong. `likely` is a seed by which one did, for rules that are needed seldom: others are looked at
/// where it does no more.
fn shows(name: &str, likely: u64, guards: Guards) {
    assert_ne!(guards, Guards::ALL);
    let all = 0..STEPS_TO_SHOW.div_ceil(STEPS_OF_A_RUN);
    for seed in std::iter::once(likely).chain(all) {
        if let Err(failed) = run(seed, STEPS_OF_A_RUN, guards) {
            let (step, wrong, _) = *failed;
            eprintln!("{name}: seed {seed}, step {step}: {wrong}");
            return;
        }
    }
    panic!("{name}: nothing went wrong in {STEPS_TO_SHOW} steps");
}

#[test]
fn r1_cutting_at_the_watermark_shows() {
    shows("R1", 0, Guards { cuts_by_epoch: false, ..Guards::ALL });
}

#[test]
fn r2_judging_a_fetch_by_its_offset_alone_shows() {
    shows("R2", 8, Guards { judges_by_epoch: false, ..Guards::ALL });
}

#[test]
fn r3_listening_to_leaders_and_followers_of_the_past_shows() {
    shows("R3", 55, Guards { fences_epochs: false, ..Guards::ALL });
}

#[test]
fn r4_not_judging_a_fetch_by_its_last_epoch_shows() {
    shows("R4", 1, Guards { judges_each_fetch: false, ..Guards::ALL });
}

#[test]
fn r5_an_answer_to_another_question_shows() {
    shows("R5", 26, Guards { knows_its_question: false, ..Guards::ALL });
}

#[test]
fn r6_a_watermark_before_the_cut_shows() {
    shows("R6", 166, Guards { cuts_before_watermark: false, ..Guards::ALL });
}

#[test]
fn r7_joining_below_the_start_of_the_epoch_shows() {
    shows("R7", 36, Guards { joins_from_epoch_start: false, ..Guards::ALL });
}

#[test]
fn r9_joining_in_the_name_of_another_start_shows() {
    shows("R9", 567, Guards { joins_by_registration: false, ..Guards::ALL });
}

#[test]
fn r10_making_a_log_before_its_loss_is_told_shows() {
    shows("lost logs", 183, Guards { tells_before_making: false, ..Guards::ALL });
}

#[test]
fn r10_acknowledging_what_the_leader_has_not_synced_shows() {
    shows("R10", 0, Guards { leader_counts_synced: false, ..Guards::ALL });
}

#[test]
fn r12_a_watermark_below_the_start_shows() {
    shows("R12", 0, Guards { reset_raises_watermark: false, ..Guards::ALL });
}

#[test]
fn r13_reading_to_the_end_of_a_log_shows() {
    shows("R13", 0, Guards { reads_below_watermark: false, ..Guards::ALL });
}

#[test]
fn r39_a_follower_that_tells_what_it_was_sent_shows() {
    shows("R39", 1, Guards { follower_tells_synced: false, ..Guards::ALL });
}

#[test]
fn leaving_a_replica_out_before_the_cluster_agrees_shows() {
    shows("larger set", 1, Guards { counts_the_larger_set: false, ..Guards::ALL });
}

#[test]
fn waiting_on_through_another_leadership_shows() {
    shows("waits", 2, Guards { waits_end_with_leadership: false, ..Guards::ALL });
}

#[test]
fn acknowledging_with_too_few_in_sync_shows() {
    shows("min.insync", 1, Guards { acknowledges_by_min_isr: false, ..Guards::ALL });
}

#[test]
fn a_position_from_before_a_move_shows() {
    shows("positions", 21, Guards { positions_have_a_state: false, ..Guards::ALL });
}

#[test]
fn leaving_the_set_at_each_start_shows() {
    shows("stays as it starts", 3, Guards { stays_as_it_starts: false, ..Guards::ALL });
}

#[test]
fn leaving_the_set_at_each_fence_shows() {
    shows("stays as it is fenced", 215, Guards { stays_as_it_is_fenced: false, ..Guards::ALL });
}

#[test]
fn r9_staying_without_a_word_of_a_lost_disk_shows() {
    shows("says what it lost", 6, Guards { says_what_it_lost: false, ..Guards::ALL });
}

#[test]
fn going_on_without_a_member_that_does_not_serve_shows() {
    shows("waits for all members", 1, Guards { waits_for_all_members: false, ..Guards::ALL });
}
