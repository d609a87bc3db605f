//! What other brokers see of this one from its first moment: who it is, whether it has a cluster, and, once it has, its part in the
//! quorum. There before the quorum is, because a cluster is formed by brokers that have none.

use std::sync::{Arc, Weak};

use floodmark_proto::ids::{BrokerId, ClusterId};
use floodmark_storage::data_dir::DirectoryId;
use parking_lot::Mutex;
use tonic::Status;
use tonic::service::RoutesBuilder;
use tonic::service::interceptor::InterceptedService;

use super::generated::forming_server::FormingServer;
use super::generated::quorum_server::QuorumServer;
use super::service::{FormingService, QuorumService};
use super::types::Membership;
use super::{MESSAGE_BYTES_MAX, QuorumHandle, QuorumOptions, Shared};
use crate::rpc::{Address, IdentityCheck, PeerIdentity};

/// Bytes of a message from a broker without a cluster.
const STRANGER_BYTES_MAX: usize = 16 << 10;

/// A broker's place among brokers; clones are the same place.
#[derive(Debug, Clone)]
pub struct Seat {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    broker: BrokerId,
    directory_id: DirectoryId,
    wanted: Option<ClusterId>,
    address: Option<Address>,
    check: IdentityCheck,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The cluster as this broker's disk had it when it started.
    formed: Option<(ClusterId, Membership)>,
    quorum: Weak<Shared>,
    waits_for: Option<String>,
}

impl Seat {
    /// The place of a broker that is about to start with `options`.
    #[must_use]
    pub fn new(options: &QuorumOptions) -> Seat {
        Seat {
            inner: Arc::new(Inner {
                broker: options.node_id,
                directory_id: options.directory_id,
                wanted: options.cluster_id,
                address: options.address.clone(),
                check: IdentityCheck::new(),
                state: Mutex::default(),
            }),
        }
    }

    /// Adds what other brokers ask of this one to what a listener serves.
    pub fn add_services(&self, routes: &mut RoutesBuilder) {
        let forming = FormingServer::new(FormingService { seat: self.clone() });
        let quorum = QuorumServer::new(QuorumService { seat: self.clone() })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        routes
            .add_service(forming.max_decoding_message_size(STRANGER_BYTES_MAX))
            .add_service(InterceptedService::new(quorum, self.identity_check()));
    }

    /// Lets calls pass that come from brokers of this cluster to this one, for every service among brokers.
    #[must_use]
    pub fn identity_check(&self) -> IdentityCheck {
        self.inner.check.clone()
    }

    /// What the broker waits for before it takes part in its cluster; `None` where it does.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        self.inner.state.lock().waits_for.clone()
    }

    pub(crate) fn wait_for(&self, what: Option<String>) {
        self.inner.state.lock().waits_for = what;
    }

    pub(crate) fn broker(&self) -> BrokerId {
        self.inner.broker
    }

    pub(crate) fn directory_id(&self) -> DirectoryId {
        self.inner.directory_id
    }

    pub(crate) fn wanted(&self) -> Option<ClusterId> {
        self.inner.wanted
    }

    pub(crate) fn address(&self) -> Option<&Address> {
        self.inner.address.as_ref()
    }

    /// From here on this broker belongs to a cluster.
    pub(crate) fn belong(&self, cluster_id: ClusterId, membership: Membership) {
        self.inner.check.be(PeerIdentity { cluster_id, broker: self.inner.broker });
        self.inner.state.lock().formed = Some((cluster_id, membership));
    }

    pub(crate) fn take_part(&self, quorum: &Arc<Shared>) {
        self.inner.state.lock().quorum = Arc::downgrade(quorum);
    }

    /// The cluster and its nodes as they are known here; `None` where there is none yet.
    pub(crate) fn cluster(&self) -> Option<(ClusterId, Membership)> {
        let (formed, quorum) = {
            let state = self.inner.state.lock();
            (state.formed.clone()?, state.quorum.upgrade())
        };
        let known = quorum.map(|quorum| quorum.membership());
        // A newcomer knows nobody before the first entries come.
        let known = known.filter(|membership| membership.nodes().next().is_some());
        Some((formed.0, known.unwrap_or(formed.1)))
    }

    /// The quorum, once this broker takes part in it.
    pub(crate) fn quorum(&self) -> Result<QuorumHandle, Status> {
        let shared = self.inner.state.lock().quorum.upgrade();
        let shared =
            shared.ok_or_else(|| Status::unavailable("this broker does not take part in the quorum now"))?;
        Ok(QuorumHandle { shared })
    }
}
