//! Batches and records as rows of a table and as objects of JSON.

use std::path::Path;

use floodmark_proto::batch::{
    BatchError, BatchHeader, DecompressLimits, EndTransactionMarker, Record, Records, TransactionResult,
};
use floodmark_proto::ids::ProducerId;
use serde::Serialize;

use crate::output::table::Column;
use crate::output::text::{self, Encoded};
use crate::output::time;

pub(super) const BATCH_COLUMNS: [Column; 13] = [
    Column::Number("position"),
    Column::Number("base offset"),
    Column::Number("last offset"),
    Column::Number("records"),
    Column::Number("bytes"),
    Column::Text("codec"),
    Column::Text("max timestamp"),
    Column::Number("epoch"),
    Column::Number("producer"),
    Column::Number("p. epoch"),
    Column::Number("sequence"),
    Column::Text("flags"),
    Column::Text("crc"),
];

pub(super) const RECORD_COLUMNS: [Column; 6] = [
    Column::Number("offset"),
    Column::Text("timestamp"),
    Column::Text("key"),
    Column::Text("value"),
    Column::Text("headers"),
    Column::Text("kind"),
];

/// Far more than any batch a broker takes unpacks to; it only keeps hostile bytes from taking all memory.
const UNPACKED: DecompressLimits = DecompressLimits { max_bytes: 1 << 30, max_ratio: 1 << 20 };

/// What is to be shown of a batch.
pub(super) struct BatchRow<'a> {
    pub(super) file: &'a Path,
    pub(super) position: u64,
    pub(super) header: &'a BatchHeader,
    /// `None` where the batch is not complete.
    pub(super) is_crc_ok: Option<bool>,
    /// The kind of control record in it.
    pub(super) control: Option<Control>,
}

/// What a control batch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Control {
    Abort,
    Commit,
    /// Written by Raft, in Kafka's metadata log.
    LeaderChange,
    SnapshotHeader,
    SnapshotFooter,
    KraftVersion,
    KraftVoters,
    /// Compaction has taken the record.
    Empty,
    /// Of a kind that came after this program.
    Unknown,
}

impl Control {
    /// Of a batch with good bytes; `None` for data.
    pub(super) fn of(batch: &[u8], header: &BatchHeader) -> Option<Control> {
        if !header.attributes.is_control() {
            return None;
        }
        let mut scratch = Vec::new();
        let first = Records::open(batch, &UNPACKED, &mut scratch).ok().and_then(|mut records| records.next());
        Some(match first {
            Some(Ok(record)) => Control::of_record(&record),
            Some(Err(_)) => Control::Unknown,
            None => Control::Empty,
        })
    }

    fn of_record(record: &Record<'_>) -> Control {
        match EndTransactionMarker::decode(record.key, record.value) {
            Ok(Some(EndTransactionMarker { result: TransactionResult::Abort, .. })) => Control::Abort,
            Ok(Some(EndTransactionMarker { result: TransactionResult::Commit, .. })) => Control::Commit,
            Ok(None) => match record.key {
                Some([_, _, 0, 2, ..]) => Control::LeaderChange,
                Some([_, _, 0, 3, ..]) => Control::SnapshotHeader,
                Some([_, _, 0, 4, ..]) => Control::SnapshotFooter,
                Some([_, _, 0, 5, ..]) => Control::KraftVersion,
                Some([_, _, 0, 6, ..]) => Control::KraftVoters,
                _ => Control::Unknown,
            },
            Err(_) => Control::Unknown,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Control::Abort => "abort",
            Control::Commit => "commit",
            Control::LeaderChange => "leader change",
            Control::SnapshotHeader => "snapshot header",
            Control::SnapshotFooter => "snapshot footer",
            Control::KraftVersion => "kraft version",
            Control::KraftVoters => "kraft voters",
            Control::Empty => "control, empty",
            Control::Unknown => "control, unknown kind",
        }
    }
}

#[derive(Serialize)]
struct BatchObject<'a> {
    kind: &'static str,
    file: &'a Path,
    position: u64,
    base_offset: i64,
    last_offset: i64,
    record_count: i32,
    size_bytes: usize,
    codec: Option<&'static str>,
    timestamp_type: &'static str,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    max_timestamp: Option<String>,
    leader_epoch: i32,
    producer_id: Option<i64>,
    producer_epoch: i16,
    base_sequence: i32,
    is_transactional: bool,
    control: Option<Control>,
    delete_horizon_ms: Option<i64>,
    crc: String,
    is_crc_ok: Option<bool>,
}

