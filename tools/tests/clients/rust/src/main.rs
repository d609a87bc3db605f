//! The rdkafka crate, which is librdkafka. Speaks as ../../README.md tells.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(30);

/// What goes wrong in an operation.
enum Trouble {
    Unsupported(String),
    Kafka(KafkaError),
    Code(RDKafkaErrorCode),
    Other(String),
}

impl From<KafkaError> for Trouble {
    fn from(error: KafkaError) -> Trouble {
        Trouble::Kafka(error)
    }
}

type Answer = Result<Value, Trouble>;

/// Collects where records ended up.
#[derive(Default)]
struct Deliveries(Mutex<Vec<(usize, Result<(i32, i64), KafkaError>)>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        let place = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().unwrap().push((*number, place));
    }
}

/// Notes what is taken away.
#[derive(Default)]
struct Revocations(Mutex<Vec<i32>>);

impl ClientContext for Revocations {}

impl ConsumerContext for Revocations {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            self.0.lock().unwrap().extend(partitions.elements().iter().map(|p| p.partition()));
        }
    }
}

struct Adapter {
    bootstrap: String,
    consumer: Option<BaseConsumer<Revocations>>,
}

impl Adapter {
    fn run(&mut self, request: &Value) -> Answer {
        let topic = text(request, "topic");
        let group = text(request, "group");
        match text(request, "op") {
            "hello" => {
                let (_, version) = rdkafka::util::get_rdkafka_version();
                let version = format!("0.39.0 (librdkafka {version})");
                Ok(json!({"version": version, "codecs": ["none", "gzip", "snappy", "lz4", "zstd"], "lacks": ["config errors"]}))
            }
            "produce" => self.produce(topic, request),
            "transaction" => self.transaction(topic, text(request, "transactional_id")),
            "assign" => self.assign(topic, request),
            "subscribe" => self.subscribe(topic, group, request),
            "poll" => self.poll(number(request, "ms") as u64),
            "commit" => {
                self.consumer()?.commit_consumer_state(CommitMode::Sync)?;
                Ok(json!({}))
            }
            "close" => {
                self.consumer = None;
                Ok(json!({}))
            }
            "metadata" => {
                let metadata = self.admin()?.inner().fetch_metadata(None, WAIT)?;
                let wanted = metadata.topics().iter().filter(|t| t.name().starts_with(text(request, "prefix")));
                Ok(json!({"topics": wanted.map(|t| json!([t.name(), t.partitions().len()])).collect::<Vec<_>>()}))
            }
            "describe_cluster" => {
                let admin = self.admin()?;
                let id = admin.inner().fetch_cluster_id(WAIT);
                let metadata = admin.inner().fetch_metadata(Some(" "), WAIT)?;
                let brokers = metadata.brokers().iter().map(|b| json!([b.id(), b.host(), b.port()]));
                Ok(json!({"cluster_id": id, "controller": null, "brokers": brokers.collect::<Vec<_>>()}))
            }
            "describe_topic" => {
                // A consumer, because others have the broker make a topic that is not there.
                let metadata = self.any_consumer("none")?.fetch_metadata(Some(topic), WAIT)?;
                let topic = &metadata.topics()[0];
                if let Some(error) = topic.error() {
                    return Err(Trouble::Code(error.into()));
                }
                let partitions = topic.partitions().iter();
                let shown = partitions.map(|p| json!([p.id(), p.leader(), p.replicas().len(), p.isr().len()]));
                Ok(json!({"partitions": shown.collect::<Vec<_>>()}))
            }
            "list_offsets" => self.list_offsets(topic, request),
            "list_groups" => {
                let found = self.any_consumer("none")?.fetch_group_list(None, WAIT)?;
                Ok(json!({"groups": found.groups().iter().map(|g| g.name()).collect::<Vec<_>>()}))
            }
            "describe_group" => {
                let found = self.any_consumer("none")?.fetch_group_list(Some(group), WAIT)?;
                let group = found.groups().first().ok_or_else(|| Trouble::Other("no such group".to_owned()))?;
                Ok(json!({"state": group.state(), "members": group.members().len()}))
            }
            _ => self.administer(topic, group, request),
        }
    }

