//! `floodmark cluster join`: the settings of a broker that is to come into a cluster.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use floodmark_client::admin::ClusterStatus;
use serde::Serialize;

use super::super::OutputArgs;
use crate::output::{Format, Sink, note};
use crate::remote::ServerArgs;

pub(crate) const EXAMPLES: &str = "Examples:
  floodmark cluster join --host floodmark-4.example > broker.toml      then on that machine: floodmark serve --config broker.toml
  floodmark cluster join --host 10.0.0.4 --node-id 7 --rack b --write /etc/floodmark/broker.toml

The new broker holds nothing at first: `floodmark cluster move --balance-onto 4` gives it its share.";

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Name or address of the new broker's machine, as clients and other brokers reach it.
    #[arg(long, value_name = "HOST", value_parser = host)]
    host: String,
    /// Its number [default: the next that is free].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    node_id: Option<i32>,
    /// Where it stands.
    #[arg(long, value_name = "NAME")]
    rack: Option<String>,
    /// Its data directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/floodmark")]
    data_dir: String,
    /// The first of its four ports: Kafka, gRPC, HTTP, brokers.
    #[arg(long, value_name = "PORT", default_value_t = 9092, value_parser = clap::value_parser!(u16).range(1..=65532))]
    port: u16,
    /// Into this file, which must not be there yet, instead of standard output.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Serialize)]
struct Joining {
    node_id: i32,
    cluster_id: String,
    voters: String,
    host: String,
    port: u16,
    rack: Option<String>,
    data_dir: String,
}

/// A name or an address that others can be told to connect to; without a port, of which a broker has four.
fn host(text: &str) -> Result<String, String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.chars().all(is_of_name)) {
        return Ok(text.to_owned());
    }
    Err("it takes the name of a machine or its address, without a port; ports follow from --port".to_owned())
}

pub(crate) async fn run(args: &JoinArgs) -> anyhow::Result<()> {
    let status = args.server.connect().await?.admin().status().await?;
    let joining = joining(args, &status)?;
    let toml = toml(&joining);
    if let Some(path) = &args.write {
        write_new(path, &toml).with_context(|| format!("{} is not written", path.display()))?;
        let words = format!(
            "settings of broker {} are in {}; `floodmark serve --config {}` joins",
            joining.node_id,
            path.display(),
            path.display()
        );
        return args.output.say(&words, &joining);
    }
    let mut sink = Sink::stdout();
    match args.output.format {
        Format::Json => sink.json(&joining)?,
        Format::Table => {
            sink.line(toml.trim_end())?;
            sink.flush()?;
            note("in a file on the new machine, `floodmark serve --config FILE` joins with these");
        }
    }
    Ok(sink.flush()?)
}

fn joining(args: &JoinArgs, status: &ClusterStatus) -> anyhow::Result<Joining> {
    let taken: Vec<i32> = status.brokers.iter().map(|broker| broker.broker.id).collect();
    let node_id = match args.node_id {
        Some(id) => {
            ensure!(
                !taken.contains(&id),
                "broker {id} is in the cluster; choose another --node-id, or `floodmark cluster remove {id}` where its disk is gone"
            );
            id
        }
        None => taken.iter().max().map_or(1, |last| last.saturating_add(1)),
    };
    let voters: Vec<String> = super::status::voters(status)
        .filter_map(|voter| {
            let broker = status.brokers.iter().find(|broker| broker.broker.id == voter)?;
            Some(format!("{voter}@{}", broker.cluster_address.as_ref()?))
        })
        .collect();
    if voters.is_empty() {
        bail!(
            "no voter of this cluster has a door for other brokers: start its broker with --cluster-listen HOST:PORT, and others can join"
        );
    }
    Ok(Joining {
        node_id,
        cluster_id: status.id.clone(),
        voters: voters.join(","),
        host: args.host.clone(),
        port: args.port,
        rack: args.rack.clone(),
        data_dir: args.data_dir.clone(),
    })
}

fn toml(joining: &Joining) -> String {
    let Joining { node_id, cluster_id, voters, host, port, rack, data_dir } = joining;
    let quoted = |text: &str| format!("{text:?}");
    let on = |n: u16| format!("0.0.0.0:{}", port + n);
    let at = |n: u16| {
        if host.contains(':') { format!("[{host}]:{}", port + n) } else { format!("{host}:{}", port + n) }
    };
    let mut text = format!("[node]\nid = {node_id}\n\n[data]\ndirs = [{}]\n", quoted(data_dir));
    for (door, n) in [("kafka", 0), ("grpc", 1)] {
        // Writing to a string does not fail.
        let _ = write!(text, "\n[{door}]\nlisten = {}\nadvertised = {}\n", quoted(&on(n)), quoted(&at(n)));
    }
    let _ = write!(text, "\n[http]\nlisten = {}\n", quoted(&on(2)));
    let _ = write!(
        text,
        "\n[cluster]\nid = {}\nlisten = {}\nadvertised = {}\n# Members to ask; they know the others.\nvoters = {}\n",
        quoted(cluster_id),
        quoted(&on(3)),
        quoted(&at(3)),
        quoted(voters)
    );
    if let Some(rack) = rack {
        let _ = write!(text, "\n[broker]\nrack = {}\n", quoted(rack));
    }
    text
}

/// Never over a file that is there: it may be another broker's.
#[expect(clippy::disallowed_methods, reason = "a file of whoever runs the command, not of a broker")]
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_else() {
        for good in ["floodmark-4.example", "10.0.0.4", "::1", "fe80::4", "node_4"] {
            assert_eq!(host(good).as_deref(), Ok(good));
        }
        for bad in ["", "a b", "a:9092", "http://a", "[::1]", "a/b", "a,b", "a\nb", "1@a"] {
            assert!(host(bad).is_err(), "{bad:?}");
        }
    }
}
