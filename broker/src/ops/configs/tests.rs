//! Changes of settings, one by one.

use super::*;

const TOPIC: Resource<'static> = Resource::Topic("t");

fn held(pairs: &[(&str, &str)]) -> Settings {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_change_says_what_it_was_made_from() {
    let cleanup = held(&[("cleanup.policy", "delete")]);
    let unset = held(&[]);
    for (change, held, value, only_over) in [
        (Change::Set("compact"), &cleanup, Some("compact"), ExpectedValue::Any),
        (Change::Delete, &cleanup, None, ExpectedValue::Any),
        (Change::Append("compact"), &cleanup, Some("delete,compact"), ExpectedValue::Is("delete".to_owned())),
        // What is not set has its default, to which is added.
        (Change::Append("compact"), &unset, Some("delete,compact"), ExpectedValue::Unset),
        (Change::Append("delete"), &cleanup, Some("delete"), ExpectedValue::Is("delete".to_owned())),
        (Change::Subtract("delete"), &cleanup, Some(""), ExpectedValue::Is("delete".to_owned())),
    ] {
        let planned = plan("cleanup.policy", change, held, TOPIC).unwrap();
        assert_eq!((planned.value.as_deref(), planned.only_over), (value, only_over), "{change:?}");
    }
}

#[test]
fn a_name_that_nobody_holds_and_no_setting_has_is_not_taken_away() {
    let old = held(&[("an.older.program", "1")]);
    for (name, change, expected) in [
        ("made.up", Change::Delete, true),
        // That is refused by name.
        ("made.up", Change::Unset, false),
        ("made.up", Change::Set("1"), false),
        ("an.older.program", Change::Delete, false),
        ("retention.ms", Change::Delete, false),
        ("log.retention.hours", Change::Delete, false),
    ] {
        assert_eq!(is_nothing(name, change, &old), expected, "{name} {change:?}");
    }
}

#[test]
fn what_cannot_be_set_is_refused() {
    let nothing = held(&[]);
    let broker = Resource::Broker(BrokerId(1));
    for (name, change, resource, code) in [
        ("retention.ms", Change::Set("soon"), TOPIC, ErrorCode::InvalidConfig),
        ("retention.ms", Change::Set("-2"), TOPIC, ErrorCode::InvalidConfig),
        ("no.such.setting", Change::Set("1"), TOPIC, ErrorCode::InvalidConfig),
        // A broker's name for it is none of a topic's.
        ("log.retention.ms", Change::Set("1"), TOPIC, ErrorCode::InvalidConfig),
        ("retention.ms", Change::Append("1"), TOPIC, ErrorCode::InvalidConfig),
        ("no.such.setting", Change::Set("1"), broker, ErrorCode::InvalidConfig),
        ("node.id", Change::Set("2"), broker, ErrorCode::InvalidRequest),
        ("log.retention.hours", Change::Set("soon"), Resource::Cluster, ErrorCode::InvalidConfig),
    ] {
        let outcome = plan(name, change, &nothing, resource).map_err(|e| e.code);
        assert_eq!(outcome, Err(code), "{name} {change:?}");
    }
}

#[test]
fn a_broker_may_be_told_the_defaults_of_topics() {
    let nothing = held(&[]);
    for (name, value) in
        [("log.retention.ms", "1000"), ("log.retention.hours", "12"), ("log.retention.hours", "-1")]
    {
        let planned = plan(name, Change::Set(value), &nothing, Resource::Cluster).unwrap();
        assert_eq!(planned.value.as_deref(), Some(value), "{name}");
    }
}

#[test]
fn taking_back_what_is_not_there_is_no_mistake() {
    let planned = plan("no.such.setting", Change::Delete, &held(&[]), TOPIC).unwrap();
    assert_eq!(planned.value, None);
}

#[test]
fn a_setting_that_is_to_be_unset_is_one() {
    let unset = |name, held, resource| plan(name, Change::Unset, held, resource).map(|planned| planned.value);
    let (nothing, old) = (held(&[]), held(&[("of.an.older.program", "1")]));
    assert_eq!(unset("retention.ms", &nothing, TOPIC), Ok(None));
    assert_eq!(unset("of.an.older.program", &old, TOPIC), Ok(None));
    assert_eq!(unset("log.retention.ms", &nothing, Resource::Cluster), Ok(None));
    let refused = unset("retention.mss", &nothing, TOPIC).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidConfig);
    assert!(refused.message.contains("did you mean retention.ms"), "{}", refused.message);
}

#[test]
fn what_brokers_keep_is_only_compacted() {
    let change =
        |name: &str| vec![ConfigChange { name: name.to_owned(), value: None, only_over: ExpectedValue::Any }];
    let of = |topic, policy, changed| {
        check_internal(topic, &held(&[("cleanup.policy", policy)]), &change(changed)).map_err(|e| e.code)
    };
    assert_eq!(of("__consumer_offsets", "compact", "cleanup.policy"), Ok(()));
    assert_eq!(of("t", "delete", "cleanup.policy"), Ok(()));
    // It is so already, however that came; something else may be changed.
    assert_eq!(of("__consumer_offsets", "delete", "segment.bytes"), Ok(()));
    for policy in ["delete", "compact,delete", ""] {
        let refused = of("__consumer_offsets", policy, "cleanup.policy");
        assert_eq!(refused, Err(ErrorCode::InvalidConfig), "{policy}");
    }
    let unset = check_internal("__consumer_offsets", &held(&[]), &change("cleanup.policy"));
    assert!(unset.is_err(), "the default deletes");
}
