//! OffsetDelete (47): forgets committed offsets of topics that no member reads. Never had a second version.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use super::code_of;
use super::named::partitions_once;
use crate::groups::GroupError;
use crate::kafka::request::{Refusal, Reply, RequestContext};
use crate::ops::groups::locate;
use crate::ops::topics::TopicKey;

pub(crate) async fn handle(
    ctx: &RequestContext,
    mut request: OffsetDeleteRequest<'_>,
) -> Result<Reply, Refusal> {
    partitions_once(&mut request.topics, |t| t.name, |t| &mut t.partitions, |p| p.partition_index);
    let image = ctx.shared().cluster.image();
    let asked = request.topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name, p.partition_index)));
    let known: Vec<Result<(&str, i32), ErrorCode>> = asked
        .map(|(name, index)| locate(&image, Ok(TopicKey::Name(name)), index).map(|_| (name, index)))
        .collect();
    let to_delete: Vec<(&str, i32)> = known.iter().filter_map(|found| found.as_ref().ok().copied()).collect();
    let deleted = match ctx.shared().groups.delete_offsets(request.group_id, &to_delete).await {
        Ok(deleted) => deleted,
        Err(error) => {
            let error_code = code_of(ctx, Err(error));
            return ctx.reply(&OffsetDeleteResponse { error_code, ..Default::default() });
        }
    };
    let mut deleted = deleted.into_iter();
    let mut codes = known.iter().map(|found| match found {
        Ok(_) => deleted.next().unwrap_or(Ok(())).map_err(GroupError::code),
        Err(code) => Err(*code),
    });
    let topics = request.topics.iter().map(|topic| OffsetDeleteResponseTopic {
        name: topic.name,
        partitions: topic
            .partitions
            .iter()
            .zip(&mut codes)
            .map(|(p, outcome)| OffsetDeleteResponsePartition {
                partition_index: p.partition_index,
                error_code: outcome.map_or_else(
                    |code| {
                        ctx.count_error(code);
                        code.code()
                    },
                    |()| 0,
                ),
            })
            .collect(),
    });
    ctx.reply(&OffsetDeleteResponse { topics: topics.collect(), ..Default::default() })
}
