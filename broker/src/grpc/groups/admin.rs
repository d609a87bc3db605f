//! Groups as operators see them: which there are, who is in them, and how far behind they are.

use std::collections::BTreeMap;

use floodmark_proto::kafka::messages::consumer_protocol_assignment::ConsumerProtocolAssignment;
use floodmark_proto::kafka::{Decoder, Message as _};
use floodmark_proto::pb::v1 as pb;

use super::offsets::committed;
use crate::groups::coordinator::{DescribedMember, FetchedOffset};
use crate::grpc::admin::named;
use crate::grpc::call::Call;
use crate::grpc::refused::Refused;
use crate::ops::topics::TopicKey;

/// The kind of group whose assignments Kafka defines.
const CONSUMER: &str = "consumer";

/// Partitions, and who reads each.
type Readers = BTreeMap<(String, i32), String>;

pub(super) async fn list(
    call: &Call,
    request: pb::ListGroupsRequest,
) -> Result<pb::ListGroupsReply, Refused> {
    let is_wanted = |state: &str| {
        request.states.is_empty() || request.states.iter().any(|wanted| wanted.eq_ignore_ascii_case(state))
    };
    let groups = call.shared.groups.list_groups()?;
    let listed =
        groups.into_iter().filter(|group| is_wanted(group.state.name())).map(|group| pb::ListedGroup {
            group: group.id.to_string(),
            protocol_type: group.protocol_type.to_string(),
            state: group.state.name().to_owned(),
        });
    Ok(pb::ListGroupsReply { groups: listed.collect() })
}

pub(super) async fn describe(
    call: &Call,
    request: pb::DescribeGroupRequest,
) -> Result<pb::DescribeGroupReply, Refused> {
    let group = call.shared.groups.describe_group(&request.group)?;
    let is_of_consumers = &*group.protocol_type == CONSUMER;
    let mut readers = Readers::new();
    let members = group.members.iter().map(|member| {
        let partitions = if is_of_consumers { assigned(&member.assignment) } else { Vec::new() };
        let read = partitions.iter().map(|p| ((p.topic.clone(), p.partition), member.id.to_string()));
        readers.extend(read);
        member_pb(member, partitions)
    });
    let members = members.collect();
    Ok(pb::DescribeGroupReply {
        state: group.state.name().to_owned(),
        protocol_type: group.protocol_type.to_string(),
        protocol: group.protocol.to_string(),
        members,
        offsets: lags(call, &request.group, readers)?,
        group: request.group,
    })
}

fn member_pb(member: &DescribedMember, partitions: Vec<pb::TopicPartition>) -> pb::DescribedMember {
    pb::DescribedMember {
        member_id: member.id.to_string(),
        instance_id: member.instance_id.as_ref().map(ToString::to_string),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        partitions,
    }
}

/// What a consumer was told to read; nothing where that is not said as Kafka's consumers say it.
fn assigned(assignment: &[u8]) -> Vec<pb::TopicPartition> {
    let mut decoder = Decoder::new(assignment);
    let Ok(version @ 0..) = decoder.i16("version") else { return Vec::new() };
    let known = version.min(*ConsumerProtocolAssignment::VERSIONS.end());
    let Ok(assignment) = ConsumerProtocolAssignment::decode(&mut decoder, known) else { return Vec::new() };
    let topics = assignment.assigned_partitions.into_iter();
    topics
        .flat_map(|topic| {
            let one = move |partition| pb::TopicPartition { topic: topic.topic.to_owned(), partition };
            topic.partitions.into_iter().map(one)
        })
        .collect()
}

/// Of what is committed, and of what is read and not committed yet.
fn lags(call: &Call, group: &str, mut readers: Readers) -> Result<Vec<pb::GroupLag>, Refused> {
    let image = call.shared.cluster.image();
    let mut lags = Vec::new();
    for FetchedOffset { topic, partition, offset } in committed(call, &image, group, false)? {
        let reader = readers.remove(&(topic.to_string(), partition)).unwrap_or_default();
        let kept = offset.ok().flatten();
        let metadata = kept.as_ref().map(|kept| kept.metadata.to_string()).unwrap_or_default();
        let lag = lag(call, topic.to_string(), partition, kept.map(|kept| kept.offset));
        lags.push(pb::GroupLag { member_id: reader, metadata, ..lag });
    }
    for ((topic, partition), member_id) in readers {
        lags.push(pb::GroupLag { member_id, ..lag(call, topic, partition, None) });
    }
    lags.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(lags)
}

fn lag(call: &Call, topic: String, partition: i32, committed: Option<i64>) -> pb::GroupLag {
    let handle = call.shared.cluster.partition(TopicKey::Name(&topic), partition).ok();
    let end = handle.as_ref().map(|handle| handle.high_watermark().0);
    // A group that has committed nothing may begin anywhere; what it has not read is all that is there.
    let read = committed.or_else(|| handle.as_ref().map(|handle| handle.log_start().0));
    let lag = end.zip(read).map(|(end, read)| end.saturating_sub(read).max(0));
    pb::GroupLag { topic, partition, committed, end, lag, ..Default::default() }
}

pub(super) async fn delete(
    call: &Call,
    request: pb::DeleteGroupsRequest,
) -> Result<pb::DeleteGroupsReply, Refused> {
    let mut outcomes = Vec::with_capacity(request.groups.len());
    for group in &request.groups {
        outcomes.push(call.shared.groups.delete_group(group).await);
    }
    Ok(pb::DeleteGroupsReply { outcomes: named(call, request.groups.iter().map(|group| &**group), outcomes) })
}
