//! A connection's socket as the server reads and writes it: counted while it is open, and closed where it does not begin to speak HTTP/2.

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
use crate::http2::{Fault, Preface, Told, Written};
use crate::metrics::OpenConnection;
use crate::runtime::Assigned;
use crate::shared::Ground;
use crate::shutdown::Drain;

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
    handshake: Option<(Preface, Pin<Box<Sleep>>)>,
    written: Written,
    told: Arc<Told>,
    drain: Drain,
    _place: Place,
    _core: Assigned,
}

impl Socket {
    /// To be called on the runtime that the connection will run on.
    pub(super) fn new(
        accepted: Accepted,
        ground: &Ground,
        told: &Arc<Told>,
        handshake: Duration,
    ) -> io::Result<Socket> {
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
            handshake: Some((Preface::new(), Box::pin(sleep(handshake)))),
            written: Written::default(),
            told: Arc::clone(told),
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
        self.told.tell(self.peer.address, Fault::Silent, None);
        Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface came in time"))
    }

    fn on_read(&mut self, came: &[u8]) -> io::Result<()> {
        if came.is_empty() {
            self.open.reason = "client";
        } else if let Some((preface, _)) = &mut self.handshake {
            match preface.on_bytes(came) {
                Some(false) => {}
                Some(true) => self.handshake = None,
                None => {
                    self.open.reason = "handshake";
                    self.told.tell(self.peer.address, Fault::Garbage, None);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "what came is not HTTP/2"));
                }
            }
        }
        Ok(())
    }

    fn on_written(&mut self, pieces: &[io::IoSlice<'_>], written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written
            && let Some(code) = self.written.on_written(pieces, *bytes)
        {
            self.told.tell(self.peer.address, Fault::Broken, Some(code));
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
            Poll::Ready(Ok(())) => self.on_read(&into.filled()[before..])?,
            Poll::Ready(Err(_)) => self.open.reason = "client",
            // Behind the read: where this broker stood still, what came in time is there.
            Poll::Pending => self.shake_hands(cx)?,
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
