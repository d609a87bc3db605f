//! What a power cut may leave of the bytes and names that were not synced: decided by a seed, without I/O.

use std::path::Path;

use super::{FileOp, NameOp, Node, State, Target, apply_name};
use crate::fs::parent;
use crate::random::SplitMix;

/// What a disk writes in one piece.
const SECTOR_BYTES: u64 = 512;

/// How much of the unsynced survives.
#[derive(Clone, Copy)]
enum Survives {
    Nothing,
    Everything,
    /// All operations before this one, none after: a disk that keeps order.
    Before(u64),
    /// Each operation, and each sector of a write, by chance: a disk that does not.
    ByChance,
}

pub(super) fn after_power_cut(state: &State, seed: u64) -> State {
    let mut chance = SplitMix::new(seed);
    let survives = match seed % 8 {
        0 => Survives::Nothing,
        1 => Survives::Everything,
        2 | 3 => Survives::Before(oldest_pending(state) + chance.below(1 + state.operations)),
        _ => Survives::ByChance,
    };
    let mut left = state.without_history();
    for inode in &mut left.inodes {
        for (at, op) in std::mem::take(&mut inode.pending) {
            match survives {
                Survives::Nothing => {}
                Survives::Everything => inode.apply(Target::Durable, &op),
                Survives::Before(limit) if at < limit => inode.apply(Target::Durable, &op),
                Survives::Before(_) => {}
                Survives::ByChance => {
                    for part in parts_that_survive(&op, &mut chance) {
                        inode.apply(Target::Durable, &part);
                    }
                }
            }
        }
        inode.live = inode.durable.clone();
        inode.failed_syncs = 0;
    }
    for (at, op) in std::mem::take(&mut left.pending_names) {
        let keep = match survives {
            Survives::Nothing => false,
            Survives::Everything => true,
            Survives::Before(limit) => at < limit,
            Survives::ByChance => chance.below(2) == 0,
        };
        if keep {
            apply_name(&mut left.durable_names, &op);
        }
    }
    drop_orphans(&mut left);
    left.names = left.durable_names.clone();
    left.operations = 0;
    left.skipped = None;
    left
}

fn oldest_pending(state: &State) -> u64 {
    let writes = state.inodes.iter().filter_map(|inode| inode.pending.first().map(|(at, _)| *at));
    let names = state.pending_names.first().map(|(at, _)| *at);
    writes.chain(names).min().unwrap_or(state.operations)
}

fn parts_that_survive(op: &FileOp, chance: &mut SplitMix) -> Vec<FileOp> {
    let FileOp::Write { at, bytes } = op else {
        return if chance.below(2) == 0 { vec![op.clone()] } else { Vec::new() };
    };
    match chance.below(10) {
        0..=3 => return vec![op.clone()],
        4..=5 => return Vec::new(),
        _ => {}
    }
    let mut kept = Vec::new();
    let mut from = 0;
    while from < bytes.len() {
        let in_sector = SECTOR_BYTES - (at + from as u64) % SECTOR_BYTES;
        let to = bytes.len().min(from + in_sector as usize);
        if chance.below(2) == 0 {
            kept.push(FileOp::Write { at: at + from as u64, bytes: bytes.slice(from..to) });
        }
        from = to;
    }
    kept
}

/// A name is gone where the directory that holds it is.
fn drop_orphans(state: &mut State) {
    let names = state.durable_names.clone();
    let stands = |path: &Path| {
        let up = parent(path);
        up == Path::new(".")
            || path.parent().is_none_or(|p| p.as_os_str().is_empty())
            || names.get(up) == Some(&Node::Dir)
    };
    for path in names.keys() {
        if !path.ancestors().filter(|p| !p.as_os_str().is_empty()).all(stands) {
            apply_name(&mut state.durable_names, &NameOp::Unbind(path.clone()));
        }
    }
}
