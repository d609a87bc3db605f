//! For tests: ways between brokers of one cluster that are cut, each direction by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use floodmark_proto::ids::{BrokerId, ClusterId};
use parking_lot::Mutex;

static GATES: LazyLock<Mutex<BTreeMap<[u8; 16], Gate>>> = LazyLock::new(Mutex::default);

/// The ways of one cluster; all its brokers in this process share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate {
    cut: Arc<Mutex<BTreeSet<(BrokerId, BrokerId)>>>,
    deaths: Arc<Mutex<BTreeMap<BrokerId, u64>>>,
}

impl Gate {
    pub(crate) fn of(cluster: ClusterId) -> Gate {
        GATES.lock().entry(cluster.to_bytes()).or_default().clone()
    }

    pub(crate) fn is_cut(&self, from: BrokerId, to: BrokerId) -> bool {
        self.cut.lock().contains(&(from, to))
    }

    /// Nothing gets from one to the other; the other way stays open.
    pub(crate) fn cut(&self, from: i32, to: i32) {
        self.cut.lock().insert((BrokerId(from), BrokerId(to)));
    }

    /// Nothing gets to or from one of these.
    pub(crate) fn isolate(&self, broker: i32, others: impl IntoIterator<Item = i32>) {
        for other in others {
            self.cut(broker, other);
            self.cut(other, broker);
        }
    }

    /// Nothing that it has said and that is still on its way is heard.
    pub(crate) fn died(&self, broker: i32) {
        *self.deaths.lock().entry(BrokerId(broker)).or_default() += 1;
    }

    pub(crate) fn deaths(&self, broker: BrokerId) -> u64 {
        self.deaths.lock().get(&broker).copied().unwrap_or_default()
    }

    /// Everything gets to and from this one again.
    pub(crate) fn rejoin(&self, broker: i32) {
        self.cut.lock().retain(|(from, to)| from.0 != broker && to.0 != broker);
    }

    pub(crate) fn heal(&self) {
        self.cut.lock().clear();
    }
}
