//! Fields lie where Kafka's readers look for them, and offsets and sequences end where they must.

use proptest::prelude::*;

use super::*;

fn any_header() -> impl Strategy<Value = BatchHeader> {
    let place = (any::<i64>(), 49..i32::MAX, any::<i32>(), any::<u32>());
    let body = (any::<i16>(), any::<i32>(), any::<i64>(), any::<i64>());
    let producer = (any::<i64>(), any::<i16>(), any::<i32>(), any::<i32>());
    (place, body, producer).prop_map(|(place, body, producer)| BatchHeader {
        base_offset: Offset(place.0),
        batch_length: place.1,
        leader_epoch: LeaderEpoch(place.2),
        crc: place.3,
        attributes: Attributes(body.0),
        last_offset_delta: body.1,
        base_timestamp: body.2,
        max_timestamp: body.3,
        producer_id: ProducerId(producer.0),
        producer_epoch: producer.1,
        base_sequence: producer.2,
        record_count: producer.3,
    })
}

fn header() -> BatchHeader {
    let mut bytes = [0; HEADER_LEN];
    bytes[MAGIC_AT] = 2;
    bytes[LENGTH_AT + 3] = 49;
    BatchHeader::parse(&bytes).unwrap()
}

#[test]
fn fields_lie_where_kafka_puts_them() {
    let mut bytes = [0; HEADER_LEN];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = at as u8;
    }
    bytes[MAGIC_AT] = 2;
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!(header.base_offset, Offset(0x0001_0203_0405_0607));
    assert_eq!(header.batch_length, 0x0809_0a0b);
    assert_eq!(header.leader_epoch, LeaderEpoch(0x0c0d_0e0f));
    assert_eq!(header.crc, 0x1112_1314);
    assert_eq!(header.attributes, Attributes(0x1516));
    assert_eq!(header.last_offset_delta, 0x1718_191a);
    assert_eq!(header.base_timestamp, 0x1b1c_1d1e_1f20_2122);
    assert_eq!(header.max_timestamp, 0x2324_2526_2728_292a);
    assert_eq!(header.producer_id, ProducerId(0x2b2c_2d2e_2f30_3132));
    assert_eq!(header.producer_epoch, 0x3334);
    assert_eq!(header.base_sequence, 0x3536_3738);
    assert_eq!(header.record_count, 0x393a_3b3c);
}

#[test]
fn sequences_wrap_and_need_a_producer() {
    let with = |producer, base_sequence, last_offset_delta| BatchHeader {
        producer_id: ProducerId(producer),
        base_sequence,
        last_offset_delta,
        ..header()
    };
    for (header, last) in [
        (with(1, 0, 0), 0),
        (with(1, 5, 3), 8),
        (with(1, i32::MAX, 0), i32::MAX),
        (with(1, i32::MAX, 1), 0),
        (with(1, i32::MAX - 1, 4), 2),
        (with(1, -1, 4), -1),
        (with(-1, 0, 4), -1),
    ] {
        assert_eq!(header.last_sequence(), last, "{header:?}");
    }
}

#[test]
fn offsets_saturate_instead_of_wrapping() {
    let last = BatchHeader { base_offset: Offset(i64::MAX - 1), last_offset_delta: 5, ..header() };
    assert_eq!((last.last_offset(), last.next_offset()), (Offset::MAX, Offset::MAX));
}

#[test]
fn attribute_bits_are_told_apart() {
    type Set = fn(Attributes, bool) -> Attributes;
    type Get = fn(Attributes) -> bool;
    let bits: [(i16, Set, Get); 4] = [
        (0x08, Attributes::with_log_append_time, Attributes::is_log_append_time),
        (0x10, Attributes::with_transactional, Attributes::is_transactional),
        (0x20, Attributes::with_control, Attributes::is_control),
        (0x40, Attributes::with_delete_horizon, Attributes::has_delete_horizon),
    ];
    for (bit, set, get) in bits {
        let on = set(Attributes(0x0304), true);
        assert_eq!(on, Attributes(0x0304 | bit));
        assert!(get(on) && !get(Attributes(!bit)));
        assert_eq!(set(on, false), Attributes(0x0304));
        assert_eq!(Attributes(bit).reserved_bits(), 0);
    }
    assert_eq!(Attributes(-1).reserved_bits(), !0x7f);
    for codec in CompressionType::ALL {
        assert_eq!(Attributes(-1).with_compression(codec).compression(), Some(codec));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(header in any_header()) {
        let mut bytes = [0; HEADER_LEN];
        header.write(&mut bytes);
        prop_assert_eq!(BatchHeader::parse(&bytes), Ok(header));
        stamp(&mut bytes, Offset(77), LeaderEpoch(8));
        put_crc(&mut bytes, 9);
        let stamped = BatchHeader { base_offset: Offset(77), leader_epoch: LeaderEpoch(8), crc: 9, ..header };
        prop_assert_eq!(BatchHeader::parse(&bytes), Ok(stamped));
    }
}
