//! One partition's log on one disk: synchronous, single writer, many readers. Must never know tokio, the network or clusters.

pub mod clock;
pub mod format_error;
pub mod fs;
pub mod index;
pub mod random;
