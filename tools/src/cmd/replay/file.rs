//! To a file, as JSON lines. What a checkpoint says is in the file is on the disk; what lies behind it is cut off when the replay goes on.

use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use floodmark_client::replay::Replay;
use tokio::time::{Instant, sleep_until};

use super::Job;
use super::checkpoint::{Checkpoint, Target, sync_entry};
use super::progress::{Shown, To};
use crate::records::json;

const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// Whoever follows the file, or has the process killed, has what is older.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(mut job: Job<'_>, path: &Path) -> anyhow::Result<()> {
    let written = match job.kept.as_ref().map(|kept: &Checkpoint| &kept.target) {
        Some(Target::File { bytes, .. }) => Some(*bytes),
        _ => None,
    };
    let found = match written {
        Some(bytes) => Found::Written(bytes),
        None if job.args.checkpoint.is_some() => Found::AtMostEmpty,
        None => Found::Nothing,
    };
    let mut out = Lines::open(path, found).with_context(|| {
        format!("{} cannot be written; a file that is there already is not replaced", path.display())
    })?;
    let mut replay = job.client.replay_spans(job.config.clone(), job.spans.clone())?;
    out.keep(&job, &replay, path)?;
    let wanted = job.wanted();
    let mut flush_at = Instant::now() + FLUSH_EVERY;
    let mut shown = Shown::new(To::Elsewhere);
    let mut keep_at = Instant::now() + CHECKPOINT_EVERY;
    loop {
        let next = tokio::select! {
            biased;
            () = job.interrupts.next() => {
                out.keep(&job, &replay, path)?;
                return Err(job.stopped());
            }
            () = sleep_until(flush_at) => {
                out.file.flush()?;
                flush_at = Instant::now() + FLUSH_EVERY;
                None
            }
            next = replay.next_where(|record| wanted.wants(record)) => match next? {
                None => break,
                some => some,
            },
        };
        if let Some(record) = next {
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

/// What of the file may be there.
#[derive(Debug, Clone, Copy)]
enum Found {
    Nothing,
    /// What a replay leaves that ended before its first checkpoint: nothing is written before that.
    AtMostEmpty,
    /// So many bytes are known to be good.
    Written(u64),
}

struct Lines {
    file: BufWriter<File>,
}

impl Lines {
    #[expect(clippy::disallowed_methods, reason = "a file of whoever runs the command, not of a broker")]
    fn open(path: &Path, found: Found) -> io::Result<Lines> {
        let mut options = File::options();
        options.write(true);
        let mut file = match found {
            Found::Nothing => options.create_new(true),
            Found::AtMostEmpty => options.create(true).truncate(false),
            Found::Written(_) => &mut options,
        }
        .open(path)?;
        let refused = |kind, reason: String| Err(io::Error::new(kind, reason));
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return refused(io::ErrorKind::ResourceBusy, "another replay writes into it".into());
        }
        let there = file.metadata()?.len();
        match found {
            Found::AtMostEmpty if there > 0 => {
                let reason = "there is something in it, and no checkpoint that says what";
                return refused(io::ErrorKind::AlreadyExists, reason.into());
            }
            Found::Written(bytes) if there < bytes => {
                let reason = format!("it has fewer bytes than the {bytes} that the checkpoint knows of");
                return refused(io::ErrorKind::InvalidData, reason);
            }
            Found::Written(bytes) => file.set_len(bytes)?,
            // Else a crash could take the file with its records, and leave a checkpoint that counts on them.
            Found::Nothing | Found::AtMostEmpty => sync_entry(path)?,
        }
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