    fn administer(&self, topic: &str, group: &str, request: &Value) -> Answer {
        let admin = self.admin()?;
        let options = AdminOptions::new().operation_timeout(Some(WAIT)).request_timeout(Some(WAIT));
        match text(request, "op") {
            "create_topic" => {
                let partitions = number(request, "partitions") as i32;
                let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
                for (name, value) in texts(&request["configs"]) {
                    wanted = wanted.set(name, value);
                }
                all_done(block_on(admin.create_topics([&wanted], &options))?)
            }
            "delete_topic" => all_done(block_on(admin.delete_topics(&[topic], &options))?),
            "delete_group" => all_done(block_on(admin.delete_groups(&[group], &options))?),
            "create_partitions" => {
                let wanted = NewPartitions::new(topic, number(request, "count") as usize);
                all_done(block_on(admin.create_partitions([&wanted], &options))?)
            }
            "alter_configs" => {
                let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
                for (name, value) in texts(&request["configs"]) {
                    change = change.set(name, value);
                }
                all_done(block_on(admin.alter_configs([&change], &options))?)
            }
            "describe_configs" => {
                let specifier = ResourceSpecifier::Topic(topic);
                let found = block_on(admin.describe_configs([&specifier], &options))?.remove(0);
                let found = found.map_err(Trouble::Code)?;
                let configs = found.entries.into_iter().map(|e| (e.name, json!(e.value)));
                Ok(json!({"configs": configs.collect::<serde_json::Map<_, _>>()}))
            }
            "delete_records" => {
                let mut places = TopicPartitionList::new();
                let before = Offset::Offset(number(request, "before"));
                places.add_partition_offset(topic, number(request, "partition") as i32, before)?;
                let told = block_on(admin.delete_records(&places, &options))?;
                let told = &told.elements()[0];
                told.error()?;
                Ok(json!({"low": told.offset().to_raw()}))
            }
            other => Err(Trouble::Unsupported(format!("no {}", other.replace('_', " ")))),
        }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    fn admin(&self) -> KafkaResult<AdminClient<DefaultClientContext>> {
        self.config().create()
    }

    fn consumer(&self) -> Result<&BaseConsumer<Revocations>, Trouble> {
        self.consumer.as_ref().ok_or_else(|| Trouble::Other("no consumer".to_owned()))
    }

    fn any_consumer(&self, group: &str) -> KafkaResult<BaseConsumer> {
        self.config().set("group.id", group).create()
    }

    fn produce(&self, topic: &str, request: &Value) -> Answer {
        let mut config = self.config();
        config.set("compression.type", text(request, "codec")).set("acks", text(request, "acks"));
        config.set("enable.idempotence", request["idempotent"].to_string());
        config.set("message.max.bytes", "20000000").set("linger.ms", "5");
        let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default())?;
        let records = request["records"].as_array().map_or(&[][..], Vec::as_slice);
        for (at, record) in records.iter().enumerate() {
            let (key, value) = (unhex(&record["key"]), unhex(&record["value"]));
            let mut headers = OwnedHeaders::new();
            for pair in record["headers"].as_array().into_iter().flatten() {
                let value = unhex(&pair[1]);
                headers = headers.insert(Header { key: pair[0].as_str().unwrap(), value: value.as_ref() });
            }
            let mut wanted = BaseRecord::<Vec<u8>, Vec<u8>, _>::with_opaque_to(topic, Box::new(at)).headers(headers);
            wanted.key = key.as_ref();
            wanted.payload = value.as_ref();
            wanted.partition = record["partition"].as_i64().map(|p| p as i32);
            wanted.timestamp = record["timestamp"].as_i64();
            producer.send(wanted).map_err(|(error, _)| error)?;
            producer.poll(Duration::ZERO);
        }
        producer.flush(WAIT)?;
        let mut offsets = vec![(-1, -1); records.len()];
        for (at, place) in std::mem::take(&mut *producer.context().0.lock().unwrap()) {
            offsets[at] = place?;
        }
        Ok(json!({"offsets": offsets}))
    }

    fn transaction(&self, topic: &str, id: &str) -> Answer {
        let producer: BaseProducer = self.config().set("transactional.id", id).create()?;
        producer.init_transactions(WAIT)?;
        producer.begin_transaction()?;
        let record = BaseRecord::<[u8], [u8]>::to(topic).payload(b"in a transaction");
        producer.send(record).map_err(|(error, _)| error)?;
        producer.commit_transaction(WAIT)?;
        Ok(json!({}))
    }

    fn open(&mut self, more: &[(&str, String)]) -> Result<&BaseConsumer<Revocations>, Trouble> {
        self.consumer = None;
        let mut config = self.config();
        config.set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        for (name, value) in more {
            config.set(*name, value);
        }
        Ok(self.consumer.insert(config.create_with_context(Revocations::default())?))
    }

    fn assign(&mut self, topic: &str, request: &Value) -> Answer {
        let consumer = self.open(&[("group.id", "unused".to_owned())])?;
        let mut places = TopicPartitionList::new();
        for partition in partitions(request) {
            places.add_partition_offset(topic, partition, place(&request["start"]))?;
        }
        if request["start"].is_i64() {
            places = consumer.offsets_for_times(places, WAIT)?;
        }
        consumer.assign(&places)?;
        Ok(json!({}))
    }

