//! `floodmark serve`: one broker, from the first line of its log to the signal that ends it.

pub(super) mod log;

use std::io::{self, Write as _};
use std::thread;

use anyhow::{Context as _, bail};
use clap::Args;
use floodmark_broker::{Broker, BrokerConfig, HostPort, StartError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::Outcome;
use super::settings::SettingArgs;

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark serve                                      a broker in ./floodmark-data
  floodmark serve --data-dir /var/lib/floodmark --config /etc/floodmark/broker.toml
  floodmark serve --kafka-listen 0.0.0.0:9092 --kafka-advertised kafka.example:9092

Settings come from flags, then FLOODMARK_ environment variables, then the file, then defaults; `floodmark config show` tells which.
SIGTERM and SIGINT let requests in progress finish; a second one ends at once.";

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    settings: SettingArgs,
}

pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<Outcome> {
    let config = args.settings.load()?;
    // Dropped last: it writes what others said.
    let _log = log::start(&config)?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anything is started, so that a signal that comes early is not lost.
        let mut signals = Signals::new().context("signals cannot be waited for")?;
        let Some(broker) = start(&config, &mut signals).await? else {
            tracing::info!("stopped while waiting for other brokers");
            return Ok(Outcome::Good);
        };
        announce(&config, &broker);
        let name = tokio::select! {
            name = signals.next() => name,
            reason = broker.failed() => bail!("the broker cannot go on: {reason}"),
        };
        tracing::info!(signal = name, "stopping; requests in progress finish");
        let (stopped, is_stopped) = oneshot::channel();
        thread::Builder::new().name("fm-stop".to_owned()).spawn(move || {
            broker.stop();
            // Nobody waits any more where a second signal came.
            let _ = stopped.send(());
        })?;
        tokio::select! {
            _ = is_stopped => {
                tracing::info!("stopped");
                Ok(Outcome::Good)
            }
            name = signals.next() => bail!("{name} came a second time; stopped without waiting"),
        }
    })
}

/// Starts the broker on a thread of its own: where others have to be waited for, a signal ends that. `None` where one did.
async fn start(config: &BrokerConfig, signals: &mut Signals) -> anyhow::Result<Option<Broker>> {
    let (stop, is_stopped) = oneshot::channel::<()>();
    let (started, mut is_started) = oneshot::channel();
    let config = config.clone();
    thread::Builder::new().name("fm-start".to_owned()).spawn(move || {
        let stopped = async move {
            // Ends with the word, or with whoever would say it.
            let _ = is_stopped.await;
        };
        // Nobody waits any more where a second signal came.
        let _ = started.send(Broker::start_until(config, stopped));
    })?;
    let early = tokio::select! {
        ended = &mut is_started => return Ok(Some(ended.context("the thread that starts the broker has ended")??)),
        name = signals.next() => name,
    };
    tracing::info!(signal = early, "stopping before the broker has started");
    drop(stop);
    let ended = tokio::select! {
        ended = is_started => ended.context("the thread that starts the broker has ended")?,
        name = signals.next() => bail!("{name} came a second time; stopped without waiting"),
    };
    match ended {
        // It was just there.
        Ok(broker) => tokio::task::spawn_blocking(move || broker.stop()).await?,
        Err(StartError::Stopped) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(None)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Each connection and each segment takes a descriptor. The limit that a shell gives is low for the sake of old programs; up to the hard
/// one a process may raise it itself.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(error = %e, "the limit of open files stays as it is");
    }
}

/// Where it can be reached, on standard output, since ports may have been chosen by the system.
fn announce(config: &BrokerConfig, broker: &Broker) {
    let dirs: Vec<String> = config.data_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let mut lines = format!("floodmark {} serves node {}\n", env!("CARGO_PKG_VERSION"), config.node_id);
    lines += &format!("  data   {}\n", dirs.join(", "));
    lines += &format!("  Kafka  {}\n", HostPort::from(broker.kafka_address()));
    if let Some(address) = broker.grpc_address() {
        lines += &format!("  gRPC   {}\n", HostPort::from(address));
    }
    if let Some(address) = broker.http_address() {
        lines += &format!("  HTTP   http://{}/metrics\n", HostPort::from(address));
    }
    if let Some(address) = broker.peer_address() {
        lines += &format!("  brokers  {}\n", HostPort::from(address));
    }
    // Whoever closed standard output does not want to know.
    let _ = io::stdout().write_all(lines.as_bytes());
}
