//! To a file, as JSON lines. What a checkpoint says is in the file is on the disk; what lies behind it is cut off when the replay goes on.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use floodmark_client::replay::Replay;
use tokio::time::Instant;

use super::Job;
use super::checkpoint::{Checkpoint, Target};
use super::progress::Shown;
use crate::records::json;

const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn run(mut job: Job<'_>, path: &Path) -> anyhow::Result<()> {
    let written = match job.kept.as_ref().map(|kept: &Checkpoint| &kept.target) {
        Some(Target::File { bytes, .. }) => Some(*bytes),
        _ => None,
    };
    let mut out = Lines::open(path, written).with_context(|| {
        format!("{} cannot be written; a file that is there already is not replaced", path.display())
    })?;
    let mut replay = job.client.replay_spans(job.config.clone(), job.spans.clone())?;
    out.keep(&job, &replay, path)?;
    let mut shown = Shown::new();
    let mut keep_at = Instant::now() + CHECKPOINT_EVERY;
    loop {
        let next = tokio::select! {
            biased;
            () = job.interrupts.next() => {
                out.keep(&job, &replay, path)?;
                return Err(job.stopped());
            }
            next = replay.next() => next?,
        };
        let Some(record) = next else { break };
        if job.wants(record.key.as_deref()) {
            serde_json::to_writer(&mut out.file, &json::object(&(&record).into()))?;
            out.file.write_all(b"\n")?;
        }
        if job.args.checkpoint.is_some() && Instant::now() >= keep_at {
            out.keep(&job, &replay, path)?;
            keep_at = Instant::now() + CHECKPOINT_EVERY;
        }
        if shown.is_due() {
            shown.show(&replay.progress());
        }
    }
    out.keep(&job, &replay, path)?;
    shown.end(&replay.progress());
    Ok(())
}

struct Lines {
    file: BufWriter<File>,
}

impl Lines {
    /// A new file, or one of which so many bytes are known to be good.
    #[expect(clippy::disallowed_methods, reason = "a file of whoever runs the command, not of a broker")]
    fn open(path: &Path, good_bytes: Option<u64>) -> io::Result<Lines> {
        let mut file = match good_bytes {
            None => File::options().write(true).create_new(true).open(path)?,
            Some(bytes) => {
                let file = File::options().write(true).open(path)?;
                if file.metadata()?.len() < bytes {
                    let reason = format!("it has fewer bytes than the {bytes} that the checkpoint knows of");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
                file.set_len(bytes)?;
                file
            }
        };
        file.seek(SeekFrom::End(0))?;
        Ok(Lines { file: BufWriter::with_capacity(1 << 20, file) })
    }

    fn keep(&mut self, job: &Job<'_>, replay: &Replay, path: &Path) -> anyhow::Result<()> {
        self.file.flush()?;
        let file = self.file.get_mut();
        file.sync_all()?;
        let target = Target::File { path: path.to_owned(), bytes: file.stream_position()? };
        job.keep(replay.left(), target)
    }
}
