//! The commands, one folder or file each.

pub(crate) mod config;
pub(crate) mod log;
pub(crate) mod serve;
mod settings;

/// What a command that ran to its end has to say by its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 0: all is well.
    Good,
    /// 1: something is damaged.
    Damaged,
}
