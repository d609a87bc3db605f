//! Kafka's bytes: written as Kafka writes them, read as Kafka has written them since its first version.

use super::*;

fn committed() -> CommittedOffset {
    CommittedOffset {
        offset: 0x0102,
        leader_epoch: 3,
        metadata: Arc::from("m"),
        commit_timestamp_ms: 0x0a,
        expire_timestamp_ms: None,
        topic_id: [0; 16],
    }
}

fn snapshot() -> GroupSnapshot {
    let member = |id: &str, instance: Option<&str>| MemberSnapshot {
        id: Arc::from(id),
        instance_id: instance.map(Arc::from),
        client_id: Arc::from("c"),
        client_host: Arc::from("/h"),
        rebalance_timeout_ms: 2,
        session_timeout_ms: 1,
        metadata: Bytes::from_static(b"md"),
        assignment: Bytes::from_static(b"as"),
    };
    GroupSnapshot {
        group_id: Arc::from("g"),
        protocol_type: Some(Arc::from("consumer")),
        generation: 9,
        protocol: Some(Arc::from("range")),
        leader: Some(Arc::from("a")),
        state_since_ms: Some(77),
        members: vec![member("a", None), member("b", Some("i"))],
    }
}

fn read_back(record: &KeyValue) -> Entry {
    read(&record.key, record.value.as_deref()).expect("a record")
}

#[test]
fn offsets_are_kafkas_bytes() {
    let record = offset_record("g", "t", 5, Some(&committed())).expect("a record");
    assert_eq!(&record.key[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x05");
    let value = record.value.as_deref().expect("a value");
    assert_eq!(value, b"\0\x03\0\0\0\0\0\0\x01\x02\0\0\0\x03\0\x01m\0\0\0\0\0\0\0\x0a");

    let expiring = CommittedOffset { expire_timestamp_ms: Some(0x0b), leader_epoch: -1, ..committed() };
    let record = offset_record("g", "t", 5, Some(&expiring)).expect("a record");
    let value = record.value.as_deref().expect("a value");
    assert_eq!(value, b"\0\x01\0\0\0\0\0\0\x01\x02\0\x01m\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0\x0b");
}

#[test]
fn offsets_come_back_as_they_were() {
    let with_id = CommittedOffset { topic_id: [7; 16], ..committed() };
    let expiring = CommittedOffset { expire_timestamp_ms: Some(11), leader_epoch: -1, ..committed() };
    for value in [Some(committed()), Some(with_id), Some(expiring), None] {
        let record = offset_record("g", "t", 5, value.as_ref()).expect("a record");
        let expected = Entry::Offset { group: Arc::from("g"), topic: Arc::from("t"), partition: 5, value };
        assert_eq!(read_back(&record), expected);
    }
}

#[test]
fn offsets_of_the_first_kafka_are_read() {
    let key = b"\0\0\0\x01g\0\x01t\0\0\0\x05";
    let value = b"\0\0\0\0\0\0\0\0\x01\x02\0\x01m\0\0\0\0\0\0\0\x0a";
    let expected = CommittedOffset { leader_epoch: -1, ..committed() };
    let entry = read(key, Some(value)).expect("a record");
    let expected =
        Entry::Offset { group: Arc::from("g"), topic: Arc::from("t"), partition: 5, value: Some(expected) };
    assert_eq!(entry, expected);
}

#[test]
fn groups_are_kafkas_bytes() {
    let mut one = snapshot();
    one.members.truncate(1);
    let record = group_record(&one).expect("a record");
    assert_eq!(&record.key[..], b"\0\x02\0\x01g");
    let value = record.value.as_deref().expect("a value");
    let expected: &[&[u8]] = &[
        b"\0\x03\0\x08consumer\0\0\0\x09\0\x05range\0\x01a\0\0\0\0\0\0\0\x4d\0\0\0\x01",
        b"\0\x01a\xff\xff\0\x01c\0\x02/h\0\0\0\x02\0\0\0\x01\0\0\0\x02md\0\0\0\x02as",
    ];
    assert_eq!(value, expected.concat());
}

#[test]
fn groups_come_back_as_they_were() {
    let empty = GroupSnapshot {
        protocol: None,
        leader: None,
        protocol_type: None,
        state_since_ms: None,
        members: Vec::new(),
        ..snapshot()
    };
    for one in [snapshot(), empty] {
        let record = group_record(&one).expect("a record");
        assert_eq!(read_back(&record), Entry::Group { group: Arc::from("g"), value: Some(one) });
    }
    let tombstone = group_tombstone("g").expect("a record");
    assert_eq!(read_back(&tombstone), Entry::Group { group: Arc::from("g"), value: None });
}

#[test]
fn members_without_a_rebalance_timeout_have_their_session_timeout() {
    let value = [
        &b"\0\0\0\x08consumer\0\0\0\x09\0\x05range\0\x01a\0\0\0\x01"[..],
        b"\0\x01a\0\x01c\0\x02/h\0\0\0\x07\0\0\0\x02md\0\0\0\x02as",
    ];
    let entry = read(b"\0\x02\0\x01g", Some(&value.concat())).expect("a record");
    let Entry::Group { value: Some(read), .. } = entry else { panic!("a group") };
    assert_eq!(read.state_since_ms, None);
    assert_eq!((read.members[0].session_timeout_ms, read.members[0].rebalance_timeout_ms), (7, 7));
}

#[test]
fn records_of_other_kinds_are_told_apart_and_bad_ones_refused() {
    for version in [3i16, 5, 11, -1, i16::MAX] {
        assert_eq!(read(&version.to_be_bytes(), Some(b"anything")), Ok(Entry::Other(version)));
    }
    for (key, value) in [
        (&b""[..], &b""[..]),
        (b"\0\x01\0\x05g", b""),
        (b"\0\x01\0\x01g\0\x01t\0\0\0\x05", b""),
        (b"\0\x01\0\x01g\0\x01t\0\0\0\x05", b"\0\x03\0"),
        (b"\0\x01\0\x01g\0\x01t\0\0\0\x05", b"\x7f\xff\0"),
        (b"\0\x02\0\x01g", b"\0\x03\0\x01c\0\0\0\x01\xff\xff\xff\xff\x7f\xff\xff\xff"),
    ] {
        assert!(read(key, Some(value)).is_err(), "{key:?} {value:?}");
    }
}

#[test]
fn the_partition_of_a_group_is_kafkas() {
    // hashCode() of Java strings: "" 0, "a" 97, "ab" 3105, "group" 98629247, "é" 233, "𝄞" (two units) 1773255,
    // "polygenelubricants" the smallest number.
    for (group, hash) in [
        ("", 0i32),
        ("a", 97),
        ("ab", 3_105),
        ("group", 98_629_247),
        ("é", 233),
        ("𝄞", 0xd834 * 31 + 0xdd1e),
        ("polygenelubricants", 0),
    ] {
        assert_eq!(partition_for(group, 50), hash % 50, "{group}");
        assert_eq!(partition_for(group, i32::MAX), hash % i32::MAX, "{group}");
    }
    assert!((0..50).contains(&partition_for("a group whose hash is likely to be negative, or not", 50)));
}
