//! Which APIs there are, by Kafka's numbers, and their versions.

use std::ops::RangeInclusive;

include!(concat!(env!("OUT_DIR"), "/kafka/api_key.rs"));

struct Facts {
    name: &'static str,
    first: i16,
    last: i16,
    flexible: Option<i16>,
}

impl ApiKey {
    /// The API with this number, if it has a table.
    #[must_use]
    pub fn from_code(code: i16) -> Option<ApiKey> {
        ApiKey::ALL.binary_search_by_key(&code, |key| key.code()).ok().map(|at| ApiKey::ALL[at])
    }

    /// Kafka's number.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }

    /// Kafka's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        facts(self).name
    }

    /// The versions that can be decoded: those of Kafka 4.3 that are stable.
    #[must_use]
    pub fn versions(self) -> RangeInclusive<i16> {
        let Facts { first, last, .. } = facts(self);
        first..=last
    }

    /// The versions that ApiVersions tells clients.
    ///
    /// Those that can be decoded, but for Produce: librdkafka before 2.11.1 sends batches uncompressed, without a word, where 0 to 2 are
    /// not offered (KAFKA-18659). A request of those versions is refused all the same.
    #[must_use]
    pub fn advertised(self) -> RangeInclusive<i16> {
        match self {
            ApiKey::Produce => 0..=*self.versions().end(),
            _ => self.versions(),
        }
    }

    /// First version with compact lengths and tagged fields.
    #[must_use]
    pub fn first_flexible(self) -> Option<i16> {
        facts(self).flexible
    }

    /// Whether a version has compact lengths and tagged fields.
    #[must_use]
    pub fn is_flexible(self, version: i16) -> bool {
        self.first_flexible().is_some_and(|first| version >= first)
    }
}
