//! `floodmark top`: what a cluster does now, in the terminal or as JSON.

mod poll;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal as _};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::poll::Poller;
use self::view::{Asked, GroupRow, TopicRow, View};
use super::{Outcome, OutputArgs};
use crate::input::quantity;
use crate::output::{Format, Sink, note};
use crate::remote::{self, Interrupts, ServerArgs};

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark top                                        topics, rates, groups and lag, until q
  floodmark top --interval 5s
  floodmark top --output json --samples 2 | jq .topics

Keys: Tab the other list, s and S sort, r reverse, p pause, up and down scroll, ? help, q quit.";

/// How long a key may wait until it is looked at.
const KEY_INTERVAL: Duration = Duration::from_millis(40);

/// Looks of a busy cluster take a while; less than this is no silence.
const SILENCE_MIN: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Time between two looks at the cluster.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = quantity::positive_duration)]
    interval: Duration,
    /// End after so many looks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    samples: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(args: &TopArgs) -> anyhow::Result<Outcome> {
    if args.output.format == Format::Table && !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        bail!("top draws on a terminal, and there is none; --output json prints samples");
    }
    remote::run(async {
        let poller = Poller::new(args.server.connect().await?);
        let view = View::new(args.server.server.clone());
        match args.output.format {
            Format::Json => print_samples(args, poller, view).await,
            Format::Table => on_a_terminal(args, poller, view).await,
        }
    })?;
    Ok(Outcome::Good)
}

/// One object for each look; rates are those since the look before.
async fn print_samples(args: &TopArgs, poller: Poller, mut view: View) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Sample {
        timestamp_ms: i64,
        topics: Vec<TopicRow>,
        groups: Vec<GroupRow>,
        /// What is missing, and why.
        gaps: Option<String>,
    }
    let mut sink = Sink::stdout();
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..args.samples.unwrap_or(u64::MAX) {
        ticks.tick().await;
        let mut sample = pin!(poller.sample());
        let sampled = match timeout(silence_max(args), &mut sample).await {
            Ok(sampled) => sampled,
            Err(_elapsed) => {
                note(&format!(
                    "no answer for {} s; asking goes on for at most {} s",
                    silence_max(args).as_secs(),
                    args.server.timeout.as_secs()
                ));
                sample.await
            }
        };
        view.on_sample(sampled?);
        sink.json(&Sample {
            timestamp_ms: floodmark_storage::clock::Clock::System.now_ms(),
            topics: view.topics(),
            groups: view.groups(),
            gaps: view.gaps().map(str::to_owned),
        })?;
        sink.flush()?;
    }
    Ok(())
}

/// A look that takes longer shows what is no longer so.
fn silence_max(args: &TopArgs) -> Duration {
    (2 * args.interval).max(SILENCE_MIN)
}

async fn on_a_terminal(args: &TopArgs, poller: Poller, mut view: View) -> anyhow::Result<()> {
    // Whoever ends the program this way wants the terminal back as it was.
    let mut interrupts = Interrupts::new()?;
    let mut terminal = ratatui::try_init().context("the terminal cannot be drawn on")?;
    let ended = tokio::select! {
        ended = show(args, &poller, &mut view, &mut terminal) => ended,
        () = interrupts.next() => Ok(()),
    };
    ratatui::restore();
    ended
}

async fn show(
    args: &TopArgs,
    poller: &Poller,
    view: &mut View,
    terminal: &mut ratatui::DefaultTerminal,
) -> anyhow::Result<()> {
    let mut keys = interval(KEY_INTERVAL);
    keys.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut samples = 0;
    let mut answered_at = Instant::now();
    loop {
        let next_at = Instant::now() + args.interval;
        let mut sample = Box::pin(poller.sample());
        let mut is_waiting = true;
        terminal.draw(|frame| screen::draw(view, frame))?;
        while is_waiting || Instant::now() < next_at {
            let is_changed = tokio::select! {
                sampled = &mut sample, if is_waiting => {
                    is_waiting = false;
                    match sampled {
                        Ok(sampled) => {
                            answered_at = Instant::now();
                            view.on_sample(sampled);
                        }
                        Err(e) => view.on_failure(format!("{e:#}")),
                    }
                    samples += 1;
                    true
                }
                _ = keys.tick() => match pressed(view)? {
                    (Asked::Quit, _) => return Ok(()),
                    (Asked::Nothing, is_changed) => {
                        let silence = answered_at.elapsed();
                        is_changed | (silence > silence_max(args) && view.on_silence(silence))
                    }
                },
            };
            if is_changed {
                terminal.draw(|frame| screen::draw(view, frame))?;
            }
            if args.samples == Some(samples) {
                return Ok(());
            }
        }
    }
}

/// Takes what has been typed, without waiting; tells whether there was anything.
fn pressed(view: &mut View) -> io::Result<(Asked, bool)> {
    let mut is_changed = false;
    while event::poll(Duration::ZERO)? {
        is_changed = true;
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && view.on_key(key) == Asked::Quit
        {
            return Ok((Asked::Quit, true));
        }
    }
    Ok((Asked::Nothing, is_changed))
}
