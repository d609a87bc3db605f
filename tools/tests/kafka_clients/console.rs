//! Apache Kafka's own command line tools, each as a program of its own: what they print, and how they end.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::adapter::Failure;
use crate::ensure;
use crate::kafka_reference::Kafka;
use crate::kafka_reference::process::{await_exit, poll, read};

const DEADLINE: Duration = Duration::from_secs(90);

/// The tools, and the broker that they are pointed at.
pub(crate) struct Tools {
    pub(crate) kafka: Kafka,
    pub(crate) bootstrap: String,
    pub(crate) dir: PathBuf,
    /// Begins every name.
    pub(crate) prefix: String,
}

/// A tool, or a few that belong together.
pub(crate) struct ToolCase {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Tools) -> Result<String, Failure>,
    /// Whether it is part of the short set.
    pub(crate) is_short: bool,
}

/// All tools, in the order of the report.
pub(crate) const TOOL_CASES: &[ToolCase] = &[
    ToolCase { name: "topics", run: topics, is_short: true },
    ToolCase { name: "configs", run: configs, is_short: true },
    ToolCase { name: "producer_consumer_groups", run: groups, is_short: true },
    ToolCase { name: "offsets_and_delete_records", run: offsets, is_short: true },
    ToolCase { name: "log_dirs", run: log_dirs, is_short: false },
    ToolCase { name: "verifiable", run: verifiable, is_short: false },
    ToolCase { name: "performance", run: performance, is_short: false },
    ToolCase { name: "end_to_end_latency", run: end_to_end_latency, is_short: false },
    ToolCase { name: "broker_api_versions", run: broker_api_versions, is_short: true },
    ToolCase { name: "client_compatibility", run: client_compatibility, is_short: false },
    ToolCase { name: "connect", run: connect, is_short: true },
];

/// How a tool ended.
struct Ended {
    is_success: bool,
    out: String,
    err: String,
}

impl Ended {
    /// Everything it said.
    fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

impl Tools {
    pub(crate) fn version(&self) -> &'static str {
        crate::kafka_reference::toolchain::VERSION
    }

    fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// A file with this text.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(self.name(name));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a tool to its end with `--bootstrap-server` before its arguments.
    fn run(&self, class: &str, arguments: &[&str]) -> Result<Ended, Failure> {
        self.run_with(class, arguments, "")
    }

    fn run_with(&self, class: &str, arguments: &[&str], stdin: &str) -> Result<Ended, Failure> {
        let mut command = self.command(class, stdin);
        command.args(["--bootstrap-server", &self.bootstrap]).args(arguments);
        let mut child = command.spawn().unwrap();
        let Some(status) = await_exit(&mut child, DEADLINE) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::wrong(format!("{class} {arguments:?} does not end within {DEADLINE:?}")));
        };
        let said = |kind: &str| read(&self.dir.join(self.name(kind)));
        Ok(Ended { is_success: status.success(), out: said("tool.out"), err: said("tool.err") })
    }

    fn command(&self, class: &str, stdin: &str) -> Command {
        let file = |kind: &str| fs::File::create(self.dir.join(self.name(kind))).unwrap();
        let mut command = self.kafka.java();
        command.arg(class).stdout(file("tool.out")).stderr(file("tool.err"));
        let input = self.file("tool.in", stdin);
        command.stdin(Stdio::from(fs::File::open(input).unwrap()));
        command
    }

    /// Runs a tool that has to succeed; returns what it printed.
    fn succeed(&self, class: &str, arguments: &[&str]) -> Result<String, Failure> {
        let ended = self.run(class, arguments)?;
        ensure!(ended.is_success, "{class} {arguments:?} failed: {}", ended.all());
        Ok(ended.out)
    }

    /// Runs a tool that has to fail for a reason.
    fn fail(&self, class: &str, arguments: &[&str], reason: &str) -> Result<(), Failure> {
        let ended = self.run(class, arguments)?;
        ensure!(!ended.is_success, "{class} {arguments:?} succeeded: {}", ended.all());
        ensure!(
            ended.all().contains(reason),
            "{class} {arguments:?} does not say {reason:?}: {}",
            ended.all()
        );
        Ok(())
    }

    fn create(&self, what: &str, partitions: u32) -> Result<String, Failure> {
        let topic = self.name(what);
        let count = partitions.to_string();
        let out = self.succeed(TOPIC, &["--create", "--topic", &topic, "--partitions", &count])?;
        ensure!(out.contains(&format!("Created topic {topic}.")), "the topic tool says {out:?}");
        Ok(topic)
    }

    /// `count` lines from the console producer.
    fn produce(&self, topic: &str, lines: &str) -> Result<(), Failure> {
        let arguments =
            ["--topic", topic, "--reader-property", "parse.key=true", "--reader-property", "key.separator=:"];
        let ended = self.run_with("org.apache.kafka.tools.ConsoleProducer", &arguments, lines)?;
        ensure!(
            ended.is_success && !ended.all().contains("ERROR"),
            "the console producer says {}",
            ended.all()
        );
        Ok(())
    }
}

