//! To another topic, each record once.

use std::time::Duration;

use anyhow::Context as _;
use floodmark_client::ProducerConfig;
use floodmark_client::replay::{Copy, CopyConfig, CopyPoint};
use tokio::time::Instant;

use super::Job;
use super::checkpoint::Target;
use super::progress::{Shown, To};
use crate::cmd::produce::unknown_topic;

/// What is copied between two checkpoints is looked for when a copy goes on.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(2);

pub(super) async fn run(mut job: Job<'_>, into: &str) -> anyhow::Result<()> {
    job.client.partition_count(into).await.with_context(|| unknown_topic(into))?;
    let config = CopyConfig {
        replay: job.config.clone(),
        into: into.to_owned(),
        key: job.args.key.clone().map(Into::into),
        producer: ProducerConfig::default(),
    };
    let kept = job.kept.take().map(|kept| (kept.spans(), kept.target));
    let mut copy = match kept {
        Some((left, Target::Topic { id, offsets, topic_id, .. })) => {
            let source_id = config.replay.topic_id;
            let point = CopyPoint { id, left, target: offsets, source_id, target_id: topic_id };
            job.client.resume_copy(config, point).await?
        }
        _ => job.client.copy_spans(config, job.spans.clone()).await?,
    };
    keep(&job, &mut copy, into).await?;
    let mut shown = Shown::new(To::Elsewhere);
    let mut keep_at = Instant::now() + CHECKPOINT_EVERY;
    loop {
        let goes_on = tokio::select! {
            biased;
            () = job.interrupts.next() => {
                keep(&job, &mut copy, into).await?;
                return Err(job.stopped());
            }
            goes_on = copy.advance() => goes_on?,
        };
        if !goes_on {
            break;
        }
        if job.args.checkpoint.is_some() && Instant::now() >= keep_at {
            keep(&job, &mut copy, into).await?;
            keep_at = Instant::now() + CHECKPOINT_EVERY;
        }
        if shown.is_due() {
            shown.show(&copy.progress());
        }
    }
    keep(&job, &mut copy, into).await?;
    shown.end(&copy.progress());
    Ok(())
}

async fn keep(job: &Job<'_>, copy: &mut Copy, into: &str) -> anyhow::Result<()> {
    let point = copy.point().await?;
    let topic_id = point.target_id;
    job.keep(
        point.left,
        Target::Topic { name: into.to_owned(), id: point.id, offsets: point.target, topic_id },
    )
}
