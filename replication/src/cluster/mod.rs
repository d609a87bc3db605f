//! What the cluster knows about itself, as an immutable image, and every change of it, as a command. Pure: no files, no clock,
//! no chance; whatever a command needs of these it carries.
//!
//! - [`image`]: brokers, topics, settings; [`sorted_map`] makes copies of it cheap
//! - [`command`]: what may be proposed, what comes of it, why it may be refused
//! - [`mod@apply`]: image and command to image; the only place that changes one
//! - [`delta`]: what differs between two images
//! - [`placement`]: which brokers get a new partition
//! - [`settings`]: the one table of topic settings
//! - [`wire`]: all of it as the messages of `metadata.proto`

pub mod apply;
pub mod command;
pub mod delta;
pub mod image;
pub mod placement;
pub mod settings;
pub mod sorted_map;
pub mod wire;

pub use apply::apply;
pub use command::{Command, CommandError, Output};
pub use delta::ClusterDelta;
pub use image::{Broker, ClusterImage, Endpoint, Partition, Topic};

#[cfg(test)]
mod generate;
