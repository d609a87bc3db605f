//! The commands, one folder or file each.

pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod consume;
pub(crate) mod dev;
pub(crate) mod events;
pub(crate) mod group;
pub(crate) mod log;
pub(crate) mod offsets;
pub(crate) mod produce;
pub(crate) mod replay;
pub(crate) mod serve;
mod settings;
pub(crate) mod top;
pub(crate) mod topic;

use clap::Args;
use serde::Serialize;

use crate::output::{Format, Sink, sentence};

/// What a command that ran to its end has to say by its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 0: all is well.
    Good,
    /// 1: something is damaged.
    Damaged,
    /// 1: a stream is not as expected, which the command has told.
    Conflict,
    /// 1: a broker or a cluster is not as it should be, which the command has told.
    Unwell,
}

/// How a command answers.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputArgs {
    /// Form of the output.
    #[arg(long = "output", value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

impl OutputArgs {
    /// One thing that was done: in a sentence, or as an object.
    pub(crate) fn say(self, words: &str, object: &impl Serialize) -> anyhow::Result<()> {
        let mut sink = Sink::stdout();
        match self.format {
            Format::Table => sink.line(words)?,
            Format::Json => sink.json(object)?,
        }
        Ok(sink.flush()?)
    }
}

/// Does the same for each name, going on after a failure; fails in the end where any did, with all reasons.
pub(crate) async fn all_of(
    names: &[String],
    mut act: impl AsyncFnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    for name in names {
        if let Err(e) = act(name).await {
            // Nobody reads the output any more.
            if crate::is_broken_pipe(&e) {
                return Err(e);
            }
            failures.push(e);
        }
    }
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        count => {
            let reasons: Vec<String> = failures.iter().map(sentence).collect();
            anyhow::bail!("{count} of {} failed: {}", names.len(), reasons.join("; "))
        }
    }
}
