//! The Kafka wire protocol: frames, headers and messages, borrowed from the frame on decode, never copied where records go out.
//!
//! Messages are generated from the tables in `proto/schema/kafka` (docs/PROTOCOL.md tells how they read). No I/O, and no decision about
//! what a request means: only which bytes it is.
//!
//! - [`frame`]: the length prefix that cuts a stream into frames.
//! - [`header`]: what comes before a message, and which of its versions.
//! - [`api_key`], [`error_code`]: Kafka's numbers.
//! - [`decoder`], [`encoder`]: bytes to fields and back, with every count bounded by the bytes that remain.
//! - [`messages`]: one module an API or record format.
//!
//! ```
//! use floodmark_proto::kafka::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
//! use floodmark_proto::kafka::{ApiKey, Decoder, Encoder, Message, RequestHeader, start_response};
//!
//! let mut encoder = Encoder::new();
//! let header = RequestHeader { api_key: 12, api_version: 4, correlation_id: 7, client_id: Some("me") };
//! header.start_request(&mut encoder);
//! HeartbeatRequest { group_id: "g", generation_id: 1, ..Default::default() }.encode(&mut encoder, 4);
//! let chunks = encoder.finish()?;
//!
//! // The first four bytes are the length, which `frame::split` takes off.
//! let mut decoder = Decoder::new(&chunks[0][4..]);
//! let header = RequestHeader::decode(&mut decoder)?;
//! let request = HeartbeatRequest::decode(&mut decoder, header.api_version)?;
//! decoder.finish()?;
//! assert_eq!(request.group_id, "g");
//!
//! start_response(&mut encoder, ApiKey::Heartbeat, header.api_version, header.correlation_id);
//! HeartbeatResponse { error_code: 25, ..Default::default() }.encode(&mut encoder, header.api_version);
//! let to_write: Vec<bytes::Bytes> = encoder.finish()?;
//! # assert_eq!(to_write.concat().len(), 4 + 4 + 1 + 4 + 2 + 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod api_key;
pub mod decoder;
pub mod encoder;
pub mod error;
pub mod error_code;
pub mod frame;
pub mod header;
pub mod message;
pub mod messages;

#[cfg(test)]
mod tests;

pub use api_key::ApiKey;
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use error::{DecodeError, DecodeReason, EncodeError};
pub use error_code::ErrorCode;
pub use header::{RequestHeader, start_response};
pub use message::{Message, Part};
