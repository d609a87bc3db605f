//! The log and the vote against a list, with the power cut after every operation and at every change of a file within one.

use std::path::PathBuf;

use floodmark_proto::batch::BatchHeader;
use floodmark_storage::fs::{SyncPoint, sim::DiskImage};
use floodmark_storage::random::SplitMix;
use openraft::EntryPayload;

use super::*;
use crate::quorum::raft_log::{self, RaftLog};
use crate::quorum::types::{Entry, LogId, Vote, log_id};

/// What the log should hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: Vec<LogId>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Append { count: u64, term: u64 },
    Truncate { since: u64 },
    Purge { upto: LogId },
    Vote(Vote),
}

impl Model {
    fn next_index(&self) -> u64 {
        self.entries.last().or(self.purged.as_ref()).map_or(0, |last| last.index + 1)
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Append { count, term } => {
                for _ in 0..count {
                    self.entries.push(log_id(term, 1, self.next_index()));
                }
            }
            Step::Truncate { since } => self.entries.retain(|e| e.index < since),
            Step::Purge { upto } => {
                self.purged = Some(upto);
                self.entries.retain(|e| e.index > upto.index);
            }
            Step::Vote(vote) => self.vote = Some(vote),
        }
    }

    /// A step that Raft could make here.
    fn draw(&self, chance: &mut SplitMix, term: &mut u64) -> Step {
        let first = self.purged.map_or(0, |p| p.index + 1);
        match chance.below(10) {
            0 | 1 => {
                *term += 1;
                Step::Vote(Vote::new(*term, 1))
            }
            2 if self.entries.len() > 1 => {
                // What remains is at least one entry: only a log behind its first vote is ever empty.
                Step::Truncate { since: first + 1 + chance.below(self.entries.len() as u64 - 1) }
            }
            3 if !self.entries.is_empty() => {
                let at = chance.below(self.entries.len() as u64) as usize;
                Step::Purge { upto: self.entries[at] }
            }
            4 if chance.below(4) == 0 && self.purged.is_some() => {
                // A snapshot from the leader may lie beyond the log's end.
                Step::Purge { upto: log_id(*term, 1, self.next_index() + chance.below(3)) }
            }
            _ => Step::Append { count: 1 + chance.below(3), term: *term },
        }
    }
}

fn place(disk: &SimDisk) -> Place {
    let options = options(disk);
    Place {
        context: options.context,
        data_dir: options.data_dir,
        claim: Claim { node: options.node_id, cluster_id: None, directory_id: options.directory_id },
        holds_partitions: false,
    }
}

fn run_step(log: &mut RaftLog, model: &Model, step: Step) -> Result<(), QuorumError> {
    match step {
        Step::Append { count, term } => {
            let first = model.next_index();
            let entry = |index| Entry { log_id: log_id(term, 1, index), payload: EntryPayload::Blank };
            log.append(&(first..first + count).map(entry).collect::<Vec<_>>())
        }
        Step::Truncate { since } => log.truncate(since),
        Step::Purge { upto } => log.purge(upto),
        Step::Vote(vote) => log.save_vote(vote),
    }
}

fn read(log: &RaftLog) -> Result<Model, QuorumError> {
    let entries = log.read(0, u64::MAX, usize::MAX)?.iter().map(|e| e.log_id).collect::<Vec<_>>();
    assert_eq!(log.last(), entries.last().copied().or(log.purged()));
    Ok(Model { vote: log.vote(), purged: log.purged(), entries })
}

/// What a run of steps left: images with the models that each may hold.
struct Run {
    images: Vec<DiskImage>,
    /// After each step: the operations so far, and the model.
    models: Vec<(u64, Model)>,
}

/// Opens the log of the only voter.
fn open_log(place: &Place) -> Result<RaftLog, QuorumError> {
    let file = match raft_log::find(place)? {
        Some(file) => file,
        None => {
            let founders = BTreeMap::from([(1, Node::default())]);
            let cluster_id = raft_log::new_cluster_id(&place.context);
            raft_log::begin(place, Part { cluster_id, node: 1, founders, is_newcomer: false })?
        }
    };
    RaftLog::open(place, file)
}

