//! The cases: what every client has to do, and what the outcome has to be. One list, in the order in which they run.

pub(crate) mod admin;
mod data;
mod groups;

use crate::adapter::{Failure, Header, Record};
use crate::session::Session;

/// A case by name.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Session) -> Result<String, Failure>,
    /// How often it may be tried. Clients lose rebalances of their own making where the machine is too busy to let them run; what
    /// failed at first is told in the outcome.
    pub(crate) tries: u32,
}

/// All cases. What a case returns is a remark for the report, empty for none.
pub(crate) const CASES: &[Case] = &[
    Case { name: "create_topic", run: admin::create_topic, tries: 1 },
    Case { name: "codecs", run: data::codecs, tries: 1 },
    Case { name: "keys_headers", run: data::keys_headers, tries: 1 },
    Case { name: "acks", run: data::acks, tries: 1 },
    Case { name: "idempotent", run: data::idempotent, tries: 1 },
    Case { name: "transaction", run: data::transaction, tries: 1 },
    Case { name: "from_start", run: data::from_start, tries: 1 },
    Case { name: "from_end", run: data::from_end, tries: 1 },
    Case { name: "by_time", run: data::by_time, tries: 1 },
    Case { name: "large_message", run: data::large_message, tries: 1 },
    Case { name: "group_two", run: groups::two, tries: 2 },
    Case { name: "group_three", run: groups::three_join_leave, tries: 2 },
    Case { name: "group_cooperative", run: groups::cooperative, tries: 2 },
    Case { name: "static_member", run: groups::static_member, tries: 2 },
    Case { name: "commit_resume", run: groups::commit_resume, tries: 2 },
    Case { name: "admin", run: admin::admin, tries: 1 },
    Case { name: "many_topics", run: admin::many_topics, tries: 1 },
];

/// `count` records for each of `partitions`, told apart by `word`, without keys.
fn records(word: &str, partitions: i32, count: usize) -> Vec<Record> {
    let text = |p, n| format!("{word} {p}/{n} {}", "abcdefgh".repeat(n % 30)).into_bytes();
    (0..count).flat_map(|n| (0..partitions).map(move |p| record(p, None, Some(text(p, n))))).collect()
}

fn record(partition: i32, key: Option<Vec<u8>>, value: Option<Vec<u8>>) -> Record {
    Record { partition: Some(partition), key, value, headers: Vec::new(), timestamp: None }
}

fn header(name: &str, value: Option<&[u8]>) -> Header {
    Header(name.to_owned(), value.map(<[u8]>::to_vec))
}

/// Bytes that no codec makes smaller, the same in every run.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}
