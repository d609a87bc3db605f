//! Groups and offsets as records of `__consumer_offsets`, in Kafka's formats, and which partition of it a group belongs to.

use std::sync::Arc;

use bytes::Bytes;
use floodmark_proto::kafka::messages::group_metadata_key::GroupMetadataKey;
use floodmark_proto::kafka::messages::group_metadata_value::{GroupMetadataValue, MemberMetadata};
use floodmark_proto::kafka::messages::offset_commit_key::OffsetCommitKey;
use floodmark_proto::kafka::messages::offset_commit_value::OffsetCommitValue;
use floodmark_proto::kafka::{DecodeError, Decoder, EncodeError, Encoder, Message};

use super::offsets::CommittedOffset;
use super::snapshot::{GroupSnapshot, MemberSnapshot};

/// The topic that keeps groups and offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
/// With `expire_timestamp`, which only this version has.
const OFFSET_VALUE_EXPIRING: i16 = 1;
/// What every Kafka since 2.1 reads.
const OFFSET_VALUE_PLAIN: i16 = 3;
/// With the topic's id.
const OFFSET_VALUE_WITH_TOPIC_ID: i16 = 4;
/// What every Kafka since 2.3 reads.
const GROUP_VALUE_VERSION: i16 = 3;

/// A key and its value; without a value it is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Option<Bytes>,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An offset, or that there is none any more.
    Offset {
        /// The group.
        group: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The offset.
        value: Option<CommittedOffset>,
    },
    /// A generation of a group, or that the group is gone.
    Group {
        /// The group.
        group: Arc<str>,
        /// The generation.
        value: Option<GroupSnapshot>,
    },
    /// Of a kind that this coordinator does not keep, by the version of its key.
    Other(i16),
}

/// An offset, or its tombstone.
pub fn offset_record(
    group: &str,
    topic: &str,
    partition: i32,
    value: Option<&CommittedOffset>,
) -> Result<KeyValue, EncodeError> {
    let key = versioned(OFFSET_KEY_VERSION, &OffsetCommitKey { group, topic, partition })?;
    let value = value.map(offset_value).transpose()?;
    Ok(KeyValue { key, value })
}

fn offset_value(kept: &CommittedOffset) -> Result<Bytes, EncodeError> {
    let version = match kept.expire_timestamp_ms {
        Some(_) => OFFSET_VALUE_EXPIRING,
        None if kept.topic_id == [0; 16] => OFFSET_VALUE_PLAIN,
        None => OFFSET_VALUE_WITH_TOPIC_ID,
    };
    let value = OffsetCommitValue {
        offset: kept.offset,
        leader_epoch: kept.leader_epoch,
        metadata: &kept.metadata,
        commit_timestamp: kept.commit_timestamp_ms,
        expire_timestamp: kept.expire_timestamp_ms.unwrap_or(-1),
        topic_id: kept.topic_id,
    };
    versioned(version, &value)
}

/// A generation of a group.
pub fn group_record(snapshot: &GroupSnapshot) -> Result<KeyValue, EncodeError> {
    let value = GroupMetadataValue {
        protocol_type: snapshot.protocol_type.as_deref().unwrap_or_default(),
        generation: snapshot.generation,
        protocol: snapshot.protocol.as_deref(),
        leader: snapshot.leader.as_deref(),
        current_state_timestamp: snapshot.state_since_ms.unwrap_or(-1),
        members: snapshot.members.iter().map(member_value).collect(),
    };
    let key = versioned(GROUP_KEY_VERSION, &GroupMetadataKey { group: &snapshot.group_id })?;
    Ok(KeyValue { key, value: Some(versioned(GROUP_VALUE_VERSION, &value)?) })
}

fn member_value(m: &MemberSnapshot) -> MemberMetadata<'_> {
    MemberMetadata {
        member_id: &m.id,
        group_instance_id: m.instance_id.as_deref(),
        client_id: &m.client_id,
        client_host: &m.client_host,
        rebalance_timeout: m.rebalance_timeout_ms,
        session_timeout: m.session_timeout_ms,
        subscription: &m.metadata,
        assignment: &m.assignment,
    }
}

/// The group is gone.
pub fn group_tombstone(group: &str) -> Result<KeyValue, EncodeError> {
    Ok(KeyValue { key: versioned(GROUP_KEY_VERSION, &GroupMetadataKey { group })?, value: None })
}

/// What a record says. Fails on bytes that are not of a known kind's layout.
pub fn read(key: &[u8], value: Option<&[u8]>) -> Result<Entry, DecodeError> {
    let mut decoder = Decoder::new(key);
    match decoder.i16("version")? {
        version @ 0..=1 => {
            let key = OffsetCommitKey::decode(&mut decoder, version)?;
            let value = value.map(read_offset_value).transpose()?;
            let (group, topic) = (Arc::from(key.group), Arc::from(key.topic));
            Ok(Entry::Offset { group, topic, partition: key.partition, value })
        }
        version @ 2 => {
            let key = GroupMetadataKey::decode(&mut decoder, version)?;
            let group: Arc<str> = Arc::from(key.group);
            let value = value.map(|value| read_group_value(&group, value)).transpose()?;
            Ok(Entry::Group { group, value })
        }
        other => Ok(Entry::Other(other)),
    }
}

fn read_offset_value(bytes: &[u8]) -> Result<CommittedOffset, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let version = decoder.i16("version")?;
    let value = OffsetCommitValue::decode(&mut decoder, version)?;
    Ok(CommittedOffset {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: Arc::from(value.metadata),
        commit_timestamp_ms: value.commit_timestamp,
        expire_timestamp_ms: (value.expire_timestamp != -1).then_some(value.expire_timestamp),
        topic_id: value.topic_id,
    })
}

fn read_group_value(group: &Arc<str>, bytes: &[u8]) -> Result<GroupSnapshot, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let version = decoder.i16("version")?;
    let value = GroupMetadataValue::decode(&mut decoder, version)?;
    let member = |m: MemberMetadata<'_>| MemberSnapshot {
        id: Arc::from(m.member_id),
        instance_id: m.group_instance_id.map(Arc::from),
        client_id: Arc::from(m.client_id),
        client_host: Arc::from(m.client_host),
        rebalance_timeout_ms: if m.rebalance_timeout < 0 { m.session_timeout } else { m.rebalance_timeout },
        session_timeout_ms: m.session_timeout,
        metadata: Bytes::copy_from_slice(m.subscription),
        assignment: Bytes::copy_from_slice(m.assignment),
    };
    Ok(GroupSnapshot {
        group_id: Arc::clone(group),
        protocol_type: (!value.protocol_type.is_empty()).then(|| Arc::from(value.protocol_type)),
        generation: value.generation,
        protocol: value.protocol.map(Arc::from),
        leader: value.leader.map(Arc::from),
        state_since_ms: (value.current_state_timestamp != -1).then_some(value.current_state_timestamp),
        members: value.members.into_iter().map(member).collect(),
    })
}

fn versioned<'a, T: Message<'a>>(version: i16, message: &T) -> Result<Bytes, EncodeError> {
    let mut encoder = Encoder::new();
    encoder.i16(version);
    message.encode(&mut encoder, version);
    Ok(encoder.finish()?.concat().into())
}

/// The partition of `__consumer_offsets` that keeps the group: Kafka's rule, so that a directory of Kafka's can be taken over.
#[must_use]
pub fn partition_for(group: &str, partitions: i32) -> i32 {
    let step = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    let hash = group.encode_utf16().fold(0, step);
    // Kafka takes the smallest number, which has no positive twin, for zero.
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

#[cfg(test)]
mod tests;
