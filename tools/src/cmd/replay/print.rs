//! To standard output.

use super::Job;
use super::progress::{Shown, To};

pub(super) async fn run(mut job: Job<'_>) -> anyhow::Result<()> {
    let mut writer = job.args.output.writer()?;
    let mut replay = job.client.replay_spans(job.config.clone(), job.spans.clone())?;
    let mut shown = Shown::new(To::StandardOutput);
    let wanted = job.wanted();
    let mut is_dirty = false;
    loop {
        let next = tokio::select! {
            biased;
            () = job.interrupts.next() => {
                writer.flush()?;
                return Err(job.stopped());
            }
            next = replay.next_where(|record| wanted.wants(record)) => next,
            () = shown.due() => {
                shown.show(&replay.progress());
                continue;
            }
            // Nothing is due: what was printed is to be seen.
            () = std::future::ready(()), if is_dirty => {
                writer.flush()?;
                is_dirty = false;
                continue;
            }
        };
        match next {
            Ok(Some(record)) => {
                writer.write(&(&record).into())?;
                is_dirty = true;
            }
            Ok(None) => return Ok(writer.flush()?),
            Err(error) => {
                // What was printed before something went wrong is of use too.
                writer.flush()?;
                return Err(error.into());
            }
        }
        if shown.is_due() {
            shown.show(&replay.progress());
        }
    }
}
