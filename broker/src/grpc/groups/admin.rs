//! Groups as operators see them: which there are, who is in them, and how far behind they are.

use std::collections::BTreeMap;

use floodmark_proto::kafka::messages::consumer_protocol_assignment::ConsumerProtocolAssignment;
use floodmark_proto::kafka::{Decoder, Message as _};
use floodmark_proto::pb::v1 as pb;

use super::offsets::committed;
use crate::groups::coordinator::{DescribedMember, FetchedOffset};
use crate::grpc::admin::partitions;
use crate::grpc::call::Call;
use crate::grpc::forward;
use crate::grpc::refused::Refused;

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
    let here = call.shared.groups.list_groups()?;
    let listed =
        here.into_iter().filter(|group| is_wanted(group.state.name())).map(|group| pb::ListedGroup {
            group: group.id.to_string(),
            protocol_type: group.protocol_type.to_string(),
            state: group.state.name().to_owned(),
        });
    let mut groups: Vec<pb::ListedGroup> = listed.collect();
    // Each broker knows those that it coordinates. Where one does not answer, a list without its groups would not be the list.
    for broker in forward::all_others(call) {
        let there: pb::ListGroupsReply = forward::unary(call, broker, call.api, request.clone()).await?;
        groups.extend(there.groups);
    }
    groups.sort_by(|a, b| a.group.cmp(&b.group));
    groups.dedup_by(|a, b| a.group == b.group);
    Ok(pb::ListGroupsReply { groups })
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
        offsets: lags(call, &request.group, readers).await?,
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
async fn lags(call: &Call, group: &str, mut readers: Readers) -> Result<Vec<pb::GroupLag>, Refused> {
    let image = call.shared.cluster.image();
    let mut lags = Vec::new();
    for FetchedOffset { topic, partition, offset } in committed(call, &image, group, false)? {
        let topic = topic.to_string();
        let member_id = readers.remove(&(topic.clone(), partition)).unwrap_or_default();
        let kept = offset.ok().flatten();
        let metadata = kept.as_ref().map(|kept| kept.metadata.to_string()).unwrap_or_default();
        let committed = kept.map(|kept| kept.offset);
        lags.push(pb::GroupLag { topic, partition, committed, member_id, metadata, ..Default::default() });
    }
    for ((topic, partition), member_id) in readers {
        lags.push(pb::GroupLag { topic, partition, member_id, ..Default::default() });
    }
    lags.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    let partition =
        |lag: &pb::GroupLag| pb::TopicPartition { topic: lag.topic.clone(), partition: lag.partition };
    let asked =
        pb::DescribeOffsetsRequest { partitions: lags.iter().map(partition).collect(), timestamp_ms: None };
    // The leaders know where their partitions end.
    let known = partitions::offsets(&call.first_hand(), asked).await?.partitions;
    for (lag, known) in lags.iter_mut().zip(known) {
        if known.error.is_none() {
            lag.end = Some(known.high_watermark);
            // A group that has committed nothing may begin anywhere; what it has not read is all that is there.
            let read = lag.committed.unwrap_or(known.start);
            lag.lag = Some(known.high_watermark.saturating_sub(read).max(0));
        }
    }
    Ok(lags)
}

pub(super) async fn delete(
    call: &Call,
    request: pb::DeleteGroupsRequest,
) -> Result<pb::DeleteGroupsReply, Refused> {
    let mut outcomes = Vec::with_capacity(request.groups.len());
    for group in &request.groups {
        outcomes.push(delete_one(call, group).await);
    }
    Ok(pb::DeleteGroupsReply { outcomes })
}

async fn delete_one(call: &Call, group: &str) -> pb::NamedOutcome {
    let there = forward::other_coordinator(call, group, false).await;
    let error = match there {
        Ok(Some(broker)) => {
            let request = pb::DeleteGroupsRequest { groups: vec![group.to_owned()] };
            match forward::unary::<_, pb::DeleteGroupsReply>(call, broker, call.api, request).await {
                Ok(reply) => reply.outcomes.into_iter().next().and_then(|outcome| outcome.error),
                Err(refused) => Some(call.refuse_part(refused)),
            }
        }
        Ok(None) => call.shared.groups.delete_group(group).await.err().map(|e| call.refuse_part(e)),
        Err(refused) => Some(call.refuse_part(refused)),
    };
    pb::NamedOutcome { name: group.to_owned(), error }
}
