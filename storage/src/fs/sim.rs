//! A disk in memory that keeps what was synced and holds back the rest, so that a test can cut its power at any moment and
//! see every state a real disk might be left in. Also fails on demand: errors, short writes, no space, unreadable ranges, calls that hang. What of its files
//! is in memory is a matter of chance.

mod at_hand;
mod crash;
mod faults;
mod through;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{DirEntry, Disk, DiskFile, DiskLock, FileMap, LockHeld, OpenMode, SyncPoint, parent};
use at_hand::AtHand;
pub use faults::{Fault, FaultKind, FaultOn};

/// A simulated disk; clones share it, as processes share a disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    healed: Arc<Condvar>,
}

/// Everything on a disk at one moment, durable and not. Cheap to take: contents are shared until written.
#[derive(Debug, Clone)]
pub struct DiskImage {
    state: State,
}

#[derive(Debug, Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    pending_names: Vec<(u64, NameOp)>,
    locked: BTreeSet<PathBuf>,
    /// Counts the calls that change something; a crash image is named by it.
    operations: u64,
    recording: bool,
    images: Vec<DiskImage>,
    skipped: Option<SyncPoint>,
    syncs_skipped: u64,
    faults: faults::Faults,
    /// How often all faults were removed.
    heals: u64,
    maps: Vec<LiveMap>,
    violations: Vec<String>,
    bytes_read: u64,
    at_hand: AtHand,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    durable: Arc<Vec<u8>>,
    live: Arc<Vec<u8>>,
    pending: Vec<(u64, FileOp)>,
    /// After a failed sync the system takes for written what it could not write: later syncs do not try it again.
    failed_syncs: u64,
}

#[derive(Debug, Clone)]
enum FileOp {
    Write { at: u64, bytes: Bytes },
    SetSize(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

#[derive(Debug, Clone)]
enum NameOp {
    Bind(PathBuf, Node),
    Unbind(PathBuf),
    Rename { from: PathBuf, to: PathBuf, node: Node },
}

#[derive(Debug, Clone)]
struct LiveMap {
    inode: usize,
    bytes: u64,
    alive: Weak<Vec<u8>>,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// Keeps an image after every call that changes something, from now on; [`SimDisk::take_images`] hands them out.
    pub fn record_images(&self) {
        self.state.lock().recording = true;
    }

    /// The images kept so far, oldest first, each with the number of its operation.
    #[must_use]
    pub fn take_images(&self) -> Vec<DiskImage> {
        std::mem::take(&mut self.state.lock().images)
    }

    /// The disk as it is now.
    #[must_use]
    pub fn image(&self) -> DiskImage {
        DiskImage { state: self.state.lock().without_history() }
    }

    /// Calls that changed something so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Maps that somebody holds.
    #[must_use]
    pub fn live_maps(&self) -> usize {
        let state = self.state.lock();
        state.maps.iter().filter(|map| map.alive.strong_count() > 0).count()
    }

    /// Bytes read so far, maps included: what recovery costs.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.state.lock().bytes_read
    }

    /// From now on all of every file is in memory. Otherwise a third of the reads that may not wait find nothing there, and a third a part.
    pub fn keep_all_at_hand(&self) {
        self.state.lock().at_hand.all = true;
    }

    /// Makes every sync of this name do nothing while it reports success.
    pub fn skip_sync(&self, point: SyncPoint) {
        self.state.lock().skipped = Some(point);
    }

    /// How often the skipped sync was asked for.
    #[must_use]
    pub fn syncs_skipped(&self) -> u64 {
        self.state.lock().syncs_skipped
    }

    /// The syncs that injected faults made fail, in their order.
    #[must_use]
    pub fn failed_syncs(&self) -> Vec<SyncPoint> {
        self.state.lock().faults.failed_syncs()
    }

    /// Rules of use that were broken: a map over bytes that were not synced, a mapped file changed in place.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }

    /// Every file with its live content, for comparing two disks byte for byte.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state.lock();
        let file = |(path, node): (&PathBuf, &Node)| match node {
            Node::Dir => None,
            Node::File(inode) => Some((path.clone(), state.inodes[*inode].live.to_vec())),
        };
        state.names.iter().filter_map(file).collect()
    }

