//! The Kafka door: takes connections within limits, spreads them over the cores, and says why they ended. What a request means is decided
//! in `ops`.

mod connection;
pub(crate) mod dispatch;
pub(crate) mod fetch_sessions;
pub(crate) mod handlers;
mod inbound;
mod outbound;
pub(crate) mod request;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::accepted;
use crate::admission::ConnectionLimits;
use crate::log_rate::LogRate;
use crate::ops::deadline::Alarm;
use crate::runtime::{Assigned, Core};
use crate::shared::Shared;
use connection::{Closed, Connection, Dispatch, Limits};
use request::{ConnectionContext, Endpoint};

/// Takes connections until the broker stops.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) advertised: Arc<Endpoint>,
    pub(crate) cores: Arc<[Core]>,
    pub(crate) connections: TaskTracker,
    pub(crate) shared: Arc<Shared>,
}

impl Door {
    /// Returns once the broker stops; connections go on.
    pub(crate) async fn run(self) {
        let limits = Arc::clone(&self.shared.ground.connections);
        let log_rate = Arc::new(LogRate::default());
        let drain = self.shared.ground.drain.clone();
        let accept = async {
            loop {
                match self.listener.accept().await {
                    Ok((socket, peer)) => self.take(socket, peer, &limits, &log_rate),
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

    fn take(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        limits: &Arc<ConnectionLimits>,
        log_rate: &Arc<LogRate>,
    ) {
        let place = match limits.admit(peer.ip()) {
            Ok(place) => place,
            Err(full) => {
                self.shared.ground.metrics.kafka.on_refused(full.reason());
                log_rate
                    .say(|more| tracing::warn!(%peer, reason = %full, more, "a connection was not taken"));
                return;
            }
        };
        let Some(core) = Core::least_busy(&self.cores) else { return };
        let context = Arc::new(ConnectionContext {
            shared: Arc::clone(&self.shared),
            peer,
            advertised: Arc::clone(&self.advertised),
            alarm: Arc::new(Alarm::new()),
        });
        let socket = match accepted::prepare(socket) {
            Ok(socket) => socket,
            Err(e) => {
                log_rate.say(
                    |more| tracing::debug!(%peer, error = %e, more, "a connection ended before it began"),
                );
                return;
            }
        };
        let handle = core.handle().clone();
        let log_rate = Arc::clone(log_rate);
        self.connections.spawn_on(
            async move {
                let _place = place;
                serve(socket, context, core, &log_rate).await;
            },
            &handle,
        );
    }
}

async fn serve(
    socket: std::net::TcpStream,
    context: Arc<ConnectionContext>,
    _core: Assigned,
    log_rate: &LogRate,
) {
    let ground = context.shared.ground.clone();
    let metrics = Arc::clone(&ground.metrics.kafka);
    let socket = match TcpStream::from_std(socket) {
        Ok(socket) => socket,
        Err(e) => {
            metrics.on_refused("broken");
            log_rate.say(|more| tracing::warn!(error = %e, more, "a connection could not be taken"));
            return;
        }
    };
    let mut open = metrics.open_connection();
    let config = &context.shared.config;
    let limits = Limits {
        frame_bytes_max: config.request_bytes_max.as_usize(),
        idle: config.connections_max_idle.duration(),
        transfer: config.request_timeout.duration(),
    };
    let (peer, alarm) = (context.peer, Arc::clone(&context.alarm));
    let dispatch: Dispatch = Box::new(move |client_id, frame| dispatch::dispatch(&context, client_id, frame));
    let mut connection = Connection::new(socket, ground, limits, alarm, dispatch);
    let closed = connection.run().await;
    let client_id = connection.client_id();
    if is_fault(&closed) {
        log_rate.say(|more| tracing::warn!(%peer, client_id, reason = %closed, more, "connection closed"));
    } else {
        tracing::debug!(%peer, client_id, reason = %closed, "connection closed");
    }
    open.reason = reason(&closed);
    // Before the socket closes: whoever sees that finds it counted.
    drop(open);
}

/// Whether it is worth a line that somebody reads.
fn is_fault(closed: &Closed) -> bool {
    !matches!(closed, Closed::ByPeer | Closed::Idle | Closed::Stopping)
}

fn reason(closed: &Closed) -> &'static str {
    match closed {
        Closed::ByPeer => "client",
        Closed::Broken(_) => "broken",
        Closed::Idle => "idle",
        Closed::SlowRequest { .. } => "slow_request",
        Closed::SlowReader { .. } => "slow_reader",
        Closed::BadFrame(_) => "bad_frame",
        Closed::Refused(_) => "bad_request",
        Closed::Stopping => "stopping",
    }
}
