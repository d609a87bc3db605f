//! What the fuzz targets share: their bodies, and an allocator that ends the process when one input takes too much memory.
//!
//! From `proto/`, with cargo-fuzz and a nightly toolchain (the seeds are read, new finds go to the corpus):
//! `cargo +nightly fuzz run records fuzz/corpus/records fuzz/seeds/records -- -max_len=1048576 -max_total_time=600`

pub mod bodies;
pub mod kafka;
pub mod memory;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Runs one body on one input under the cap of [`bodies::MEMORY_MAX`].
pub fn run(body: bodies::Body, input: &[u8]) {
    memory::capped(bodies::MEMORY_MAX, || body(input));
}