fn run(seed: u64, steps: usize, skip: Option<SyncPoint>) -> Result<Run, QuorumError> {
    let disk = new_disk();
    if let Some(point) = skip {
        disk.skip_sync(point);
    }
    disk.record_images();
    let mut chance = SplitMix::new(seed);
    let (mut term, mut model) = (1, Model::default());
    let mut log = open_log(&place(&disk))?;
    let mut models = vec![(disk.operations(), model.clone())];
    // As openraft begins: an entry, then the vote.
    let begin = [Step::Append { count: 1, term: 0 }, Step::Vote(Vote::new(1, 1))];
    for n in 0..steps {
        let step = begin.get(n).copied().unwrap_or_else(|| model.draw(&mut chance, &mut term));
        run_step(&mut log, &model, step)?;
        model.apply(step);
        assert_eq!(read(&log)?, model, "{step:?}");
        models.push((disk.operations(), model.clone()));
        if chance.below(12) == 0 {
            log.close()?;
            log = open_log(&place(&disk))?;
            assert_eq!(read(&log)?, model);
            models.push((disk.operations(), model.clone()));
        }
    }
    Ok(Run { images: disk.take_images(), models })
}

/// Checks one disk that a cut left when `operation` was the last change.
fn check(run: &Run, operation: u64, left: &SimDisk) -> Result<(), String> {
    let done = run.models.partition_point(|(at, _)| *at <= operation);
    let before = done.checked_sub(1).map(|n| &run.models[n].1);
    let after = run.models.get(done).map(|(_, model)| model);
    let log = match open_log(&place(left)) {
        Ok(log) => log,
        Err(e) => return Err(format!("does not open: {e}")),
    };
    let found = read(&log).map_err(|e| e.to_string())?;
    // Of an append under way any prefix may be there.
    let is_part = |model: &Model| {
        let base = before.map_or(0, |b| b.entries.len());
        found.vote == model.vote
            && found.purged == model.purged
            && found.entries.len() >= base.min(model.entries.len())
            && model.entries.starts_with(&found.entries)
    };
    if before == Some(&found) || after.is_some_and(|after| *after == found || is_part(after)) {
        return Ok(());
    }
    // Before the first step nothing is promised but that it opens.
    if before.is_none() && found == Model::default() {
        return Ok(());
    }
    Err(format!("found {found:?}, expected {before:?} or {after:?}"))
}

fn first_failure(run: &Run, seeds: &[Option<u64>]) -> Option<String> {
    for image in &run.images {
        for seed in seeds {
            let left = seed.map_or_else(|| image.killed(), |seed| image.power_cut(seed));
            // A cut before the data directory was durable leaves nothing to open.
            if left.list(Path::new(DATA_DIR)).is_err() {
                continue;
            }
            if let Err(e) = check(run, image.operation(), &left) {
                return Some(format!("operation {} seed {seed:?}: {e}", image.operation()));
            }
        }
    }
    None
}

const SEEDS: [Option<u64>; 6] = [None, Some(0), Some(1), Some(2), Some(4), Some(5)];

#[test]
fn no_cut_loses_or_invents_a_vote_or_an_entry() {
    let mut cuts = 0;
    for seed in 0..6 {
        let run = run(seed, 60, None).unwrap();
        cuts += run.images.len() * SEEDS.len();
        assert_eq!(first_failure(&run, &SEEDS), None, "workload {seed}");
    }
    assert!(cuts > 5000, "{cuts} cuts");
}

