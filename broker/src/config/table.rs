//! Every setting of the broker: name, type, default, limits, flag and documentation, in one table. The typed configuration, what
//! files, environment and flags may say, and what `floodmark config` prints all come from here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use floodmark_proto::ids::ClusterId;
use tempfile::TempDir;

use super::value::{ByteSize, HostPort, LogFormat, Millis, Value, VoterAddress};
use super::{Origin, variable_of};

/// What is known of a setting beside its value.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name in a file; Kafka's where Kafka has it.
    pub key: &'static str,
    /// What it does.
    pub documentation: &'static str,
    /// The flag of `floodmark serve` that sets it, without dashes, and the name of the flag's value.
    pub flag: Option<(&'static str, &'static str)>,
    allowed: fn() -> String,
}

impl Setting {
    /// What may be written, in words.
    #[must_use]
    pub fn allowed(&self) -> String {
        (self.allowed)()
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        variable_of(self.key)
    }
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $key:literal, $default:expr
        $(, in $low:expr => $high:expr)? $(, flag $flag:literal $value_name:literal)?;)*) => {
        /// How a broker runs. Each field is a setting; [`BrokerConfig::effective`] says where its value came from.
        #[derive(Debug, Clone)]
        pub struct BrokerConfig {
            $($(#[doc = $doc])+ pub $field: $type,)*
            /// What topics take over where they have no setting of their own, by Kafka's names for brokers; those that somebody set.
            pub(super) log_defaults: BTreeMap<String, String>,
            pub(super) origins: BTreeMap<&'static str, Origin>,
            /// Kept for its drop, which removes the directory.
            pub(crate) temporary: Option<Arc<TempDir>>,
        }

        impl Default for BrokerConfig {
            fn default() -> BrokerConfig {
                BrokerConfig {
                    $($field: $default,)*
                    log_defaults: BTreeMap::new(),
                    origins: BTreeMap::new(),
                    temporary: None,
                }
            }
        }

        /// The table, in the order in which it is shown.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            key: $key,
            documentation: concat!($($doc),+),
            flag: settings!(@flag $($flag $value_name)?),
            allowed: || settings!(@allowed $type $(, $low => $high)?),
        },)*];

        impl BrokerConfig {
            /// Takes `text` for the value of `key`, which must be in the table. Says what is allowed where it is not.
            pub(super) fn assign(&mut self, key: &str, text: &str) -> Result<(), String> {
                match key {
                    $($key => {
                        let value = <$type as Value>::read(text)$(.filter(|v| *v >= $low && *v <= $high))?;
                        let Some(value) = value else {
                            return Err(settings!(@allowed $type $(, $low => $high)?));
                        };
                        self.$field = value;
                    })*
                    _ => {}
                }
                Ok(())
            }

            /// The value of `key` as it would be written in a file.
            pub(super) fn text(&self, key: &str) -> Option<String> {
                match key {
                    $($key => Some(self.$field.show()),)*
                    _ => None,
                }
            }
        }
    };
    (@allowed $type:ty) => { <$type as Value>::ALLOWED.to_owned() };
    (@allowed $type:ty, $low:expr => $high:expr) => {
        format!("{}, from {} to {}", <$type as Value>::ALLOWED, $low.show(), $high.show())
    };
    (@flag) => { None };
    (@flag $flag:literal $value_name:literal) => { Some(($flag, $value_name)) };
}

