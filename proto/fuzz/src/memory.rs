//! An allocator that counts the live bytes of the current thread and aborts past a cap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static CAP: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The system's allocator, counted. To be made the global allocator of a test or a fuzz target.
pub struct Counting;

// SAFETY: every call is handed to the system's allocator as it came; counting touches thread-local cells without a
// destructor, which never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        give(layout.size());
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Old and new may both exist for a moment.
        take(new_size);
        give(layout.size());
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// Runs `work` and returns the most bytes that were live at once beyond those before it; past `cap` the process aborts.
pub fn capped(cap: usize, work: impl FnOnce()) -> usize {
    LIVE.set(0);
    PEAK.set(0);
    CAP.set(cap);
    work();
    CAP.set(usize::MAX);
    PEAK.get()
}

fn take(bytes: usize) {
    let live = LIVE.get().saturating_add(bytes);
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
    if live > CAP.get() {
        CAP.set(usize::MAX);
        eprintln!("an allocation of {bytes} bytes brings one input to {live} bytes");
        std::process::abort();
    }
}

fn give(bytes: usize) {
    LIVE.set(LIVE.get().saturating_sub(bytes));
}
