//! Counts what Rust code allocates and aborts past 32 MiB for one input, which the fuzzer then reports as a crash.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

/// Enough for any input of 1 MiB, the largest the fuzzer makes.
const LIMIT_BYTES: isize = 32 << 20;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
static LIVE: AtomicIsize = AtomicIsize::new(0);
static LIVE_BEFORE_INPUT: AtomicIsize = AtomicIsize::new(isize::MAX);

/// Runs one input under the limit.
pub(crate) fn within(body: impl FnOnce()) {
    LIVE_BEFORE_INPUT.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
    body();
    LIVE_BEFORE_INPUT.store(isize::MAX, Ordering::Relaxed);
}

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes as isize, Ordering::Relaxed).saturating_add(bytes as isize);
    let before = LIVE_BEFORE_INPUT.load(Ordering::Relaxed);
    if before != isize::MAX && live.saturating_sub(before) > LIMIT_BYTES {
        LIVE_BEFORE_INPUT.store(isize::MAX, Ordering::Relaxed);
        eprintln!(
            "input takes more than {LIMIT_BYTES} bytes of memory; the last allocation was {bytes} bytes"
        );
        std::process::abort();
    }
}

fn shrink(bytes: usize) {
    LIVE.fetch_sub(bytes as isize, Ordering::Relaxed);
}

// SAFETY: every call goes on to the system's allocator unchanged; counting touches atomics only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrink(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        grow(new_size);
        shrink(layout.size());
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
