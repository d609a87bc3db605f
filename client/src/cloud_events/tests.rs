//! Events in both modes and back, and records that are none.

use super::*;

fn read(message: &Message) -> Record {
    Record {
        topic: Arc::clone(&message.topic),
        partition: 0,
        offset: 0,
        timestamp_ms: 0,
        key: message.key.clone(),
        value: message.value.clone(),
        headers: message.headers.clone(),
    }
}

fn full() -> CloudEvent {
    CloudEvent {
        subject: Some("order/42".to_owned()),
        time: Some("2026-11-28T10:00:00Z".to_owned()),
        data_schema: Some("https://example.com/order".to_owned()),
        ..CloudEvent::new("a-1", "/shop", "order.paid")
    }
    .key("42")
}

#[test]
fn an_event_survives_both_modes() {
    for event in [
        CloudEvent::new("1", "/s", "t"),
        full(),
        full().data("application/json", r#"{"a":[1,null]}"#),
        full().data("application/vnd.x+json; charset=utf-8", "7"),
        full().data("application/octet-stream", vec![0, 255, 7]),
        full().data("application/json", "no JSON at all"),
        full().data("text/plain", "words"),
    ] {
        let (binary, structured) = (event.to_binary("orders"), event.to_structured("orders"));
        assert_eq!(binary.key, structured.key);
        assert_eq!(CloudEvent::from_record(&read(&binary)), Ok(event.clone()));
        let back = CloudEvent::from_record(&read(&structured)).unwrap();
        let sorted = |mut event: CloudEvent| {
            event.extensions.sort();
            event
        };
        assert_eq!(sorted(back), sorted(event));
    }
}

#[test]
fn attributes_stand_where_the_binding_wants_them() {
    let binary = full().data("application/json", "{}").to_binary("t");
    let headers: Vec<_> = binary.headers.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(
        headers,
        [
            "ce_specversion",
            "ce_id",
            "ce_source",
            "ce_type",
            "ce_subject",
            "ce_time",
            "ce_dataschema",
            "ce_partitionkey",
            "content-type"
        ]
    );
    assert_eq!((binary.key.as_deref(), binary.value.as_deref()), (Some(&b"42"[..]), Some(&b"{}"[..])));
    let structured = full().data("application/json", r#"{"paid":true}"#).to_structured("t");
    assert_eq!(structured.header_str("content-type"), Some("application/cloudevents+json"));
    let json: Value = serde_json::from_slice(structured.value.as_deref().unwrap()).unwrap();
    assert_eq!((&json["specversion"], &json["data"]["paid"]), (&"1.0".into(), &true.into()));
}

#[test]
fn what_is_no_event_is_told_apart() {
    let plain = Message::to("t").value("x");
    assert_eq!(CloudEvent::from_record(&read(&plain)), Err(NoCloudEvent::NotOne));
    let without = plain.clone().header("ce_specversion", "1.0").header("ce_id", "1").header("ce_type", "t");
    assert_eq!(CloudEvent::from_record(&read(&without)), Err(NoCloudEvent::Missing("source")));
    let newer = plain.clone().header("ce_specversion", "2.0");
    assert_eq!(CloudEvent::from_record(&read(&newer)), Err(NoCloudEvent::Version("2.0".to_owned())));
    let no_text = plain.header("ce_id", vec![0xff]);
    assert_eq!(CloudEvent::from_record(&read(&no_text)), Err(NoCloudEvent::Text("id".to_owned())));
    for value in
        ["", "[]", r#"{"specversion":"1.0","data":1,"data_base64":"Zg=="}"#, r#"{"data_base64":"!"}"#]
    {
        let broken = Message::to("t").content_type(STRUCTURED).value(value);
        assert!(matches!(CloudEvent::from_record(&read(&broken)), Err(NoCloudEvent::Json(_))), "{value}");
    }
}