    /// Flips one bit of a file, live and durable, as a decaying medium would.
    ///
    /// # Panics
    /// Where there is no such file or byte: a test that damages nothing tests nothing.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) {
        let mut state = self.state.lock();
        let Some(Node::File(inode)) = state.names.get(path).copied() else {
            panic!("no file {} to damage", path.display());
        };
        for copy in [Target::Live, Target::Durable] {
            let content = state.inodes[inode].content(copy);
            if let Some(byte) = content.get_mut(byte as usize) {
                *byte ^= 1 << bit;
            }
        }
    }
}

impl DiskImage {
    /// Number of the operation after which the image was taken.
    #[must_use]
    pub fn operation(&self) -> u64 {
        self.state.operations
    }

    /// The disk as the next process finds it where the one before was killed: all that was written is there, and what was
    /// not synced still is not.
    #[must_use]
    pub fn killed(&self) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(self.state.without_history())), healed: Arc::default() }
    }

    /// The disk as a power cut at this moment may leave it. Seeds differ in what of the unsynced survives: nothing, all, a
    /// prefix in time, or any part of it torn at sectors and out of order.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> SimDisk {
        let left = crash::after_power_cut(&self.state, seed);
        SimDisk { state: Arc::new(Mutex::new(left)), healed: Arc::default() }
    }
}

#[derive(Clone, Copy)]
enum Target {
    Live,
    Durable,
}

impl Inode {
    fn content(&mut self, which: Target) -> &mut Vec<u8> {
        match which {
            Target::Live => Arc::make_mut(&mut self.live),
            Target::Durable => Arc::make_mut(&mut self.durable),
        }
    }

    fn apply(&mut self, which: Target, op: &FileOp) {
        let content = self.content(which);
        match op {
            FileOp::SetSize(bytes) => content.resize(*bytes as usize, 0),
            FileOp::Write { at, bytes } => {
                let end = *at as usize + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at as usize..end].copy_from_slice(bytes);
            }
        }
    }
}

impl State {
    fn without_history(&self) -> State {
        State {
            images: Vec::new(),
            recording: false,
            maps: Vec::new(),
            inodes: self.inodes.clone(),
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            pending_names: self.pending_names.clone(),
            locked: BTreeSet::new(),
            operations: self.operations,
            skipped: self.skipped,
            syncs_skipped: 0,
            faults: faults::Faults::default(),
            heals: 0,
            violations: Vec::new(),
            bytes_read: 0,
            at_hand: AtHand::default(),
        }
    }

    fn changed(&mut self) {
        self.operations += 1;
        if self.recording {
            let image = DiskImage { state: self.without_history() };
            self.images.push(image);
        }
    }

    fn write(&mut self, inode: usize, op: FileOp) {
        self.check_maps(inode, &op);
        self.inodes[inode].apply(Target::Live, &op);
        let at = self.operations;
        self.inodes[inode].pending.push((at, op));
        self.changed();
    }

    fn check_maps(&mut self, inode: usize, op: &FileOp) {
        self.maps.retain(|m| m.alive.strong_count() > 0);
        let first_changed = match op {
            FileOp::Write { at, .. } => *at,
            FileOp::SetSize(bytes) => *bytes,
        };
        if let Some(map) = self.maps.iter().find(|m| m.inode == inode && first_changed < m.bytes) {
            self.violations.push(format!("{op:?} changes a file of which {} bytes are mapped", map.bytes));
        }
    }

    fn name(&mut self, op: NameOp) {
        apply_name(&mut self.names, &op);
        let at = self.operations;
        self.pending_names.push((at, op));
        self.changed();
    }

