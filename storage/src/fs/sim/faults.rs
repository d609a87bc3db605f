//! Faults that a test asks the simulated disk for.

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::SyncPoint;

/// Calls a fault may strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultOn {
    /// Opening a file.
    Open,
    /// Reading or mapping.
    Read,
    /// Writing.
    Write,
    /// Syncing a file or directory.
    Sync,
    /// Cutting or extending.
    SetSize,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
}

/// What happens to the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It fails with an input/output error.
    Eio,
    /// It fails for want of space.
    NoSpace,
    /// It fails because too many files are open.
    NoDescriptor,
    /// It writes half and says so.
    Short,
    /// It panics, as what has a defect does.
    Panic,
    /// It does not return before the disk is healed. Only opening hangs.
    Hang,
}

/// One fault: the call, the file, and when.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The call to strike.
    pub on: FaultOn,
    /// Strikes only paths that end so; empty for any.
    pub path_ends: String,
    /// Lets this many calls pass first.
    pub after: u64,
    /// Strikes this often, then no more.
    pub times: u64,
    /// What happens.
    pub kind: FaultKind,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    wanted: Vec<Fault>,
    unreadable: Vec<(PathBuf, u64, u64)>,
    capacity_bytes: Option<u64>,
    taken: u64,
    failed_syncs: Vec<SyncPoint>,
    pub(super) refuses_through: bool,
}

impl super::SimDisk {
    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.add(fault);
    }

    /// Removes all faults. What hangs goes on.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.faults = Faults::default();
        state.heals += 1;
        self.healed.notify_all();
    }

    /// How often injected faults took effect.
    #[must_use]
    pub fn faults_taken(&self) -> u64 {
        self.state.lock().faults.taken()
    }

    /// Lets the disk hold no more than this.
    pub fn limit_capacity(&self, bytes: u64) {
        self.state.lock().faults.capacity_bytes = Some(bytes);
    }

    /// Makes reads that touch this range of a file fail.
    pub fn make_unreadable(&self, path: &Path, from: u64, to: u64) {
        self.state.lock().faults.unreadable.push((path.to_owned(), from, to));
    }
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.wanted.push(fault);
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn note_failed_sync(&mut self, point: SyncPoint) {
        self.failed_syncs.push(point);
    }

    pub(super) fn failed_syncs(&self) -> Vec<SyncPoint> {
        self.failed_syncs.clone()
    }

    pub(super) fn capacity_bytes(&self) -> Option<u64> {
        self.capacity_bytes
    }

    pub(super) fn check(&mut self, on: FaultOn, path: &Path) -> io::Result<()> {
        match self.strikes(on, path) {
            None | Some(FaultKind::Short | FaultKind::Hang) => Ok(()),
            Some(kind) => Err(error_of(kind)),
        }
    }

    /// Whether it hangs.
    pub(super) fn check_open(&mut self, path: &Path) -> io::Result<bool> {
        match self.strikes(FaultOn::Open, path) {
            None | Some(FaultKind::Short) => Ok(false),
            Some(FaultKind::Hang) => Ok(true),
            Some(kind) => Err(error_of(kind)),
        }
    }

    pub(super) fn check_read(&mut self, path: &Path, at: u64, bytes: u64) -> io::Result<()> {
        if self
            .unreadable
            .iter()
            .any(|(p, from, to)| p == path && at < *to && *from < at.saturating_add(bytes))
        {
            self.taken += 1;
            return Err(error_of(FaultKind::Eio));
        }
        self.check(FaultOn::Read, path)
    }

    /// How many of `bytes` may be written, of which `grows` extend the file of a disk that holds `used`.
    pub(super) fn check_write(
        &mut self,
        path: &Path,
        bytes: usize,
        grows: u64,
        used: u64,
    ) -> io::Result<usize> {
        match self.strikes(FaultOn::Write, path) {
            Some(FaultKind::Short) if bytes > 1 => return Ok(bytes / 2),
            None | Some(FaultKind::Short | FaultKind::Hang) => {}
            Some(kind) => return Err(error_of(kind)),
        }
        let Some(capacity) = self.capacity_bytes else { return Ok(bytes) };
        let lacking = (used + grows).saturating_sub(capacity);
        if lacking == 0 {
            return Ok(bytes);
        }
        self.taken += 1;
        // As real file systems do: what fits is written, and only the next call says that nothing does.
        let fits = bytes - usize::try_from(lacking.min(grows)).unwrap_or(bytes);
        if fits == 0 { Err(error_of(FaultKind::NoSpace)) } else { Ok(fits) }
    }

    fn strikes(&mut self, on: FaultOn, path: &Path) -> Option<FaultKind> {
        let name = path.to_string_lossy();
        for fault in &mut self.wanted {
            if fault.on != on || fault.times == 0 || !name.ends_with(&fault.path_ends) {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            fault.times -= 1;
            self.taken += 1;
            assert!(fault.kind != FaultKind::Panic, "a defect, on purpose");
            return Some(fault.kind);
        }
        None
    }
}

fn error_of(kind: FaultKind) -> io::Error {
    match kind {
        FaultKind::Eio => io::Error::from_raw_os_error(libc::EIO),
        FaultKind::NoSpace => io::ErrorKind::StorageFull.into(),
        FaultKind::NoDescriptor => io::Error::from_raw_os_error(libc::EMFILE),
        // Nobody hears of the last ones.
        FaultKind::Short | FaultKind::Panic | FaultKind::Hang => io::ErrorKind::Interrupted.into(),
    }
}
