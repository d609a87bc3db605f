//! `floodmark cluster status`, `brokers` and `feature-level`.

use clap::Args;
use floodmark_client::admin::{BrokerStatus, ClusterStatus, QuorumMember};
use serde::Serialize;

use super::super::{Outcome, OutputArgs};
use super::{counted, list};
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink, alarming};
use crate::remote::ServerArgs;

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Exit with 1 where a broker is fenced, nobody leads the quorum, or a partition lacks something or cannot be used.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct BrokersArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LevelArgs {
    /// The level; left out, the one in use is told.
    level: Option<u32>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Told<'a> {
    cluster_id: &'a str,
    feature_level: u32,
    metadata_version: u64,
    controller: Option<i32>,
    term: u64,
    last_index: Option<u64>,
    members: Vec<ToldMember>,
    partitions: ToldPartitions,
    brokers: Vec<ToldBroker>,
    answered_by: i32,
    version: &'a str,
    /// False where nobody leads: brokers, partitions and members are as the broker that answered knew them last.
    is_current: bool,
    is_well: bool,
}

#[derive(Serialize)]
struct ToldMember {
    broker: i32,
    is_voter: bool,
    /// Entries that it lacks; null where nobody knows.
    lag_entries: Option<u64>,
}

#[derive(Serialize)]
struct ToldPartitions {
    all: u32,
    offline: u32,
    under_replicated: u32,
    below_minimum: u32,
    moving: u32,
}

#[derive(Serialize)]
struct ToldBroker {
    broker: i32,
    state: &'static str,
    rack: Option<String>,
    kafka: String,
    grpc: String,
    /// Null where it has no door for other brokers.
    cluster: Option<String>,
    leaders: u32,
    replicas: u32,
    replicas_behind: u32,
    /// That it cannot open, or whose logs take no more writes; null where it was not heard of.
    replicas_failed: Option<u32>,
    failure: Option<String>,
    feature_levels: [u32; 2],
}

pub(crate) async fn run(args: &StatusArgs) -> anyhow::Result<Outcome> {
    let status = args.server.connect().await?.admin().status().await?;
    let well = is_well(&status);
    let mut sink = Sink::stdout();
    match args.output.format {
        Format::Json => sink.json(&told(&status, well))?,
        Format::Table => in_words(&status, &mut sink)?,
    }
    sink.flush()?;
    Ok(if args.check && !well { Outcome::Unwell } else { Outcome::Good })
}

fn is_well(status: &ClusterStatus) -> bool {
    let counts = status.partitions;
    status.quorum.leader.is_some()
        && counts.offline == 0
        && counts.under_replicated == 0
        && status.brokers.iter().all(|broker| !broker.broker.is_fenced && !has_failed(broker))
}

fn has_failed(broker: &BrokerStatus) -> bool {
    broker.replicas_failed.is_some_and(|count| count > 0)
}

fn told(status: &ClusterStatus, is_well: bool) -> Told<'_> {
    let member = |member: &QuorumMember| ToldMember {
        broker: member.broker,
        is_voter: member.is_voter,
        lag_entries: member.lag,
    };
    let counts = status.partitions;
    Told {
        cluster_id: &status.id,
        feature_level: status.feature_level,
        metadata_version: status.metadata_version,
        controller: status.quorum.leader,
        term: status.quorum.term,
        last_index: status.quorum.last_index,
        members: status.quorum.members.iter().map(member).collect(),
        partitions: ToldPartitions {
            all: counts.all,
            offline: counts.offline,
            under_replicated: counts.under_replicated,
            below_minimum: counts.below_minimum,
            moving: counts.moving,
        },
        brokers: status.brokers.iter().map(told_broker).collect(),
        answered_by: status.answered_by,
        version: &status.version,
        is_current: status.quorum.leader.is_some(),
        is_well,
    }
}

fn told_broker(status: &BrokerStatus) -> ToldBroker {
    ToldBroker {
        broker: status.broker.id,
        state: state(status),
        rack: status.broker.rack.clone(),
        kafka: status.broker.kafka.clone(),
        grpc: format!("{}:{}", status.broker.host, status.broker.port),
        cluster: status.cluster_address.clone(),
        leaders: status.leaders,
        replicas: status.replicas,
        replicas_behind: status.replicas_behind,
        replicas_failed: status.replicas_failed,
        failure: status.failure.clone(),
        feature_levels: [status.feature_levels.0, status.feature_levels.1],
    }
}

fn state(status: &BrokerStatus) -> &'static str {
    match (status.broker.is_fenced, status.is_stopping) {
        (true, _) => "fenced",
        (false, true) => "stopping",
        (false, false) => "serving",
    }
}

