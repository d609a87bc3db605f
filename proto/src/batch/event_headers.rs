//! Record headers that mean something to the broker, on topics with a key index. Names and values only.

/// How the record's stream must end for the record to be appended: `any`, `no-stream`, `stream-exists`, or the decimal offset of its
/// last record, in ASCII.
pub const EXPECTED_OFFSET: &[u8] = b"floodmark-expected-offset";

/// An id that the sender gives to one append and to every retry of it.
pub const APPEND_ID: &[u8] = b"floodmark-append-id";

/// The longest id that is looked for. A UUID has 16 bytes, or 36 as text.
pub const APPEND_ID_BYTES_MAX: usize = 64;