impl BatchRow<'_> {
    pub(super) fn object(&self) -> impl Serialize {
        let h = self.header;
        BatchObject {
            kind: "batch",
            file: self.file,
            position: self.position,
            base_offset: h.base_offset.0,
            last_offset: h.last_offset().0,
            record_count: h.record_count,
            size_bytes: h.size_bytes(),
            codec: h.attributes.compression().map(|codec| codec.name()),
            timestamp_type: if h.attributes.is_log_append_time() { "log_append" } else { "create" },
            base_timestamp_ms: h.base_timestamp,
            max_timestamp_ms: h.max_timestamp,
            max_timestamp: time::rfc3339(h.max_timestamp),
            leader_epoch: h.leader_epoch.0,
            producer_id: (h.producer_id != ProducerId::NONE).then_some(h.producer_id.0),
            producer_epoch: h.producer_epoch,
            base_sequence: h.base_sequence,
            is_transactional: h.attributes.is_transactional(),
            control: self.control,
            delete_horizon_ms: h.delete_horizon_ms(),
            crc: format!("{:08x}", h.crc),
            is_crc_ok: self.is_crc_ok,
        }
    }

    pub(super) fn cells(&self) -> Vec<String> {
        let h = self.header;
        let or_dash = |n: i64| if n == -1 { "-".to_owned() } else { n.to_string() };
        vec![
            self.position.to_string(),
            h.base_offset.to_string(),
            h.last_offset().to_string(),
            h.record_count.to_string(),
            h.size_bytes().to_string(),
            h.attributes.compression().map_or("unknown", |codec| codec.name()).to_owned(),
            time::cell(h.max_timestamp),
            or_dash(i64::from(h.leader_epoch.0)),
            or_dash(h.producer_id.0),
            or_dash(i64::from(h.producer_epoch)),
            or_dash(i64::from(h.base_sequence)),
            self.flags(),
            match self.is_crc_ok {
                Some(true) => "ok".to_owned(),
                Some(false) => "WRONG".to_owned(),
                None => "-".to_owned(),
            },
        ]
    }

    fn flags(&self) -> String {
        let attributes = self.header.attributes;
        let horizon = self.header.delete_horizon_ms().map(|at| format!("delete horizon {}", time::cell(at)));
        let words = [
            attributes.is_transactional().then(|| "transactional".to_owned()),
            self.control.map(|control| control.word().to_owned()),
            attributes.is_log_append_time().then(|| "log append time".to_owned()),
            horizon,
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// How records are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordStyle {
    /// Characters of a key, value or header in a table; `None` for all.
    pub(super) width: Option<usize>,
}

#[derive(Serialize)]
struct HeaderObject<'a> {
    name: Encoded<'a>,
    value: Option<Encoded<'a>>,
}

#[derive(Serialize)]
struct RecordObject<'a> {
    kind: &'static str,
    file: &'a Path,
    batch_position: u64,
    offset: i64,
    timestamp_ms: i64,
    timestamp: Option<String>,
    producer_id: Option<i64>,
    is_transactional: bool,
    control: Option<Control>,
    key: Option<Encoded<'a>>,
    value: Option<Encoded<'a>>,
    headers: Vec<HeaderObject<'a>>,
}

/// One record of a batch.
pub(super) struct RecordRow<'a, 'r> {
    pub(super) batch: &'a BatchRow<'a>,
    pub(super) record: &'a Record<'r>,
}

impl<'r> RecordRow<'_, 'r> {
    fn control(&self) -> Option<Control> {
        self.batch.header.attributes.is_control().then(|| Control::of_record(self.record))
    }

    /// Fails where a header does not decode.
    pub(super) fn object(&self) -> Result<impl Serialize, BatchError> {
        let headers = self.record.headers.map(|header| {
            let header = header?;
            Ok(HeaderObject { name: Encoded::of(header.key), value: header.value.map(Encoded::of) })
        });
        let batch = self.batch.header;
        Ok(RecordObject {
            kind: "record",
            file: self.batch.file,
            batch_position: self.batch.position,
            offset: self.record.offset.0,
            timestamp_ms: self.record.timestamp,
            timestamp: time::rfc3339(self.record.timestamp),
            producer_id: (batch.producer_id != ProducerId::NONE).then_some(batch.producer_id.0),
            is_transactional: batch.attributes.is_transactional(),
            control: self.control(),
            key: self.record.key.map(Encoded::of),
            value: self.record.value.map(Encoded::of),
            headers: headers.collect::<Result<_, BatchError>>()?,
        })
    }

    /// Fails where a header does not decode.
    pub(super) fn cells(&self, style: RecordStyle) -> Result<Vec<String>, BatchError> {
        let headers = self.record.headers.map(|header| {
            let header = header?;
            let name = text::cell(Some(header.key), style.width);
            Ok(format!("{name}={}", text::cell(header.value, style.width)))
        });
        let headers: Vec<String> = headers.collect::<Result<_, BatchError>>()?;
        let kind = match self.control() {
            Some(control) => control.word(),
            None if self.batch.header.attributes.is_transactional() => "transactional",
            None => "",
        };
        Ok(vec![
            self.record.offset.to_string(),
            time::cell(self.record.timestamp),
            text::cell(self.record.key, style.width),
            text::cell(self.record.value, style.width),
            headers.join(" "),
            kind.to_owned(),
        ])
    }
}

/// Opens the records of a batch for showing.
pub(super) fn records<'a>(batch: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Records<'a>, BatchError> {
    Records::open(batch, &UNPACKED, scratch)
}
