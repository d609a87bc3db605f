//! Fills a broker through Kafka's own clients, and tells what it acknowledged.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::broker::Broker;
use super::process;
use super::toolchain::Kafka;

const DEADLINE: Duration = Duration::from_secs(120);

/// What to write; ReferenceWriter.java tells the topics.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    /// Makes all topics and fills them.
    All,
    /// Appends to some of them.
    More,
}

/// A record that the broker acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Written {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// The client's time, or the broker's where the topic says so.
    pub(crate) timestamp_ms: i64,
    #[serde(rename = "key_hex", deserialize_with = "from_hex")]
    pub(crate) key: Option<Vec<u8>>,
    #[serde(rename = "value_hex", deserialize_with = "from_hex")]
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<WrittenHeader>,
    /// `None` for a record outside transactions.
    pub(crate) transaction: Option<Transaction>,
}

/// A header; names may come twice, and may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct WrittenHeader {
    pub(crate) name: String,
    #[serde(rename = "value_hex", deserialize_with = "from_hex")]
    pub(crate) value: Option<Vec<u8>>,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transaction {
    Committed,
    Aborted,
}

impl Written {
    /// Name of the folder that holds it.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }
}

impl Kafka {
    /// Writes `part` into the broker; returns its records in the order of their acknowledgement for each producer.
    pub(crate) fn write(&self, broker: &Broker, part: Part) -> Vec<Written> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka_reference/ReferenceWriter.java");
        let name = match part {
            Part::All => "all",
            Part::More => "more",
        };
        let mut command = self.java();
        command.arg(source).arg(broker.bootstrap()).arg(name);
        let finished = process::run(command, self.home(), "writer", DEADLINE);
        assert!(finished.status.success(), "the writer failed: {}", finished.stderr);
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let bytes =
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16));
    bytes.collect::<Result<_, _>>().map(Some).map_err(serde::de::Error::custom)
}
