//! A request as its handler sees it (who asks, over which listener, in which version), and what may become of it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::kafka::{ApiKey, DecodeError, EncodeError, Encoder, ErrorCode, Message, start_response};

use crate::ops::deadline::{Alarm, Deadline};
use crate::shared::Shared;

/// Where clients are told to go, by the listener that they came through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What all requests of one connection have in common.
#[derive(Debug)]
pub(crate) struct ConnectionContext {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: SocketAddr,
    pub(crate) advertised: Arc<Endpoint>,
    /// Rings for what its requests wait for.
    pub(crate) alarm: Arc<Alarm>,
}

/// Who asks, and in which version.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub(super) connection: Arc<ConnectionContext>,
    pub(super) client_id: Option<Arc<str>>,
    pub(super) correlation_id: i32,
    pub(super) api: ApiKey,
    pub(super) version: i16,
}

/// Most bytes of one reply, apart from records: what librdkafka takes where its user sets nothing else.
pub(crate) const REPLY_BYTES_MAX: usize = 100_000_000;

thread_local! {
    /// Replies of a core are written into one buffer, of which each takes its piece. Nothing of one reply is left for the next.
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::limited(REPLY_BYTES_MAX));
}

impl RequestContext {
    /// The broker: configuration, metadata, partitions, coordinators, metrics, clock.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.connection.shared
    }

    /// The version that the request came in, and that its response leaves in.
    pub(crate) fn version(&self) -> i16 {
        self.version
    }

    /// The name the client gives itself; empty where it gives none.
    pub(crate) fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }

    /// The other end of the socket.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.connection.peer
    }

    /// What this broker is called on the listener that the client dialled.
    pub(crate) fn advertised(&self) -> &Endpoint {
        &self.connection.advertised
    }

    /// So long from now, for what this request waits for: not in a task of its own.
    pub(crate) fn deadline(&self, within: Duration) -> Deadline {
        Deadline::kept_by(&self.connection.alarm, within)
    }

    /// To be told each error code that goes into a reply.
    pub(crate) fn count_error(&self, error: ErrorCode) {
        self.shared().ground.metrics.kafka.on_error(self.api.name(), error.name());
    }

    /// The frame of a response to this request.
    pub(crate) fn reply<'a>(&self, response: &impl Message<'a>) -> Result<Reply, Refusal> {
        self.reply_in_version(self.version, response)
    }

    pub(super) fn reply_in_version<'a>(
        &self,
        version: i16,
        response: &impl Message<'a>,
    ) -> Result<Reply, Refusal> {
        ENCODER.with_borrow_mut(|encoder| {
            start_response(encoder, self.api, version, self.correlation_id);
            response.encode(encoder, version);
            Ok(Reply::Frame(encoder.finish()?))
        })
    }
}

/// What a handler makes of a request.
pub(crate) enum Answer {
    /// It is there.
    Ready(Reply),
    /// It will come. Dropped where the connection closes first.
    Later(Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>),
}

impl Answer {
    /// An answer that will come.
    pub(crate) fn later(reply: impl Future<Output = Result<Reply, Refusal>> + Send + 'static) -> Answer {
        Answer::Later(Box::pin(reply))
    }

    /// The reply, once it is there. Not to be asked again after that.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Result<Poll<Reply>, Refusal> {
        match self {
            Answer::Ready(reply) => Ok(Poll::Ready(std::mem::replace(reply, Reply::Nothing))),
            Answer::Later(reply) => match reply.as_mut().poll(cx) {
                Poll::Ready(reply) => reply.map(Poll::Ready),
                Poll::Pending => Ok(Poll::Pending),
            },
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Ready(reply) => f.debug_tuple("Ready").field(reply).finish(),
            Answer::Later(_) => f.write_str("Later"),
        }
    }
}

/// What leaves for a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// One frame, its length prefix included, in pieces that are written without being put together.
    Frame(Vec<Bytes>),
    /// Not a byte: a produce request with acks=0.
    Nothing,
}

/// Why a request costs its sender the connection. Nobody else notices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The header is no header, or the body is not what its version says.
    #[error("malformed request: {0}")]
    Malformed(#[from] DecodeError),
    /// What a handler answered cannot be told in the version that was asked for, a fault of ours; or too much was asked for at once.
    #[error("no reply could be written: {0}")]
    NoReply(#[from] EncodeError),
    /// An API that is not advertised, or a version of it that is not.
    #[error("API key {key} in version {version} is not served here")]
    NotServed {
        /// Kafka's number of the API.
        key: i16,
        /// The version asked for.
        version: i16,
    },
    /// A produce request with acks=0 failed, and a closed connection is the only way to say so.
    #[error("produce without acknowledgement failed: {reason}")]
    UnacknowledgedProduce {
        /// What went wrong.
        reason: String,
    },
}
