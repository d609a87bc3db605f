//! One comparison: of a record, or of everything that a batch may hold.

use std::cmp::Ordering;
use std::ops::RangeInclusive;

use floodmark_proto::batch::{BatchHeader, Record};
use memchr::memmem::Finder;

/// Bytes of a record, which may be null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    Key,
    Value,
    /// The last header of this name.
    Header(Vec<u8>),
}

/// A number of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Number {
    Offset,
    Timestamp,
    /// 0 where it is null.
    Size(Text),
}

/// How two things are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A comparison.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Constant(bool),
    /// There is a header of this name.
    HasHeader(Vec<u8>),
    /// Whether it is null is this.
    IsNull(Text, bool),
    Text(Text, Compare, Vec<u8>),
    TextIn(Text, Vec<Vec<u8>>),
    StartsWith(Text, Vec<u8>),
    EndsWith(Text, Vec<u8>),
    Contains(Text, Box<Finder<'static>>),
    Number(Number, Option<Modulus>, Compare, i64),
    NumberIn(Number, Option<Modulus>, Vec<i64>),
}

/// What a number is divided by, of which the remainder is taken. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Modulus(pub(super) i64);

/// What a batch's header says of its records.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    offsets: RangeInclusive<i64>,
    /// Where the broker's clock counts for all of them; a producer's word for the latest of its times is not relied on.
    timestamp: Option<i64>,
}

/// Which of true and false a test may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct May {
    pub(super) be_true: bool,
    pub(super) be_false: bool,
}

impl May {
    pub(super) const BE_EITHER: May = May { be_true: true, be_false: true };
    pub(super) const BE_NEITHER: May = May { be_true: false, be_false: false };

    pub(super) fn be(value: bool) -> May {
        May { be_true: value, be_false: !value }
    }
}

impl Facts {
    pub(super) fn of(batch: &BatchHeader) -> Facts {
        Facts {
            offsets: batch.base_offset.0..=batch.last_offset().0,
            timestamp: batch.attributes.is_log_append_time().then_some(batch.max_timestamp),
        }
    }

    fn range(&self, number: &Number) -> Option<(i64, i64)> {
        match number {
            Number::Offset => Some((*self.offsets.start(), *self.offsets.end())),
            Number::Timestamp => self.timestamp.map(|timestamp| (timestamp, timestamp)),
            Number::Size(_) => None,
        }
    }
}

impl Test {
    pub(super) fn of_record(&self, record: &Record<'_>) -> bool {
        match self {
            Test::Constant(value) => *value,
            Test::HasHeader(name) => header(record, name).is_some(),
            Test::IsNull(text, is_null) => text.of(record).is_none() == *is_null,
            Test::Text(text, compare, with) => match text.of(record) {
                Some(bytes) => compare.holds(bytes.cmp(with)),
                // Null is unequal to every text, and neither before nor behind it.
                None => *compare == Compare::NotEqual,
            },
            Test::TextIn(text, list) => {
                text.of(record).is_some_and(|bytes| list.iter().any(|one| one == bytes))
            }
            Test::StartsWith(text, prefix) => text.of(record).is_some_and(|bytes| bytes.starts_with(prefix)),
            Test::EndsWith(text, suffix) => text.of(record).is_some_and(|bytes| bytes.ends_with(suffix)),
            Test::Contains(text, finder) => text.of(record).is_some_and(|bytes| finder.find(bytes).is_some()),
            Test::Number(number, modulus, compare, with) => {
                compare.holds(remainder(number.of(record), *modulus).cmp(with))
            }
            Test::NumberIn(number, modulus, list) => list.contains(&remainder(number.of(record), *modulus)),
        }
    }

    pub(super) fn of_batch(&self, facts: &Facts) -> May {
        match self {
            Test::Constant(value) => May::be(*value),
            Test::Number(number, None, compare, with) => match facts.range(number) {
                Some((low, high)) => compare.of_range(low, high, *with),
                None => May::BE_EITHER,
            },
            Test::NumberIn(number, None, list) => match facts.range(number) {
                Some((low, high)) => {
                    May { be_true: list.iter().any(|one| (low..=high).contains(one)), be_false: true }
                }
                None => May::BE_EITHER,
            },
            _ => May::BE_EITHER,
        }
    }
}

fn remainder(number: i64, modulus: Option<Modulus>) -> i64 {
    // The smallest number has no remainder by -1 that the processor could tell.
    modulus.map_or(number, |modulus| number.checked_rem(modulus.0).unwrap_or(0))
}

impl Compare {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Compare::Equal => ordering.is_eq(),
            Compare::NotEqual => ordering.is_ne(),
            Compare::Less => ordering.is_lt(),
            Compare::LessOrEqual => ordering.is_le(),
            Compare::Greater => ordering.is_gt(),
            Compare::GreaterOrEqual => ordering.is_ge(),
        }
    }

    /// Of any number from `low` to `high`.
    fn of_range(self, low: i64, high: i64, with: i64) -> May {
        let orderings = [
            (low < with, Ordering::Less),
            ((low..=high).contains(&with), Ordering::Equal),
            (high > with, Ordering::Greater),
        ];
        let mut may = May::BE_NEITHER;
        for (_, ordering) in orderings.into_iter().filter(|(is_possible, _)| *is_possible) {
            may.be_true |= self.holds(ordering);
            may.be_false |= !self.holds(ordering);
        }
        may
    }
}

impl Text {
    fn of<'a>(&self, record: &Record<'a>) -> Option<&'a [u8]> {
        match self {
            Text::Key => record.key,
            Text::Value => record.value,
            Text::Header(name) => header(record, name).flatten(),
        }
    }
}

impl Number {
    fn of(&self, record: &Record<'_>) -> i64 {
        match self {
            Number::Offset => record.offset.0,
            Number::Timestamp => record.timestamp,
            Number::Size(text) => {
                text.of(record).map_or(0, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX))
            }
        }
    }
}

/// The value of the last header of a name, as Kafka's clients ask for it.
fn header<'a>(record: &Record<'a>, name: &[u8]) -> Option<Option<&'a [u8]>> {
    let mut found = None;
    for header in record.headers.flatten() {
        if header.key == name {
            found = Some(header.value);
        }
    }
    found
}
