//! How a broker ends: everybody learns of it at one moment, and nobody is asked twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Tells everybody who holds it that the broker stops.
#[derive(Debug, Clone, Default)]
pub(crate) struct Drain(Arc<State>);

#[derive(Debug, Default)]
struct State {
    has_begun: AtomicBool,
    begun: Arc<Notify>,
}

impl Drain {
    pub(crate) fn begin(&self) {
        self.0.has_begun.store(true, Ordering::SeqCst);
        self.0.begun.notify_waiters();
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.0.has_begun.load(Ordering::SeqCst)
    }

    /// Wakes its task when the broker stops. Ask [`Drain::has_begun`] after it has been made, or what began before is missed.
    pub(crate) fn notified(&self) -> OwnedNotified {
        Arc::clone(&self.0.begun).notified_owned()
    }

    /// Returns once the broker stops.
    pub(crate) async fn begun(&self) {
        let notified = self.notified();
        if !self.has_begun() {
            notified.await;
        }
    }
}
