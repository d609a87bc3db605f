//! Topic settings: one table of names, types, defaults and documentation, and what follows from it: checking, the layers a value
//! comes from, and what storage and the broker are told. Pure. Broker settings of other kinds are the broker's own.

mod resolve;
mod table;

pub use resolve::{
    Cleanup, Compression, Explained, Layers, Source, SyncPolicy, TimestampType, TopicSettings,
};

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The value where nobody set one.
    pub default: &'static str,
    /// Broker settings that give topics this one, the strongest first.
    pub synonyms: &'static [Synonym],
    /// What it does, for people.
    pub documentation: &'static str,
}

/// A broker setting that gives a topic setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synonym {
    /// Its name.
    pub name: &'static str,
    /// What its value is multiplied with: hours to milliseconds.
    pub times: i64,
}

/// The values that a setting takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// true or false.
    Boolean,
    /// A boolean that may not be true here, and why.
    OnlyFalse {
        /// The reason.
        because: &'static str,
    },
    /// A 32-bit number from `min` to `max`, or `also`.
    Int {
        /// Lowest value.
        min: i32,
        /// Highest value.
        max: i32,
        /// A value outside the range that has a meaning of its own.
        also: Option<i32>,
    },
    /// A 64-bit number from `min` on.
    Long {
        /// Lowest value.
        min: i64,
    },
    /// A number from `min` to `max`.
    Double {
        /// Lowest value.
        min: f64,
        /// Highest value.
        max: f64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any of these words, with commas between them.
    Choices(&'static [&'static str]),
    /// `partition:broker` pairs with commas between them, or `*`.
    Replicas,
}

/// The type under which tools are told of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigType {
    /// true or false.
    Boolean,
    /// A word.
    String,
    /// A 32-bit number.
    Int,
    /// A 64-bit number.
    Long,
    /// A number.
    Double,
    /// Words with commas between them.
    List,
}

/// Why a setting is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// There is none of this name.
    #[error("unknown topic config name: {name}; did you mean {nearest}?")]
    Unknown {
        /// The name.
        name: String,
        /// The most similar name there is.
        nearest: &'static str,
    },
    /// The value is none that the setting takes.
    #[error("invalid value {value} for configuration {name}: {reason}")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// The value.
        value: String,
        /// What it should be.
        reason: String,
    },
    /// Two settings that are good alone are not together.
    #[error("{name} ({value}) exceeds {other} ({other_value})")]
    Conflict {
        /// One.
        name: &'static str,
        /// Its value.
        value: i64,
        /// The other.
        other: &'static str,
        /// Its value.
        other_value: i64,
    },
    /// Adding to or taking from a setting that is no list.
    #[error("{name} is not a list: nothing can be appended to it or subtracted from it")]
    NotAList {
        /// The setting.
        name: &'static str,
    },
}

/// Every setting, by name.
#[must_use]
pub fn all() -> &'static [Setting] {
    &table::TABLE
}

/// The setting of this name.
pub fn find(name: &str) -> Result<&'static Setting, SettingError> {
    all()
        .iter()
        .find(|s| s.name == name)
        .ok_or_else(|| SettingError::Unknown { name: name.to_owned(), nearest: nearest(name) })
}

/// The topic setting that a broker setting gives, and how its values are multiplied.
#[must_use]
pub fn find_synonym(broker_name: &str) -> Option<(&'static Setting, Synonym)> {
    let with = |s: &'static Setting| s.synonyms.iter().find(|y| y.name == broker_name).map(|y| (s, *y));
    all().iter().find_map(with)
}

/// Checks one setting.
pub fn check(name: &str, value: &str) -> Result<(), SettingError> {
    find(name)?.check(value)
}

/// Checks all settings of a topic, alone and together.
pub fn check_all<'a>(
    settings: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
) -> Result<(), SettingError> {
    for (name, value) in settings.clone() {
        check(name, value)?;
    }
    let number = |setting: &'static str| {
        let set = settings.clone().into_iter().filter(|(name, _)| *name == setting).last();
        let value = set.map_or_else(|| find(setting).map(|s| s.default).unwrap_or_default(), |(_, v)| v);
        value.trim().parse::<i64>().unwrap_or(0)
    };
    let (name, other) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
    let (value, other_value) = (number(name), number(other));
    if value > other_value {
        return Err(SettingError::Conflict { name, value, other, other_value });
    }
    Ok(())
}

