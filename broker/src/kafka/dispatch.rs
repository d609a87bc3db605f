//! The one match on the API key. What stands in its table is served, and nothing else is advertised.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};

use super::handlers;
use super::header::{self, FixedHeader};
use super::request::{Answer, ConnectionContext, Refusal, RequestContext};

/// An API that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) key: i16,
    pub(crate) name: &'static str,
    /// Versions that are advertised.
    pub(crate) versions: RangeInclusive<i16>,
    /// First version whose header has tagged fields.
    pub(crate) flexible_from: i16,
    /// Its reply may wait for something to happen in the world.
    waits: bool,
}

/// A request whose first stage has run.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) answer: Answer,
    /// Its API's place in [`SERVED`].
    pub(super) served: usize,
    /// More of these may follow before this one is answered.
    pub(super) is_produce: bool,
    /// The reply may wait for something to happen in the world, so that a broker that stops does not wait for it.
    pub(super) waits: bool,
}

macro_rules! served {
    ($($name:ident $key:literal $versions:expr, flexible $flexible:literal => $how:ident $module:ident;)*) => {
        /// Everything that is served; what ApiVersions answers.
        pub(crate) const SERVED: &[Served] = &[
            $(Served { key: $key, name: stringify!($name), versions: $versions, flexible_from: $flexible, waits: served!(@waits $how) },)*
        ];

        fn call(ctx: RequestContext, key: i16, body: BytesMut) -> Result<Answer, Refusal> {
            match key {
                $($key => served!(@$how $module, ctx, body),)*
                _ => Err(Refusal::NotServed { key, version: ctx.version }),
            }
        }
    };
    (@waits waits) => { true };
    (@waits $how:ident) => { false };
    // The handler reads and writes frames by itself.
    (@frames $module:ident, $ctx:ident, $body:ident) => {
        handlers::$module::handle($ctx, $body)
    };
}

served! {
    ApiVersions 18 0..=4, flexible 3 => frames api_versions;
}

/// The key of the one API that is answered in every version, if only to say which ones there are.
pub(crate) const API_VERSIONS: i16 = 18;
const PRODUCE: i16 = 0;

/// Hands a frame, without its length prefix, to its handler. Runs the handler's first stage: where it returns, the place of the request
/// among others is fixed.
pub(super) fn dispatch(
    connection: &Arc<ConnectionContext>,
    client_id: &mut Option<Arc<str>>,
    mut frame: BytesMut,
) -> Result<Begun, Refusal> {
    let fixed = FixedHeader::read(&frame)?;
    let (key, version) = (fixed.api_key, fixed.api_version);
    let not_served = Refusal::NotServed { key, version };
    let at = SERVED.iter().position(|s| s.key == key).ok_or(not_served.clone())?;
    let served = &SERVED[at];
    let begun = |answer| Begun { answer, served: at, is_produce: key == PRODUCE, waits: served.waits };
    if !served.versions.contains(&version) {
        return match key {
            API_VERSIONS => Ok(begun(handlers::api_versions::unsupported_version(fixed.correlation_id))),
            _ => Err(not_served),
        };
    }
    let (name, body_at) = header::read_rest(&frame, version >= served.flexible_from)?;
    // A connection rarely changes its name, so requests share it.
    if client_id.as_deref() != name {
        *client_id = name.map(Arc::from);
    }
    let ctx = RequestContext {
        connection: Arc::clone(connection),
        client_id: client_id.clone(),
        correlation_id: fixed.correlation_id,
        version,
    };
    frame.advance(body_at);
    call(ctx, key, frame).map(begun)
}

/// True for a frame that may be begun while produce requests before it are not answered.
pub(super) fn is_produce(frame: &[u8]) -> bool {
    frame.starts_with(&PRODUCE.to_be_bytes())
}