    fn subscribe(&mut self, topic: &str, group: &str, request: &Value) -> Answer {
        let session = number(request, "session_ms");
        let strategy = if text(request, "strategy") == "eager" { "range" } else { "cooperative-sticky" };
        let mut config = vec![
            ("group.id", group.to_owned()),
            ("partition.assignment.strategy", strategy.to_owned()),
            ("session.timeout.ms", session.to_string()),
            ("heartbeat.interval.ms", (session / 6).to_string()),
        ];
        if let Some(instance) = request["instance"].as_str() {
            config.push(("group.instance.id", instance.to_owned()));
        }
        self.open(&config)?.subscribe(&[topic])?;
        Ok(json!({}))
    }

    fn poll(&self, ms: u64) -> Answer {
        let consumer = self.consumer()?;
        let until = Instant::now() + Duration::from_millis(ms);
        let mut records = Vec::new();
        while records.len() < 5000 {
            let wait = if records.is_empty() { until.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            match consumer.poll(wait) {
                Some(message) => records.push(shown(&message?)),
                None => break,
            }
        }
        let held: BTreeSet<i32> = consumer.assignment()?.elements().iter().map(|p| p.partition()).collect();
        let revoked = std::mem::take(&mut *consumer.context().0.lock().unwrap());
        Ok(json!({"records": records, "assignment": held, "revoked": revoked}))
    }

    fn list_offsets(&self, topic: &str, request: &Value) -> Answer {
        let consumer = self.any_consumer("none")?;
        let mut offsets = Vec::new();
        for partition in partitions(request) {
            let offset = match request["at"].as_str() {
                Some(at) => {
                    let (start, end) = consumer.fetch_watermarks(topic, partition, WAIT)?;
                    if at == "start" { start } else { end }
                }
                None => {
                    let mut wanted = TopicPartitionList::new();
                    wanted.add_partition_offset(topic, partition, place(&request["at"]))?;
                    let found = consumer.offsets_for_times(wanted, WAIT)?;
                    found.elements()[0].offset().to_raw().unwrap_or(-1)
                }
            };
            offsets.push((partition, offset));
        }
        Ok(json!({"offsets": offsets}))
    }
}

fn shown(message: &BorrowedMessage<'_>) -> Value {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    let headers: Vec<Value> = headers.map(|h| json!([h.key, h.value.map(hex)])).collect();
    json!([
        message.partition(),
        message.offset(),
        message.timestamp().to_millis(),
        message.key().map(hex),
        message.payload().map(hex),
        headers
    ])
}

/// Fails with the first error of a list of results.
fn all_done<T, E>(results: Vec<Result<T, (E, RDKafkaErrorCode)>>) -> Answer {
    match results.into_iter().find_map(Result::err) {
        Some((_, code)) => Err(Trouble::Code(code)),
        None => Ok(json!({})),
    }
}

fn place(start: &Value) -> Offset {
    match start.as_str() {
        Some("start") => Offset::Beginning,
        Some(_) => Offset::End,
        None => Offset::Offset(start.as_i64().unwrap_or(-1)),
    }
}

fn text<'a>(request: &'a Value, field: &str) -> &'a str {
    request[field].as_str().unwrap_or_default()
}

fn number(request: &Value, field: &str) -> i64 {
    request[field].as_i64().unwrap_or_default()
}

fn partitions(request: &Value) -> Vec<i32> {
    let list = request["partitions"].as_array().into_iter().flatten();
    list.filter_map(|p| p.as_i64()).map(|p| p as i32).collect()
}

fn texts(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    object.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(value: &Value) -> Option<Vec<u8>> {
    let digits = value.as_str()?.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    Some(digits.chunks(2).map(byte).collect())
}

fn main() {
    let bootstrap = std::env::args().nth(1).expect("the address of a broker");
    let mut adapter = Adapter { bootstrap, consumer: None };
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let answer = match adapter.run(&request) {
            Ok(ok) => json!({"ok": ok}),
            Err(Trouble::Unsupported(why)) => json!({"unsupported": why}),
            Err(Trouble::Other(why)) => json!({"error": why, "code": null}),
            Err(Trouble::Code(code)) => json!({"error": code.to_string(), "code": code as i32}),
            Err(Trouble::Kafka(error)) => {
                let code = error.rdkafka_error_code().map(|c| c as i32);
                json!({"error": error.to_string(), "code": code})
            }
        };
        writeln!(std::io::stdout(), "{answer}").unwrap();
    }
}
