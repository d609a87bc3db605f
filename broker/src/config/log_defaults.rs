//! Settings that topics take over where they have none of their own: Kafka's `log.…` and the like. Their names, values and documentation
//! are those of the table of topic settings.

use floodmark_replication::cluster::settings::{self, Kind, Setting, SettingError, Synonym};

use super::{BrokerConfig, Origin, variable_of};

/// A broker setting that topics take over, and its value.
#[derive(Debug, Clone)]
pub struct LogDefault {
    /// Its name.
    pub key: &'static str,
    /// The topic setting that it gives.
    pub topic_setting: &'static Setting,
    /// Its value; none where another name of the same setting has one, or where the unit of this name is not the default's.
    pub value: Option<String>,
    /// The value where nobody says anything; none where the unit of this name is not the default's.
    pub default: Option<&'static str>,
    /// Where it came from.
    pub origin: Origin,
}

impl LogDefault {
    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        variable_of(self.key)
    }

    /// What may be written, in words.
    #[must_use]
    pub fn allowed(&self) -> String {
        allowed(&self.topic_setting.kind)
    }
}

/// Every name, each topic setting's together, the strongest first.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    settings::all().iter().flat_map(|setting| setting.synonyms.iter().map(|synonym| synonym.name))
}

/// Says what is allowed where `value` is not; `None` where there is no such name.
pub(super) fn check(key: &str, value: &str) -> Option<Result<&'static str, String>> {
    let (setting, synonym) = settings::find_synonym(key)?;
    let checked = in_setting_unit(value, synonym)
        .ok_or_else(|| "a whole number".to_owned())
        .and_then(|value| setting.check(&value).map_err(|e| reason(setting, e)));
    Some(checked.map(|()| synonym.name))
}

/// All of them as they are in `config`.
pub(super) fn all(config: &BrokerConfig) -> Vec<LogDefault> {
    let mut found = Vec::new();
    for setting in settings::all() {
        let is_set = |synonym: &Synonym| config.log_defaults.contains_key(synonym.name);
        let is_any_set = setting.synonyms.iter().any(is_set);
        for synonym in setting.synonyms {
            let default = (synonym.times == 1).then_some(setting.default);
            let value = config.log_defaults.get(synonym.name).cloned();
            found.push(LogDefault {
                key: synonym.name,
                topic_setting: setting,
                value: value.or_else(|| default.filter(|_| !is_any_set).map(str::to_owned)),
                default,
                origin: config.origins.get(synonym.name).cloned().unwrap_or(Origin::Default),
            });
        }
    }
    found
}

/// A value below zero has a meaning of its own, and no unit.
fn in_setting_unit(value: &str, synonym: Synonym) -> Option<String> {
    if synonym.times == 1 {
        return Some(value.to_owned());
    }
    let number: i64 = value.trim().parse().ok()?;
    Some(if number < 0 { number } else { number.checked_mul(synonym.times)? }.to_string())
}

fn reason(setting: &Setting, error: SettingError) -> String {
    match error {
        SettingError::Invalid { .. } => allowed(&setting.kind),
        other => other.to_string(),
    }
}

fn allowed(kind: &Kind) -> String {
    match kind {
        Kind::Boolean => "true or false".to_owned(),
        Kind::OnlyFalse { because } => format!("false alone: {because}"),
        Kind::Int { min, max, also } => {
            let also = also.map(|n| format!(", or {n}")).unwrap_or_default();
            format!("a whole number, from {min} to {max}{also}")
        }
        Kind::Long { min } => format!("a whole number, {min} or more"),
        Kind::Double { min, max } => format!("a number, from {min} to {max}"),
        Kind::Choice(words) => format!("one of {}", words.join(", ")),
        Kind::Choices(words) => format!("any of {}, with commas between", words.join(", ")),
        Kind::Replicas => "PARTITION:BROKER pairs with commas between, or *".to_owned(),
    }
}
