//! Kafka's text file `partition.metadata`: which incarnation of the topic a directory belongs to. No I/O.
//!
//! Two lines, `version: 0` and `topic_id: ` with the id in base64url; Kafka ends only the first with a line feed.

use std::str::FromStr as _;

use floodmark_proto::ids::TopicId;

use crate::format_error::{FormatError, Place};

#[cfg(test)]
mod tests;

/// What Kafka writes beside its own metadata log, whose id is reserved and so is none that [`parse`] gives.
pub const OF_METADATA_LOG: &str = "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ";

const FILE: &str = "partition metadata";
const VERSION: i64 = 0;
/// Far more than the two lines take; a larger file is something else.
const FILE_LEN_MAX: usize = 1024;

/// The file's text, byte for byte as Kafka writes it.
#[must_use]
pub fn format(topic_id: TopicId) -> String {
    format!("version: {VERSION}\ntopic_id: {topic_id}")
}

/// Reads the file. A line feed after the id is accepted, as Kafka accepts it.
///
/// Fails on another version, and on an id that is reserved or not whole, so that a torn file never names a topic.
pub fn parse(bytes: &[u8]) -> Result<TopicId, FormatError> {
    if bytes.len() > FILE_LEN_MAX {
        return Err(FormatError::TooLarge {
            file: FILE,
            size_bytes: bytes.len() as u64,
            limit_bytes: FILE_LEN_MAX as u64,
        });
    }
    let malformed = |line, expected| FormatError::Malformed { file: FILE, line, expected };
    let text = std::str::from_utf8(bytes).map_err(|_| malformed(1, "text"))?;
    let mut lines = text.split('\n');
    let version = lines.next().and_then(|line| line.strip_prefix("version: "));
    let version = version.ok_or(malformed(1, "\"version: 0\""))?;
    let version: i64 =
        version.parse().map_err(|_| FormatError::NotANumber { file: FILE, line: 1, field: "version" })?;
    if version > VERSION {
        return Err(FormatError::NewerVersion { file: FILE, found: version, supported: VERSION });
    }
    if version < VERSION {
        return Err(FormatError::UnknownVersion { file: FILE, found: version });
    }
    let id = lines.next().and_then(|line| line.strip_prefix("topic_id: "));
    let id = id.ok_or(malformed(2, "\"topic_id: \" and an id"))?;
    let id = TopicId::from_str(id)
        .map_err(|_| malformed(2, "a topic id, 22 characters of base64url, not a reserved one"))?;
    match (lines.next(), lines.next()) {
        (None, _) | (Some(""), None) => Ok(id),
        _ => Err(FormatError::Trailing { file: FILE, place: Place::Line(3) }),
    }
}
