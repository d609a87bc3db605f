//! Who leads a partition instead, told beside the error that says that this broker does not (KIP-951): spares the client a round of
//! metadata.

use std::sync::Arc;

use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::ClusterImage;

use super::{Address, address_of};
use crate::kafka::request::RequestContext;
use crate::ops::leaders::{Leader, is_misdirected, leader_of};
use crate::ops::topics::TopicKey;

/// Hints of one response; looks at the image only once something is misdirected.
pub(super) struct LeaderHints<'a> {
    ctx: &'a RequestContext,
    image: Option<Arc<ClusterImage>>,
    /// Of the leaders that were named, each once.
    addresses: Vec<Address>,
}

impl<'a> LeaderHints<'a> {
    pub(super) fn new(ctx: &'a RequestContext) -> LeaderHints<'a> {
        LeaderHints { ctx, image: None, addresses: Vec::new() }
    }

    /// Id and epoch of whom to ask instead; `None` where `code` says nothing of that kind or nobody leads.
    pub(super) fn of(
        &mut self,
        code: ErrorCode,
        topic: Result<TopicKey<'_>, ErrorCode>,
        index: i32,
    ) -> Option<(i32, i32)> {
        if !is_misdirected(code) {
            return None;
        }
        let image = self.image.get_or_insert_with(|| self.ctx.shared().cluster.image());
        let Leader { id, epoch } = leader_of(image, topic.ok()?, index)?;
        if !self.addresses.iter().any(|known| known.id == id.0) {
            let address = image.broker(id).and_then(|broker| address_of(self.ctx, broker));
            self.addresses.extend(address);
        }
        Some((id.0, epoch.0))
    }

    /// Where the leaders are that were named.
    pub(super) fn into_addresses(self) -> Vec<Address> {
        self.addresses
    }
}