impl Setting {
    /// The type that tools are told.
    #[must_use]
    pub fn config_type(&self) -> ConfigType {
        match self.kind {
            Kind::Boolean | Kind::OnlyFalse { .. } => ConfigType::Boolean,
            Kind::Int { .. } => ConfigType::Int,
            Kind::Long { .. } => ConfigType::Long,
            Kind::Double { .. } => ConfigType::Double,
            Kind::Choice(_) => ConfigType::String,
            Kind::Choices(_) | Kind::Replicas => ConfigType::List,
        }
    }

    /// Fails, saying why, on a value that the setting does not take. Spaces around a value do not count, as in Kafka.
    pub fn check(&self, value: &str) -> Result<(), SettingError> {
        let reason = match self.kind {
            Kind::Boolean => check_boolean(value.trim()).map(|_| ()),
            Kind::OnlyFalse { because } => check_boolean(value.trim()).and_then(|is_true| {
                if is_true { Err(format!("it must be false: {because}")) } else { Ok(()) }
            }),
            Kind::Int { min, max, also } => check_int(value.trim(), min, max, also),
            Kind::Long { min } => check_long(value.trim(), min),
            Kind::Double { min, max } => check_double(value.trim(), min, max),
            Kind::Choice(words) => check_word(value.trim(), words),
            Kind::Choices(words) => list(value).try_for_each(|word| check_word(word, words)),
            Kind::Replicas => check_replicas(value),
        };
        reason.map_err(|reason| SettingError::Invalid { name: self.name, value: value.to_owned(), reason })
    }

    /// The list `held`, or the default where nothing is set, with the words of `added` that it lacks.
    pub fn append_to(&self, held: Option<&str>, added: &str) -> Result<String, SettingError> {
        self.check_list()?;
        let mut words: Vec<&str> = list(held.unwrap_or(self.default)).collect();
        for word in list(added) {
            if !words.contains(&word) {
                words.push(word);
            }
        }
        Ok(words.join(","))
    }

    /// The list `held`, or the default where nothing is set, without the words of `removed`.
    pub fn subtract_from(&self, held: Option<&str>, removed: &str) -> Result<String, SettingError> {
        self.check_list()?;
        let removed: Vec<&str> = list(removed).collect();
        let left: Vec<&str> = list(held.unwrap_or(self.default)).filter(|w| !removed.contains(w)).collect();
        Ok(left.join(","))
    }

    fn check_list(&self) -> Result<(), SettingError> {
        if self.config_type() == ConfigType::List {
            Ok(())
        } else {
            Err(SettingError::NotAList { name: self.name })
        }
    }
}

/// The words of a list.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn check_boolean(value: &str) -> Result<bool, String> {
    if value.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if value.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err("it must be true or false".to_owned())
    }
}

fn check_int(value: &str, min: i32, max: i32, also: Option<i32>) -> Result<(), String> {
    let number: i32 = value.parse().map_err(|_| "it is not a 32-bit number".to_owned())?;
    if (min..=max).contains(&number) || also == Some(number) {
        return Ok(());
    }
    let range = if max == i32::MAX { format!("at least {min}") } else { format!("between {min} and {max}") };
    let also = also.map_or_else(String::new, |also| format!(", or {also}"));
    Err(format!("it must be {range}{also}"))
}

fn check_long(value: &str, min: i64) -> Result<(), String> {
    let number: i64 = value.parse().map_err(|_| "it is not a 64-bit number".to_owned())?;
    if number < min { Err(format!("it must be at least {min}")) } else { Ok(()) }
}

fn check_double(value: &str, min: f64, max: f64) -> Result<(), String> {
    let number: f64 = value.parse().map_err(|_| "it is not a number".to_owned())?;
    // Not a number is in no range.
    if (min..=max).contains(&number) { Ok(()) } else { Err(format!("it must be between {min} and {max}")) }
}

fn check_word(value: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&value) { Ok(()) } else { Err(format!("it must be one of {}", words.join(", "))) }
}

fn check_replicas(value: &str) -> Result<(), String> {
    if value.trim() == "*" {
        return Ok(());
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_pair = |pair: &str| pair.split_once(':').is_some_and(|(p, b)| is_number(p) && is_number(b));
    if list(value).all(is_pair) {
        return Ok(());
    }
    Err("it must be * or a list of partition:broker pairs".to_owned())
}

/// The name that takes the fewest changes of a letter to become `name`; of several the first.
fn nearest(name: &str) -> &'static str {
    // No good guess is further away, and a name may be as long as its sender likes.
    let name: String = name.chars().take(100).collect();
    all().iter().map(|s| s.name).min_by_key(|known| distance(&name, known)).unwrap_or_default()
}

fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (n, a) in from.chars().enumerate() {
        let mut diagonal = n;
        let mut left = n + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&to) {
            let changed = diagonal + usize::from(a != *b);
            diagonal = *cell;
            left = changed.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = n + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
