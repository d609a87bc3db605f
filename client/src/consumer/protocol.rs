//! What members of a group tell each other, in the bytes that Kafka's consumers use, so that they can share a group with them.

use std::collections::BTreeMap;

use bytes::Bytes;
use floodmark_proto::kafka::messages::consumer_protocol_assignment::{
    ConsumerProtocolAssignment, TopicPartition as AssignedTopic,
};
use floodmark_proto::kafka::messages::consumer_protocol_subscription::{
    ConsumerProtocolSubscription, TopicPartition as OwnedTopic,
};
use floodmark_proto::kafka::{DecodeError, Decoder, Encoder, Message};

use super::assignor::Subscription;
use crate::error::{Error, Result};
use crate::record::TopicPartition;

/// The version written; readers of older ones read the fields that they know.
const SUBSCRIPTION_VERSION: i16 = 3;
const ASSIGNMENT_VERSION: i16 = 3;

/// A member's subscription.
pub(super) fn encode_subscription(
    topics: &[String],
    owned: &[TopicPartition],
    generation: i32,
) -> Result<Bytes> {
    let mut sorted: Vec<&str> = topics.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let by_topic = by_topic(owned);
    let owned =
        by_topic.iter().map(|(topic, partitions)| OwnedTopic { topic, partitions: partitions.clone() });
    let subscription = ConsumerProtocolSubscription {
        topics: sorted,
        user_data: None,
        owned_partitions: owned.collect(),
        generation_id: generation,
        rack_id: None,
    };
    versioned(SUBSCRIPTION_VERSION, &subscription)
}

/// What a member has said, whoever's client it is.
pub(super) fn decode_subscription(bytes: &[u8]) -> Result<Subscription> {
    let mut decoder = Decoder::new(bytes);
    let version = version(&mut decoder, SUBSCRIPTION_VERSION)?;
    let decoded = ConsumerProtocolSubscription::decode(&mut decoder, version).map_err(malformed)?;
    let owned = decoded.owned_partitions.iter().flat_map(|owned| {
        owned.partitions.iter().map(|partition| TopicPartition::new(owned.topic, *partition))
    });
    Ok(Subscription {
        topics: decoded.topics.iter().map(|topic| (*topic).to_owned()).collect(),
        owned: owned.collect(),
        generation: decoded.generation_id,
    })
}

/// What the leader of a group sends a member.
pub(super) fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes> {
    let by_topic = by_topic(partitions);
    let assigned =
        by_topic.iter().map(|(topic, partitions)| AssignedTopic { topic, partitions: partitions.clone() });
    let assignment = ConsumerProtocolAssignment { assigned_partitions: assigned.collect(), user_data: None };
    versioned(ASSIGNMENT_VERSION, &assignment)
}

/// What a member was sent. No bytes are no partitions.
pub(super) fn decode_assignment(bytes: &[u8]) -> Result<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut decoder = Decoder::new(bytes);
    let version = version(&mut decoder, ASSIGNMENT_VERSION)?;
    let decoded = ConsumerProtocolAssignment::decode(&mut decoder, version).map_err(malformed)?;
    let assigned = decoded.assigned_partitions.iter().flat_map(|assigned| {
        assigned.partitions.iter().map(|partition| TopicPartition::new(assigned.topic, *partition))
    });
    Ok(assigned.collect())
}

fn by_topic(partitions: &[TopicPartition]) -> BTreeMap<&str, Vec<i32>> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        by_topic.entry(&partition.topic).or_default().push(partition.partition);
    }
    by_topic
}

fn versioned<'a>(version: i16, message: &impl Message<'a>) -> Result<Bytes> {
    let mut encoder = Encoder::new();
    encoder.i16(version);
    message.encode(&mut encoder, version);
    let chunks = encoder.finish().map_err(|error| Error::Invalid(error.to_string()))?;
    Ok(Bytes::from(chunks.concat()))
}

/// A version above the last is read as the last: newer ones only add fields behind.
fn version(decoder: &mut Decoder<'_>, last: i16) -> Result<i16> {
    let version = decoder.i16("version").map_err(malformed)?;
    if version < 0 {
        return Err(Error::Protocol(format!("a member's version of {version}")));
    }
    Ok(version.min(last))
}

fn malformed(error: DecodeError) -> Error {
    Error::Protocol(format!("what a member of the group says cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let owned = [TopicPartition::new("b", 1), TopicPartition::new("a", 0), TopicPartition::new("b", 0)];
        let topics = ["b".to_owned(), "a".to_owned()];
        let bytes = encode_subscription(&topics, &owned, 7).unwrap();
        let read = decode_subscription(&bytes).unwrap();
        assert_eq!((read.topics, read.generation), (vec!["a".to_owned(), "b".to_owned()], 7));
        let sorted = [TopicPartition::new("a", 0), TopicPartition::new("b", 1), TopicPartition::new("b", 0)];
        assert_eq!(read.owned, sorted);
        assert_eq!(decode_assignment(&encode_assignment(&owned).unwrap()).unwrap(), sorted);
        assert!(decode_assignment(b"").unwrap().is_empty());
    }

    #[test]
    fn older_and_newer_versions_are_read_and_damaged_ones_refused() {
        // Version 0: topics and user data alone.
        let old = [0, 0, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];
        let read = decode_subscription(&old).unwrap();
        assert_eq!((read.topics, read.generation), (vec!["t".to_owned()], -1));
        let mut newer = encode_subscription(&["t".to_owned()], &[], 3).unwrap().to_vec();
        newer[1] = 9;
        newer.extend([1, 2, 3]);
        assert_eq!(decode_subscription(&newer).unwrap().generation, 3);
        for len in 0..old.len() - 1 {
            assert!(decode_subscription(&old[..len]).is_err(), "{len} bytes");
        }
        assert!(decode_subscription(&[0xff, 0xff]).is_err());
    }
}
