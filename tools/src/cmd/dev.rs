//! `floodmark dev`: a whole cluster on loopback in one process, for whoever builds something against one.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use floodmark_broker::{Broker, BrokerConfig, HostPort, StartError};
use floodmark_storage::random::Random;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::serve::{log, raise_descriptor_limit};
use super::{Outcome, OutputArgs};
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink, note};
use crate::remote::Interrupts;

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark dev                                        three brokers; their data goes away with them
  floodmark dev --nodes 5 --data-dir ./dev             kept: the same ports and data at the next start
  floodmark dev --port 19092 --set num.partitions=6    ports from 19092 on; settings for all of them

Brokers are threads of this process, so kill -9 ends all of them at once. Ctrl-C stops them in good order.";

/// Brokers that one process takes.
const NODES_MAX: u16 = 9;
/// Kafka, gRPC, HTTP, brokers.
const DOORS: u16 = 4;
/// Ports of one broker begin so far behind those of the one before.
const PORTS_A_NODE: u16 = 10;
/// What the file with the ports is called.
const LAYOUT: &str = "dev.json";

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// How many brokers; the first 1, 3 or 5 of them vote.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: u16,
    /// Where their data is kept [default: a directory that goes away with them].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The first port; 0 takes free ones. A data directory keeps its ports [default: 9092 where its ports are free, else free ones].
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// A setting for every broker.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = crate::input::pairs::argument)]
    set: Vec<crate::input::pairs::Pair>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Which broker listens where; kept beside their data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Layout {
    /// Kafka, gRPC, HTTP, brokers, of each node.
    ports: Vec<[u16; DOORS as usize]>,
}

pub(crate) fn run(args: &DevArgs) -> anyhow::Result<Outcome> {
    let temporary = match &args.data_dir {
        Some(_) => None,
        None => Some(tempfile::TempDir::with_prefix("floodmark-dev-").context("no directory can be made")?),
    };
    let kept = args.data_dir.as_deref().or(temporary.as_ref().map(tempfile::TempDir::path));
    let dir = kept.context("there is no data directory")?;
    let layout = layout(args, dir)?;
    let configs = configs(args, dir, &layout)?;
    // Dropped last: it writes what others said.
    let _log = log::start(configs.first().context("there is no broker")?)?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anything is started, so that a signal that comes early is not lost.
        let mut interrupts = Interrupts::new()?;
        let stop_waiting = Arc::new(watch::Sender::new(false));
        let told_to_stop = Arc::clone(&stop_waiting);
        let mut starting = in_background("fm-dev-start", move || start(configs, &told_to_stop))?;
        let brokers = tokio::select! {
            brokers = &mut starting => brokers,
            () = interrupts.next() => {
                // They wait for each other; nothing was promised to anybody yet.
                stop_waiting.send_replace(true);
                starting.await
            }
        };
        let brokers = brokers.context("a thread that starts brokers panicked")??;
        announce(args, dir, &brokers)?;
        let failed = first_failure(&brokers);
        tokio::select! {
            () = interrupts.next() => {}
            reason = failed => bail!("a broker cannot go on: {reason}"),
        }
        note("stopping");
        let stopping = in_background("fm-dev-stop", move || stop(brokers))?;
        tokio::select! {
            stopped = stopping => stopped.context("a thread that stops brokers panicked"),
            () = interrupts.next() => bail!("asked a second time; stopped without waiting"),
        }
    })?;
    Ok(Outcome::Good)
}

/// The ports of the last start, or new ones that are kept for the next.
fn layout(args: &DevArgs, dir: &Path) -> anyhow::Result<Layout> {
    let path = dir.join(LAYOUT);
    if let Some(kept) = read(&path)? {
        let nodes = kept.ports.len();
        ensure!(
            nodes == usize::from(args.nodes),
            "{} holds a cluster of {nodes} brokers; give --nodes {nodes}, or another --data-dir",
            dir.display()
        );
        if let Some(port) = args.port {
            ensure!(
                kept.ports.first().is_some_and(|ports| ports[0] == port),
                "{} keeps its own ports; leave --port out, or give another --data-dir",
                dir.display()
            );
        }
        return Ok(kept);
    }
    let layout = match args.port {
        Some(0) => free(args.nodes)?,
        Some(first) => consecutive(args.nodes, first)?,
        None => match consecutive(args.nodes, 9092) {
            Ok(layout) if layout.ports.iter().flatten().all(|port| is_free(*port)) => layout,
            _ => free(args.nodes)?,
        },
    };
    write(&path, &layout).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(layout)
}