fn in_words(status: &ClusterStatus, sink: &mut Sink) -> std::io::Result<()> {
    let counts = status.partitions;
    let brokers = counted(status.brokers.len(), "broker");
    sink.line(&format!("cluster {}, feature level {}, {brokers}", status.id, status.feature_level))?;
    let controller = match status.quorum.leader {
        Some(leader) => format!("controller {leader}"),
        None => alarming("nobody leads the metadata quorum"),
    };
    let voters: Vec<i32> = voters(status).collect();
    sink.line(&format!("{controller}, term {}, voters {}", status.quorum.term, list(&voters)))?;
    if status.quorum.leader.is_none() {
        sink.line(&alarming(&format!("what follows is what broker {} knew last", status.answered_by)))?;
    }
    let lacks = [
        (counts.offline, "offline"),
        (counts.below_minimum, "below min.insync.replicas"),
        (counts.under_replicated, "under-replicated"),
    ];
    let mut words = vec![counted(counts.all as usize, "partition")];
    for (count, what) in lacks {
        let text = format!("{count} {what}");
        words.push(if count > 0 { alarming(&text) } else { text });
    }
    words.push(format!("{} moving", counts.moving));
    sink.line(&words.join(", "))?;
    for broker in status.brokers.iter().filter(|broker| has_failed(broker)) {
        let (id, count) = (broker.broker.id, broker.replicas_failed.unwrap_or_default());
        let first = broker.failure.as_deref().unwrap_or_default();
        sink.line(&alarming(&format!(
            "broker {id} cannot use {}: {first}",
            counted(count as usize, "replica")
        )))?;
    }
    brokers_in_table(status, sink)
}

pub(super) fn voters(status: &ClusterStatus) -> impl Iterator<Item = i32> {
    status.quorum.members.iter().filter(|member| member.is_voter).map(|member| member.broker)
}

fn brokers_in_table(status: &ClusterStatus, sink: &mut Sink) -> std::io::Result<()> {
    let mut table = Pages::new(&[
        Column::Number("broker"),
        Column::Text("state"),
        Column::Text("rack"),
        Column::Text("quorum"),
        Column::Number("leads"),
        Column::Number("replicas"),
        Column::Number("behind"),
        Column::Number("failed"),
        Column::Text("Kafka"),
        Column::Text("gRPC"),
        Column::Text("brokers"),
    ]);
    for broker in &status.brokers {
        let told = told_broker(broker);
        let member = status.quorum.members.iter().find(|member| member.broker == told.broker);
        let calm = |text: String| (text, false);
        let cells = vec![
            calm(told.broker.to_string()),
            state_cell(told.state, status.quorum.leader.is_some()),
            calm(told.rack.unwrap_or_else(|| "-".to_owned())),
            calm(member.map_or("-".to_owned(), |member| share(member, status.quorum.leader))),
            calm(told.leaders.to_string()),
            calm(told.replicas.to_string()),
            (told.replicas_behind.to_string(), told.replicas_behind > 0),
            (told.replicas_failed.map_or("-".to_owned(), |count| count.to_string()), has_failed(broker)),
            calm(told.kafka),
            calm(told.grpc),
            calm(told.cluster.unwrap_or_else(|| "-".to_owned())),
        ];
        table.row_with_alarms(sink, cells)?;
    }
    table.flush(sink)
}

/// Nobody knows who is there while nobody leads.
fn state_cell(state: &str, is_current: bool) -> (String, bool) {
    match is_current {
        true => (state.to_owned(), state != "serving"),
        false => (format!("last known: {state}"), true),
    }
}

/// `leader`, `voter`, `voter, 12 behind`, `learner`.
fn share(member: &QuorumMember, leader: Option<i32>) -> String {
    let role = match (leader == Some(member.broker), member.is_voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    };
    match member.lag {
        Some(lag) if lag > 0 => format!("{role}, {lag} behind"),
        _ => role.to_owned(),
    }
}

pub(crate) async fn brokers(args: &BrokersArgs) -> anyhow::Result<()> {
    let status = args.server.connect().await?.admin().status().await?;
    let mut sink = Sink::stdout();
    match args.output.format {
        Format::Json => {
            for broker in &status.brokers {
                sink.json(&told_broker(broker))?;
            }
        }
        Format::Table => brokers_in_table(&status, &mut sink)?,
    }
    Ok(sink.flush()?)
}

pub(crate) async fn feature_level(args: &LevelArgs) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Level {
        feature_level: u32,
    }
    let admin = args.server.connect().await?.admin();
    if let Some(level) = args.level {
        admin.set_feature_level(level).await?;
    }
    let level = admin.status().await?.feature_level;
    args.output.say(&format!("the cluster works at feature level {level}"), &Level { feature_level: level })
}

#[cfg(test)]
mod tests {
    use floodmark_client::admin::{Broker, PartitionCounts, Quorum};

    use super::*;

    fn status(replicas_failed: Option<u32>) -> ClusterStatus {
        let broker = Broker {
            id: 1,
            host: "h".to_owned(),
            port: 1,
            rack: None,
            is_fenced: false,
            kafka: "h:2".to_owned(),
        };
        let broker = BrokerStatus {
            broker,
            is_stopping: false,
            leaders: 1,
            replicas: 1,
            replicas_behind: 0,
            replicas_failed,
            failure: None,
            cluster_address: None,
            feature_levels: (1, 2),
        };
        let quorum =
            Quorum { leader: Some(1), term: 1, last_index: None, applied_index: None, members: Vec::new() };
        let partitions =
            PartitionCounts { all: 1, offline: 0, under_replicated: 0, below_minimum: 0, moving: 0 };
        ClusterStatus {
            id: "c".to_owned(),
            feature_level: 2,
            metadata_version: 1,
            brokers: vec![broker],
            quorum,
            partitions,
            answered_by: 1,
            version: "v".to_owned(),
        }
    }

    #[test]
    fn a_cluster_with_a_log_that_cannot_be_used_is_not_well() {
        assert!(is_well(&status(Some(0))) && is_well(&status(None)));
        assert!(!is_well(&status(Some(1))));
    }
}
