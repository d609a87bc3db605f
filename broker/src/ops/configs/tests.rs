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
