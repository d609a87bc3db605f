//! One running adapter program: requests and answers are lines of JSON, as `tests/clients/README.md` tells. Knows no cases.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Why something did not come about.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client has no such function.
    Unsupported(String),
    /// The client reported an error; the number is Kafka's, where the client tells it.
    Refused { text: String, code: Option<i64> },
    /// No answer, or not the right one.
    Wrong(String),
}

impl Failure {
    pub(crate) fn wrong(text: impl Into<String>) -> Failure {
        Failure::Wrong(text.into())
    }
}

/// Fails the case unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $($told:tt)+) => {
        if !$holds {
            return Err($crate::adapter::Failure::Wrong(format!($($told)+)));
        }
    };
}

/// A record to be produced. Bytes travel as hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Record {
    /// `None` leaves the choice to the client.
    pub(crate) partition: Option<i32>,
    #[serde(serialize_with = "as_hex")]
    pub(crate) key: Option<Vec<u8>>,
    #[serde(serialize_with = "as_hex")]
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<Header>,
    pub(crate) timestamp: Option<i64>,
}

/// A header; names may come twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header(
    pub(crate) String,
    #[serde(serialize_with = "as_hex", deserialize_with = "from_hex")] pub(crate) Option<Vec<u8>>,
);

/// A record as a consumer got it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Got {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    #[serde(deserialize_with = "from_hex")]
    pub(crate) key: Option<Vec<u8>>,
    #[serde(deserialize_with = "from_hex")]
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<Header>,
}

/// What one poll of a consumer gave.
#[derive(Debug, Deserialize)]
pub(crate) struct Polled {
    pub(crate) records: Vec<Got>,
    /// Partitions held now; empty where the client was told none by a group or by `assign`.
    pub(crate) assignment: Vec<i32>,
    /// Partitions taken away since the last poll.
    pub(crate) revoked: Vec<i32>,
}

/// What an adapter says of itself.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: String,
    pub(crate) codecs: Vec<String>,
    /// What it cannot send or tell; README.md has the list.
    pub(crate) lacks: Vec<String>,
}

/// A running adapter; dropped, it is killed.
pub(crate) struct Adapter {
    process: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
    said: PathBuf,
}

impl Adapter {
    /// Starts `command`; what it says on standard error goes to the file `said`.
    pub(crate) fn start(mut command: Command, said: &Path) -> Adapter {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(said).unwrap());
        let mut process = command.spawn().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
        let requests = process.stdin.take().unwrap();
        let mut reader = BufReader::new(process.stdout.take().unwrap());
        let (sender, answers) = channel();
        thread::spawn(move || {
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        Adapter { process, requests, answers, said: said.to_owned() }
    }

    /// Sends a request; `answer` waits for what comes of it.
    pub(crate) fn ask(&mut self, request: &Value) -> Result<(), Failure> {
        let line = format!("{request}\n");
        self.requests
            .write_all(line.as_bytes())
            .map_err(|e| Failure::wrong(format!("the program is gone: {e}; {}", self.last_words())))
    }

    /// The answer to the oldest request that has none yet.
    pub(crate) fn answer(&mut self, deadline: Duration) -> Result<Value, Failure> {
        let line = self.answers.recv_timeout(deadline).map_err(|e| match e {
            RecvTimeoutError::Timeout => {
                Failure::wrong(format!("no answer within {deadline:?}; {}", self.last_words()))
            }
            RecvTimeoutError::Disconnected => {
                Failure::wrong(format!("the program ended; {}", self.last_words()))
            }
        })?;
        let mut answer: Value =
            serde_json::from_str(&line).map_err(|e| Failure::wrong(format!("{e} in the answer {line:?}")))?;
        if let Some(text) = answer["unsupported"].as_str() {
            return Err(Failure::Unsupported(text.to_owned()));
        }
        if let Some(text) = answer["error"].as_str() {
            return Err(Failure::Refused { text: text.to_owned(), code: answer["code"].as_i64() });
        }
        Ok(answer["ok"].take())
    }

    /// Asks and waits.
    pub(crate) fn call(&mut self, request: &Value, deadline: Duration) -> Result<Value, Failure> {
        self.ask(request)?;
        self.answer(deadline)
    }

    /// The end of what it said on standard error.
    fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.said).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Ends it without a farewell to the broker.
    pub(crate) fn kill(&mut self) {
        // Fails only where the process is gone, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A value of an answer as its type.
pub(crate) fn parse<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, Failure> {
    let shown = value.to_string();
    serde_json::from_value(value)
        .map_err(|e| Failure::wrong(format!("{e} in {}", shown.chars().take(300).collect::<String>())))
}

/// The request to produce.
pub(crate) fn produce_request(
    topic: &str,
    records: &[Record],
    codec: &str,
    acks: &str,
    idempotent: bool,
) -> Value {
    json!({"op": "produce", "topic": topic, "codec": codec, "acks": acks, "idempotent": idempotent, "records": records})
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn as_hex<S: serde::Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let Some(bytes) = bytes else { return serializer.serialize_none() };
    // Plain loops here and below: values have millions of bytes, and tests are built without optimization.
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(DIGITS[(byte >> 4) as usize]);
        text.push(DIGITS[(byte & 15) as usize]);
    }
    serializer.serialize_str(&text)
}

fn from_hex<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(serde::de::Error::custom("not hex"));
    }
    let nibble = |c: u8| if c <= b'9' { c - b'0' } else { (c | 0x20) - b'a' + 10 };
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        bytes.push(nibble(pair[0]) << 4 | nibble(pair[1]));
    }
    Ok(Some(bytes))
}
