//! What every call between brokers says of both ends: a broker that took over another's address, or belongs to another cluster, is told
//! so before anything is done for it.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use floodmark_proto::ids::{BrokerId, ClusterId};
use parking_lot::Mutex;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The version of all calls between brokers; rises where an older program would misunderstand.
pub const PROTOCOL: u32 = if cfg!(feature = "other-protocol") { 2 } else { 1 };

pub(crate) const CLUSTER: &str = "fm-cluster";
pub(crate) const FROM: &str = "fm-from";
pub(crate) const TO: &str = "fm-to";
pub(crate) const VERSION: &str = "fm-protocol";

/// Callers and reasons that are remembered as told. Beyond them nothing more is logged.
const TOLD_MAX: usize = 1024;

/// Who a broker is, to other brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The broker.
    pub broker: BrokerId,
}

/// Lets calls pass that come from a broker of this cluster and are meant for this broker. Clones share what was logged.
#[derive(Debug, Clone, Default)]
pub struct IdentityCheck {
    own: Arc<OnceLock<PeerIdentity>>,
    told: Arc<Mutex<Told>>,
}

/// Which callers were refused for what.
type Told = BTreeSet<(Option<i32>, Refusal)>;

/// Who made a call that passed the check.
#[derive(Debug, Clone, Copy)]
struct Caller(BrokerId);

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Refusal {
    Unmarked,
    Protocol,
    NoCluster,
    OtherCluster,
    OtherTarget,
}

impl IdentityCheck {
    /// A check that refuses everything until [`IdentityCheck::be`] says who this is.
    #[must_use]
    pub fn new() -> IdentityCheck {
        IdentityCheck::default()
    }

    /// From here on this broker is somebody. What was said first holds.
    pub fn be(&self, own: PeerIdentity) {
        // A process is one broker of one cluster.
        let _ = self.own.set(own);
    }

    /// Who makes the call with this metadata, where it may.
    pub fn check(&self, metadata: &MetadataMap) -> Result<BrokerId, Status> {
        let from = number(metadata, FROM).and_then(|n| i32::try_from(n).ok());
        self.judge(metadata, from).map_err(|(refusal, status)| {
            let mut told = self.told.lock();
            if told.len() < TOLD_MAX && told.insert((from, refusal)) {
                let reason = status.message();
                match refusal {
                    // As it goes while a cluster forms and while a broker joins: who called asks again.
                    Refusal::NoCluster => tracing::debug!(from, reason, "a call between brokers was refused"),
                    _ => tracing::warn!(from, reason, "a call between brokers was refused"),
                }
            }
            status
        })
    }

    fn judge(&self, metadata: &MetadataMap, from: Option<i32>) -> Result<BrokerId, (Refusal, Status)> {
        check_protocol(metadata).map_err(|status| (Refusal::Protocol, status))?;
        let (Some(from), Some(to)) = (from, number(metadata, TO)) else {
            let status = Status::invalid_argument("the call does not say which brokers it is between");
            return Err((Refusal::Unmarked, status));
        };
        let Some(own) = self.own.get() else {
            let status = Status::unavailable("this broker is no member of a cluster yet");
            return Err((Refusal::NoCluster, status));
        };
        let cluster = metadata.get(CLUSTER).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if cluster.parse() != Ok(own.cluster_id) {
            let text = format!(
                "this is cluster {}, not {}: a broker of another cluster is called by mistake",
                own.cluster_id,
                shown(cluster)
            );
            return Err((Refusal::OtherCluster, Status::failed_precondition(text)));
        }
        if to != i64::from(own.broker.0) {
            let text = format!("this is broker {}, not {to}: the address has changed hands", own.broker);
            return Err((Refusal::OtherTarget, Status::failed_precondition(text)));
        }
        Ok(BrokerId(from))
    }
}

impl Interceptor for IdentityCheck {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let from = self.check(request.metadata())?;
        request.extensions_mut().insert(Caller(from));
        Ok(request)
    }
}

/// Who makes a call that passed an [`IdentityCheck`].
pub fn caller<T>(request: &Request<T>) -> Result<BrokerId, Status> {
    let caller = request.extensions().get::<Caller>();
    caller.map(|caller| caller.0).ok_or_else(|| Status::internal("nobody checked who makes this call"))
}

/// Fails where the caller speaks another version.
pub(crate) fn check_protocol(metadata: &MetadataMap) -> Result<(), Status> {
    match number(metadata, VERSION) {
        Some(version) if version == i64::from(PROTOCOL) => Ok(()),
        Some(version) => Err(Status::unimplemented(format!(
            "this broker speaks version {PROTOCOL} among brokers, not {version}; run the same program on both"
        ))),
        None => Err(Status::invalid_argument("this listener is for brokers of the cluster alone")),
    }
}

fn number(metadata: &MetadataMap, name: &str) -> Option<i64> {
    metadata.get(name)?.to_str().ok()?.parse().ok()
}

/// What a stranger sent, cut to what a message may hold.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn metadata(entries: &[(&'static str, &str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (name, value) in entries {
            metadata.insert(*name, value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn calls_of_strangers_are_refused_with_the_reason() {
        let own = PeerIdentity { cluster_id: ClusterId::from_bytes([7; 16]), broker: BrokerId(2) };
        let (cluster, other) = (own.cluster_id.to_string(), ClusterId::from_bytes([8; 16]).to_string());
        let check = IdentityCheck::new();
        let good = metadata(&[(CLUSTER, &cluster), (FROM, "1"), (TO, "2"), (VERSION, "1")]);
        assert_eq!(check.check(&good).unwrap_err().code(), Code::Unavailable);
        check.be(own);
        assert_eq!(check.check(&good).unwrap(), BrokerId(1));
        for (entries, code, says) in [
            (&[][..], Code::InvalidArgument, "for brokers"),
            (&[(VERSION, "2"), (CLUSTER, &*cluster)], Code::Unimplemented, "not 2"),
            (&[(VERSION, "x")], Code::InvalidArgument, "for brokers"),
            (&[(VERSION, "1"), (CLUSTER, &cluster)], Code::InvalidArgument, "which brokers"),
            (&[(VERSION, "1"), (FROM, "1"), (TO, "2")], Code::FailedPrecondition, "this is cluster"),
            (&[(VERSION, "1"), (FROM, "1"), (TO, "2"), (CLUSTER, &other)], Code::FailedPrecondition, &other),
            (
                &[(VERSION, "1"), (FROM, "1"), (TO, "3"), (CLUSTER, &cluster)],
                Code::FailedPrecondition,
                "this is broker 2, not 3",
            ),
            (
                &[(VERSION, "1"), (FROM, "99999999999"), (TO, "2"), (CLUSTER, &cluster)],
                Code::InvalidArgument,
                "which brokers",
            ),
        ] {
            for _ in 0..2 {
                let status = check.check(&metadata(entries)).unwrap_err();
                assert_eq!(status.code(), code, "{entries:?}: {status}");
                assert!(status.message().contains(says), "{entries:?}: {status}");
            }
        }
        let told: Vec<_> = check.told.lock().iter().copied().collect();
        let of_nobody = [(None, Refusal::Unmarked), (None, Refusal::Protocol)];
        let of_one =
            [Refusal::NoCluster, Refusal::OtherCluster, Refusal::OtherTarget].map(|why| (Some(1), why));
        assert_eq!(told, [&of_nobody[..], &of_one[..]].concat(), "each once");
    }
}
