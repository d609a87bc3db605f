//! One member of a group as its coordinator sees it. Must know nothing of the rest of the group, of clocks or of sockets.

use std::sync::Arc;

use bytes::Bytes;

/// The coordinator's name for a member, unique for each process that joins.
pub type MemberId = Arc<str>;

/// Names a request that waits for its answer; given by whoever holds the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A way of assigning that a member can follow, and what it says about itself under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// The name, compared between members.
    pub name: Arc<str>,
    /// For the leader of the group; nobody else reads it.
    pub metadata: Bytes,
}

/// A member and what it waits for.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) instance_id: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// The join that waits for the rebalance to end.
    pub(super) join: Option<RequestId>,
    /// The sync that waits for the leader's assignment.
    pub(super) sync: Option<RequestId>,
    /// Has never had an answer with a generation in it, so it cannot send heartbeats.
    pub(super) is_new: bool,
    /// When the member counts as gone unless it is heard of. `None` while it waits for an answer of ours.
    pub(super) session_until: Option<i64>,
}

impl Member {
    pub(super) fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    /// The same protocols, in the same order of preference, with the same metadata.
    pub(super) fn matches(&self, protocols: &[Protocol]) -> bool {
        self.protocols == protocols
    }

    /// What the member says about itself under a protocol; nothing where it does not know it.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|p| &*p.name == protocol);
        found.map_or_else(Bytes::new, |p| p.metadata.clone())
    }

    /// Bytes that the member has brought.
    pub(super) fn size_bytes(&self) -> usize {
        let names = [&self.id, &self.client_id, &self.client_host].map(|name| name.len());
        let instance = self.instance_id.as_ref().map_or(0, |id| id.len());
        names.iter().sum::<usize>() + instance + protocols_size_bytes(&self.protocols) + self.assignment.len()
    }

    /// Waits for an answer of ours, so silence is no sign that it has gone. A new member may still wait too long.
    pub(super) fn is_excused(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }
}

pub(super) fn protocols_size_bytes(protocols: &[Protocol]) -> usize {
    protocols.iter().map(|p| p.name.len() + p.metadata.len()).sum()
}

/// The rest of the member's id is random; this part is for people who read it, and keeps ids within what the wire can carry.
const ID_PREFIX_BYTES_MAX: usize = 255;

/// The id of a process that joins for the first time.
pub(super) fn new_member_id(client_id: &str, instance_id: Option<&str>, fresh: uuid::Uuid) -> MemberId {
    let prefix = instance_id.unwrap_or(client_id);
    let prefix = &prefix[..prefix.floor_char_boundary(ID_PREFIX_BYTES_MAX)];
    format!("{prefix}-{fresh}").into()
}
