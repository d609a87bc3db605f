//! What `floodmark top` shows: two samples, what follows from them, and what keys have asked for. Knows no terminal and no server.

use std::cmp::Ordering;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde::Serialize;

/// What a cluster said at one time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// Since the first one, by a clock that never goes back.
    pub(crate) at: Duration,
    pub(crate) brokers: usize,
    pub(crate) topics: Vec<TopicSample>,
    pub(crate) groups: Vec<GroupSample>,
    /// Why some of it is missing.
    pub(crate) gaps: Option<String>,
}

/// A topic, its partitions added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TopicSample {
    pub(crate) name: String,
    pub(crate) partitions: usize,
    /// Partitions without a leader.
    pub(crate) offline: usize,
    /// Records that are there.
    pub(crate) records: u64,
    /// Of high watermarks: grows with each record that is committed.
    pub(crate) committed_end: i64,
    pub(crate) size_bytes: u64,
}

/// A group, its partitions added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct GroupSample {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) members: usize,
    /// Of committed offsets.
    pub(crate) committed: i64,
    pub(crate) lag: u64,
}

/// A topic as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TopicRow {
    pub(crate) topic: String,
    pub(crate) partitions: usize,
    pub(crate) offline: usize,
    pub(crate) records: u64,
    pub(crate) size_bytes: u64,
    pub(crate) records_per_second: f64,
    pub(crate) bytes_per_second: f64,
}

/// A group as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct GroupRow {
    pub(crate) group: String,
    pub(crate) state: String,
    pub(crate) members: usize,
    pub(crate) lag: u64,
    pub(crate) records_per_second: f64,
}

/// A list on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pane {
    Topics,
    Groups,
}

pub(crate) const TOPIC_COLUMNS: [&str; 6] =
    ["topic", "partitions", "records", "size", "records/s", "bytes/s"];
pub(crate) const GROUP_COLUMNS: [&str; 5] = ["group", "state", "members", "lag", "records/s"];

/// By which column a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sort {
    pub(crate) column: usize,
    pub(crate) is_descending: bool,
}

/// What a key asks of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Nothing,
    Quit,
}

/// Everything that is on the screen.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) server: String,
    pub(crate) pane: Pane,
    pub(crate) topic_sort: Sort,
    pub(crate) group_sort: Sort,
    pub(crate) topic_scroll: usize,
    pub(crate) group_scroll: usize,
    pub(crate) is_paused: bool,
    pub(crate) is_help_open: bool,
    /// Why the last sample did not come.
    pub(crate) failure: Option<String>,
    /// How long no sample has come, once that is longer than it should be.
    pub(crate) silence: Option<Duration>,
    before: Option<Sample>,
    now: Option<Sample>,
}

impl View {
    pub(crate) fn new(server: String) -> View {
        View {
            server,
            pane: Pane::Topics,
            // The busiest first, and who is farthest behind.
            topic_sort: Sort { column: 4, is_descending: true },
            group_sort: Sort { column: 3, is_descending: true },
            topic_scroll: 0,
            group_scroll: 0,
            is_paused: false,
            is_help_open: false,
            failure: None,
            silence: None,
            before: None,
            now: None,
        }
    }

    /// Rates are between the last two; a view that is paused keeps what it shows.
    pub(crate) fn on_sample(&mut self, sample: Sample) {
        self.failure = None;
        self.silence = None;
        if !self.is_paused {
            self.before = self.now.replace(sample);
        }
    }

    pub(crate) fn on_failure(&mut self, reason: String) {
        self.failure = Some(reason);
    }

    /// No sample has come for so long; tells whether that is news, in whole seconds.
    pub(crate) fn on_silence(&mut self, silence: Duration) -> bool {
        let is_news = self.silence.is_none_or(|before| before.as_secs() != silence.as_secs());
        self.silence = Some(silence);
        is_news
    }

    pub(crate) fn on_key(&mut self, key: KeyEvent) -> Asked {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Asked::Quit,
            KeyCode::Esc if self.is_help_open => self.is_help_open = false,
            KeyCode::Char('q') | KeyCode::Esc => return Asked::Quit,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('?' | 'h') => self.is_help_open = !self.is_help_open,
            KeyCode::Tab | KeyCode::BackTab => {
                self.pane = if self.pane == Pane::Topics { Pane::Groups } else { Pane::Topics };
            }
            KeyCode::Char('s') | KeyCode::Right => self.sort_by_next(1),
            KeyCode::Char('S') | KeyCode::Left => self.sort_by_next(-1),
            KeyCode::Char('r') => {
                let sort = self.sort_mut();
                sort.is_descending = !sort.is_descending;
            }
            KeyCode::Down | KeyCode::Char('j') => self.scroll_by(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll_by(-1),
            KeyCode::PageDown => self.scroll_by(10),
            KeyCode::PageUp => self.scroll_by(-10),
            KeyCode::Home => self.scroll_by(isize::MIN),
            KeyCode::End => self.scroll_by(isize::MAX),
            _ => {}
        }
        Asked::Nothing
    }

