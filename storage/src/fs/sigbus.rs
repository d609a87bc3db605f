//! Keeps the process alive when a mapped page cannot be read: the page becomes zeros and the map is marked damaged.
//! Must know nothing of what is mapped.
#![allow(unsafe_code, reason = "a signal handler; each block says why it is sound")]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Maps that may be guarded at one time. More than a process may map by default (65,530); where all are taken, callers read
/// by `pread` instead.
const SLOTS: usize = 65_536;

struct Slot {
    start: AtomicUsize,
    len: AtomicUsize,
    damaged: AtomicBool,
}

/// Read by the signal handler, so only atomics; untouched slots cost no memory.
static MAPS: [Slot; SLOTS] = [const {
    Slot { start: AtomicUsize::new(0), len: AtomicUsize::new(0), damaged: AtomicBool::new(false) }
}; SLOTS];
/// Slots below this were used at some time.
static USED: AtomicUsize = AtomicUsize::new(0);
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A watched address range.
#[derive(Debug)]
pub(super) struct Guarded {
    slot: usize,
    released: bool,
}

/// Watches `len` bytes from `start`. Fails where all slots are taken.
pub(super) fn guard(start: usize, len: usize) -> io::Result<Guarded> {
    install_handler()?;
    let mut free = FREE.lock();
    let slot = match free.pop() {
        Some(slot) => slot,
        None => {
            let next = USED.load(Ordering::Relaxed);
            if next == SLOTS {
                return Err(io::Error::other("too many memory maps at one time"));
            }
            USED.store(next + 1, Ordering::Release);
            next
        }
    };
    drop(free);
    MAPS[slot].damaged.store(false, Ordering::Relaxed);
    MAPS[slot].len.store(len, Ordering::Relaxed);
    // The handler looks at `start` first: the slot counts from here.
    MAPS[slot].start.store(start, Ordering::Release);
    Ok(Guarded { slot, released: false })
}

impl Guarded {
    /// True once a page of the range was replaced by zeros.
    pub(super) fn is_damaged(&self) -> bool {
        MAPS[self.slot].damaged.load(Ordering::Acquire)
    }

    /// Stops watching; before the range is unmapped.
    pub(super) fn release(&mut self) {
        if !self.released {
            self.released = true;
            MAPS[self.slot].start.store(0, Ordering::Release);
            FREE.lock().push(self.slot);
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.release();
    }
}

fn install_handler() -> io::Result<()> {
    static INSTALL: Mutex<()> = Mutex::new(());
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    let _one_at_a_time = INSTALL.lock();
    if PREVIOUS.get().is_some() {
        return Ok(());
    }
    PAGE_BYTES.store(rustix::param::page_size(), Ordering::Relaxed);
    let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: both structures are of the type the call wants; all-zero is a valid `sigaction`; `on_sigbus` has the signature
    // that SA_SIGINFO asks for and calls only what a signal handler may.
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const action, previous.as_mut_ptr())
    };
    if installed != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled the structure.
    let _ = PREVIOUS.set(unsafe { previous.assume_init() });
    Ok(())
}

/// Atomics, `mmap`, `sigaction` and nothing else: no lock, no allocation.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler.
    let address = unsafe { (*info).si_addr() } as usize;
    let used = USED.load(Ordering::Acquire).min(SLOTS);
    for slot in &MAPS[..used] {
        let start = slot.start.load(Ordering::Acquire);
        let len = slot.len.load(Ordering::Relaxed);
        if start != 0 && address >= start && address - start < len {
            let page = PAGE_BYTES.load(Ordering::Relaxed);
            let page_start = address & !(page - 1);
            slot.damaged.store(true, Ordering::Release);
            // SAFETY: the page lies in a live read-only map of ours (the slot is cleared before unmapping, and the thread
            // that faulted holds a reference to the map), so replacing it by a zero page changes no other memory.
            let mapped = unsafe {
                libc::mmap(
                    page_start as *mut libc::c_void,
                    page,
                    libc::PROT_READ,
                    libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            if mapped != libc::MAP_FAILED {
                return;
            }
        }
    }
    // Not ours: what was there before us decides, and the access that faulted is made again.
    let default: libc::sigaction;
    let previous: *const libc::sigaction = match PREVIOUS.get() {
        Some(previous) => previous,
        None => {
            // SAFETY: all-zero is a valid `sigaction`: default action, empty mask.
            default = unsafe { std::mem::zeroed() };
            &raw const default
        }
    };
    // SAFETY: `previous` points to a valid structure.
    unsafe {
        libc::sigaction(signal, previous, ptr::null_mut());
    }
}
