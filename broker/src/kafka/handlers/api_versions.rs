//! ApiVersions (18): what this broker serves, from the table that requests are dispatched by.
//! Version 0 carries key and range; 1 adds the throttle time; 3 is flexible and names the client's software; 4 differs in features only.
//! The response header has no tagged fields in any version.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::kafka::dispatch::{API_VERSIONS, SERVED, Served};
use crate::kafka::request::{Answer, Refusal, Reply, RequestContext};

const UNSUPPORTED_VERSION: i16 = 35;

pub(crate) fn handle(ctx: RequestContext, body: BytesMut) -> Result<Answer, Refusal> {
    let is_flexible = ctx.version() >= 3;
    if !is_flexible && !body.is_empty() {
        return Err(Refusal::Malformed { what: "ApiVersions request" });
    }
    Ok(Answer::Ready(frame(ctx.correlation_id, 0, SERVED, ctx.version())))
}

/// The answer to a version that is not known: in version 0, which everybody can read, with the range to choose from.
pub(crate) fn unsupported_version(correlation_id: i32) -> Answer {
    let own: Vec<Served> = SERVED.iter().filter(|s| s.key == API_VERSIONS).cloned().collect();
    Answer::Ready(frame(correlation_id, UNSUPPORTED_VERSION, &own, 0))
}

fn frame(correlation_id: i32, error: i16, served: &[Served], version: i16) -> Reply {
    let mut out = BytesMut::new();
    out.put_i32(0);
    out.put_i32(correlation_id);
    out.put_i16(error);
    match u8::try_from(served.len() + 1) {
        Ok(count) if version >= 3 => out.put_u8(count),
        _ => out.put_i32(served.len() as i32),
    }
    for api in served {
        out.put_i16(api.key);
        out.put_i16(*api.versions.start());
        out.put_i16(*api.versions.end());
        if version >= 3 {
            out.put_u8(0);
        }
    }
    if version >= 1 {
        out.put_i32(0);
    }
    if version >= 3 {
        out.put_u8(0);
    }
    let length = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Reply::Frame(vec![Bytes::from(out)])
}