const TOPIC: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIG: &str = "kafka.admin.ConfigCommand";
const GROUP: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

/// The rows of a table, cell by cell, without its head.
fn rows<'a>(out: &'a str, head: &str) -> Result<Vec<Vec<&'a str>>, Failure> {
    let lines: Vec<Vec<&str>> =
        out.lines().map(|l| l.split_whitespace().collect()).filter(|l: &Vec<_>| !l.is_empty()).collect();
    let wanted: Vec<&str> = head.split_whitespace().collect();
    match lines.iter().position(|line| *line == wanted) {
        Some(at) => Ok(lines[at + 1..].to_vec()),
        None => Err(Failure::wrong(format!("no table {head:?} in {out:?}"))),
    }
}

fn topics(tools: &Tools) -> Result<String, Failure> {
    let topic = tools.create("topics", 3)?;
    tools.fail(TOPIC, &["--create", "--topic", &topic], "already exists")?;
    tools.fail(TOPIC, &["--create", "--topic", "in/valid"], "InvalidTopicException")?;
    tools.succeed(TOPIC, &["--alter", "--topic", &topic, "--partitions", "4"])?;
    let out = tools.succeed(TOPIC, &["--describe", "--topic", &topic])?;
    let lines: Vec<&str> = out.lines().collect();
    let head = lines.first().copied().unwrap_or_default();
    let has_head = head.starts_with(&format!("Topic: {topic}\tTopicId: "))
        && head.contains("\tPartitionCount: 4\tReplicationFactor: 1\tConfigs: ");
    ensure!(has_head, "the topic is described as {head:?}");
    for number in 0..4 {
        let line = lines.get(number + 1).copied().unwrap_or_default();
        let fields: Vec<&str> = line.trim().split('\t').collect();
        let partition = format!("Partition: {number}");
        ensure!(
            fields.len() >= 5
                && fields[1] == partition
                && fields[2].starts_with("Leader: ")
                && fields[4].starts_with("Isr: "),
            "partition {number} is described as {line:?}"
        );
        let leader = fields[2].trim_start_matches("Leader: ");
        ensure!(fields[4] == format!("Isr: {leader}"), "partition {number} is described as {line:?}");
    }
    let out = tools.succeed(TOPIC, &["--list"])?;
    ensure!(out.lines().any(|l| l == topic), "{topic} is not listed in {out:?}");
    tools.succeed(TOPIC, &["--delete", "--topic", &topic])?;
    tools.fail(TOPIC, &["--describe", "--topic", &topic], "does not exist as expected")?;
    Ok(String::new())
}