settings! {
    /// Directories that hold the logs. A partition lives in one of them; metadata in the first.
    data_dirs: Vec<PathBuf> = "data.dirs", vec![PathBuf::from("./floodmark-data")], flag "data-dir" "DIR";
    /// Number of this broker in its cluster.
    node_id: i32 = "node.id", 1, in 0 => i32::MAX, flag "node-id" "N";
    /// Where Kafka clients connect.
    kafka_listen: HostPort = "kafka.listen", HostPort::loopback(9092), flag "kafka-listen" "ADDRESS";
    /// The address that clients are told to use, where it is not the one this broker listens on: behind a proxy, in a container, or
    /// when listening on all addresses.
    kafka_advertised: Option<HostPort> = "kafka.advertised", None, flag "kafka-advertised" "ADDRESS";
    /// Where gRPC clients connect; off serves none.
    grpc_listen: Option<HostPort> = "grpc.listen", Some(HostPort::loopback(9093)), flag "grpc-listen" "ADDRESS";
    /// The address that gRPC clients are told to use, where it is not the one this broker listens on.
    grpc_advertised: Option<HostPort> = "grpc.advertised", None, flag "grpc-advertised" "ADDRESS";
    /// Largest message that is taken over gRPC; a larger one is refused, and ends its call.
    grpc_message_bytes_max: ByteSize = "grpc.message.max.bytes", ByteSize::mib(16), in ByteSize(64 << 10) => ByteSize::mib(1024);
    /// Where metrics and health are served over HTTP; off serves none.
    http_listen: Option<HostPort> = "http.listen", Some(HostPort::loopback(9094)), flag "http-listen" "ADDRESS";
    /// Where other brokers of the cluster connect; off serves none, and then this broker is a cluster by itself.
    cluster_listen: Option<HostPort> = "cluster.listen", None, flag "cluster-listen" "ADDRESS";
    /// The address that other brokers are told to use, where it is not the one this broker listens on.
    cluster_advertised: Option<HostPort> = "cluster.advertised", None, flag "cluster-advertised" "ADDRESS";
    /// The brokers that form the cluster and vote on its metadata, as ID@HOST:PORT with commas between, the same on each of them; their
    /// addresses are those of cluster.listen. A broker whose id is not among them asks them to let it join. Once a broker is a member
    /// these are only addresses to ask at. Empty forms a cluster of this broker alone.
    cluster_voters: Vec<VoterAddress> = "cluster.voters", Vec::new(), flag "voters" "LIST";
    /// The cluster that this broker must belong to; it refuses to be in another. Empty takes the one it finds, or makes one.
    cluster_id: Option<ClusterId> = "cluster.id", None;
    /// Where this broker stands: brokers with the same rack are taken to fail together, so replicas are spread over racks. Empty means
    /// nobody knows.
    broker_rack: Option<String> = "broker.rack", None, flag "rack" "NAME";
    /// How often a broker tells the controller that it is alive.
    broker_heartbeat_interval: Millis = "broker.heartbeat.interval.ms", Millis(250), in Millis(10) => Millis::seconds(60);
    /// A broker that the controller has not heard of for so long is fenced: others lead in its place.
    broker_session_timeout: Millis = "broker.session.timeout.ms", Millis::seconds(2), in Millis(100) => Millis::seconds(600);
    /// How often the leader of the metadata quorum tells the other voters that it is there.
    quorum_heartbeat: Millis = "quorum.heartbeat.ms", Millis(100), in Millis(10) => Millis::seconds(60);
    /// How long a voter hears nothing from a leader before it wants to lead, at least; at most it is twice as long.
    quorum_election_timeout: Millis = "quorum.election.timeout.ms", Millis(300), in Millis(30) => Millis::seconds(300);
    /// A follower that has not had all of a partition for so long is taken out of its in-sync set.
    replica_lag_time_max: Millis = "replica.lag.time.max.ms", Millis::seconds(10), in Millis(100) => Millis::seconds(86_400);
    /// How long a leader lets a follower wait for something new.
    replica_fetch_wait_max: Millis = "replica.fetch.wait.max.ms", Millis(500), in Millis(1) => Millis::seconds(60);
    /// Bytes of records that one answer to a follower holds at most; a single larger batch is sent alone.
    replica_fetch_bytes_max: ByteSize = "replica.fetch.max.bytes", ByteSize::mib(8), in ByteSize(64 << 10) => ByteSize::mib(256);
    /// Bytes a second that a follower takes from the disks of leaders, of partitions that it is far behind in, so that catching up leaves room
    /// for the rest; 0 sets no limit. What a leader still holds in memory (its tail.cache.bytes) costs no disk and is not bounded by it.
    replica_catchup_bytes_per_second: ByteSize = "replica.catchup.bytes.per.second", ByteSize(0), in ByteSize(0) => ByteSize::mib(1 << 20);
    /// How often leaders that are not their partition's preferred one are looked for and moved back; 0 never does.
    leader_rebalance_interval: Millis = "leader.rebalance.interval.ms", Millis::seconds(30), in Millis(0) => Millis::seconds(86_400);
    /// Partitions on this broker up to which each of them gets series of its own in the metrics; with more there are sums by topic alone.
    metrics_partitions_max: i32 = "metrics.partitions.max", 1000, in 0 => 1_000_000;
    /// Committed offsets of groups on this broker up to which each of them gets series of its own in the metrics, and groups up to which
    /// each has the sum of its lag.
    metrics_group_offsets_max: i32 = "metrics.group.offsets.max", 5000, in 0 => 1_000_000;
    /// Threads that serve connections; 0 takes one for each core.
    runtime_threads: i32 = "runtime.threads", 0, in 0 => 1024;
    /// Connections at one time. One more is closed at once.
    max_connections: i32 = "max.connections.total", 10_000, in 1 => i32::MAX;
    /// Connections at one time from one address.
    max_connections_per_ip: i32 = "max.connections.per.ip", 5_000, in 1 => i32::MAX;
    /// A connection on which nothing moves for so long is closed.
    connections_max_idle: Millis = "connections.max.idle.ms", Millis::seconds(600), in Millis(1) => Millis::seconds(86_400 * 365);
    /// Largest request that is taken; who announces a larger one loses the connection.
    request_bytes_max: ByteSize = "socket.request.max.bytes", ByteSize::mib(100), in ByteSize(1024) => ByteSize::mib(1024);
    /// Memory for requests that arrive or are not answered yet, of all connections together. Where it is used up, reading waits.
    queued_request_bytes_max: ByteSize = "queued.max.request.bytes", ByteSize::mib(256), in ByteSize::mib(1) => ByteSize::mib(1 << 20);
    /// Time that a request has from its first byte to its last, and a reply to be read by the client. Large ones get a second more for
    /// each 16 KiB, as long as they do not stand still for this time.
    request_timeout: Millis = "request.timeout.ms", Millis::seconds(30), in Millis(1) => Millis::seconds(86_400);
    /// Time that requests in progress have to finish when the broker stops.
    shutdown_timeout: Millis = "shutdown.timeout.ms", Millis::seconds(10), in Millis(0) => Millis::seconds(86_400);
    /// Partitions of a topic that is made without saying how many.
    num_partitions: i32 = "num.partitions", 1, in 1 => 100_000;
    /// Replicas of a topic that is made without saying how many; 0 takes three, or as many as the cluster has voters or brokers, if those
    /// are fewer.
    default_replication_factor: i32 = "default.replication.factor", 0, in 0 => i32::from(i16::MAX);
    /// Whether a topic is made when a client that permits it asks for one that is missing.
    auto_create_topics: bool = "auto.create.topics.enable", true;
    /// Bytes that one fetch gets at most, whatever the client asks for; the first batch of a partition is never cut short by it.
    fetch_bytes_max: ByteSize = "fetch.max.bytes", ByteSize::mib(55), in ByteSize(1024) => ByteSize::mib(1024);
    /// Shortest session timeout that a group member may ask for.
    group_min_session_timeout: Millis = "group.min.session.timeout.ms", Millis::seconds(6), in Millis(1) => Millis(i32::MAX as u64);
    /// Longest session timeout that a group member may ask for.
    group_max_session_timeout: Millis = "group.max.session.timeout.ms", Millis::seconds(1800), in Millis(1) => Millis(i32::MAX as u64);
    /// How long the first rebalance of an empty group waits for more members.
    group_initial_rebalance_delay: Millis = "group.initial.rebalance.delay.ms", Millis::seconds(3), in Millis(0) => Millis(i32::MAX as u64);
    /// Members that one group may have.
    group_max_size: i32 = "group.max.size", i32::MAX, in 1 => i32::MAX;
    /// Partitions of the topic that keeps group offsets. Cannot be changed once that topic is there.
    offsets_topic_partitions: i32 = "offsets.topic.num.partitions", 50, in 1 => 10_000;
    /// How long the offsets of a group without members are kept, in minutes.
    offsets_retention_minutes: i32 = "offsets.retention.minutes", 10_080, in 1 => i32::MAX;
    /// How often offsets are looked through for those past their time.
    offsets_retention_check: Millis = "offsets.retention.check.interval.ms", Millis::seconds(600), in Millis(1) => Millis::seconds(86_400 * 365);
    /// How long a commit of offsets, or their deletion, may wait for replicas and the disk before its client is told to try again.
    offsets_commit_timeout: Millis = "offsets.commit.timeout.ms", Millis::seconds(5), in Millis(1) => Millis(i32::MAX as u64);
    /// Longest text that may be committed beside an offset, in bytes.
    offset_metadata_bytes_max: i32 = "offset.metadata.max.bytes", 4096, in 0 => i32::MAX;
    /// Memory for the newest records of all partitions together, from which consumers and followers at the end are served. A partition
    /// to which so many bytes have come without anybody asking for its newest takes none until somebody does.
    tail_cache_bytes: ByteSize = "tail.cache.bytes", ByteSize::mib(64), in ByteSize(0) => ByteSize::mib(1 << 20);
    /// Form of the log that this program writes to standard error: text or json.
    logging_format: LogFormat = "logging.format", LogFormat::Text, flag "log-format" "FORMAT";
    /// What is logged: a level (error, warn, info, debug, trace), or several for parts of the program, as in
    /// info,floodmark_broker::kafka=debug.
    logging_filter: String = "logging.filter", "info,openraft=off".to_owned(), flag "log-filter" "FILTER";
}
