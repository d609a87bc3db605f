//! All that a door may ask of the broker: domain types in and out, one error for all. Must never know wire types.
//!
//! - [`produce`], [`fetch`], [`subscribe`]: the data path; [`intake`] judges what producers send, [`visible`] what consumers see of it
//! - [`events`]: streams: appended under a condition, read by key; [`expectations`]: the same asked by record headers
//! - [`offsets`], [`records`]: where things are in a partition, and what is removed from its front
//! - [`topics`], [`configs`]: what is made of the cluster's metadata
//! - [`leaders`], [`nearest`]: who is to be asked instead
//! - [`cluster`]: how the cluster is, who belongs to it, where its partitions go
//! - [`groups`]: where groups are coordinated, and what becomes of their offsets with the cluster
//! - [`producer_ids`]: who is who among idempotent producers
//! - [`turns`]: who of a core goes first; [`lookout`]: a short wait that is sat out awake; [`luck`]: whether either is worth it lately
//! - [`error`]: why something was refused; [`deadline`]: until when something is waited for

pub(crate) mod cluster;
pub(crate) mod configs;
pub(crate) mod deadline;
pub(crate) mod error;
pub(crate) mod events;
mod expectations;
pub(crate) mod fetch;
pub(crate) mod groups;
pub(crate) mod intake;
pub(crate) mod leaders;
mod lookout;
mod luck;
pub(crate) mod nearest;
pub(crate) mod offsets;
pub(crate) mod produce;
pub(crate) mod producer_ids;
pub(crate) mod records;
pub(crate) mod subscribe;
pub(crate) mod topics;
mod turns;
pub(crate) mod visible;
