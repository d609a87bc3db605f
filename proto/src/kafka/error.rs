//! What can be wrong with bytes from outside, and with a message that shall become bytes, told exactly.

/// Why bytes are not a message: which field, where, and what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} at byte {position}: {reason}")]
pub struct DecodeError {
    /// Struct and field as the tables name them.
    pub field: &'static str,
    /// Where in the frame the value was to start, in bytes behind the length prefix.
    pub position: usize,
    /// What is wrong.
    pub reason: DecodeReason,
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeReason {
    /// The bytes end inside the value.
    #[error("needs {need_bytes} bytes, {have_bytes} remain")]
    Truncated {
        /// Bytes demanded.
        need_bytes: usize,
        /// Bytes left.
        have_bytes: usize,
    },
    /// Null where the version allows none.
    #[error("may not be null")]
    Null,
    /// A length or count below -1, or a string longer than the protocol allows.
    #[error("length {0} is not allowed")]
    Length(i64),
    /// More elements than the remaining bytes can hold.
    #[error("{count} elements cannot lie in {have_bytes} bytes")]
    Count {
        /// Elements announced.
        count: usize,
        /// Bytes left.
        have_bytes: usize,
    },
    /// Arrays that would take more memory than a frame of this size may.
    #[error("takes {need_bytes} bytes of memory, {have_bytes} are left to this frame")]
    Memory {
        /// Bytes of memory demanded.
        need_bytes: usize,
        /// Bytes of memory left.
        have_bytes: usize,
    },
    /// A varint of more than 32 bits.
    #[error("varint passes 32 bits")]
    Varint,
    /// A string that is not UTF-8.
    #[error("is not UTF-8")]
    Utf8,
    /// The byte before a nullable struct is neither 1 nor -1.
    #[error("presence byte is {0}")]
    Presence(i8),
    /// Tags come in rising order, each once.
    #[error("tag {0} is out of order or stands twice")]
    TagOrder(u32),
    /// A tagged field of another length than it says.
    #[error("tag leaves {0} bytes unread")]
    TagLength(usize),
    /// A version for which there is no table.
    #[error("version {0} is not supported")]
    Version(i16),
    /// Bytes follow the message.
    #[error("{0} bytes follow where the message ends")]
    Trailing(usize),
}

/// Why a message is not bytes: the caller's fault, told when the frame is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Null where the version allows none.
    #[error("{field} may not be null in this version")]
    Null {
        /// Struct and field.
        field: &'static str,
    },
    /// Longer than its length field, or the protocol, allows.
    #[error("{field} of length {len} is too long")]
    TooLong {
        /// Struct and field.
        field: &'static str,
        /// Bytes or elements.
        len: usize,
    },
    /// A version for which there is no table.
    #[error("{message} has no version {version}")]
    Version {
        /// The message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A frame that its length prefix cannot tell.
    #[error("frame of {0} bytes is too large")]
    Frame(usize),
    /// More than whoever encodes wants in one frame, not counting record batches.
    #[error("it would have more than {0} bytes; ask for less at a time")]
    Cap(usize),
}
