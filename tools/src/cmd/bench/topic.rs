//! The topic of a run: one that is there, or one of its own that goes away with it.

use anyhow::Context as _;
use floodmark_client::Client;
use floodmark_client::admin::NewTopic;
use floodmark_storage::random::Random;

use super::BenchArgs;
use crate::output::note;
use crate::remote::Interrupts;

/// A topic to work on.
pub(super) struct BenchTopic {
    client: Client,
    pub(super) name: String,
    is_own: bool,
}

impl BenchTopic {
    pub(super) async fn open(client: &Client, args: &BenchArgs) -> anyhow::Result<BenchTopic> {
        let is_own = args.topic.is_none();
        let name = args
            .topic
            .clone()
            .unwrap_or_else(|| format!("floodmark-bench-{:016x}", Random::System.next_u64()));
        if is_own {
            client.admin().create_topic(NewTopic::new(&name).partitions(args.partitions)).await?;
        } else {
            client
                .partition_count(&name)
                .await
                .with_context(|| super::super::produce::unknown_topic(&name))?;
        }
        Ok(BenchTopic { client: client.clone(), name, is_own })
    }

    /// Runs `work`, and cleans up whatever becomes of it, an interrupt included.
    pub(super) async fn while_there<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let mut interrupts = Interrupts::new()?;
        let worked = tokio::select! {
            worked = work => worked,
            () = interrupts.next() => Err(anyhow::anyhow!("interrupted")),
        };
        if self.is_own
            && let Err(e) = self.client.admin().delete_topic(&self.name).await
        {
            let name = &self.name;
            note(&format!("topic {name} is left over ({e}); `floodmark topic delete {name}` deletes it"));
        }
        worked
    }
}
