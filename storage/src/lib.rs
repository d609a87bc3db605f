//! One partition's log on one disk: synchronous, single writer, many readers. Must never know tokio, the network or clusters.

pub mod clock;
pub mod compaction;
pub mod config;
pub mod data_dir;
pub mod error;
pub mod format_error;
pub mod fs;
pub mod group_commit;
pub mod index;
pub mod key_index;
pub mod leader_epochs;
pub mod log;
pub mod manifest;
pub mod partition_metadata;
pub mod producers;
pub mod random;
pub mod retention;
pub mod segment;
mod text_lines;
pub mod verify;

pub use config::{CompactionConfig, FlushPolicy, LogConfig};
pub use error::{AppendError, LogError, Poison};
pub use log::reader::{FoundByTime, LogReader};
pub use log::tail_cache::TailBudget;
pub use segment::ReadLimits;
