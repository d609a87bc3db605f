//! The few frames that the load sends, written by hand so that making them costs nothing, and what it reads of the answers.
//! Old, simple versions: nothing in them differs by record.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// Waiting longer than this for an answer is a failure of the run.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Room for small answers; larger ones make it grow.
const READ_BYTES: usize = 4 << 10;

/// A connection that sends one frame and reads one.
pub struct Connection {
    stream: TcpStream,
    /// Bytes that have come, the answer that was given last in front.
    buffer: Vec<u8>,
    filled: usize,
    given: usize,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Connection { stream, buffer: vec![0; READ_BYTES], filled: 0, given: 0 })
    }

    /// Writes a frame.
    pub fn send(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(frame)?)
    }

    /// The next answer, without its length and correlation id.
    pub fn receive(&mut self) -> anyhow::Result<&[u8]> {
        self.buffer.copy_within(self.given..self.filled, 0);
        self.filled -= std::mem::take(&mut self.given);
        loop {
            let end = match self.buffer[..self.filled].first_chunk() {
                Some(length) => 4 + u32::from_be_bytes(*length) as usize,
                None => 4,
            };
            if end > 4 && self.filled >= end {
                self.given = end;
                return self.buffer[4..end].get(4..).context("an answer without a correlation id");
            }
            if self.buffer.len() < end {
                self.buffer.resize(end, 0);
            }
            // One call where the answer has come whole, as the bare sides have it.
            let read = self.stream.read(&mut self.buffer[self.filled..])?;
            ensure!(read > 0, "the connection was closed before the answer had come");
            self.filled += read;
        }
    }

    /// Writes a frame and reads an answer.
    pub fn ask(&mut self, frame: &[u8]) -> anyhow::Result<&[u8]> {
        self.send(frame)?;
        self.receive()
    }
}

/// Builds one request.
struct Frame(Vec<u8>);

impl Frame {
    fn new(key: i16, version: i16) -> Frame {
        let mut frame = Frame(vec![0; 4]);
        frame.i16(key);
        frame.i16(version);
        frame.i32(0);
        frame.string("bench");
        frame
    }

    fn i16(&mut self, value: i16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn string(&mut self, text: &str) {
        self.i16(text.len() as i16);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// CreateTopics 2: one topic with settings.
#[must_use]
pub fn create_topic(name: &str, partitions: i32, settings: &[(&str, &str)]) -> Vec<u8> {
    let mut frame = Frame::new(19, 2);
    frame.i32(1);
    frame.string(name);
    frame.i32(partitions);
    frame.i16(1);
    frame.i32(0);
    frame.i32(settings.len() as i32);
    for (key, value) in settings {
        frame.string(key);
        frame.string(value);
    }
    frame.i32(30_000);
    frame.0.push(0);
    frame.finish()
}

/// DeleteTopics 1 of one topic.
#[must_use]
pub fn delete_topic(name: &str) -> Vec<u8> {
    let mut frame = Frame::new(20, 1);
    frame.i32(1);
    frame.string(name);
    frame.i32(30_000);
    frame.finish()
}

/// Fails where the topic was not deleted.
pub fn check_deleted(answer: &[u8]) -> anyhow::Result<()> {
    // As after creating: throttle time, one topic with its name, the code.
    check_created(answer).context("deleting the topic")
}

/// Fails where the topic was not created.
pub fn check_created(answer: &[u8]) -> anyhow::Result<()> {
    // Throttle time, one topic: its name, the code.
    let name_len = i16::from_be_bytes(at(answer, 8)?) as usize;
    match i16::from_be_bytes(at(answer, 10 + name_len)?) {
        0 => Ok(()),
        code => bail!("the topic was answered with error {code}"),
    }
}

/// Produce 7: one batch for one partition.
#[must_use]
pub fn produce(topic: &str, partition: i32, acks: i16, batch: &[u8]) -> Vec<u8> {
    let mut frame = Frame::new(0, 7);
    frame.i16(-1);
    frame.i16(acks);
    frame.i32(30_000);
    frame.i32(1);
    frame.string(topic);
    frame.i32(1);
    frame.i32(partition);
    frame.i32(batch.len() as i32);
    frame.0.extend_from_slice(batch);
    frame.finish()
}

/// The code in the answer to [`produce`].
pub fn produce_code(topic: &str, answer: &[u8]) -> anyhow::Result<i16> {
    // One topic: its name, one partition: its index, the code, the offset.
    Ok(i16::from_be_bytes(at(answer, 4 + 2 + topic.len() + 8)?))
}

/// The base offset of what [`produce`] wrote.
pub fn produced_at(topic: &str, answer: &[u8]) -> anyhow::Result<i64> {
    let code = produce_code(topic, answer)?;
    ensure!(code == 0, "producing was answered with error {code}");
    Ok(i64::from_be_bytes(at(answer, 4 + 2 + topic.len() + 10)?))
}

/// Fetch 4 of one partition.
#[must_use]
pub fn fetch(topic: &str, partition: i32, from: i64, max_bytes: i32, max_wait_ms: i32) -> Vec<u8> {
    let mut frame = Frame::new(1, 4);
    frame.i32(-1);
    frame.i32(max_wait_ms);
    frame.i32(1);
    frame.i32(max_bytes);
    frame.0.push(0);
    frame.i32(1);
    frame.string(topic);
    frame.i32(1);
    frame.i32(partition);
    frame.0.extend_from_slice(&from.to_be_bytes());
    frame.i32(max_bytes);
    frame.finish()
}

/// The record bytes of the answer to [`fetch`].
pub fn fetched<'a>(topic: &str, answer: &'a [u8]) -> anyhow::Result<&'a [u8]> {
    // Throttle time, one topic: its name, one partition: index, code, high watermark, stable offset, aborted transactions, records.
    let partition = 4 + 4 + 2 + topic.len() + 4;
    let code = i16::from_be_bytes(at(answer, partition + 4)?);
    ensure!(code == 0, "fetching was answered with error {code}");
    let aborted = i32::from_be_bytes(at(answer, partition + 22)?).max(0) as usize;
    let records = partition + 26 + aborted * 16;
    let length = i32::from_be_bytes(at(answer, records)?).max(0) as usize;
    answer.get(records + 4..records + 4 + length).context("an answer shorter than its records")
}

/// The offset after the last whole batch in `records`; steps by headers.
pub fn next_offset(mut records: &[u8]) -> anyhow::Result<Option<i64>> {
    let mut next = None;
    while records.len() >= 61 {
        let size = 12 + u32::from_be_bytes(at(records, 8)?) as usize;
        if size > records.len() {
            break;
        }
        next =
            Some(i64::from_be_bytes(at(records, 0)?) + i64::from(i32::from_be_bytes(at(records, 23)?)) + 1);
        records = &records[size..];
    }
    Ok(next)
}

fn at<const N: usize>(bytes: &[u8], position: usize) -> anyhow::Result<[u8; N]> {
    let found = bytes.get(position..).and_then(|rest| rest.first_chunk());
    found.copied().context("an answer shorter than it must be")
}
