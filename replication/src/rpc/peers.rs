//! Where other brokers are, and the channels to them: one for each broker and purpose, made when first asked for, made anew when the
//! broker has moved.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

use super::BROKER_LISTENER;
use super::identity::{self, PeerIdentity};
use crate::cluster::ClusterImage;

/// A broker that is there answers at once; one that is not must not be waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection on which nothing comes back is given up: the network may forget it without telling either end.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// In tests both ends may stand still for longer, with the machine.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 2 });
/// Bytes that may be under way: records move in megabytes.
const WINDOW_BYTES: u32 = 16 << 20;
/// The largest piece: a MiB of records, or one batch as large as clients send by default, with its head. Nothing is heard of a connection while
/// a piece comes in, not even the answer to a sign of life, so it is no larger.
pub(crate) const FRAME_BYTES: u32 = (1 << 20) + (16 << 10);

/// Where a broker is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Name or number, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a channel is for. Records and votes do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The metadata quorum, and signs of life.
    Quorum,
    /// Records.
    Data,
}

/// There is no way to a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Nobody has said where it is.
    #[error("the address of broker {broker} is not known")]
    UnknownAddress {
        /// The broker.
        broker: BrokerId,
    },
    /// What was said is no address.
    #[error("the address of broker {broker}, {address}, is none")]
    BadAddress {
        /// The broker.
        broker: BrokerId,
        /// What was said.
        address: Address,
    },
    /// A test has cut the way.
    #[cfg(test)]
    #[error("the way to broker {0} is cut")]
    Cut(BrokerId),
}

/// The other brokers of the cluster; clones share the channels.
#[derive(Debug, Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    identity: PeerIdentity,
    /// What the settings say.
    listed: BTreeMap<BrokerId, Address>,
    /// What the quorum says.
    noted: Mutex<BTreeMap<BrokerId, Address>>,
    /// What registrations say.
    images: OnceLock<watch::Receiver<Arc<ClusterImage>>>,
    channels: Mutex<BTreeMap<(BrokerId, Purpose), (Address, Channel)>>,
    #[cfg(test)]
    gate: super::gate::Gate,
}

impl Peers {
    /// The peers of one broker. `listed` is asked where nothing better is known.
    #[must_use]
    pub fn new(identity: PeerIdentity, listed: BTreeMap<BrokerId, Address>) -> Peers {
        Peers {
            inner: Arc::new(Inner {
                identity,
                listed,
                noted: Mutex::default(),
                images: OnceLock::new(),
                channels: Mutex::default(),
                #[cfg(test)]
                gate: super::gate::Gate::of(identity.cluster_id),
            }),
        }
    }

    /// From here on brokers are where they registered, first of all.
    pub fn follow(&self, images: watch::Receiver<Arc<ClusterImage>>) {
        // One broker follows one image.
        let _ = self.inner.images.set(images);
    }

    /// A broker is here unless its registration says otherwise.
    pub fn note(&self, broker: BrokerId, address: Address) {
        self.inner.noted.lock().insert(broker, address);
    }

    /// Who this broker is.
    #[must_use]
    pub fn identity(&self) -> PeerIdentity {
        self.inner.identity
    }

    /// Where a broker is, as far as is known.
    #[must_use]
    pub fn address(&self, broker: BrokerId) -> Option<Address> {
        let registered = self.inner.images.get().and_then(|images| registered(&images.borrow(), broker));
        registered
            .or_else(|| self.inner.noted.lock().get(&broker).cloned())
            .or_else(|| self.inner.listed.get(&broker).cloned())
    }

    /// The channel to a broker. Connects when it is used; what is under way when the connection ends fails. Needs a tokio runtime, on which
    /// the channel then runs.
    pub fn channel(&self, broker: BrokerId, purpose: Purpose) -> Result<Channel, PeerError> {
        #[cfg(test)]
        if self.inner.gate.is_cut(self.inner.identity.broker, broker) {
            return Err(PeerError::Cut(broker));
        }
        let address = self.address(broker).ok_or(PeerError::UnknownAddress { broker })?;
        let mut channels = self.inner.channels.lock();
        if let Some((to, channel)) = channels.get(&(broker, purpose))
            && *to == address
        {
            return Ok(channel.clone());
        }
        let Some(channel) = connect_lazy(&address) else {
            return Err(PeerError::BadAddress { broker, address });
        };
        channels.insert((broker, purpose), (address, channel.clone()));
        Ok(channel)
    }

