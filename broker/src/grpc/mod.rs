//! The gRPC door: takes connections within limits and spreads them over the cores, each of which has a server of its own. What a call
//! means is decided in `ops` and `groups`.
//!
//! - [`socket`], [`server`], [`limits`]: connections, HTTP/2 and what bounds both
//! - [`memory`]: the bytes that arrive, out of the broker's one budget
//! - [`call`]: what all calls have in common; [`refused`]: the one table from refusals to statuses
//! - [`codec`]: how messages are read; [`lists`]: how much may stand in one
//! - [`forward`]: calls that belong to another broker
//! - [`data`], [`events`], [`groups`], [`admin`], [`health`], [`reflection`]: the services

mod admin;
mod call;
mod codec;
pub(crate) mod data;
pub(crate) mod events;
mod forward;
mod groups;
mod health;
mod limits;
mod lists;
mod memory;
mod pull;
mod reflection;
mod refused;
mod server;
mod socket;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::accepted;
use crate::config::BrokerConfig;
use crate::http2::Told;
use crate::log_rate::LogRate;
use crate::runtime::Core;
use crate::shared::{Ground, Shared};
use server::{Bounds, Served};
use socket::Accepted;

pub(crate) use call::Api;
pub(crate) use server::add_forwarded;

/// Code that was generated from the .proto files.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the words are in floodmark/v1/*.proto"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/server/floodmark.v1.rs"));
}

/// The door. Open from the broker's first moment on, because whoever wonders why it does not serve asks it.
#[derive(Debug)]
pub(crate) struct Door {
    /// For each core.
    served: Vec<Arc<Served>>,
}

impl Door {
    /// Opens the door: health and reflection are served from here on, and each other call is told what the broker waits for. Runs on
    /// `control` and `cores`, until the broker stops.
    pub(crate) fn open(
        listener: TcpListener,
        config: &BrokerConfig,
        ground: &Ground,
        tasks: &TaskTracker,
        (control, cores): (&Handle, &Arc<[Core]>),
    ) -> Door {
        let (reflection, told) = (Arc::default(), Arc::new(Told::new("gRPC")));
        let bounds = Bounds::of(config);
        let on_core = |core: &Core| {
            let (sender, accepted) = mpsc::channel(limits::ACCEPTED_MAX);
            let served = Arc::new(Served::new(ground.clone(), bounds, &reflection));
            let serving = server::run(Arc::clone(&served), Arc::clone(&told), accepted);
            tasks.spawn_on(ground.vitals.keep("serving gRPC", serving), &core.handle);
            (sender, served)
        };
        let (servers, served) = cores.iter().map(on_core).unzip();
        let intake = Intake { listener, cores: Arc::clone(cores), servers, ground: ground.clone() };
        tasks.spawn_on(ground.vitals.keep("taking gRPC connections", intake.run()), control);
        Door { served }
    }

    /// The broker serves: everything is served from here on, also to whoever is connected already.
    pub(crate) fn mount(&self, shared: &Arc<Shared>) {
        for served in &self.served {
            served.mount(shared);
        }
    }
}

/// Takes connections until the broker stops.
struct Intake {
    listener: TcpListener,
    cores: Arc<[Core]>,
    /// One on each core.
    servers: Vec<mpsc::Sender<Accepted>>,
    ground: Ground,
}

impl Intake {
    /// Returns once the broker stops; calls in progress go on.
    async fn run(self) {
        let (drain, log_rate) = (self.ground.drain.clone(), LogRate::default());
        let accept = async {
            loop {
                match self.listener.accept().await {
                    Ok((socket, peer)) => self.take(socket, peer, &log_rate).await,
                    Err(e) => {
                        log_rate
                            .say(|more| tracing::warn!(error = %e, more, "a connection could not be taken"));
                        tokio::time::sleep(accepted::PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = drain.begun() => {}
            () = accept => {}
        }
    }

    async fn take(&self, socket: TcpStream, peer: SocketAddr, log_rate: &LogRate) {
        let ground = &self.ground;
        let place = match ground.connections.admit(peer.ip()) {
            Ok(place) => place,
            Err(full) => {
                ground.metrics.grpc.on_refused(full.reason());
                log_rate
                    .say(|more| tracing::warn!(%peer, reason = %full, more, "a connection was not taken"));
                return;
            }
        };
        let Some(core) = Core::least_busy(&self.cores) else { return };
        let server = self.servers.get(core.index());
        let socket = match accepted::prepare(socket) {
            Ok(socket) => socket,
            Err(e) => {
                log_rate.say(
                    |more| tracing::debug!(%peer, error = %e, more, "a connection ended before it began"),
                );
                return;
            }
        };
        let accepted = Accepted { socket, peer, place, core };
        // A server ends with the broker alone.
        if let Some(server) = server
            && server.send(accepted).await.is_err()
        {
            ground.metrics.grpc.on_refused("stopping");
        }
    }
}
