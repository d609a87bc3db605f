//! Records as JSON, one object a line, with the fields that `floodmark log dump` gives them. What is UTF-8 stands as `{"utf8": …}`, other
//! bytes as `{"base64": …}`, so that no bytes are lost and the two are never taken for each other.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{NewHeader, NewRecord, SeenRecord, base64};
use crate::output::text::Encoded;
use crate::output::time;

#[derive(Serialize)]
struct RecordObject<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    timestamp: Option<String>,
    key: Option<Encoded<'a>>,
    value: Option<Encoded<'a>>,
    headers: Vec<HeaderObject<'a>>,
}

#[derive(Serialize)]
struct HeaderObject<'a> {
    name: Encoded<'a>,
    value: Option<Encoded<'a>>,
}

/// As `--output json` prints it.
pub(crate) fn object<'a>(record: &SeenRecord<'a>) -> impl Serialize + use<'a> {
    RecordObject {
        topic: record.topic,
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        timestamp: time::rfc3339(record.timestamp_ms),
        key: record.key.map(Encoded::of),
        value: record.value.map(Encoded::of),
        headers: record
            .headers
            .iter()
            .map(|header| HeaderObject {
                name: Encoded::of(header.name),
                value: header.value.map(Encoded::of),
            })
            .collect(),
    }
}

/// Where a record was, which a new one need not know; `log dump` says more about it than `consume`.
const PLACE: [&str; 8] =
    ["topic", "offset", "timestamp", "kind", "file", "batch_position", "producer_id", "is_transactional"];

/// What `--input json` makes of a line.
pub(crate) fn parse(line: &[u8]) -> Result<NewRecord, String> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(line).map_err(|e| format!("it is no JSON object: {e}"))?;
    if fields.get("kind").is_some_and(|kind| kind != "record")
        || fields.get("control").is_some_and(|c| !c.is_null())
    {
        return Err("it is no record of data".to_owned());
    }
    let value = fields.remove("value").ok_or("it has no \"value\"; a value of null deletes the key")?;
    let record = NewRecord {
        value: bytes("value", value)?,
        key: fields.remove("key").map_or(Ok(None), |key| bytes("key", key))?,
        headers: fields.remove("headers").map_or(Ok(Vec::new()), headers)?,
        timestamp_ms: fields.remove("timestamp_ms").map_or(Ok(None), timestamp)?,
        partition: fields.remove("partition").map_or(Ok(None), partition)?,
        line: 0,
    };
    match fields.keys().find(|name| !PLACE.contains(&name.as_str()) && *name != "control") {
        None => Ok(record),
        Some(name) => Err(format!(
            "\"{name}\" is unknown; a record has \"key\", \"value\", \"headers\", \"timestamp_ms\" and \"partition\""
        )),
    }
}

