//! What bounds a connection of the gRPC door, beside `grpc.message.max.bytes` and what bounds connections of all doors.

use std::time::Duration;

/// Connections that were taken and wait for their core.
pub(super) const ACCEPTED_MAX: usize = 64;
/// Time that a client has to say that it speaks HTTP/2, where `request.timeout.ms` is not less.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls of one connection at one time. A client that wants more opens another connection.
pub(super) const CALLS_MAX: u32 = 100;
/// Header fields of one call, as HTTP/2 counts them.
pub(super) const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Calls that a client opened and reset before they were looked at; more of them is an attack (CVE-2023-44487).
pub(super) const PENDING_RESETS_MAX: usize = 20;
/// Calls that we reset because the client broke the protocol, over the life of a connection. A message that crosses the end of its call counts too, so a client
/// that does nothing wrong gets to hundreds in time.
pub(super) const OWN_RESETS_MAX: usize = 10_000;
/// A client that does not answer a ping is taken for gone.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Largest message of calls that carry no records of their own; `grpc.message.max.bytes` is for those that do.
pub(super) const OTHER_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Entries of one list of a request, and of all its lists. An entry of two bytes becomes a message of a hundred and more, and is worked on.
pub(super) const LIST_ENTRIES_MAX: usize = 10_000;
pub(super) const ENTRIES_MAX: usize = 50_000;
/// Bytes of an answer about partitions, past which the rest of the partitions are not told of: one that is named costs its asker a few.
pub(super) const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Bytes of one call that may be under way and not looked at, and of all calls of a connection. They lie outside the budget of memory.
pub(super) const CALL_WINDOW_BYTES: u32 = 1 << 20;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// Largest piece in which a client may send.
pub(super) const FRAME_BYTES_MAX: u32 = 256 << 10;

/// Time that a call has where neither its deadline nor its request says.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
/// No call that ends by itself takes longer.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Requests of one Produce that are not answered, and their bytes, past which no more are taken from it.
pub(super) const PIPELINE_REQUESTS_MAX: usize = 128;
pub(super) const PIPELINE_BYTES_MAX: usize = 32 << 20;

/// Partitions that one Subscribe reads.
pub(super) const PARTS_MAX: usize = 10_000;
/// Bytes after which a message of Subscribe is sent though there is more: what its reader gets where it does not say, and at most.
pub(super) const PUSHED_BYTES: usize = 256 << 10;
pub(super) const PUSHED_BYTES_MAX: usize = 1 << 20;
/// Bytes that are read for all readers of one connection and have not left, past which they wait for each other.
pub(super) const UNSENT_BYTES_MAX: usize = 32 << 20;
