//! State that is folded from a stream, and commands that are decided by it.

use std::marker::PhantomData;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::record::Record;

use super::{Appended, EventStore, Expected, NewEvent, ReadStream, Snapshots};

/// How often a command is decided again because somebody else appended meanwhile.
const CONFLICTS_MAX: u32 = 20;

/// State of one stream. Pure: the same events give the same state, the same state and command the same events.
pub trait Aggregate: Default + Send {
    /// What happened.
    type Event: Send;
    /// What somebody wants.
    type Command: Send;
    /// Why it is not done.
    type Refusal: Send;

    /// Takes in one event.
    fn apply(&mut self, event: &Self::Event);

    /// What happens by a command; no events: nothing.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// An event as it is kept.
    fn encode(event: &Self::Event) -> NewEvent;

    /// An event as it was kept. An error ends the fold with [`Error::Handler`].
    fn decode(record: &Record) -> Result<Self::Event, String>;
}

/// State that can be kept whole, so that long streams need not be folded from the start.
pub trait Snapshot: Aggregate {
    /// The state as it is kept.
    fn to_bytes(&self) -> Vec<u8>;

    /// The state as it was kept. An error is no failure: the stream is folded from the start then.
    fn from_bytes(bytes: &[u8]) -> Result<Self, String>;
}

/// An aggregate as it stands.
#[derive(Debug, Clone, Default)]
pub struct Loaded<A> {
    /// Everything up to and with the last event is in it.
    pub state: A,
    /// Offset of the last event; none where there is none.
    pub last_offset: Option<i64>,
    /// Events folded since the last snapshot.
    pub events_since_snapshot: u64,
}

/// What became of a command.
#[derive(Debug, Clone)]
pub struct Executed<A: Aggregate> {
    /// What happened by it.
    pub events: Vec<A::Event>,
    /// The state after it.
    pub loaded: Loaded<A>,
    /// Where the events are; none where there were none.
    pub appended: Option<Appended>,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecuteError<R> {
    /// The aggregate does not want to.
    #[error("the command was refused")]
    Refused(R),
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Aggregates of one kind in one store. Cheap to clone.
#[derive(Debug)]
pub struct Aggregates<A> {
    store: EventStore,
    snapshots: Option<(Snapshots, u64)>,
    of: PhantomData<fn() -> A>,
}

impl<A> Clone for Aggregates<A> {
    fn clone(&self) -> Aggregates<A> {
        Aggregates { store: self.store.clone(), snapshots: self.snapshots.clone(), of: PhantomData }
    }
}

impl<A: Aggregate> Aggregates<A> {
    /// In this store, folded from the start each time.
    #[must_use]
    pub fn new(store: EventStore) -> Aggregates<A> {
        Aggregates { store, snapshots: None, of: PhantomData }
    }

    /// The state of one stream.
    pub async fn load(&self, stream: impl AsRef<[u8]>) -> Result<Loaded<A>> {
        let mut loaded = Loaded::default();
        self.catch_up(stream.as_ref(), &mut loaded).await?;
        Ok(loaded)
    }

    /// Takes in what was appended since.
    pub async fn catch_up(&self, stream: impl AsRef<[u8]>, loaded: &mut Loaded<A>) -> Result<()> {
        let mut how = ReadStream::forward();
        how.from = loaded.last_offset.map(|offset| offset + 1);
        let mut reader = self.store.read_stream(stream, how).await?;
        while let Some(record) = reader.next().await? {
            let event = A::decode(&record).map_err(|reason| {
                Error::Handler(format!(
                    "the event at {} of {} cannot be read: {reason}",
                    record.offset, record.topic
                ))
            })?;
            loaded.state.apply(&event);
            loaded.last_offset = Some(record.offset);
            loaded.events_since_snapshot += 1;
        }
        Ok(())
    }

    /// Decides a command by the newest state and appends what happens, unless somebody else has appended meanwhile: then it is decided
    /// anew.
    pub async fn execute(
        &self,
        stream: impl AsRef<[u8]>,
        command: &A::Command,
    ) -> Result<Executed<A>, ExecuteError<A::Refusal>> {
        let loaded = self.load(stream.as_ref()).await?;
        self.execute_on(stream.as_ref(), loaded, command).await
    }

    /// The same for a caller that has the state already, which may be old.
    pub async fn execute_on(
        &self,
        stream: impl AsRef<[u8]>,
        mut loaded: Loaded<A>,
        command: &A::Command,
    ) -> Result<Executed<A>, ExecuteError<A::Refusal>> {
        let stream = stream.as_ref();
        let mut conflicts = 0;
        loop {
            let events = loaded.state.decide(command).map_err(ExecuteError::Refused)?;
            if events.is_empty() {
                return Ok(Executed { events, loaded, appended: None });
            }
            let expected = loaded.last_offset.map_or(Expected::NoStream, Expected::Offset);
            let encoded = events.iter().map(A::encode).collect();
            match self.store.append_if(stream, expected, encoded).await {
                Ok(appended) => {
                    for event in &events {
                        loaded.state.apply(event);
                    }
                    loaded.last_offset = Some(appended.last_offset);
                    loaded.events_since_snapshot += events.len() as u64;
                    return Ok(Executed { events, loaded, appended: Some(appended) });
                }
                Err(Error::Conflict { .. }) if conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    self.catch_up(stream, &mut loaded).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<A: Snapshot> Aggregates<A> {
    /// With a snapshot whenever so many events have been appended since the last one, in a compacted topic beside the store.
    pub async fn with_snapshots(client: &Client, store: EventStore, every: u64) -> Result<Aggregates<A>> {
        let snapshots = Snapshots::beside(client, &store).await?;
        Ok(Aggregates { store, snapshots: Some((snapshots, every.max(1))), of: PhantomData })
    }

    /// As [`Aggregates::load`], beginning with the newest snapshot.
    pub async fn restore(&self, stream: impl AsRef<[u8]>) -> Result<Loaded<A>> {
        let stream = stream.as_ref();
        let mut loaded = Loaded::default();
        if let Some((snapshots, _)) = &self.snapshots
            && let Some((last_offset, bytes)) = snapshots.get(stream).await?
        {
            match A::from_bytes(&bytes) {
                Ok(state) => {
                    loaded = Loaded { state, last_offset: Some(last_offset), events_since_snapshot: 0 }
                }
                Err(reason) => {
                    tracing::debug!(reason, "a snapshot cannot be read; the stream is folded from its start")
                }
            }
        }
        self.catch_up(stream, &mut loaded).await?;
        Ok(loaded)
    }

    /// As [`Aggregates::execute`], beginning with the newest snapshot, and keeping a new one when it is time.
    pub async fn execute_restored(
        &self,
        stream: impl AsRef<[u8]>,
        command: &A::Command,
    ) -> Result<Executed<A>, ExecuteError<A::Refusal>> {
        let stream = stream.as_ref();
        let loaded = self.restore(stream).await?;
        let mut executed = self.execute_on(stream, loaded, command).await?;
        if let (Some((snapshots, every)), Some(last_offset)) = (&self.snapshots, executed.loaded.last_offset)
            && executed.loaded.events_since_snapshot >= *every
        {
            snapshots.put(stream, last_offset, &executed.loaded.state.to_bytes()).await?;
            executed.loaded.events_since_snapshot = 0;
        }
        Ok(executed)
    }
}
