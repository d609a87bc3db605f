//! Compaction as arithmetic: what to clean, which record of a key is the newest, what stays of a batch. No I/O, no clock.
//!
//! - [`choose`]: whether cleaning pays, up to where, and which segments become one
//! - [`offset_map`]: key to newest offset, in bounded memory
//! - [`transactions`]: which data was aborted, which markers have outlived theirs
//! - [`filter`]: one batch in; kept as it is, rewritten or dropped
//! - [`rate`]: how long to pause so that others get their share of the disk

pub mod choose;
pub mod filter;
pub mod offset_map;
pub mod rate;
pub mod transactions;