fn configs(tools: &Tools) -> Result<String, Failure> {
    let topic = tools.create("configs", 1)?;
    let entity = ["--entity-type", "topics", "--entity-name", &topic];
    let with = |more: &[&'static str]| [&entity[..], more].concat();
    tools.succeed(
        CONFIG,
        &with(&["--alter", "--add-config", "max.message.bytes=2000000,retention.ms=1000000"]),
    )?;
    let out = tools.succeed(CONFIG, &with(&["--describe"]))?;
    let line = out.lines().find(|l| l.trim().starts_with("max.message.bytes=")).unwrap_or_default();
    let synonyms = "max.message.bytes=2000000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000000, \
                    DEFAULT_CONFIG:message.max.bytes=1048588}";
    ensure!(line.trim() == synonyms, "max.message.bytes is described as {line:?}");
    tools.succeed(CONFIG, &with(&["--alter", "--delete-config", "max.message.bytes"]))?;
    let out = tools.succeed(CONFIG, &with(&["--describe"]))?;
    ensure!(!out.contains("max.message.bytes"), "a deleted setting is still there: {out}");
    ensure!(out.contains("retention.ms=1000000"), "a setting went with another: {out}");
    tools.fail(CONFIG, &with(&["--alter", "--add-config", "nonsense=1"]), "InvalidConfigurationException")?;
    let out = tools
        .succeed(CONFIG, &["--entity-type", "topics", "--entity-name", &topic, "--describe", "--all"])?;
    for wanted in ["cleanup.policy=delete", "compression.type=producer", "min.insync.replicas=1"] {
        ensure!(out.contains(wanted), "{wanted} is not among all settings: {out}");
    }
    Ok(String::new())
}

fn groups(tools: &Tools) -> Result<String, Failure> {
    let topic = tools.create("groups", 2)?;
    let lines: String = (0..100).map(|n| format!("k{n}:v{n}\n")).collect();
    tools.produce(&topic, &lines)?;
    let group = tools.name("group");
    let arguments = [
        "--topic",
        &topic,
        "--group",
        &group,
        "--from-beginning",
        "--max-messages",
        "100",
        "--formatter-property",
        "print.key=true",
        "--formatter-property",
        "key.separator=:",
    ];
    let out = tools.succeed("org.apache.kafka.tools.consumer.ConsoleConsumer", &arguments)?;
    let mut got: Vec<&str> = out.lines().filter(|l| l.starts_with('k')).collect();
    got.sort_unstable();
    let mut sent: Vec<&str> = lines.lines().collect();
    sent.sort_unstable();
    ensure!(got == sent, "the console consumer gave {} lines: {out}", got.len());

    let head = "GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID";
    let out = tools.succeed(GROUP, &["--describe", "--group", &group])?;
    let found = rows(&out, head)?;
    let committed: u32 = found.iter().filter_map(|r| r.get(3)?.parse::<u32>().ok()).sum();
    let has_lag = found.iter().any(|r| r.get(5) != Some(&"0"));
    ensure!(found.len() == 2 && committed == 100 && !has_lag, "the group is described as {out}");
    let out = tools.succeed(GROUP, &["--list"])?;
    ensure!(out.lines().any(|l| l == group), "{group} is not listed in {out}");
    let out = tools.succeed("org.apache.kafka.tools.GroupsCommand", &["--list"])?;
    let listed = rows(&out, "GROUP TYPE PROTOCOL")?;
    ensure!(listed.iter().any(|r| *r == [group.as_str(), "Classic", "consumer"]), "{group} is not in {out}");
    let reset = ["--group", &group, "--topic", &topic, "--reset-offsets", "--to-earliest", "--execute"];
    let out = tools.succeed(GROUP, &reset)?;
    let reset = rows(&out, "GROUP TOPIC PARTITION NEW-OFFSET")?;
    ensure!(reset.len() == 2 && reset.iter().all(|r| r.get(3) == Some(&"0")), "reset: {out}");
    let out = tools.succeed(GROUP, &["--describe", "--group", &group])?;
    let lag: u32 = rows(&out, head)?.iter().filter_map(|r| r.get(5)?.parse::<u32>().ok()).sum();
    ensure!(lag == 100, "after the reset the group is described as {out}");
    let out = tools.succeed(GROUP, &["--delete", "--group", &group])?;
    ensure!(out.contains("was successful"), "the group tool says {out:?}");
    // This tool ends with success even so.
    let again = tools.run(GROUP, &["--delete", "--group", &group])?.all();
    ensure!(again.contains("GroupIdNotFoundException"), "a deleted group is deleted again: {again}");
    Ok(String::new())
}

fn offsets(tools: &Tools) -> Result<String, Failure> {
    let topic = tools.create("offsets", 1)?;
    tools.produce(&topic, &(0..20).map(|n| format!("k:{n}\n")).collect::<String>())?;
    let shell = "org.apache.kafka.tools.GetOffsetShell";
    let expect = |time: &str, offset: u32| {
        let out = tools.succeed(shell, &["--topic", &topic, "--time", time])?;
        ensure!(out.trim() == format!("{topic}:0:{offset}"), "offset at {time}: {out:?}");
        Ok(())
    };
    expect("latest", 20)?;
    expect("earliest", 0)?;
    let wanted = format!(r#"{{"partitions":[{{"topic":"{topic}","partition":0,"offset":5}}],"version":1}}"#);
    let file = tools.file("delete.json", &wanted);
    let out = tools.succeed("org.apache.kafka.tools.DeleteRecordsCommand", &["--offset-json-file", &file])?;
    ensure!(out.contains(&format!("partition: {topic}-0\tlow_watermark: 5")), "delete records: {out:?}");
    expect("earliest", 5)?;
    // The first record of all times is the first that is left.
    expect("0", 5)?;
    Ok(String::new())
}

fn log_dirs(tools: &Tools) -> Result<String, Failure> {
    let topic = tools.create("log-dirs", 2)?;
    tools.produce(&topic, "k:v\n")?;
    let out =
        tools.succeed("org.apache.kafka.tools.LogDirsCommand", &["--describe", "--topic-list", &topic])?;
    let line = out.lines().find(|l| l.starts_with('{')).unwrap_or_default();
    let told: Value = serde_json::from_str(line).map_err(|e| Failure::wrong(format!("{e} in {out:?}")))?;
    ensure!(told["version"] == 1 && told["brokers"].as_array().is_some_and(|b| b.len() == 1), "{told}");
    let dir = &told["brokers"][0]["logDirs"][0];
    ensure!(dir["error"].is_null() && dir["logDir"].is_string(), "{told}");
    let partitions = dir["partitions"].as_array().cloned().unwrap_or_default();
    let sizes: i64 = partitions.iter().filter_map(|p| p["size"].as_i64()).sum();
    ensure!(partitions.len() == 2 && sizes > 0, "{told}");
    let are_plain = partitions.iter().all(|p| p["offsetLag"] == 0 && p["isFuture"] == false);
    ensure!(are_plain, "{told}");
    Ok(String::new())
}

/// The events that a verifiable client prints.
fn events(out: &str, name: &str) -> Vec<Value> {
    let parsed = out.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    parsed.filter(|e| e["name"] == name).collect()
}

fn verifiable(tools: &Tools) -> Result<String, Failure> {
    let topic = tools.create("verifiable", 2)?;
    let producer = "org.apache.kafka.tools.VerifiableProducer";
    let out = tools.succeed(producer, &["--topic", &topic, "--max-messages", "500"])?;
    let told = events(&out, "tool_data");
    ensure!(told.len() == 1 && told[0]["sent"] == 500 && told[0]["acked"] == 500, "{told:?}");
    ensure!(events(&out, "producer_send_error").is_empty(), "{out}");
    let group = tools.name("verifiable-group");
    let arguments =
        ["--topic", &topic, "--group-id", &group, "--max-messages", "500", "--reset-policy", "earliest"];
    let out = tools.succeed("org.apache.kafka.tools.VerifiableConsumer", &arguments)?;
    let consumed: i64 = events(&out, "records_consumed").iter().filter_map(|e| e["count"].as_i64()).sum();
    ensure!(consumed == 500, "{consumed} records consumed");
    let commits = events(&out, "offsets_committed");
    ensure!(!commits.is_empty() && commits.iter().all(|e| e["success"] == true), "{commits:?}");
    Ok(String::new())
}

fn performance(tools: &Tools) -> Result<String, Failure> {
    let topic = tools.create("performance", 2)?;
    let arguments =
        ["--topic", &topic, "--num-records", "20000", "--record-size", "100", "--throughput", "-1"];
    let out = tools.succeed("org.apache.kafka.tools.ProducerPerformance", &arguments)?;
    ensure!(out.lines().any(|l| l.starts_with("20000 records sent, ")), "the producer says {out:?}");
    let arguments = ["--topic", &topic, "--num-records", "20000", "--timeout", "30000"];
    let out = tools.succeed("org.apache.kafka.tools.ConsumerPerformance", &arguments)?;
    let head = "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, \
                fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec";
    let lines: Vec<&str> = out.lines().collect();
    let at = lines.iter().position(|l| *l == head);
    let figures: Vec<&str> =
        at.and_then(|at| lines.get(at + 1)).map(|l| l.split(", ").collect()).unwrap_or_default();
    ensure!(figures.len() == 10 && figures[4] == "20000", "the consumer says {out:?}");
    Ok(String::new())
}

fn end_to_end_latency(tools: &Tools) -> Result<String, Failure> {
    let topic = tools.create("latency", 1)?;
    let arguments =
        ["--topic", &topic, "--num-records", "50", "--producer-acks", "all", "--record-size", "100"];
    let out = tools.succeed("org.apache.kafka.tools.EndToEndLatency", &arguments)?;
    ensure!(out.contains("Avg latency: ") && out.contains("Percentiles: 50th = "), "it says {out:?}");
    Ok(String::new())
}

/// Every row that a broker advertises has a version that today's Java client can use.
fn broker_api_versions(tools: &Tools) -> Result<String, Failure> {
    let out = tools.succeed("org.apache.kafka.tools.BrokerApiVersionsCommand", &[])?;
    let rows: Vec<&str> = out.lines().filter(|l| l.starts_with('\t')).map(str::trim).collect();
    ensure!(rows.iter().any(|r| r.starts_with("Produce(0): ")), "it says {out:?}");
    let unusable: Vec<_> =
        rows.iter().filter(|r| r.contains("[unusable") && !r.contains("NODE_TOO")).collect();
    ensure!(unusable.is_empty(), "of no use: {unusable:?}");
    let served: Vec<_> = rows.iter().filter(|r| r.contains("[usable: ")).collect();
    let needed = [
        "Produce",
        "Fetch",
        "ListOffsets",
        "Metadata",
        "OffsetCommit",
        "OffsetFetch",
        "FindCoordinator",
        "JoinGroup",
        "Heartbeat",
        "LeaveGroup",
        "SyncGroup",
        "DescribeGroups",
        "ListGroups",
        "ApiVersions",
        "CreateTopics",
        "DeleteTopics",
        "DeleteRecords",
        "InitProducerId",
        "DescribeConfigs",
        "IncrementalAlterConfigs",
        "CreatePartitions",
        "DeleteGroups",
        "DescribeCluster",
        "DescribeLogDirs",
    ];
    for name in needed {
        let is_there = served.iter().any(|r| r.starts_with(&format!("{name}(")));
        ensure!(is_there, "{name} is not served: {out}");
    }
    Ok(format!("{} APIs", served.len()))
}

fn client_compatibility(tools: &Tools) -> Result<String, Failure> {
    let topic = tools.create("compatibility", 1)?;
    let arguments = [
        "--topic",
        &topic,
        "--offsets-for-times-supported",
        "true",
        "--cluster-id-supported",
        "true",
        "--expect-record-too-large-exception",
        "false",
        "--num-cluster-nodes",
        "1",
        "--create-topics-supported",
        "true",
        "--describe-acls-supported",
        "false",
        "--describe-configs-supported",
        "true",
        "--idempotent-producer-supported",
        "true",
    ];
    let ended = tools.run("org.apache.kafka.tools.ClientCompatibilityTest", &arguments)?;
    ensure!(ended.is_success, "it says {}", ended.all());
    Ok(String::new())
}

/// Connect, standalone: a file, a topic, a file; then the source grows, and the worker is started a second time.
fn connect(tools: &Tools) -> Result<String, Failure> {
    let dir = tools.dir.join(tools.name("connect"));
    fs::create_dir_all(&dir).unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let topic = tools.create("connect", 1)?;
    let worker = format!(
        "bootstrap.servers={}\nkey.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=org.apache.kafka.connect.storage.StringConverter\noffset.storage.file.filename={}\n\
         offset.flush.interval.ms=300\nlisteners=http://127.0.0.1:0\n",
        tools.bootstrap,
        path("offsets")
    );
    let source = format!(
        "name=source\nconnector.class=org.apache.kafka.connect.file.FileStreamSourceConnector\nfile={}\ntopic={topic}\n",
        path("in.txt")
    );
    let sink = format!(
        "name={}\nconnector.class=org.apache.kafka.connect.file.FileStreamSinkConnector\nfile={}\ntopics={topic}\n",
        tools.name("sink"),
        path("out.txt")
    );
    for (name, text) in
        [("worker.properties", &worker), ("source.properties", &source), ("sink.properties", &sink)]
    {
        fs::write(path(name), text).unwrap();
    }
    let mut text = String::new();
    for run in 0..2 {
        text.extend((0..2000).map(|n| format!("line {run}/{n}\n")));
        fs::write(path("in.txt"), &text).unwrap();
        let mut command = tools.command("org.apache.kafka.connect.cli.ConnectStandalone", "");
        command.args([path("worker.properties"), path("source.properties"), path("sink.properties")]);
        let mut worker = command.spawn().unwrap();
        let is_same =
            poll(DEADLINE, || read(&dir.join("out.txt")) == text || !matches!(worker.try_wait(), Ok(None)));
        // Asked to stop, it commits what it read and wrote; the second run goes on from there.
        let _ = Command::new("kill").args(["-TERM", &worker.id().to_string()]).status();
        if await_exit(&mut worker, DEADLINE).is_none() {
            let _ = worker.kill();
            let _ = worker.wait();
            return Err(Failure::wrong("the worker does not stop"));
        }
        let out = read(&dir.join("out.txt"));
        ensure!(
            is_same && out == text,
            "run {run}: {} lines of {} arrived; the worker says {}",
            out.lines().count(),
            text.lines().count(),
            last_lines(&read(&tools.dir.join(tools.name("tool.out"))))
        );
    }
    Ok("standalone, file source and file sink".to_owned())
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().rev().take(8).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
