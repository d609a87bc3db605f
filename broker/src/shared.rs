//! What all connections of one broker share.

use floodmark_storage::clock::Clock;

use crate::config::BrokerConfig;

/// The broker, as requests see it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: BrokerConfig,
    pub(crate) clock: Clock,
}
