//! Settings of topics and brokers: told with where each value comes from, and changed through the cluster's metadata. Must never know
//! wire types.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use floodmark_proto::ids::BrokerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::cluster::command::{ConfigChange, ConfigResource, ExpectedValue};
use floodmark_replication::cluster::image::Settings;
use floodmark_replication::cluster::settings::{self, ConfigType, Layers, Source};
use floodmark_replication::cluster::{ClusterImage, Command};

use super::error::OpError;
use super::topics::{TopicKey, find, is_internal};
use crate::config::{Origin, SETTINGS};
use crate::shared::Shared;

const CLEANUP_POLICY: &str = "cleanup.policy";

/// What settings belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Resource<'a> {
    Topic(&'a str),
    Broker(BrokerId),
    /// All brokers.
    Cluster,
}

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) source: EntrySource,
    pub(crate) is_read_only: bool,
    pub(crate) config_type: ConfigType,
    pub(crate) documentation: &'static str,
    /// Every value that is set, the one in force first.
    pub(crate) chain: Vec<(&'static str, String, EntrySource)>,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntrySource {
    Topic,
    DynamicBroker,
    DynamicCluster,
    StaticBroker,
    Default,
}

/// What is to become of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    Set(&'a str),
    /// Back to the default; nothing where there is no such setting, as in Kafka.
    Delete,
    /// The same, but refused where there is no such setting.
    Unset,
    Append(&'a str),
    Subtract(&'a str),
}

/// All settings of a resource, or those of `names`; names that there are not are left out, as in Kafka.
pub(crate) fn describe(
    shared: &Shared,
    resource: Resource<'_>,
    names: Option<&[&str]>,
) -> Result<Vec<Entry>, OpError> {
    let image = shared.cluster.image();
    let is_wanted = |name: &str| names.is_none_or(|names| names.contains(&name));
    let mut entries = match resource {
        Resource::Topic(name) => topic_entries(shared, &image, name)?,
        Resource::Broker(id) => {
            if image.broker(id).is_none() {
                let message = format!("there is no broker {id}; ask for {}", shared.cluster.node_id());
                return Err(OpError::new(ErrorCode::InvalidRequest, message));
            }
            broker_entries(shared, &image, id)
        }
        Resource::Cluster => {
            let set = |name: &str| image.cluster_settings().contains_key(name);
            let mut entries = broker_entries(shared, &image, shared.cluster.node_id());
            entries.retain(|e| set(e.name) && e.source == EntrySource::DynamicCluster);
            entries
        }
    };
    entries.retain(|entry| is_wanted(entry.name));
    Ok(entries)
}

/// The settings of a topic that is made with `set`; of each the value in force alone.
pub(crate) fn describe_new(shared: &Shared, set: &[(String, String)]) -> Vec<Entry> {
    let image = shared.cluster.image();
    let (topic, nothing) = (set.iter().cloned().collect::<Settings>(), Settings::new());
    let layers = Layers {
        topic: &topic,
        broker: image.broker_settings(shared.cluster.node_id()).map_or(&nothing, |s| s),
        cluster: image.cluster_settings(),
        file: shared.cluster.file_settings(),
    };
    let without_chain = |entry: Entry| Entry { chain: Vec::new(), ..entry };
    settings::all().iter().map(|setting| without_chain(topic_entry(setting, &layers))).collect()
}

fn topic_entries(shared: &Shared, image: &ClusterImage, name: &str) -> Result<Vec<Entry>, OpError> {
    let topic = find(image, TopicKey::Name(name))?;
    let nothing = Settings::new();
    let layers = Layers {
        topic: &topic.settings,
        broker: image.broker_settings(shared.cluster.node_id()).map_or(&nothing, |s| s),
        cluster: image.cluster_settings(),
        file: shared.cluster.file_settings(),
    };
    Ok(settings::all().iter().map(|setting| topic_entry(setting, &layers)).collect())
}

fn topic_entry(setting: &'static settings::Setting, layers: &Layers<'_>) -> Entry {
    let chain: Vec<_> =
        setting.explain(layers).into_iter().map(|e| (e.name, e.value, source_of(e.source))).collect();
    let (value, source) = chain.first().map_or_else(
        || (setting.default.to_owned(), EntrySource::Default),
        |(_, value, source)| (value.clone(), *source),
    );
    Entry {
        name: setting.name,
        value,
        source,
        is_read_only: false,
        config_type: setting.config_type(),
        documentation: setting.documentation,
        chain,
    }
}

fn source_of(source: Source) -> EntrySource {
    match source {
        Source::Topic => EntrySource::Topic,
        Source::Broker => EntrySource::DynamicBroker,
        Source::Cluster => EntrySource::DynamicCluster,
        Source::File => EntrySource::StaticBroker,
        Source::Default => EntrySource::Default,
    }
}

/// A broker's own settings, which only a start reads, and the ones that topics take over, which may be changed at any time.
fn broker_entries(shared: &Shared, image: &ClusterImage, id: BrokerId) -> Vec<Entry> {
    let mut entries = BTreeMap::new();
    if id == shared.cluster.node_id() {
        for effective in shared.config.effective() {
            let source = match effective.origin {
                Origin::Default => EntrySource::Default,
                _ => EntrySource::StaticBroker,
            };
            let entry = Entry {
                name: effective.setting.key,
                value: effective.value.clone(),
                source,
                is_read_only: true,
                config_type: ConfigType::String,
                documentation: effective.setting.documentation,
                chain: vec![(effective.setting.key, effective.value, source)],
            };
            entries.insert(entry.name, entry);
        }
    }
    let nothing = Settings::new();
    let dynamic = image.broker_settings(id).map_or(&nothing, |s| s);
    for setting in settings::all() {
        for synonym in setting.synonyms {
            let layers = [
                (dynamic, EntrySource::DynamicBroker),
                (image.cluster_settings(), EntrySource::DynamicCluster),
                (shared.cluster.file_settings(), EntrySource::StaticBroker),
            ];
            let mut chain: Vec<_> = layers
                .into_iter()
                .filter_map(|(layer, source)| {
                    layer.get(synonym.name).map(|v| (synonym.name, v.clone(), source))
                })
                .collect();
            // A default in hours beside one in milliseconds would say the same thing twice, and Kafka has it on one of them only.
            if synonym.times == 1 {
                chain.push((synonym.name, setting.default.to_owned(), EntrySource::Default));
            }
            let Some((_, value, source)) = chain.first().cloned() else { continue };
            let entry = Entry {
                name: synonym.name,
                value,
                source,
                is_read_only: false,
                config_type: setting.config_type(),
                documentation: setting.documentation,
                chain,
            };
            entries.insert(entry.name, entry);
        }
    }
    entries.into_values().collect()
}

/// Changes some settings of a resource: all of the changes or none.
pub(crate) async fn change(
    shared: &Shared,
    resource: Resource<'_>,
    changes: &[(&str, Change<'_>)],
    validate_only: bool,
    within: Duration,
) -> Result<(), OpError> {
    let mut names = BTreeSet::new();
    if let Some((name, _)) = changes.iter().find(|(name, _)| !names.insert(*name)) {
        return Err(OpError::new(
            ErrorCode::InvalidRequest,
            format!("setting '{name}' is named more than once"),
        ));
    }
    let image = shared.cluster.image();
    let (target, held) = target(shared, &image, resource)?;
    let mut planned = Vec::with_capacity(changes.len());
    for (name, change) in changes.iter().filter(|(name, change)| !is_nothing(name, *change, &held)) {
        planned.push(plan(name, *change, &held, resource)?);
    }
    propose(shared, resource, target, held, planned, validate_only, within).await
}

/// Gives a resource these settings and no others.
pub(crate) async fn replace(
    shared: &Shared,
    resource: Resource<'_>,
    wanted: &[(&str, Option<&str>)],
    validate_only: bool,
    within: Duration,
) -> Result<(), OpError> {
    let mut new = BTreeMap::new();
    for (name, value) in wanted {
        let value = value.ok_or_else(|| null_value(name))?;
        if new.insert(*name, value).is_some() {
            let message = format!("setting '{name}' is named more than once");
            return Err(OpError::new(ErrorCode::InvalidRequest, message));
        }
    }
    let image = shared.cluster.image();
    let (target, held) = target(shared, &image, resource)?;
    let mut planned = Vec::new();
    for (name, value) in &new {
        planned.push(plan(name, Change::Set(value), &held, resource)?);
    }
    for name in held.keys().filter(|name| !new.contains_key(name.as_str())) {
        planned.push(plan(name, Change::Delete, &held, resource)?);
    }
    propose(shared, resource, target, held, planned, validate_only, within).await
}

/// The error for a setting without a value where one is needed.
pub(crate) fn null_value(name: &str) -> OpError {
    OpError::new(ErrorCode::InvalidRequest, format!("null value not supported for {name}"))
}

fn target(
    shared: &Shared,
    image: &ClusterImage,
    resource: Resource<'_>,
) -> Result<(ConfigResource, Settings), OpError> {
    match resource {
        Resource::Topic(name) => {
            let topic = find(image, TopicKey::Name(name))?;
            Ok((ConfigResource::Topic(topic.id), Settings::clone(&topic.settings)))
        }
        Resource::Broker(id) => {
            if image.broker(id).is_none() {
                let message = format!("there is no broker {id}; ask for {}", shared.cluster.node_id());
                return Err(OpError::new(ErrorCode::InvalidRequest, message));
            }
            let held = image.broker_settings(id).map(|s| Settings::clone(s)).unwrap_or_default();
            Ok((ConfigResource::Broker(id), held))
        }
        Resource::Cluster => Ok((ConfigResource::Cluster, Settings::clone(image.cluster_settings()))),
    }
}

/// A name that nobody holds and no setting has is nothing to take away: the metadata's log would keep it, and names that a client makes up
/// have no end. One that there is may have been set through another broker a moment ago.
fn is_nothing(name: &str, change: Change<'_>, held: &Settings) -> bool {
    let exists = settings::find(name).is_ok() || settings::find_synonym(name).is_some();
    change == Change::Delete && !held.contains_key(name) && !exists
}

/// One change of a topic's or broker's setting, checked. Pure.
fn plan(
    name: &str,
    change: Change<'_>,
    held: &Settings,
    resource: Resource<'_>,
) -> Result<ConfigChange, OpError> {
    // What an earlier program has set may be taken away by one that does not know it.
    if change == Change::Delete || change == Change::Unset && held.contains_key(name) {
        return Ok(ConfigChange { name: name.to_owned(), value: None, only_over: ExpectedValue::Any });
    }
    let setting = match resource {
        Resource::Topic(_) => settings::find(name)?,
        Resource::Broker(_) | Resource::Cluster => match settings::find_synonym(name) {
            Some((setting, _)) => setting,
            None if SETTINGS.iter().any(|s| s.key == name) => {
                let message = format!(
                    "{name} cannot be changed while the broker runs; set it in its file and restart it"
                );
                return Err(OpError::new(ErrorCode::InvalidRequest, message));
            }
            None => {
                return Err(OpError::new(
                    ErrorCode::InvalidConfig,
                    format!("unknown broker config name: {name}"),
                ));
            }
        },
    };
    let before = held.get(name).map(String::as_str);
    let (value, only_over) = match change {
        Change::Set(value) => (value.to_owned(), ExpectedValue::Any),
        Change::Append(added) => (setting.append_to(before, added)?, expected(before)),
        Change::Subtract(removed) => (setting.subtract_from(before, removed)?, expected(before)),
        Change::Delete | Change::Unset => {
            return Ok(ConfigChange { name: name.to_owned(), value: None, only_over: ExpectedValue::Any });
        }
    };
    // A broker's name for a setting may have another unit, whose limits are those of the topic's only up to a factor.
    let is_in_its_unit = !matches!(settings::find_synonym(name), Some((_, synonym)) if synonym.times != 1);
    if is_in_its_unit {
        setting.check(&value)?;
    } else if value.trim().parse::<i64>().is_err() {
        return Err(OpError::new(
            ErrorCode::InvalidConfig,
            format!("invalid value {value} for configuration {name}"),
        ));
    }
    Ok(ConfigChange { name: name.to_owned(), value: Some(value), only_over })
}

/// The newest record of each key is all that brokers keep of their own state: where time deletes too, offsets of groups are lost.
fn check_internal(topic: &str, held: &Settings, changes: &[ConfigChange]) -> Result<(), OpError> {
    let is_changed = changes.iter().any(|change| change.name == CLEANUP_POLICY);
    let is_compact = held.get(CLEANUP_POLICY).is_some_and(|policy| policy.trim() == "compact");
    if is_internal(topic) && is_changed && !is_compact {
        let message = format!(
            "{CLEANUP_POLICY} of topic '{topic}' stays compact: brokers keep their own state there, such as the offsets of all groups"
        );
        return Err(OpError::new(ErrorCode::InvalidConfig, message));
    }
    Ok(())
}

fn expected(before: Option<&str>) -> ExpectedValue {
    before.map_or(ExpectedValue::Unset, |value| ExpectedValue::Is(value.to_owned()))
}

async fn propose(
    shared: &Shared,
    resource: Resource<'_>,
    target: ConfigResource,
    mut held: Settings,
    changes: Vec<ConfigChange>,
    validate_only: bool,
    within: Duration,
) -> Result<(), OpError> {
    for change in &changes {
        match &change.value {
            Some(value) => held.insert(change.name.clone(), value.clone()),
            None => held.remove(&change.name),
        };
    }
    if let Resource::Topic(name) = resource {
        check_internal(name, &held, &changes)?;
        settings::check_all(held.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    }
    if validate_only || changes.is_empty() {
        return Ok(());
    }
    let deadline = tokio::time::Instant::now() + within;
    shared.cluster.propose(Command::SetConfig { resource: target, changes }, deadline).await?;
    // A client that raises max.message.bytes sends its large message next.
    let version = shared.cluster.image().version();
    let _ = tokio::time::timeout_at(deadline, shared.cluster.registry().reconciled(version)).await;
    Ok(())
}

#[cfg(test)]
mod tests;
