//! Whether clients can be served, for those who watch the process from outside.

use std::sync::OnceLock;

use floodmark_replication::quorum::QuorumHandle;

use crate::shutdown::Drain;

/// Goes from starting to serving to stopping.
#[derive(Debug)]
pub(crate) struct Readiness {
    /// There once logs are open.
    quorum: OnceLock<QuorumHandle>,
    drain: Drain,
}

impl Readiness {
    pub(crate) fn new(drain: Drain) -> Readiness {
        Readiness { quorum: OnceLock::new(), drain }
    }

    /// Logs are open, and connections are taken.
    pub(crate) fn serve(&self, quorum: QuorumHandle) {
        // A broker begins to serve once.
        let _ = self.quorum.set(quorum);
    }

    /// Why clients cannot be served; `None` where they can.
    pub(crate) fn unready(&self) -> Option<&'static str> {
        let Some(quorum) = self.quorum.get() else { return Some("logs are being opened") };
        if self.drain.has_begun() {
            return Some("the broker stops");
        }
        quorum.leader().is_none().then_some("nobody leads the metadata quorum")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_served_before_logs_are_open() {
        let drain = Drain::default();
        let readiness = Readiness::new(drain.clone());
        assert_eq!(readiness.unready(), Some("logs are being opened"));
        drain.begin();
        assert!(readiness.unready().is_some());
    }
}