    fn sort_mut(&mut self) -> &mut Sort {
        match self.pane {
            Pane::Topics => &mut self.topic_sort,
            Pane::Groups => &mut self.group_sort,
        }
    }

    fn sort_by_next(&mut self, step: isize) {
        let columns = match self.pane {
            Pane::Topics => TOPIC_COLUMNS.len(),
            Pane::Groups => GROUP_COLUMNS.len(),
        };
        let sort = self.sort_mut();
        sort.column = (sort.column + columns).wrapping_add_signed(step) % columns;
        // Names read from A on; of numbers the large ones are looked for.
        sort.is_descending = sort.column > 0;
    }

    fn scroll_by(&mut self, rows: isize) {
        let (scroll, count) = match self.pane {
            Pane::Topics => (&mut self.topic_scroll, self.now.as_ref().map_or(0, |now| now.topics.len())),
            Pane::Groups => (&mut self.group_scroll, self.now.as_ref().map_or(0, |now| now.groups.len())),
        };
        *scroll = scroll.saturating_add_signed(rows).min(count.saturating_sub(1));
    }

    pub(crate) fn brokers(&self) -> Option<usize> {
        self.now.as_ref().map(|now| now.brokers)
    }

    pub(crate) fn gaps(&self) -> Option<&str> {
        self.now.as_ref()?.gaps.as_deref()
    }

    /// Between the last two samples; `None` before there are two.
    fn elapsed(&self) -> Option<f64> {
        let elapsed = self.now.as_ref()?.at.saturating_sub(self.before.as_ref()?.at).as_secs_f64();
        (elapsed > 0.0).then_some(elapsed)
    }

    /// In the order asked for.
    pub(crate) fn topics(&self) -> Vec<TopicRow> {
        let before = |name: &str| self.before.as_ref()?.topics.iter().find(|topic| topic.name == name);
        let row = |topic: &TopicSample| {
            let per_second = |now: f64, then: Option<f64>| rate(now, then, self.elapsed());
            let then = before(&topic.name);
            TopicRow {
                topic: topic.name.clone(),
                partitions: topic.partitions,
                offline: topic.offline,
                records: topic.records,
                size_bytes: topic.size_bytes,
                records_per_second: per_second(
                    topic.committed_end as f64,
                    then.map(|then| then.committed_end as f64),
                ),
                bytes_per_second: per_second(
                    topic.size_bytes as f64,
                    then.map(|then| then.size_bytes as f64),
                ),
            }
        };
        let mut rows: Vec<TopicRow> = self.now.iter().flat_map(|now| &now.topics).map(row).collect();
        rows.sort_by(|a, b| {
            let order = match self.topic_sort.column {
                0 => Ordering::Equal,
                1 => a.partitions.cmp(&b.partitions),
                2 => a.records.cmp(&b.records),
                3 => a.size_bytes.cmp(&b.size_bytes),
                4 => a.records_per_second.total_cmp(&b.records_per_second),
                _ => a.bytes_per_second.total_cmp(&b.bytes_per_second),
            };
            self.topic_sort.directed(order, a.topic.cmp(&b.topic))
        });
        rows
    }

    /// In the order asked for.
    pub(crate) fn groups(&self) -> Vec<GroupRow> {
        let before = |name: &str| self.before.as_ref()?.groups.iter().find(|group| group.name == name);
        let row = |group: &GroupSample| GroupRow {
            group: group.name.clone(),
            state: group.state.clone(),
            members: group.members,
            lag: group.lag,
            records_per_second: rate(
                group.committed as f64,
                before(&group.name).map(|then| then.committed as f64),
                self.elapsed(),
            ),
        };
        let mut rows: Vec<GroupRow> = self.now.iter().flat_map(|now| &now.groups).map(row).collect();
        rows.sort_by(|a, b| {
            let order = match self.group_sort.column {
                0 => Ordering::Equal,
                1 => a.state.cmp(&b.state),
                2 => a.members.cmp(&b.members),
                3 => a.lag.cmp(&b.lag),
                _ => a.records_per_second.total_cmp(&b.records_per_second),
            };
            self.group_sort.directed(order, a.group.cmp(&b.group))
        });
        rows
    }
}

impl Sort {
    /// Where the column does not decide, names do, from A on.
    fn directed(self, by_column: Ordering, by_name: Ordering) -> Ordering {
        match (self.column, self.is_descending) {
            (0, true) => by_name.reverse(),
            (_, true) => by_column.reverse().then(by_name),
            (_, false) => by_column.then(by_name),
        }
    }
}

/// What goes back, a topic made anew or bytes deleted, counts as standing still.
fn rate(now: f64, then: Option<f64>, elapsed: Option<f64>) -> f64 {
    match (then, elapsed) {
        (Some(then), Some(elapsed)) => ((now - then) / elapsed).max(0.0),
        _ => 0.0,
    }
}
