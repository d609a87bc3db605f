//! `floodmark completions`: a script that teaches a shell what can be typed.

use std::io::Write as _;

use clap::{Args, Command};
use clap_complete::Shell;

use super::Outcome;
use crate::output::Sink;

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark completions bash > ~/.local/share/bash-completion/completions/floodmark
  floodmark completions zsh > ~/.zfunc/_floodmark          with fpath+=~/.zfunc before compinit
  floodmark completions fish > ~/.config/fish/completions/floodmark.fish";

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "floodmark", &mut script);
    let mut sink = Sink::stdout();
    sink.write_all(&script)?;
    sink.flush()?;
    Ok(Outcome::Good)
}