fn bytes(name: &str, value: Value) -> Result<Option<Vec<u8>>, String> {
    let wrong = || {
        format!("\"{name}\" is neither null nor a string nor {{\"utf8\": \"…\"}} nor {{\"base64\": \"…\"}}")
    };
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.into_bytes())),
        Value::Object(encoded) => {
            let mut encodings = encoded.into_iter();
            match (encodings.next(), encodings.next()) {
                (Some((encoding, Value::String(text))), None) => match encoding.as_str() {
                    "utf8" => Ok(Some(text.into_bytes())),
                    "base64" => {
                        let bytes = base64::decode(&text);
                        bytes.map(Some).ok_or_else(|| format!("the base64 of \"{name}\" is not whole"))
                    }
                    _ => Err(wrong()),
                },
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

fn headers(value: Value) -> Result<Vec<NewHeader>, String> {
    let wrong = || "\"headers\" is not a list of {\"name\": …, \"value\": …}".to_owned();
    let Value::Array(headers) = value else { return Err(wrong()) };
    let header = |value: Value| {
        let Value::Object(mut fields) = value else { return Err(wrong()) };
        let name = bytes("name", fields.remove("name").ok_or_else(wrong)?)?.ok_or_else(wrong)?;
        let value = bytes("value", fields.remove("value").ok_or_else(wrong)?)?;
        if !fields.is_empty() {
            return Err(wrong());
        }
        Ok(NewHeader { name, value })
    };
    headers.into_iter().map(header).collect()
}

fn timestamp(value: Value) -> Result<Option<i64>, String> {
    match value.as_i64() {
        Some(time) => Ok(Some(time)),
        None if value.is_null() => Ok(None),
        None => Err("\"timestamp_ms\" is no whole number".to_owned()),
    }
}

fn partition(value: Value) -> Result<Option<i32>, String> {
    let number = value.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0);
    match number {
        Some(partition) => Ok(Some(partition)),
        None if value.is_null() => Ok(None),
        None => Err("\"partition\" is no number of a partition".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::SeenHeader;
    use super::*;

    fn printed(record: &SeenRecord<'_>) -> Vec<u8> {
        serde_json::to_vec(&object(record)).unwrap()
    }

    #[test]
    fn what_is_printed_is_taken_back_byte_for_byte() {
        let all: Vec<u8> = (0..=255).collect();
        let values: [Option<&[u8]>; 6] =
            [None, Some(b""), Some(b"text"), Some("grün\u{0}\n\"\\".as_bytes()), Some(&all), Some(b"\xff")];
        for (n, key) in values.into_iter().enumerate() {
            for value in values {
                let record = SeenRecord {
                    topic: "t",
                    partition: 3,
                    offset: 9,
                    timestamp_ms: -1 + n as i64,
                    key,
                    value,
                    headers: vec![
                        SeenHeader { name: b"b", value: key },
                        SeenHeader { name: b"gr\xfcn", value: None },
                        SeenHeader { name: b"b", value },
                        SeenHeader { name: b"", value: Some(b"") },
                    ],
                };
                let taken = parse(&printed(&record)).unwrap();
                assert_eq!((taken.key.as_deref(), taken.value.as_deref()), (key, value));
                assert_eq!((taken.partition, taken.timestamp_ms), (Some(3), Some(-1 + n as i64)));
                let names: Vec<&[u8]> = taken.headers.iter().map(|h| h.name.as_slice()).collect();
                assert_eq!(names, [b"b".as_slice(), b"gr\xfcn", b"b", b""]);
                let values: Vec<Option<&[u8]>> = taken.headers.iter().map(|h| h.value.as_deref()).collect();
                assert_eq!(values, [key, None, value, Some(b"")]);
            }
        }
    }

    #[test]
    fn lines_by_hand_may_be_short() {
        let record = parse(br#"{"value": "hello"}"#).unwrap();
        assert_eq!(record, NewRecord { value: Some(b"hello".to_vec()), ..NewRecord::default() });
        let record =
            parse(br#"{"key": "k", "value": null, "headers": [{"name": "n", "value": "v"}]}"#).unwrap();
        let header = NewHeader { name: b"n".to_vec(), value: Some(b"v".to_vec()) };
        assert_eq!(
            record,
            NewRecord { key: Some(b"k".to_vec()), headers: vec![header], ..NewRecord::default() }
        );
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        for (line, part) in [
            (r#"hello"#, "no JSON object"),
            (r#"[1]"#, "no JSON object"),
            (r#"{"key": "k"}"#, "no \"value\""),
            (r#"{"value": 5}"#, "\"value\" is neither"),
            (r#"{"value": {"utf8": "a", "base64": "YQ=="}}"#, "\"value\" is neither"),
            (r#"{"value": {"base64": "YQ="}}"#, "base64"),
            (r#"{"value": "a", "vlaue": "b"}"#, "\"vlaue\" is unknown"),
            (r#"{"value": "a", "headers": {"a": "b"}}"#, "\"headers\" is not a list"),
            (r#"{"value": "a", "headers": [{"name": "b"}]}"#, "\"headers\" is not a list"),
            (r#"{"value": "a", "headers": [{"name": null, "value": null}]}"#, "\"headers\" is not a list"),
            (r#"{"value": "a", "timestamp_ms": "now"}"#, "\"timestamp_ms\""),
            (r#"{"value": "a", "partition": -1}"#, "\"partition\""),
            (r#"{"value": "a", "kind": "batch"}"#, "no record of data"),
            (r#"{"value": "a", "kind": "record", "control": "commit"}"#, "no record of data"),
        ] {
            let told = parse(line.as_bytes()).unwrap_err();
            assert!(told.contains(part), "{line}: {told}");
        }
    }
}
