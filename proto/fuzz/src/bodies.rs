//! What each fuzz target asserts of one input. Plain functions, so that a test on stable replays the seeds through them.

use bytes::BytesMut;
use floodmark_proto::batch::compression::{compress, decompress};
use floodmark_proto::batch::crc32c::batch_crc;
use floodmark_proto::batch::header::{LENGTH_PREFIX_LEN, put_crc};
use floodmark_proto::batch::{
    Attributes, BatchBuilder, BatchError, BatchHeader, CompressionType, DecompressLimits,
    EndTransactionMarker, HEADER_LEN, NewRecord, RecordBatch, RecordRules, Records, check_from_client,
    check_records, check_stored,
};
use floodmark_proto::ids::{LeaderEpoch, Offset};

use crate::kafka::{kafka_request, kafka_response, kafka_round_trip};

/// Enough for any input of [`INPUT_MAX`] bytes.
pub const MEMORY_MAX: usize = 32 << 20;
/// Longest input that the promise of [`MEMORY_MAX`] covers.
pub const INPUT_MAX: usize = 1 << 20;
/// Outputs up to here are encoded again; beyond it the second copy would eat the memory that is being measured.
const AGAIN_MAX: usize = 256 << 10;
const LIMITS: DecompressLimits = DecompressLimits::DEFAULT;

/// What a target does with one input.
pub type Body = fn(&[u8]);

/// Every body by the name of its target and of its folder of seeds.
pub const ALL: [(&str, Body); 10] = [
    ("batch_header_and_check", batch_header_and_check),
    ("records", records),
    ("decompress_gzip", decompress_gzip),
    ("decompress_snappy", decompress_snappy),
    ("decompress_lz4", decompress_lz4),
    ("decompress_zstd", decompress_zstd),
    ("round_trip", round_trip),
    ("kafka_request", kafka_request),
    ("kafka_response", kafka_response),
    ("kafka_round_trip", kafka_round_trip),
];

/// Headers and whole-batch checks, on the bytes as they are and with length, magic and CRC made right.
pub fn batch_header_and_check(data: &[u8]) {
    let _ = BatchHeader::parse(data);
    let _ = check_from_client(data, INPUT_MAX);
    let _ = check_stored(data);
    let Some(batch) = mended(data) else { return };
    let stored = check_stored(&batch);
    let sent = check_from_client(&batch, batch.len());
    if let Ok(header) = sent {
        let mut batch = RecordBatch::from_client(BytesMut::from(&batch[..]), batch.len()).unwrap();
        batch.stamp(Offset(0), LeaderEpoch(0));
        assert_eq!(check_stored(batch.as_bytes()).as_ref(), Ok(batch.header()));
        batch.set_log_append_time(header.max_timestamp);
        assert_eq!(check_stored(batch.as_bytes()).as_ref(), Ok(batch.header()));
    }
    if let Ok(header) = stored {
        assert!(header.next_offset() > header.base_offset);
        let mut again = [0; HEADER_LEN];
        header.write(&mut again);
        assert_eq!(again, batch[..HEADER_LEN]);
    }
}

/// Every record of a batch; what passes is kept byte for byte by the builder.
pub fn records(data: &[u8]) {
    let Some(batch) = mended(data) else { return };
    let mut scratch = Vec::new();
    let sent = check_records(&batch, RecordRules::FromClient, &LIMITS, &mut scratch);
    let stored = check_records(&batch, RecordRules::Stored, &LIMITS, &mut scratch);
    assert!(sent.is_err() || stored.is_ok(), "a client may send nothing that a log may not hold");
    let (Ok(header), Ok(_)) = (check_stored(&batch), stored) else { return };
    let mut unpacked = Vec::new();
    let records = Records::open(&batch, &LIMITS, &mut unpacked).unwrap();
    if records.unread_bytes() > AGAIN_MAX {
        return;
    }
    let plain = header.attributes.with_compression(CompressionType::None);
    let mut builder = BatchBuilder::like(&header).attributes(plain).max_timestamp(header.max_timestamp);
    for record in records {
        let record = record.unwrap();
        let _ = EndTransactionMarker::decode(record.key, record.value);
        builder.push_stored(&record).unwrap();
    }
    let again = builder.build().unwrap();
    if header.attributes.compression() == Some(CompressionType::None) {
        assert_eq!(again.as_bytes(), batch);
    }
}

/// The gzip decoder.
pub fn decompress_gzip(data: &[u8]) {
    decompress_any(CompressionType::Gzip, data);
}

/// The snappy decoder.
pub fn decompress_snappy(data: &[u8]) {
    decompress_any(CompressionType::Snappy, data);
}

