//! The patterns of messaging, each a few lines for whoever uses it. `client/examples` has a program for each.
//!
//! - work queue, fan-out: groups alone ([`crate::ConsumerConfig::group`]); one group shares work, each group gets everything
//! - publish-subscribe: consumers without a group ([`crate::ConsumerConfig::assigned`]), each of which gets what is published while it listens
//! - filter, translator, content-based router: [`Pipe`]
//! - request-reply, scatter-gather: [`Requester`], [`reply_to`]
//! - retry with delay, dead letters: [`RetryQueue`]
//! - aggregator by key and window: [`Windows`]
//! - putting in order again: [`Sequencer`]

mod pipe;
mod request;
mod retry;
mod sequencer;
mod windows;

pub use pipe::Pipe;
pub use request::{Requester, reply_to};
pub use retry::{ATTEMPTS_HEADER, Attempt, CAUSE_HEADER, DUE_HEADER, ORIGIN_HEADER, RetryConfig, RetryQueue};
pub use sequencer::{OutOfSequence, Sequencer};
pub use windows::{Closed, NotCounted, Windows};

use crate::consumer::Consumer;
use crate::error::{Error, Result};
use crate::record::Record;

/// The next record. A partition that its leader cannot read is tried on by the consumer, and does not end what goes on with the others. Dropped
/// before it is ready, it loses nothing.
async fn next_readable(consumer: &mut Consumer) -> Result<Record> {
    loop {
        match consumer.recv().await {
            Err(error @ Error::Unreadable { .. }) => tracing::warn!(%error, "it is tried on"),
            received => return received,
        }
    }
}
