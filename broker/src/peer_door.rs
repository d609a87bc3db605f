//! The door for other brokers: a listener of its own, so that clients never get to what moves replicas and votes. Knows no service; what is
//! served is given to it, the quorum's at once, the rest when the broker is a member.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use floodmark_replication::quorum::Seat;
use floodmark_replication::vital::Vitals;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::accepted;
use crate::admission::{ConnectionLimits, Place};
use crate::http2::{Fault, Preface, Told, Written};
use crate::log_rate::LogRate;
use crate::runtime::{Assigned, Core};

/// Connections at one time: a few from each broker of a large cluster. They are counted apart from those of clients, which must not be able
/// to keep brokers from each other.
const CONNECTIONS_MAX: usize = 2048;
const CONNECTIONS_PER_IP_MAX: usize = 512;
/// Connections that were taken and wait for their core.
const ACCEPTED_MAX: usize = 64;
/// Time that a caller has to say that it speaks HTTP/2.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls of one connection at one time.
const CALLS_MAX: u32 = 1024;
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Calls that were opened and given up before they were looked at. A broker gives up calls that take too long, so there may be some.
const PENDING_RESETS_MAX: usize = 256;
const OWN_RESETS_MAX: usize = 10_000;
/// A broker that does not answer a ping is taken for gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that may be under way, and the largest piece: records move in megabytes.
const WINDOW_BYTES: u32 = 16 << 20;
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Time that a call of somebody unknown may take. Brokers are known by what their calls say of them; who is not may hold nothing here for
/// longer, and asks again.
const STRANGER_TIME_MAX: Duration = Duration::from_secs(20);
/// Whose calls come from brokers that nobody knows yet.
const STRANGERS: &str = "/floodmark.quorum.Forming/";
/// Whose calls are served before the broker is a member.
const EARLY: &str = "/floodmark.quorum.";
/// Whose calls are served before the broker has opened its logs: while it does, it may be the one that decides for all.
const CONTROLLER: &str = "/floodmark.controller.";

/// The door. Open until the broker's threads end: others may need what it has while it stops.
#[derive(Debug, Clone)]
pub(crate) struct PeerDoor {
    controller: Arc<OnceLock<axum::Router>>,
    later: Arc<OnceLock<axum::Router>>,
}

impl PeerDoor {
    /// Opens the door: what `seat` serves is served from here on. Runs on `control` and `cores`.
    pub(crate) fn open(
        listener: TcpListener,
        seat: &Seat,
        vitals: &Vitals,
        (control, cores): (&tokio::runtime::Handle, &Arc<[Core]>),
    ) -> PeerDoor {
        let mut early = Routes::builder();
        seat.add_services(&mut early);
        let door = PeerDoor { controller: Arc::default(), later: Arc::default() };
        let served = Served { early: early.routes().into_axum_router(), door: door.clone() };
        let told = Arc::new(Told::new("brokers"));
        let servers = cores.iter().map(|core| {
            let (sender, accepted) = mpsc::channel(ACCEPTED_MAX);
            let serving = serve(served.clone(), accepted, Arc::clone(&told));
            core.handle.spawn(vitals.keep("serving other brokers", serving));
            sender
        });
        let taking = take_all(listener, Arc::clone(cores), servers.collect());
        control.spawn(vitals.keep("taking connections of other brokers", taking));
        door
    }

    /// The broker takes part in deciding. Checks who calls.
    pub(crate) fn mount_controller(&self, routes: Routes) {
        // A broker becomes a member once.
        let _ = self.controller.set(routes.into_axum_router());
    }

    /// The broker is a member: these are served as well. Each must check who calls.
    pub(crate) fn mount(&self, routes: Routes) {
        // A broker becomes a member once.
        let _ = self.later.set(routes.into_axum_router());
    }
}

/// What is served.
#[derive(Debug, Clone)]
struct Served {
    early: axum::Router,
    door: PeerDoor,
}