/// What the next process finds it acts upon: it has voted, and says so again without writing. Says where a power cut then takes back what a
/// process that was killed had written and not yet synced, so that a voter could vote twice in a term; and counts votes that were so found.
fn taken_back(run: &Run, found_new: &mut usize) -> Option<String> {
    for image in &run.images {
        let (killed, before) = (image.killed(), image.power_cut(0));
        if killed.list(Path::new(DATA_DIR)).is_err() {
            continue;
        }
        let found = read(&open_log(&place(&killed)).unwrap()).unwrap();
        let has_state = before.list(Path::new(DATA_DIR)).is_ok()
            && raft_log::find(&place(&before)).is_ok_and(|file| file.is_some());
        if has_state {
            *found_new += usize::from(open_log(&place(&before)).unwrap().vote() != found.vote);
        }
        let kept = open_log(&place(&killed.image().power_cut(0))).and_then(|log| read(&log));
        if !kept.as_ref().is_ok_and(|kept| *kept == found) {
            return Some(format!("operation {}: found {found:?}, kept {kept:?}", image.operation()));
        }
    }
    None
}

#[test]
fn a_vote_that_was_found_behind_a_kill_outlives_the_power_cut_after_it() {
    let mut found_new = 0;
    for seed in 0..6 {
        assert_eq!(taken_back(&run(seed, 60, None).unwrap(), &mut found_new), None, "workload {seed}");
    }
    assert!(found_new > 10, "{found_new} votes that were not durable were found");
    let missed = (0..8).find_map(|seed| {
        let run = run(seed, 60, Some(SyncPoint::NodeStateFound)).unwrap();
        taken_back(&run, &mut found_new)
    });
    assert!(missed.is_some(), "nobody misses the sync of what was found");
}

#[test]
fn every_sync_of_the_vote_that_is_left_out_is_missed() {
    for point in [SyncPoint::MetadataDirCreated, SyncPoint::NodeStateData, SyncPoint::NodeStateRenamed] {
        let missed = (0..8).find_map(|seed| match run(seed, 40, Some(point)) {
            Ok(run) => first_failure(&run, &SEEDS),
            Err(e) => Some(e.to_string()),
        });
        assert!(missed.is_some(), "nobody misses {point:?}");
    }
}

/// Ten calls of three entries each, then the process is killed. The log's file, and where its batches begin.
fn killed_log() -> (SimDisk, PathBuf, Vec<usize>) {
    let disk = new_disk();
    let mut log = open_log(&place(&disk)).unwrap();
    for first in (0..30).step_by(3) {
        let entry = |index| Entry { log_id: log_id(1, 1, index), payload: EntryPayload::Blank };
        log.append(&(first..first + 3).map(entry).collect::<Vec<_>>()).unwrap();
        log.save_vote(Vote::new(1, 1)).unwrap();
    }
    drop(log);
    let disk = disk.image().killed();
    let (path, bytes) =
        disk.files().into_iter().find(|(p, _)| p.extension().is_some_and(|e| e == "log")).unwrap();
    let (mut starts, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        starts.push(at);
        at += BatchHeader::parse(&bytes[at..]).unwrap().size_bytes();
    }
    assert_eq!(starts.len(), 30);
    (disk, path, starts)
}

/// Guard: `proves_loss`.
#[test]
fn an_entry_that_was_answered_and_is_damaged_keeps_the_node_out_each_time() {
    let (_, _, starts) = killed_log();
    for (hurt, start) in starts.iter().enumerate().take(27) {
        let (disk, path, _) = killed_log();
        disk.flip_bit(&path, *start as u64 + 70, 2);
        let before = disk.files()[&path].clone();
        for _ in 0..2 {
            let opened = open_log(&place(&disk));
            assert!(matches!(opened, Err(QuorumError::Lost { .. })), "entry {hurt}");
            assert_eq!(disk.files()[&path], before);
        }
    }
}

/// Of the entries that were written together any may be missing after a power cut, and none was answered.
#[test]
fn a_torn_write_of_several_entries_does_not_keep_the_node_out() {
    let (_, _, starts) = killed_log();
    for (hurt, start) in starts.iter().enumerate().skip(27) {
        let (disk, path, _) = killed_log();
        disk.flip_bit(&path, *start as u64 + 70, 2);
        let log = open_log(&place(&disk)).unwrap();
        assert_eq!(log.last().unwrap().index, hurt as u64 - 1);
    }
}
