//! Topics: told, made, extended, removed.

use std::collections::BTreeSet;
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::pb::v1 as pb;
use floodmark_replication::cluster::{ClusterImage, Topic};

use super::cluster::brokers;
use super::named;
use crate::grpc::call::Call;
use crate::grpc::refused::Refused;
use crate::metrics::min_in_sync;
use crate::ops::error::OpError;
use crate::ops::topics::{self, CreatedTopic, MorePartitions, NewTopic, TopicKey, find, is_internal};

pub(super) async fn describe(
    call: &Call,
    request: pb::DescribeTopicsRequest,
) -> Result<pb::DescribeTopicsReply, Refused> {
    let image = topics::image_with(&call.shared, request.topics.iter().map(|name| &**name)).await;
    let topics = if request.topics.is_empty() {
        let shown = image.topics().filter(|topic| request.include_internal || !is_internal(&topic.name));
        shown.map(|topic| described(call, &image, topic)).collect()
    } else {
        let one = |name: &String| match find(&image, TopicKey::Name(name)) {
            Ok(topic) => described(call, &image, topic),
            Err(e) => pb::DescribedTopic {
                name: name.clone(),
                error: Some(call.refuse_part(e)),
                ..Default::default()
            },
        };
        let mut seen = BTreeSet::new();
        request.topics.iter().filter(|name| seen.insert(&***name)).map(one).collect()
    };
    Ok(pb::DescribeTopicsReply { topics, brokers: brokers(&image) })
}

fn described(call: &Call, image: &ClusterImage, topic: &Topic) -> pb::DescribedTopic {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|id| id.0).collect();
    let partition = |(index, p): (&u32, &floodmark_replication::cluster::Partition)| pb::DescribedPartition {
        partition: *index as i32,
        leader: p.leader.map(|id| id.0),
        leader_epoch: p.leader_epoch.0,
        replicas: ids(&p.replicas),
        in_sync: ids(&p.isr),
        adding: ids(&p.adding),
        removing: ids(&p.removing),
    };
    pb::DescribedTopic {
        name: topic.name.to_string(),
        topic_id: topic.id.to_bytes().to_vec().into(),
        is_internal: is_internal(&topic.name),
        partitions: topic.partitions.iter().map(partition).collect(),
        min_in_sync: i32::try_from(min_in_sync(image, topic, call.shared.cluster.file_settings()))
            .unwrap_or(i32::MAX),
        error: None,
    }
}

pub(super) async fn create(
    call: &Call,
    request: pb::CreateTopicsRequest,
) -> Result<pb::CreateTopicsReply, Refused> {
    let wanted = request.topics.iter().map(wanted).collect::<Result<Vec<_>, _>>()?;
    let within = call.within(request.timeout_ms);
    let outcomes = topics::create(&call.shared, &wanted, request.validate_only, within).await;
    let made =
        request.topics.iter().zip(outcomes).map(|(topic, outcome)| created(call, &topic.name, outcome));
    Ok(pb::CreateTopicsReply { topics: made.collect() })
}

fn wanted(topic: &pb::NewTopic) -> Result<NewTopic<'_>, Refused> {
    let replication_factor = topic.replication_factor.map(i16::try_from).transpose();
    Ok(NewTopic {
        name: &topic.name,
        partitions: topic.partitions,
        replication_factor: replication_factor
            .map_err(|_| Refused::invalid("the replication factor is larger than there can be brokers"))?,
        assignments: Vec::new(),
        settings: topic.settings.iter().map(|(name, value)| (&**name, Some(&**value))).collect(),
    })
}

fn created(call: &Call, name: &str, outcome: Result<CreatedTopic, OpError>) -> pb::CreatedTopic {
    let name = name.to_owned();
    match outcome {
        Ok(created) => pb::CreatedTopic {
            name,
            topic_id: created.id.to_bytes().to_vec().into(),
            partitions: created.partitions as i32,
            replication_factor: created.replication_factor as i32,
            error: None,
        },
        Err(e) => pb::CreatedTopic { name, error: Some(call.refuse_part(e)), ..Default::default() },
    }
}

pub(super) async fn delete(
    call: &Call,
    request: pb::DeleteTopicsRequest,
) -> Result<pb::DeleteTopicsReply, Refused> {
    let keys: Vec<TopicKey<'_>> = request.topics.iter().map(|name| TopicKey::Name(name)).collect();
    let within: Duration = call.within(request.timeout_ms);
    let outcomes = topics::delete(&call.shared, &keys, within).await;
    Ok(pb::DeleteTopicsReply { outcomes: named(call, request.topics.iter().map(|name| &**name), outcomes) })
}

pub(super) async fn extend(
    call: &Call,
    request: pb::ExtendTopicRequest,
) -> Result<pb::ExtendTopicReply, Refused> {
    let more = MorePartitions { name: &request.topic, count: request.partitions, assignments: None };
    let within = call.within(request.timeout_ms);
    let outcomes = topics::extend(&call.shared, &[more], request.validate_only, within).await;
    outcomes.into_iter().collect::<Result<Vec<()>, OpError>>()?;
    Ok(pb::ExtendTopicReply {})
}
