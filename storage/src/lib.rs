//! One partition's log on one disk: synchronous, single writer, many readers. Must never know tokio, the network or clusters.

pub mod clock;
pub mod format_error;
pub mod fs;
pub mod index;
<<<<<<< HEAD
pub mod leader_epochs;
pub mod manifest;
pub mod partition_metadata;
pub mod random;
mod text_lines;
=======
pub mod leader_epochs;
pub mod manifest;
pub mod partition_metadata;
mod text_lines;
>>>>>>> c8e6665 (storage: leader epochs, partition metadata and the log manifest as pure text files)