    fn skips(&mut self, point: SyncPoint) -> bool {
        let skip = self.skipped == Some(point);
        self.syncs_skipped += u64::from(skip);
        skip
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn live_bytes(&self) -> u64 {
        let bytes = |node: &Node| match node {
            Node::Dir => 0,
            Node::File(inode) => self.inodes[*inode].live.len() as u64,
        };
        self.names.values().map(bytes).sum()
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, Node>, op: &NameOp) {
    match op {
        NameOp::Bind(path, node) => {
            names.insert(path.clone(), *node);
        }
        NameOp::Unbind(path) => {
            names.remove(path);
        }
        NameOp::Rename { from, to, node } => {
            if names.get(from) == Some(node) {
                names.remove(from);
            }
            names.insert(to.clone(), *node);
            if *node == Node::Dir {
                let inside: Vec<PathBuf> = names.keys().filter(|p| p.starts_with(from)).cloned().collect();
                for path in inside {
                    if let (Some(node), Ok(under)) = (names.remove(&path), path.strip_prefix(from)) {
                        names.insert(to.join(under), node);
                    }
                }
            }
        }
    }
}

fn dir_of(op: &NameOp) -> &Path {
    match op {
        NameOp::Bind(path, _) | NameOp::Unbind(path) | NameOp::Rename { to: path, .. } => parent(path),
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        if state.faults.check_open(path)? {
            let heals = state.heals;
            self.healed.wait_while(&mut state, |state| state.heals == heals);
        }
        let known = state.names.get(path).copied();
        let inode = match (known, mode) {
            (Some(Node::Dir), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(inode)), OpenMode::Create) => {
                state.write(inode, FileOp::SetSize(0));
                inode
            }
            (Some(Node::File(inode)), _) => inode,
            (None, OpenMode::Create) => {
                if state.names.get(parent(path)) != Some(&Node::Dir) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let inode = state.inodes.len();
                state.inodes.push(Inode::default());
                state.name(NameOp::Bind(path.to_owned(), Node::File(inode)));
                inode
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        let told = AtomicU64::new(state.inodes[inode].failed_syncs);
        let file = SimFile { disk: self.clone(), inode, path: path.to_owned(), told };
        match mode {
            OpenMode::Through(point) => through::open(file, point, &state),
            _ => Ok(Arc::new(file)),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut missing: Vec<&Path> =
            path.ancestors().filter(|p| !p.as_os_str().is_empty() && !state.names.contains_key(*p)).collect();
        while let Some(dir) = missing.pop() {
            state.name(NameOp::Bind(dir.to_owned(), Node::Dir));
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        if state.node(dir)? != Node::Dir {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let entry = |(path, node): (&PathBuf, &Node)| {
            let name = path.file_name()?.to_str()?.to_owned();
            let bytes = match node {
                Node::Dir => 0,
                Node::File(inode) => state.inodes[*inode].live.len() as u64,
            };
            // Time stands still on this disk.
            let entry = DirEntry { name, is_dir: *node == Node::Dir, bytes, modified_ms: 0 };
            (path.parent() == Some(dir)).then_some(entry)
        };
        Ok(state.names.iter().filter_map(entry).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.check(FaultOn::Rename, from)?;
        let node = state.node(from)?;
        state.name(NameOp::Rename { from: from.to_owned(), to: to.to_owned(), node });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.check(FaultOn::Remove, path)?;
        match state.node(path)? {
            Node::Dir => Err(io::ErrorKind::IsADirectory.into()),
            Node::File(_) => {
                state.name(NameOp::Unbind(path.to_owned()));
                Ok(())
            }
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.node(path)?;
        if state.names.keys().any(|p| p.parent() == Some(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.name(NameOp::Unbind(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path, point: SyncPoint) -> io::Result<()> {
        let mut state = self.state.lock();
        state.faults.check(FaultOn::Sync, dir)?;
        if !state.skips(point) {
            let (now, later): (Vec<_>, Vec<_>) =
                std::mem::take(&mut state.pending_names).into_iter().partition(|(_, op)| dir_of(op) == dir);
            for (_, op) in &now {
                apply_name(&mut state.durable_names, op);
            }
            state.pending_names = later;
        }
        state.changed();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        let mut state = self.state.lock();
        if !state.names.contains_key(path) {
            let inode = state.inodes.len();
            state.inodes.push(Inode::default());
            state.name(NameOp::Bind(path.to_owned(), Node::File(inode)));
        }
        if !state.locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(DiskLock(Box::new(SimLock { disk: self.clone(), path: path.to_owned() })))
    }

    fn available_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(state.faults.capacity_bytes().map_or(u64::MAX, |all| all.saturating_sub(state.live_bytes())))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl LockHeld for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state.lock().locked.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
    path: PathBuf,
    /// How many failed syncs of the file this handle has heard of: each handle hears of one once, whoever asked for it.
    told: AtomicU64,
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().inodes[self.inode].live.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.faults.check_read(&self.path, at, into.len() as u64)?;
        let live = state.inodes[self.inode].live.clone();
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(live.len());
        let n = into.len().min(live.len() - from);
        into[..n].copy_from_slice(&live[from..from + n]);
        state.bytes_read += n as u64;
        Ok(n)
    }

    fn read_at_hand(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let found = self.disk.state.lock().at_hand.of(into.len());
        match found {
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(bytes) => self.read_at(&mut into[..bytes], at),
        }
    }

    fn write_at(&self, from: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        let mut bytes: Vec<u8> = from.iter().flat_map(|slice| slice.iter().copied()).collect();
        let grows = (at + bytes.len() as u64).saturating_sub(state.inodes[self.inode].live.len() as u64);
        let used = state.live_bytes();
        let fits = state.faults.check_write(&self.path, bytes.len(), grows, used)?;
        bytes.truncate(fits);
        state.write(self.inode, FileOp::Write { at, bytes: Bytes::from(bytes) });
        Ok(fits)
    }

    fn let_go(&self, range: Range<u64>) {
        self.disk.state.lock().at_hand.let_go.push((self.path.clone(), range));
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.faults.check(FaultOn::SetSize, &self.path)?;
        state.write(self.inode, FileOp::SetSize(bytes));
        Ok(())
    }

    fn sync(&self, point: SyncPoint) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        if let Err(e) = state.faults.check(FaultOn::Sync, &self.path) {
            state.faults.note_failed_sync(point);
            let inode = &mut state.inodes[self.inode];
            inode.pending.clear();
            inode.failed_syncs += 1;
            self.told.store(inode.failed_syncs, Ordering::Relaxed);
            return Err(e);
        }
        let failed = state.inodes[self.inode].failed_syncs;
        if self.told.swap(failed, Ordering::Relaxed) < failed {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if !state.skips(point) {
            let inode = &mut state.inodes[self.inode];
            let pending = std::mem::take(&mut inode.pending);
            if failed == 0 {
                inode.durable = inode.live.clone();
            } else {
                pending.iter().for_each(|(_, op)| inode.apply(Target::Durable, op));
            }
        }
        state.changed();
        Ok(())
    }

    fn map(&self, bytes: u64) -> io::Result<FileMap> {
        let mut state = self.disk.state.lock();
        state.faults.check_read(&self.path, 0, bytes)?;
        let inode = &state.inodes[self.inode];
        let unsynced = inode.pending.iter().any(|(_, op)| match op {
            FileOp::Write { at, .. } => *at < bytes,
            FileOp::SetSize(size) => *size < bytes,
        });
        if unsynced && state.skipped.is_none() {
            state.violations.push(format!("{} is mapped with unsynced bytes", self.path.display()));
        }
        let inode = &state.inodes[self.inode];
        let copy = Arc::new(inode.live[..(bytes as usize).min(inode.live.len())].to_vec());
        state.maps.push(LiveMap { inode: self.inode, bytes, alive: Arc::downgrade(&copy) });
        state.bytes_read += bytes;
        Ok(FileMap::of_copy(Bytes::from_owner(SharedCopy(copy))))
    }
}

struct SharedCopy(Arc<Vec<u8>>);

impl AsRef<[u8]> for SharedCopy {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
