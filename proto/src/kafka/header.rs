//! What stands before a message: who asks for what in which version, and to which request a response belongs.

use super::api_key::ApiKey;
use super::decoder::Decoder;
use super::encoder::Encoder;
use super::error::DecodeError;

/// The one API whose version 0 has no client id in its header. Brokers of old sent it; no client does.
const CONTROLLED_SHUTDOWN: i16 = 7;

/// The header of a request, in all its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// Number of the API, which may be one without a table.
    pub api_key: i16,
    /// Version of the message, which may be one that is not supported.
    pub api_version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<&'a str>,
}

impl<'a> RequestHeader<'a> {
    /// Reads the header; the message follows.
    ///
    /// An ApiVersions request of a version from the future can be read too, since it must be answered: its header is taken for that of
    /// the newest version known.
    pub fn decode(decoder: &mut Decoder<'a>) -> Result<RequestHeader<'a>, DecodeError> {
        let api_key = decoder.i16("RequestHeader.request_api_key")?;
        let api_version = decoder.i16("RequestHeader.request_api_version")?;
        let correlation_id = decoder.i32("RequestHeader.correlation_id")?;
        let client_id = match (api_key, api_version) {
            (CONTROLLED_SHUTDOWN, 0) => None,
            // Never compact, so that it can be read before the version is looked at.
            _ => decoder.plain_nullable_string("RequestHeader.client_id")?,
        };
        if ApiKey::from_code(api_key).is_some_and(|key| key.is_flexible(api_version)) {
            decoder.skip_tags("RequestHeader")?;
        }
        Ok(RequestHeader { api_key, api_version, correlation_id, client_id })
    }

    /// Starts the frame of a request, for what asks a broker. The message is written next.
    pub fn start_request(&self, encoder: &mut Encoder) {
        encoder.start_frame();
        encoder.set_flexible(false);
        encoder.i16(self.api_key);
        encoder.i16(self.api_version);
        encoder.i32(self.correlation_id);
        if (self.api_key, self.api_version) != (CONTROLLED_SHUTDOWN, 0) {
            encoder.nullable_string(self.client_id, true, "RequestHeader.client_id");
        }
        if ApiKey::from_code(self.api_key).is_some_and(|key| key.is_flexible(self.api_version)) {
            encoder.no_tags();
        }
    }
}

/// Starts the frame of a response. The message is written next.
pub fn start_response(encoder: &mut Encoder, key: ApiKey, version: i16, correlation_id: i32) {
    encoder.start_frame();
    encoder.i32(correlation_id);
    if has_tags(key, version) {
        encoder.no_tags();
    }
}

/// Reads the header of a response to a request of this API and version, for what asks a broker: the correlation id.
pub fn decode_response_header(
    decoder: &mut Decoder<'_>,
    key: ApiKey,
    version: i16,
) -> Result<i32, DecodeError> {
    let correlation_id = decoder.i32("ResponseHeader.correlation_id")?;
    if has_tags(key, version) {
        decoder.skip_tags("ResponseHeader")?;
    }
    Ok(correlation_id)
}

/// A client that asks for ApiVersions does not know yet what the broker understands, so that its answer has the oldest header always.
fn has_tags(key: ApiKey, version: i16) -> bool {
    key != ApiKey::ApiVersions && key.is_flexible(version)
}