fn consecutive(nodes: u16, first: u16) -> anyhow::Result<Layout> {
    let last = u32::from(first) + u32::from(nodes - 1) * u32::from(PORTS_A_NODE) + u32::from(DOORS);
    ensure!(last <= u32::from(u16::MAX) + 1, "ports from {first} on pass the last one, 65535");
    let of = |node: u16| std::array::from_fn(|door| first + node * PORTS_A_NODE + door as u16);
    Ok(Layout { ports: (0..nodes).map(of).collect() })
}

/// From below those that systems give to connections that go out, or one of these might take a port before its broker does.
const FREE_PORTS: Range<u16> = 10_000..32_000;

/// Held until all are chosen, so that none is chosen twice; tried from a place by chance, so that two commands seldom want the same.
fn free(nodes: u16) -> anyhow::Result<Layout> {
    let places = u64::from((FREE_PORTS.end - FREE_PORTS.start) / PORTS_A_NODE);
    let from = Random::System.next_u64() % places;
    let (mut held, mut ports) = (Vec::new(), Vec::new());
    for place in (0..places).map(|n| (from + n) % places) {
        // Below the end of the range, which is one of ports.
        let first = FREE_PORTS.start + place as u16 * PORTS_A_NODE;
        let block: [u16; DOORS as usize] = std::array::from_fn(|door| first + door as u16);
        if let Ok(listeners) =
            block.iter().map(|port| TcpListener::bind(loopback(*port))).collect::<io::Result<Vec<_>>>()
        {
            held.push(listeners);
            ports.push(block);
        }
        if ports.len() == usize::from(nodes) {
            return Ok(Layout { ports });
        }
    }
    bail!("no ports are free from {} to {}; --port chooses others", FREE_PORTS.start, FREE_PORTS.end)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(loopback(port)).is_ok()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[expect(clippy::disallowed_methods, reason = "a file of whoever runs the command, not of a broker")]
fn read(path: &Path) -> anyhow::Result<Option<Layout>> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let layout = serde_json::from_slice(&bytes);
            layout
                .map(Some)
                .with_context(|| format!("{} is damaged; it says which ports are used", path.display()))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("{} cannot be read", path.display())),
    }
}

#[expect(clippy::disallowed_methods, reason = "a file of whoever runs the command, not of a broker")]
fn write(path: &Path, layout: &Layout) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(&serde_json::to_vec(layout)?)?;
    Ok(file.sync_all()?)
}

/// Each broker as `floodmark serve` would have it.
fn configs(args: &DevArgs, dir: &Path, layout: &Layout) -> anyhow::Result<Vec<BrokerConfig>> {
    let count = layout.ports.len();
    let voters = match count {
        1 | 2 => 1,
        3 | 4 => 3,
        _ => 5,
    };
    let address =
        |ports: &[u16; DOORS as usize], door: usize| HostPort::from(loopback(ports[door])).to_string();
    let ids: Vec<usize> = (1..=count).collect();
    let named: Vec<String> = ids
        .iter()
        .zip(&layout.ports)
        .take(voters)
        .map(|(id, ports)| format!("{id}@{}", address(ports, 3)))
        .collect();
    let config = |(id, ports): (&usize, &[u16; DOORS as usize])| {
        let mut config = BrokerConfig::default();
        let data_dir = dir.join(format!("broker-{id}")).display().to_string();
        // The logs of all of them come out together, so only what matters.
        config.set("logging.filter", "warn,openraft=off")?;
        // Settings of the caller first: what makes the brokers a cluster is not theirs to change.
        for pair in &args.set {
            config.set_by_flag(&pair.key, &pair.value, "--set")?;
        }
        config.set("node.id", &id.to_string())?;
        config.set("data.dirs", &data_dir)?;
        config.set("kafka.listen", &address(ports, 0))?;
        config.set("grpc.listen", &address(ports, 1))?;
        config.set("http.listen", &address(ports, 2))?;
        config.set("cluster.listen", &address(ports, 3))?;
        config.set("cluster.voters", &named.join(","))?;
        Ok(config)
    };
    ids.iter().zip(&layout.ports).map(config).collect()
}

