//! A connection's socket as the server reads and writes it: counted while it is open, and closed where it does not begin to speak.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

use super::limits;
use crate::admission::Place;
use crate::metrics::OpenConnection;
use crate::runtime::Assigned;
use crate::shared::Ground;
use crate::shutdown::Drain;

/// What every HTTP/2 connection begins with.
const PREFACE_BYTES: usize = 24;

/// A connection that has a place, on its way to its core.
pub(super) struct Accepted {
    pub(super) socket: std::net::TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) place: Place,
    pub(super) core: Assigned,
}

/// What all calls of one connection share.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// In KiB, what may be read for its readers and not have left.
    pub(super) unsent: Arc<Semaphore>,
}

/// A connection on its core.
pub(super) struct Socket {
    /// First, so that it is dropped before the socket closes: whoever sees that finds it counted.
    open: OpenConnection,
    socket: TcpStream,
    peer: Peer,
    /// Until the preface is there.
    handshake: Option<(usize, Pin<Box<Sleep>>)>,
    drain: Drain,
    _place: Place,
    _core: Assigned,
}

impl Socket {
    /// To be called on the runtime that the connection will run on.
    pub(super) fn new(accepted: Accepted, ground: &Ground, handshake: Duration) -> io::Result<Socket> {
        let mut open = ground.metrics.grpc.open_connection();
        open.reason = "broken";
        let socket = TcpStream::from_std(accepted.socket)?;
        open.reason = "server";
        Ok(Socket {
            socket,
            peer: Peer {
                address: accepted.peer,
                unsent: Arc::new(Semaphore::new(limits::UNSENT_BYTES_MAX >> 10)),
            },
            handshake: Some((PREFACE_BYTES, Box::pin(sleep(handshake)))),
            open,
            drain: ground.drain.clone(),
            _place: accepted.place,
            _core: accepted.core,
        })
    }

    fn shake_hands(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some((_, end)) = &mut self.handshake else { return Ok(()) };
        if end.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        self.open.reason = "handshake";
        Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface came in time"))
    }

    fn on_read(&mut self, bytes: usize) {
        if bytes == 0 {
            self.open.reason = "client";
        } else if let Some((missing, _)) = &mut self.handshake {
            *missing = missing.saturating_sub(bytes);
            if *missing == 0 {
                self.handshake = None;
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.drain.has_begun() && self.open.reason == "server" {
            self.open.reason = "stopping";
        }
    }
}

impl Connected for Socket {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, into);
        match &read {
            Poll::Ready(Ok(())) => self.on_read(into.filled().len() - before),
            Poll::Ready(Err(_)) => self.open.reason = "client",
            // Behind the read: where this broker stood still, what came in time is there.
            Poll::Pending => self.shake_hands(cx)?,
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, from)
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
