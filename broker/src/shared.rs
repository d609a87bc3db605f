//! What all connections of one broker share.

use floodmark_storage::clock::Clock;

use crate::admission::ByteBudget;
use crate::config::BrokerConfig;
use crate::kafka::dispatch::SERVED;
use crate::metrics::Metrics;
use crate::shutdown::Drain;

/// The broker, as requests see it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: BrokerConfig,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// Memory for requests.
    pub(crate) request_bytes: ByteBudget,
    /// Begins when the broker stops.
    pub(crate) drain: Drain,
}

impl Shared {
    pub(crate) fn new(config: BrokerConfig, clock: Clock) -> Shared {
        Shared {
            request_bytes: ByteBudget::new(config.queued_request_bytes_max.as_usize()),
            metrics: Metrics::new(SERVED.iter().map(|api| api.key.name())),
            drain: Drain::default(),
            clock,
            config,
        }
    }

    /// Why clients cannot be served now; `None` where they can.
    pub(crate) fn unready(&self) -> Option<&'static str> {
        self.drain.has_begun().then_some("the broker stops")
    }
}
