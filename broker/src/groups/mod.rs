//! Consumer groups: who reads what, and how far they have read. Must never know the wire format of requests.
//!
//! - [`group`]: the machine of one group, pure; [`join`], [`sync`], [`leave`] and [`rebalance`] hold its inputs, [`member`] one
//!   member, [`snapshot`] what is kept of it.

pub mod error;
pub mod group;
pub mod join;
pub mod leave;
pub mod member;
mod rebalance;
pub mod settings;
pub mod snapshot;
pub mod sync;

pub use error::GroupError;

#[cfg(test)]
mod tests;
