//! Settings of a consumer.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::ConsumerHandle;
use super::assignor::Assignor;
use crate::error::{Error, Result};
use crate::record::TopicPartition;

/// When a group's progress is written down, and so what becomes of records when a consumer dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Whenever the caller says so, with [`ConsumerHandle::commit`] or [`ConsumerHandle::commit_offsets`].
    Manual,
    /// From time to time, and when the consumer closes or gives a partition away. A record counts as done when the next one is asked for,
    /// so it must be done by then. Whoever takes over after a crash begins at the last commit: **records since then are read again**, none
    /// is left out.
    AtLeastOnce {
        /// Time between two commits.
        interval: Duration,
    },
    /// Before records are handed out, a message from the broker at a time. Whoever takes over after a crash begins behind them:
    /// **what was handed out and not done yet is lost**, none is read twice.
    AtMostOnce,
}

/// Where a group begins that has committed nothing, and where reading goes on when the offset is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reset {
    /// At the oldest record.
    Start,
    /// Behind the newest.
    #[default]
    End,
    /// Nowhere: reading fails with [`Error::NoPosition`].
    Fail,
}

/// Which records of transactions are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// All that are committed to the log, whatever becomes of their transactions.
    #[default]
    Uncommitted,
    /// Only those of transactions that were not aborted.
    Committed,
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At the oldest record.
    Start,
    /// Behind the newest record.
    End,
    /// At this offset.
    Offset(i64),
    /// At the first record at or after this time, in milliseconds since 1970; behind the newest where there is none.
    Time(i64),
    /// Where the group stopped; by [`ConsumerConfig::reset`] where it never began.
    Committed,
}

/// What happens to a member's partitions.
#[derive(Debug, Clone)]
pub struct Rebalance {
    /// What.
    pub change: RebalanceChange,
    /// Which.
    pub partitions: Vec<TopicPartition>,
    /// To seek or commit with.
    pub consumer: ConsumerHandle,
}

/// What happens to partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceChange {
    /// They are read from now on.
    Assigned,
    /// They are given away once the listener returns; commits are still taken.
    Revoked,
    /// Others may have them already; commits are refused.
    Lost,
}

type Listener = dyn Fn(Rebalance) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// Called in a task of the consumer's, which waits for it. Made by [`ConsumerConfig::on_rebalance`].
#[derive(Clone)]
pub struct RebalanceListener(Arc<Listener>);

impl RebalanceListener {
    pub(super) fn call(&self, rebalance: Rebalance) -> impl Future<Output = ()> + Send + use<> {
        (self.0)(rebalance)
    }
}

/// Settings of a [`crate::Consumer`].
#[derive(Clone)]
pub struct ConsumerConfig {
    /// Whose offsets are used; with topics, also a member of it.
    pub group: Option<String>,
    /// Topics that the group shares among its members; empty for a consumer that is told what to read.
    pub topics: Vec<String>,
    /// When the group's progress is written down.
    pub commit: Commit,
    /// Where to begin without a place to begin at.
    pub reset: Reset,
    /// Which records of transactions are handed out.
    pub isolation: Isolation,
    /// Only records for which this expression is true are sent by the broker; positions move on past the others.
    pub filter: Option<String>,
    /// Bytes that brokers may send ahead.
    pub prefetch_bytes: usize,
    /// Bytes after which a broker sends a message though there is more; 0: an eighth of what may be sent ahead, 1 MiB at most, or 256 KiB
    /// where each is committed before it is handed out. After a connection that was lost in silence it is less, for the line may be slow.
    pub message_bytes_max: u32,
    /// Largest batch after decompression.
    pub batch_bytes_max: usize,
    /// A member that was not heard of for so long is out of the group.
    pub session_timeout: Duration,
    /// Time that members have to give partitions away in a rebalance.
    pub rebalance_timeout: Duration,
    /// Time between two signs of life.
    pub heartbeat_interval: Duration,
    /// How partitions may be shared out, by preference; the group takes one that all members know.
    pub assignors: Vec<Assignor>,
    /// Makes it a static member, which may restart under this name without a rebalance.
    pub instance_id: Option<String>,
    /// Who is told of partitions that come and go.
    pub listener: Option<RebalanceListener>,
}

impl ConsumerConfig {
    /// A consumer that is told what to read, by [`crate::Consumer::assign`].
    #[must_use]
    pub fn assigned() -> ConsumerConfig {
        ConsumerConfig {
            group: None,
            topics: Vec::new(),
            commit: Commit::Manual,
            reset: Reset::default(),
            isolation: Isolation::default(),
            filter: None,
            prefetch_bytes: 16 << 20,
            message_bytes_max: 0,
            batch_bytes_max: 64 << 20,
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(60),
            heartbeat_interval: Duration::from_secs(3),
            assignors: vec![Assignor::Range, Assignor::CooperativeSticky],
            instance_id: None,
            listener: None,
        }
    }

    /// A member of a group that shares topics, with commits at least once every five seconds.
    #[must_use]
    pub fn group<T: Into<String>>(
        group: impl Into<String>,
        topics: impl IntoIterator<Item = T>,
    ) -> ConsumerConfig {
        ConsumerConfig {
            group: Some(group.into()),
            topics: topics.into_iter().map(Into::into).collect(),
            ..ConsumerConfig::assigned()
        }
        .at_least_once()
    }

    /// [`Commit::AtLeastOnce`], every five seconds.
    #[must_use]
    pub fn at_least_once(mut self) -> ConsumerConfig {
        self.commit = Commit::AtLeastOnce { interval: Duration::from_secs(5) };
        self
    }

    /// [`Commit::AtMostOnce`].
    #[must_use]
    pub fn at_most_once(mut self) -> ConsumerConfig {
        self.commit = Commit::AtMostOnce;
        self
    }

    /// [`Commit::Manual`].
    #[must_use]
    pub fn manual(mut self) -> ConsumerConfig {
        self.commit = Commit::Manual;
        self
    }

    /// Without a place to begin at, at the oldest record.
    #[must_use]
    pub fn from_start(mut self) -> ConsumerConfig {
        self.reset = Reset::Start;
        self
    }

    /// With a filter.
    #[must_use]
    pub fn filter(mut self, expression: impl Into<String>) -> ConsumerConfig {
        self.filter = Some(expression.into());
        self
    }

    /// Calls `listener` whenever partitions come or go, and waits for it: for half of
    /// [`ConsumerConfig::session_timeout`] at most.
    #[must_use]
    pub fn on_rebalance<F>(
        mut self,
        listener: impl Fn(Rebalance) -> F + Send + Sync + 'static,
    ) -> ConsumerConfig
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.listener = Some(RebalanceListener(Arc::new(move |rebalance| Box::pin(listener(rebalance)))));
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
        if self.group.is_none() && (!self.topics.is_empty() || self.commit != Commit::Manual) {
            return invalid("topics to share and automatic commits need a group");
        }
        if self.prefetch_bytes == 0 || self.batch_bytes_max == 0 {
            return invalid("prefetch_bytes and batch_bytes_max must not be 0");
        }
        if !self.topics.is_empty() && self.assignors.is_empty() {
            return invalid("a member of a group needs an assignor");
        }
        if self.heartbeat_interval * 2 > self.session_timeout {
            return invalid("heartbeat_interval must be at most half of session_timeout");
        }
        Ok(())
    }
}

impl fmt::Debug for ConsumerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerConfig")
            .field("group", &self.group)
            .field("topics", &self.topics)
            .field("commit", &self.commit)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}
