//! The file of a real broker, and every way in which it can be wrong.

use proptest::prelude::*;

use super::*;

const FROM_KAFKA: &str = "version: 0\ntopic_id: J2mK-_7mSOq8uao4V6GauQ";

#[test]
fn reads_and_writes_kafkas_bytes() {
    let id = parse(FROM_KAFKA.as_bytes()).expect("written by Kafka");
    assert_eq!(format(id), FROM_KAFKA);
    assert_eq!(parse(format!("{FROM_KAFKA}\n").as_bytes()), Ok(id));
}

#[test]
fn bad_files_are_told_apart() {
    for (text, message) in [
        ("", "line 1: expected \"version: 0\""),
        ("version: x\n", "line 1: version is not a number"),
        ("version: 1\ntopic_id: J2mK-_7mSOq8uao4V6GauQ", "newer than 0"),
        ("version: -1\n", "does not exist"),
        ("version: 0", "line 2: expected \"topic_id: \""),
        ("version: 0\ntopic_id: J2mK-_7mSOq8uao4V6Gau", "line 2: expected a topic id"),
        ("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA", "line 2: expected a topic id"),
        ("version: 0\ntopic_id: J2mK-_7mSOq8uao4V6GauQ\nmore", "goes on at line 3"),
        ("version: 0\ntopic_id: J2mK-_7mSOq8uao4V6GauQ\n\n", "goes on at line 3"),
    ] {
        let error = parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(message), "{text:?} gives {error:?}, not {message:?}");
    }
    assert!(parse(&[0xff; 40]).is_err());
    assert!(matches!(parse(&[b'v'; 1_025]), Err(FormatError::TooLarge { size_bytes: 1_025, .. })));
}

proptest! {
    #[test]
    fn every_id_comes_back(bytes in any::<[u8; 16]>()) {
        let id = TopicId::from_bytes(bytes).expect("neither 0 nor 1");
        prop_assert_eq!(parse(format(id).as_bytes()), Ok(id));
        for cut in 0..format(id).len() {
            prop_assert!(parse(&format(id).as_bytes()[..cut]).is_err(), "torn at {}", cut);
        }
    }
}
