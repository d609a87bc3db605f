//! Which nodes of the quorum answer, told once each time it changes: a node that is down is asked many times a second.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::types::NodeId;

/// Silence that is worth a word; less is a node that is busy.
const SILENT_FOR: Duration = Duration::from_secs(1);

/// What is known of the nodes that this one calls.
#[derive(Debug, Default)]
pub(crate) struct Reach(Mutex<BTreeMap<NodeId, Silent>>);

/// A node whose last answer is a call ago.
#[derive(Debug, Clone, Copy)]
struct Silent {
    since: Instant,
    is_told: bool,
}

impl Reach {
    /// A call has failed. Says true where that is to be told.
    pub(crate) fn failed(&self, node: NodeId, now: Instant) -> bool {
        let mut silent = self.0.lock();
        let silent = silent.entry(node).or_insert(Silent { since: now, is_told: false });
        let tells = !silent.is_told && now.duration_since(silent.since) >= SILENT_FOR;
        silent.is_told |= tells;
        tells
    }

    /// A node has answered. Says for how long it had not, where its silence was told.
    pub(crate) fn answered(&self, node: NodeId, now: Instant) -> Option<Duration> {
        let silent = self.0.lock().remove(&node)?;
        silent.is_told.then(|| now.duration_since(silent.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_its_end_are_told_once() {
        let reach = Reach::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        // One call that fails is no news, and neither is the answer behind it.
        assert!(!reach.failed(2, at(0)));
        assert_eq!(reach.answered(2, at(500)), None);
        let told: Vec<u64> = (1..50).map(|n| n * 100).filter(|ms| reach.failed(2, at(*ms))).collect();
        assert_eq!(told, [1100]);
        assert!(!reach.failed(3, at(4900)));
        assert_eq!(reach.answered(2, at(5100)), Some(Duration::from_secs(5)));
        assert_eq!(reach.answered(2, at(5200)), None);
    }
}
