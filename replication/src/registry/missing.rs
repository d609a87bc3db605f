//! Which logs are missing that an image gives to a broker. A look, by which nothing is changed: what it finds has to be told to the cluster
//! before anything is made in their place, which at the next start would pass for all that there ever was.

use std::collections::BTreeSet;

use floodmark_proto::ids::{BrokerId, TopicId};
use floodmark_storage::LogError;
use floodmark_storage::data_dir::{DataDir, PartitionName};
use parking_lot::Mutex;

use super::changes::in_parallel;
use super::places::Places;
use crate::cluster::ClusterImage;

/// The partitions that `image` gives to `node` and of which no data directory has a log, because it is gone or was never made. Where a
/// directory does not say, what is in it may be there. Blocks.
pub fn missing_logs(
    data_dirs: &[DataDir],
    image: &ClusterImage,
    node: BrokerId,
) -> Result<BTreeSet<(TopicId, u32)>, LogError> {
    let places = Places::look(data_dirs)?;
    let mut given = Vec::new();
    for topic in image.topics() {
        let held = topic.partitions.iter().filter(|(_, partition)| partition.replicas.contains(&node));
        // A name that no directory can have is told when it cannot be made.
        given.extend(held.filter_map(|(index, _)| {
            PartitionName::new(&topic.name, *index).ok().map(|name| (topic.id, name))
        }));
    }
    let missing = Mutex::new(BTreeSet::new());
    in_parallel(&given, |(topic, name)| {
        let may_hold = |at: usize| {
            data_dirs[at].holds_log(name, *topic).unwrap_or_else(|error| {
                tracing::warn!(partition = %name, %error, "it is not known whether its log is there");
                true
            })
        };
        if !places.of(name).into_iter().any(may_hold) {
            missing.lock().insert((*topic, name.partition()));
        }
    });
    Ok(missing.into_inner())
}
