//! Commands, outputs, refusals and images as the messages of `metadata.proto`. What a message lacks, or says in words this program does
//! not know, is an exact error: a change that is skipped would make brokers disagree.

mod read;
mod refusal;
mod write;

use bytes::Bytes;
use floodmark_proto::pb::metadata as pb;
use prost::Message as _;

use super::command::{Command, CommandError, Output};
use super::image::ClusterImage;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// They are no message of this kind.
    #[error("not a {message}: {reason}")]
    Malformed {
        /// The message.
        message: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Something is not there, or is of a kind that this program does not know.
    #[error("{what} is missing, or of a kind that a newer program wrote")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// A value cannot be.
    #[error("{what} is {value}, which it cannot be")]
    Value {
        /// Of what.
        what: &'static str,
        /// The value.
        value: i64,
    },
    /// An identifier has another length than identifiers have, or is a reserved one.
    #[error("{what} is not an identifier")]
    Identifier {
        /// Which.
        what: &'static str,
    },
    /// Something is there twice.
    #[error("{what} {name} is there twice")]
    Twice {
        /// What.
        what: &'static str,
        /// Which.
        name: String,
    },
}

/// A command as a message.
#[must_use]
pub fn command_to_pb(command: &Command) -> pb::Command {
    write::command(command)
}

/// A command from its message.
pub fn command_from_pb(message: pb::Command) -> Result<Command, WireError> {
    read::command(message)
}

/// An output as a message.
#[must_use]
pub fn output_to_pb(output: &Output) -> pb::Output {
    write::output(output)
}

/// An output from its message.
pub fn output_from_pb(message: pb::Output) -> Result<Output, WireError> {
    read::output(message)
}

/// A refusal as a message.
#[must_use]
pub fn refusal_to_pb(error: &CommandError) -> pb::Refusal {
    refusal::to_pb(error)
}

/// A refusal from its message.
pub fn refusal_from_pb(message: pb::Refusal) -> Result<CommandError, WireError> {
    refusal::from_pb(message)
}

/// An image as a message. The same image always gives the same bytes.
#[must_use]
pub fn image_to_pb(image: &ClusterImage) -> pb::Image {
    write::image(image)
}

/// An image from its message.
pub fn image_from_pb(message: pb::Image) -> Result<ClusterImage, WireError> {
    read::image(message)
}

/// A message from its bytes, whole.
pub fn decode<M: prost::Message + Default>(message: &'static str, bytes: Bytes) -> Result<M, WireError> {
    M::decode(bytes).map_err(|e| WireError::Malformed { message, reason: e.to_string() })
}

/// A command's bytes, for measuring what it takes in the log.
#[must_use]
pub fn command_len(command: &Command) -> usize {
    write::command(command).encoded_len()
}

#[cfg(test)]
mod tests;
