//! The gRPC door: takes connections within limits and spreads them over the cores, each of which has a server of its own. What a call
//! means is decided in `ops` and `groups`.
//!
//! - [`socket`], [`server`], [`limits`]: connections, HTTP/2 and what bounds both
//! - [`memory`]: the bytes that arrive, out of the broker's one budget
//! - [`call`]: what all calls have in common; [`refused`]: the one table from refusals to statuses
//! - [`codec`]: what is told of bytes that are no message
//! - [`forward`]: calls that belong to another broker
//! - [`data`], [`events`], [`groups`], [`admin`], [`health`]: the services

mod admin;
mod call;
mod codec;
pub(crate) mod data;
pub(crate) mod events;
mod forward;
mod groups;
mod health;
mod limits;
mod memory;
mod pull;
mod refused;
mod server;
mod socket;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::accepted;
use crate::log_rate::LogRate;
use crate::runtime::Core;
use crate::shared::Shared;
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

/// Takes connections until the broker stops.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) cores: Arc<[Core]>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shared: Arc<Shared>,
}

impl Door {
    /// Returns once the broker stops; calls in progress go on.
    pub(crate) async fn run(self) {
        let servers: Vec<mpsc::Sender<Accepted>> =
            self.cores.iter().map(|core| self.serve_on(core)).collect();
        let (drain, log_rate) = (self.shared.ground.drain.clone(), LogRate::default());
        let accept = async {
            loop {
                match self.listener.accept().await {
                    Ok((socket, peer)) => self.take(socket, peer, &servers, &log_rate).await,
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

    fn serve_on(&self, core: &Core) -> mpsc::Sender<Accepted> {
        let (sender, accepted) = mpsc::channel(limits::ACCEPTED_MAX);
        self.tasks.spawn_on(server::run(Arc::clone(&self.shared), accepted), &core.handle);
        sender
    }

    async fn take(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        servers: &[mpsc::Sender<Accepted>],
        log_rate: &LogRate,
    ) {
        let ground = &self.shared.ground;
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
        let server = servers.get(core.index());
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