async fn call(State(served): State<Served>, request: Request) -> Response {
    let path = request.uri().path();
    let is_strangers = path.starts_with(STRANGERS);
    let router = if path.starts_with(EARLY) {
        Some(served.early)
    } else if path.starts_with(CONTROLLER) {
        served.door.controller.get().cloned()
    } else {
        served.door.later.get().cloned()
    };
    match router {
        // A router is always ready, and never fails.
        Some(mut router) => {
            let answer = async {
                match router.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            };
            if !is_strangers {
                return answer.await;
            }
            let late = |_| Status::deadline_exceeded("the call was not made in time").into_http();
            timeout(STRANGER_TIME_MAX, answer).await.unwrap_or_else(late)
        }
        None => Status::unavailable("this broker is no member of its cluster yet").into_http(),
    }
}

async fn serve(served: Served, accepted: mpsc::Receiver<Accepted>, told: Arc<Told>) {
    let sockets = ReceiverStream::new(accepted).map(move |accepted| Socket::new(accepted, &told));
    let router = axum::Router::new().fallback(call).with_state(served);
    let serving = Server::builder()
        .max_concurrent_streams(CALLS_MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(OWN_RESETS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .add_routes(Routes::from(router))
        .serve_with_incoming(sockets);
    if let Err(error) = serving.await {
        tracing::error!(%error, "a server for brokers has ended");
    }
}

async fn take_all(listener: TcpListener, cores: Arc<[Core]>, servers: Vec<mpsc::Sender<Accepted>>) {
    let limits = ConnectionLimits::new(CONNECTIONS_MAX, CONNECTIONS_PER_IP_MAX);
    let log_rate = LogRate::default();
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                log_rate
                    .say(|more| tracing::warn!(error = %e, more, "a broker's connection could not be taken"));
                sleep(accepted::PAUSE).await;
                continue;
            }
        };
        let place = match limits.admit(peer.ip()) {
            Ok(place) => place,
            Err(full) => {
                log_rate.say(
                    |more| tracing::warn!(%peer, reason = %full, more, "a broker's connection was not taken"),
                );
                continue;
            }
        };
        let Some(core) = Core::least_busy(&cores) else { return };
        let Ok(socket) = accepted::prepare(socket) else { continue };
        if let Some(server) = servers.get(core.index()) {
            // A server that is full has connections to take that came before; one more broker tries again.
            let _ = server.try_send(Accepted { socket, peer, place, core });
        }
    }
}

/// A connection that has a place, on its way to its core.
struct Accepted {
    socket: std::net::TcpStream,
    peer: SocketAddr,
    place: Place,
    core: Assigned,
}

/// A connection on its core, closed where it does not begin to speak as brokers do.
struct Socket {
    socket: TcpStream,
    peer: SocketAddr,
    /// Until the preface is there.
    handshake: Option<Handshake>,
    written: Written,
    told: Arc<Told>,
    _place: Place,
    _core: Assigned,
}

struct Handshake {
    preface: Preface,
    end: Pin<Box<Sleep>>,
}

impl Socket {
    fn new(accepted: Accepted, told: &Arc<Told>) -> io::Result<Socket> {
        let end = Box::pin(sleep(HANDSHAKE_TIMEOUT));
        Ok(Socket {
            socket: TcpStream::from_std(accepted.socket)?,
            peer: accepted.peer,
            handshake: Some(Handshake { preface: Preface::new(), end }),
            written: Written::default(),
            told: Arc::clone(told),
            _place: accepted.place,
            _core: accepted.core,
        })
    }

    fn on_written(&mut self, pieces: &[io::IoSlice<'_>], written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written
            && let Some(code) = self.written.on_written(pieces, *bytes)
        {
            self.told.tell(self.peer, Fault::Broken, Some(code));
        }
    }
}

impl Connected for Socket {
    type ConnectInfo = SocketAddr;

    fn connect_info(&self) -> SocketAddr {
        self.peer
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let Socket { socket, peer, handshake, told, .. } = &mut *self;
        let read = Pin::new(socket).poll_read(cx, into);
        let Some(shaking) = handshake else { return read };
        // Behind the read: where this broker stood still, what came in time is there.
        if read.is_pending() && shaking.end.as_mut().poll(cx).is_ready() {
            told.tell(*peer, Fault::Silent, None);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        match shaking.preface.on_bytes(&into.filled()[before..]) {
            Some(true) => *handshake = None,
            Some(false) => {}
            None => {
                told.tell(*peer, Fault::Garbage, None);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, from);
        self.on_written(&[io::IoSlice::new(from)], &written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, from);
        self.on_written(from, &written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