    /// A call to a broker, marked with who makes it.
    pub fn request<T>(&self, to: BrokerId, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let own = self.inner.identity;
        let metadata = request.metadata_mut();
        if let Ok(cluster) = MetadataValue::<Ascii>::try_from(own.cluster_id.to_string()) {
            metadata.insert(identity::CLUSTER, cluster);
        }
        metadata.insert(identity::FROM, own.broker.0.into());
        metadata.insert(identity::TO, to.0.into());
        metadata.insert(identity::VERSION, identity::PROTOCOL.into());
        request
    }

    /// Whether answers of a broker get here.
    #[cfg(test)]
    pub(crate) fn hears(&self, broker: BrokerId) -> bool {
        !self.inner.gate.is_cut(broker, self.inner.identity.broker)
    }

    /// True where nobody else has it any more.
    #[cfg(test)]
    pub(crate) fn is_last(&self) -> bool {
        Arc::strong_count(&self.inner) == 1
    }

    /// How often a broker was killed: what one that is gone has said is heard by nobody, however late it is looked at.
    #[cfg(test)]
    pub(crate) fn deaths(&self, broker: BrokerId) -> u64 {
        self.inner.gate.deaths(broker)
    }
}

fn registered(image: &ClusterImage, broker: BrokerId) -> Option<Address> {
    let endpoints = &image.broker(broker)?.endpoints;
    let endpoint = endpoints.iter().find(|endpoint| endpoint.listener == BROKER_LISTENER)?;
    Some(Address { host: endpoint.host.clone(), port: endpoint.port })
}

/// A channel to an address; `None` where it is none.
pub(crate) fn connect_lazy(address: &Address) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES);
    Some(endpoint.connect_lazy())
}

#[cfg(test)]
mod tests {
    use floodmark_proto::ids::ClusterId;

    use super::*;
    use crate::cluster::{Command, apply};

    fn at(port: u16) -> Address {
        Address { host: "127.0.0.1".to_owned(), port }
    }

    #[tokio::test]
    async fn a_registration_counts_more_than_the_quorum_and_that_more_than_settings() {
        let identity = PeerIdentity { cluster_id: ClusterId::from_bytes([1; 16]), broker: BrokerId(1) };
        let peers = Peers::new(identity, BTreeMap::from([(BrokerId(2), at(1))]));
        assert_eq!(peers.address(BrokerId(2)), Some(at(1)));
        let unknown = peers.channel(BrokerId(3), Purpose::Quorum).unwrap_err();
        assert_eq!(unknown, PeerError::UnknownAddress { broker: BrokerId(3) });
        peers.channel(BrokerId(2), Purpose::Quorum).unwrap();
        peers.note(BrokerId(2), at(2));
        assert_eq!(peers.address(BrokerId(2)), Some(at(2)));
        peers.channel(BrokerId(2), Purpose::Quorum).unwrap();
        assert_eq!(peers.inner.channels.lock()[&(BrokerId(2), Purpose::Quorum)].0, at(2));
        let image = ClusterImage::new(identity.cluster_id);
        let register = Command::RegisterBroker {
            broker: BrokerId(2),
            incarnation: uuid::Uuid::from_u128(1),
            rack: None,
            endpoints: vec![crate::cluster::Endpoint {
                listener: BROKER_LISTENER.to_owned(),
                host: "127.0.0.1".to_owned(),
                port: 3,
            }],
            feature_levels: crate::quorum::FEATURE_LEVELS,
            directories: Vec::new(),
        };
        let (image, _) = apply(&image, &register);
        let (_sender, images) = watch::channel(Arc::new(image));
        peers.follow(images);
        assert_eq!(peers.address(BrokerId(2)), Some(at(3)));
        let spaced = Address { host: "no host".to_owned(), port: 1 };
        peers.note(BrokerId(4), spaced.clone());
        let bad = peers.channel(BrokerId(4), Purpose::Data).unwrap_err();
        assert_eq!(bad, PeerError::BadAddress { broker: BrokerId(4), address: spaced });
    }

    #[test]
    fn addresses_show_as_they_are_dialled() {
        assert_eq!(at(1).to_string(), "127.0.0.1:1");
        assert_eq!(Address { host: "::1".to_owned(), port: 1 }.to_string(), "[::1]:1");
    }
}
