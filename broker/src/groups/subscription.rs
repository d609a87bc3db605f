//! Which topics a group of consumers reads, as its members say themselves. Other kinds of groups keep what they do to themselves.

use std::collections::BTreeSet;

use floodmark_proto::kafka::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use floodmark_proto::kafka::{Decoder, Message as _};

use super::group::Group;

/// The kind of group whose members' metadata Kafka defines.
const CONSUMER: &str = "consumer";

/// What is known of the topics that a group reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscription {
    /// The group reads none that the broker would know of.
    None,
    /// It reads some, and does not say which in a way that the broker understands.
    Unknown,
    /// These.
    Topics(BTreeSet<String>),
}

impl Subscription {
    /// Whether a member may be reading the topic.
    #[must_use]
    pub fn covers(&self, topic: &str) -> bool {
        match self {
            Subscription::None => false,
            Subscription::Unknown => true,
            Subscription::Topics(topics) => topics.contains(topic),
        }
    }
}

impl Group {
    /// Whether members divide the partitions of topics among themselves in the way that Kafka's consumers do.
    #[must_use]
    pub fn is_of_consumers(&self) -> bool {
        self.protocol_type().is_some_and(|kind| &**kind == CONSUMER)
    }

    /// What the members read.
    #[must_use]
    pub fn subscription(&self) -> Subscription {
        if !self.is_of_consumers() || self.members.is_empty() {
            return Subscription::None;
        }
        let Some(protocol) = &self.protocol else { return Subscription::Unknown };
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let metadata = member.metadata(protocol);
            let Some(read) = topics_of(&metadata) else { return Subscription::Unknown };
            topics.extend(read);
        }
        Subscription::Topics(topics)
    }
}

/// Topics of one member's metadata. Fields of versions to come stand behind those that are known.
fn topics_of(metadata: &[u8]) -> Option<Vec<String>> {
    let mut decoder = Decoder::new(metadata);
    let version = decoder.i16("version").ok().filter(|version| *version >= 0)?;
    let known = version.min(*ConsumerProtocolSubscription::VERSIONS.end());
    let subscription = ConsumerProtocolSubscription::decode(&mut decoder, known).ok()?;
    Some(subscription.topics.into_iter().map(str::to_owned).collect())
}