/// All at the same time: each waits for the others, until it is told not to. Where one does not start, the others need not wait for it.
fn start(configs: Vec<BrokerConfig>, stop: &watch::Sender<bool>) -> anyhow::Result<Vec<Broker>> {
    let start_one = |config| {
        let mut stopped = stop.subscribe();
        let started = Broker::start_until(config, async move {
            // Whoever could say so is gone: then nobody does.
            if stopped.wait_for(|is_stopped| *is_stopped).await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        if started.is_err() {
            stop.send_replace(true);
        }
        started
    };
    let outcomes: Vec<_> = thread::scope(|scope| {
        let start_one = &start_one;
        let starting: Vec<_> =
            configs.into_iter().map(|config| scope.spawn(move || start_one(config))).collect();
        starting.into_iter().map(|started| started.join()).collect()
    });
    let mut brokers = Vec::with_capacity(outcomes.len());
    let mut given_up = None;
    for (n, started) in (1..).zip(outcomes) {
        match started {
            Ok(Ok(broker)) => brokers.push(broker),
            // Told to, because of another that says more.
            Ok(Err(e @ StartError::Stopped)) => given_up = Some(e),
            Ok(Err(e)) => return Err(e).with_context(|| format!("broker {n} does not start")),
            Err(_) => bail!("broker {n} panicked while it started"),
        }
    }
    given_up.map_or(Ok(brokers), |e| Err(e.into()))
}

/// All at the same time: one after the other would hand leaderships to brokers that are about to stop.
fn stop(brokers: Vec<Broker>) {
    thread::scope(|scope| {
        for broker in brokers {
            scope.spawn(|| broker.stop());
        }
    });
}

fn in_background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, is_done) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody waits any more where a second signal came.
        let _ = done.send(work());
    })?;
    Ok(is_done)
}

async fn first_failure(brokers: &[Broker]) -> String {
    let mut failures = tokio::task::JoinSet::new();
    for broker in brokers {
        failures.spawn(broker.failed());
    }
    loop {
        match failures.join_next().await {
            Some(Ok(reason)) => return reason,
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }
}

/// Where each can be reached, on standard output.
fn announce(args: &DevArgs, dir: &Path, brokers: &[Broker]) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Told {
        broker: usize,
        kafka: String,
        grpc: Option<String>,
        http: Option<String>,
        data_dir: String,
    }
    let mut sink = Sink::stdout();
    let mut table = Pages::new(&[
        Column::Number("broker"),
        Column::Text("Kafka"),
        Column::Text("gRPC"),
        Column::Text("HTTP"),
    ]);
    for (n, broker) in (1..).zip(brokers) {
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        let told = Told {
            broker: n,
            kafka: broker.kafka_address().to_string(),
            grpc: text(broker.grpc_address()),
            http: text(broker.http_address()),
            data_dir: dir.join(format!("broker-{n}")).display().to_string(),
        };
        match args.output.format {
            Format::Json => sink.json(&told)?,
            Format::Table => {
                let or_off = |address: Option<String>| address.unwrap_or_else(|| "off".to_owned());
                let cells = vec![n.to_string(), told.kafka, or_off(told.grpc), or_off(told.http)];
                table.row(&mut sink, cells)?;
            }
        }
    }
    table.flush(&mut sink)?;
    if args.output.format == Format::Table
        && let Some(server) = brokers.iter().find_map(Broker::grpc_address)
    {
        sink.line(&format!(
            "data in {}; export FLOODMARK_SERVER={server} for other commands",
            dir.display()
        ))?;
    }
    Ok(sink.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broker_has_four_ports_of_its_own() {
        let layout = consecutive(3, 9092).unwrap();
        assert_eq!(
            layout.ports,
            [[9092, 9093, 9094, 9095], [9102, 9103, 9104, 9105], [9112, 9113, 9114, 9115]]
        );
        assert_eq!(consecutive(1, 65_532).unwrap().ports, [[65_532, 65_533, 65_534, 65_535]]);
        assert!(consecutive(1, 65_533).is_err());
        assert!(consecutive(9, 65_500).is_err());
        let mut ports: Vec<u16> = free(9).unwrap().ports.into_iter().flatten().collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 36);
    }

    #[test]
    fn a_setting_that_is_not_there_is_told_by_the_flag_that_gave_it() {
        let args = DevArgs {
            nodes: 1,
            data_dir: None,
            port: None,
            set: vec![crate::input::pairs::argument("foo.bar=1").unwrap()],
            output: OutputArgs { format: Format::Json },
        };
        let told = configs(&args, Path::new("nowhere"), &free(1).unwrap()).unwrap_err().to_string();
        assert!(told.starts_with("flag --set: there is no setting foo.bar"), "{told}");
    }

    #[test]
    fn a_broker_that_does_not_start_keeps_nobody_waiting() {
        let dir = tempfile::TempDir::new().unwrap();
        let taken = TcpListener::bind(loopback(0)).unwrap();
        let mut layout = free(3).unwrap();
        layout.ports[1][1] = taken.local_addr().unwrap().port();
        let set = Vec::new();
        let args = DevArgs {
            nodes: 3,
            data_dir: None,
            port: None,
            set,
            output: OutputArgs { format: Format::Json },
        };
        let configs = configs(&args, dir.path(), &layout).unwrap();
        let refused = start(configs, &watch::Sender::new(false)).unwrap_err();
        assert!(format!("{refused:#}").starts_with("broker 2 does not start: grpc.listen"), "{refused:#}");
    }
}