/// The lz4 decoder.
pub fn decompress_lz4(data: &[u8]) {
    decompress_any(CompressionType::Lz4, data);
}

/// The zstd decoder.
pub fn decompress_zstd(data: &[u8]) {
    decompress_any(CompressionType::Zstd, data);
}

fn decompress_any(codec: CompressionType, data: &[u8]) {
    let mut out = Vec::new();
    if decompress(codec, data, &LIMITS, &mut out).is_err() {
        return;
    }
    assert!(out.len() <= LIMITS.max_bytes);
    assert!(
        out.len() <= data.len().saturating_mul(codec.expansion_max() as usize),
        "the expansion is understated"
    );
    if out.len() > AGAIN_MAX {
        return;
    }
    let (mut packed, mut unpacked) = (Vec::new(), Vec::new());
    compress(codec, None, &out, &mut packed).unwrap();
    decompress(codec, &packed, &LIMITS, &mut unpacked).unwrap();
    assert_eq!(unpacked, out);
    let tight = DecompressLimits { max_bytes: out.len().saturating_sub(1), max_ratio: usize::MAX };
    if !out.is_empty() {
        let refused = decompress(codec, data, &tight, &mut unpacked);
        assert!(matches!(refused, Err(BatchError::Bomb { .. })), "{refused:?}");
    }
}

/// Builds a batch as the input directs, and reads back what went in.
pub fn round_trip(data: &[u8]) {
    if data.len() > AGAIN_MAX {
        return;
    }
    let mut input = Input(data);
    let codec = CompressionType::ALL[usize::from(input.byte()) % 5];
    let attributes = Attributes(i16::from(input.byte()) & 0x70).with_compression(codec);
    let base_offset = Offset(input.i64().rem_euclid(i64::MAX / 2));
    let mut builder = BatchBuilder::new().attributes(attributes).base_offset(base_offset);
    let mut pushed = Vec::new();
    let mut delta = -1;
    while !input.0.is_empty() && delta < 1 << 20 {
        delta += 1 + i32::from(input.byte());
        let headers: Vec<_> =
            (0..input.byte() % 4).map(|_| (input.bytes().unwrap_or(b""), input.bytes())).collect();
        let timestamp = input.i64();
        let (key, value) = (input.bytes(), input.bytes());
        if builder.push_at(delta, &NewRecord { timestamp, key, value, headers: &headers }).is_ok() {
            pushed.push((delta, timestamp, key, value, headers));
        }
    }
    if pushed.is_empty() {
        return;
    }
    let batch = builder.build().unwrap();
    let roomy = DecompressLimits { max_ratio: usize::MAX, ..LIMITS };
    assert_eq!(check_stored(batch.as_bytes()).as_ref(), Ok(batch.header()));
    let mut scratch = Vec::new();
    batch.check_records(RecordRules::Stored, &roomy, &mut scratch).unwrap();
    let mut kept = BatchBuilder::like(batch.header());
    let mut scratch = Vec::new();
    let mut found = batch.records(&roomy, &mut scratch).unwrap();
    for (delta, timestamp, key, value, headers) in &pushed {
        let record = found.next().unwrap().unwrap();
        assert_eq!((record.offset_delta, record.timestamp), (*delta, *timestamp));
        assert_eq!((record.key, record.value), (*key, *value));
        let again: Vec<_> = record.headers.map(|header| header.map(|h| (h.key, h.value)).unwrap()).collect();
        assert_eq!(again, *headers);
        kept.push_stored(&record).unwrap();
    }
    assert!(found.next().is_none());
    assert_eq!(kept.build().unwrap(), batch);
}

/// The bytes as one batch whose length, magic and CRC are right, so that what lies behind those checks is reached.
fn mended(data: &[u8]) -> Option<Vec<u8>> {
    let mut batch = data.to_vec();
    let batch_length = i32::try_from(batch.len().checked_sub(LENGTH_PREFIX_LEN)?).ok()?;
    batch.get_mut(8..12)?.copy_from_slice(&batch_length.to_be_bytes());
    *batch.get_mut(16)? = 2;
    batch.first_chunk::<HEADER_LEN>()?;
    let crc = batch_crc(&batch);
    put_crc(batch.first_chunk_mut::<HEADER_LEN>()?, crc);
    Some(batch)
}

/// Takes values off the front of the input; past its end everything is zero.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Eight bytes, of which most inputs need few: the first says how many follow.
    fn i64(&mut self) -> i64 {
        (0..self.byte() % 9).fold(0, |value, _| value << 8 | i64::from(self.byte()))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(self.byte().checked_sub(1)?).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(taken)
    }
}
