//! The leader's end of a follower's call: hears where the follower is, reads for it in memory or on threads that may wait for a disk, and
//! replies when there is something to tell. What to read next and what is worth a reply is decided in `fetcher::serving`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Ready, pending, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicId};
use floodmark_proto::pb::replica::{FetchReply, FetchRequest, Hello, Position, Refusal};
use floodmark_storage::clock::Clock;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::Codec as _;
use tonic::codegen::{Service, http};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::server::NamedService;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::generated::replica::replica_server::SERVICE_NAME;
use super::identity::{IdentityCheck, caller};
use super::outgoing::Replies;
use crate::fetcher::PartitionKey;
use crate::fetcher::serving::{Found, Serving, Turn};
use crate::partition::{DirtySet, PartitionError, PartitionHandle, Registration, ReplicaFetch, ReplicaRead};
use crate::registry::Registry;

/// Where the call is made.
pub(super) const FETCH: &str = "/floodmark.replica.Replica/Fetch";
/// Bytes of one reply, whatever the follower asks for.
const REPLY_BYTES_MAX: u32 = 64 << 20;
/// How long a reply with nothing to tell is waited for, whatever the follower asks for.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Time that a follower has to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Slots that a follower named and that are not served here, past which it must ask for replies first.
const REFUSALS_MAX: usize = 100_000;
/// Marks taken at a time, so that requests are heard in between.
const MARKS_AT_A_TIME: usize = 4096;

/// Serves followers from the partitions that this broker leads. Clones are the same one.
#[derive(Debug, Clone)]
pub struct ReplicaService {
    registry: Registry,
    clock: Clock,
    stop: CancellationToken,
}

impl ReplicaService {
    /// Calls in progress end with `stop`.
    #[must_use]
    pub fn new(registry: Registry, clock: Clock, stop: CancellationToken) -> ReplicaService {
        ReplicaService { registry, clock, stop }
    }

    /// What the listener of brokers mounts.
    #[must_use]
    pub fn into_server(self, check: IdentityCheck) -> InterceptedService<ReplicaService, IdentityCheck> {
        InterceptedService::new(self, check)
    }

    /// Answers at once; what there is to tell comes as the body of the answer.
    fn fetch(&self, call: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let request = Request::from_http(call);
        let from = caller(&request)?;
        let decoder = ProstCodec::<FetchReply, FetchRequest>::default().decoder();
        let mut requests = Streaming::new_request(decoder, request.into_inner(), None, None);
        // A follower asks for one reply at a time.
        let (replies, taken) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            let told = replies.clone();
            let ended = tokio::select! {
                ended = service.serve(from, &mut requests, replies) => ended,
                () = service.stop.cancelled() => Err(Status::unavailable("this broker stops")),
            };
            if let Err(status) = ended {
                tracing::debug!(follower = %from, reason = status.message(), "a follower's call ended");
                // It may be gone.
                let _ = told.try_send(Err(status));
            }
        });
        let mut answer = http::Response::new(Body::new(Replies::new(taken)));
        answer.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
        Ok(answer)
    }
}

/// In the place of the generated server, whose replies would be copied to be sent.
impl Service<http::Request<Body>> for ReplicaService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: http::Request<Body>) -> Self::Future {
        let answer = match call.uri().path() {
            FETCH => self.fetch(call),
            _ => Err(Status::new(Code::Unimplemented, "")),
        };
        ready(Ok(answer.unwrap_or_else(Status::into_http)))
    }
}

impl NamedService for ReplicaService {
    const NAME: &'static str = SERVICE_NAME;
}

impl ReplicaService {
    async fn serve(
        &self,
        from: BrokerId,
        requests: &mut Streaming<FetchRequest>,
        replies: mpsc::Sender<Result<FetchReply, Status>>,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello came in time"))??;
        let Some(mut first) = first else { return Ok(()) };
        let hello =
            first.hello.take().ok_or_else(|| Status::invalid_argument("the first request has no hello"))?;
        let mut call = Call::new(self, from, &hello)?;
        call.on_request(first)?;
        loop {
            if call.asked.is_some() {
                call.gather();
            } else {
                call.look_ahead();
            }
            call.read_disk();
            let due = call.reply_due();
            if due.is_some_and(|due| due <= Instant::now()) {
                call.asked = None;
                let parts = call.serving.take_reply(Instant::now());
                if replies.send(Ok(FetchReply { parts })).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            tokio::select! {
                request = requests.message() => match request? {
                    Some(request) => call.on_request(request)?,
                    None => return Ok(()),
                },
                () = call.dirty.marked() => {
                    call.dirty.take(MARKS_AT_A_TIME).into_iter().for_each(|slot| call.on_marked(slot));
                }
                (turn, read) = read_of(&mut call.reading) => call.on_read(&turn, read),
                () = until(due) => {}
                () = replies.closed() => return Ok(()),
            }
        }
    }
}

type Read = Result<Result<ReplicaRead, PartitionError>, JoinError>;

/// One follower's call.
struct Call<'a> {
    service: &'a ReplicaService,
    follower: BrokerId,
    broker_epoch: BrokerEpoch,
    wait: Duration,
    serving: Serving,
    held: BTreeMap<u32, Held>,
    dirty: DirtySet,
    /// When a reply was asked for that has not been given.
    asked: Option<Instant>,
    /// The one look at a disk.
    reading: Option<(Turn, JoinHandle<Result<ReplicaRead, PartitionError>>)>,
}

/// A partition that is served.
struct Held {
    partition: PartitionHandle,
    /// What the follower said last, where this broker could not take it: the image that makes it the leader is on its way.
    unheard: Option<ReplicaFetch>,
    _marks: Registration,
}

impl Held {
    fn hear(&mut self, said: ReplicaFetch, now_ms: u64) {
        self.unheard = self.partition.on_replica_position(&said, now_ms).is_err().then_some(said);
    }
}

impl Call<'_> {
    fn new<'a>(service: &'a ReplicaService, from: BrokerId, hello: &Hello) -> Result<Call<'a>, Status> {
        if hello.broker != from.0 {
            let reason = format!("broker {from} calls and says that it is broker {}", hello.broker);
            tracing::warn!(%reason, "a follower was refused");
            return Err(Status::permission_denied(reason));
        }
        Ok(Call {
            service,
            follower: from,
            broker_epoch: BrokerEpoch(hello.broker_epoch),
            wait: Duration::from_millis(hello.wait_ms_max.into()).min(WAIT_MAX),
            serving: Serving::new(hello.reply_bytes_max.min(REPLY_BYTES_MAX) as usize),
            held: BTreeMap::new(),
            dirty: DirtySet::default(),
            asked: None,
            reading: None,
        })
    }

    fn on_request(&mut self, request: FetchRequest) -> Result<(), Status> {
        if request.hello.is_some() {
            return Err(Status::invalid_argument("a second hello"));
        }
        for slot in request.forgotten {
            self.serving.forget(slot);
            self.held.remove(&slot);
        }
        for position in request.positions {
            self.on_position(position)?;
        }
        if let Some(bytes) = request.catchup_bytes_granted {
            self.serving.grant(bytes);
        }
        if request.wants_reply {
            let now = Instant::now();
            self.serving.on_asked(now);
            self.asked.get_or_insert(now);
        }
        Ok(())
    }

    fn on_position(&mut self, said: Position) -> Result<(), Status> {
        let fetch = ReplicaFetch {
            replica: self.follower,
            broker_epoch: self.broker_epoch,
            leader_epoch: LeaderEpoch(said.leader_epoch),
            partition_epoch: said.partition_epoch,
            fetch_offset: Offset(said.fetch_offset),
            last_fetched_epoch: said.last_fetched_epoch.map(LeaderEpoch),
            synced_end: Offset(said.synced_end),
            log_start: Offset(said.log_start),
        };
        let now_ms = self.now_ms();
        if said.topic_id.is_empty() {
            // Of a slot that was told to have ended meanwhile, nothing more is heard.
            if let Some(held) = self.held.get_mut(&said.slot) {
                held.hear(fetch, now_ms);
            }
            return Ok(());
        }
        let key = key_of(&said)?;
        let index = i32::try_from(key.index).unwrap_or(-1);
        let Some(partition) = self.service.registry.get(key.topic, index) else {
            self.serving.refuse(said.slot, fetch.leader_epoch, Refusal::UnknownPartition);
            if self.serving.refusals() > REFUSALS_MAX {
                return Err(Status::resource_exhausted("too many partitions that are not here"));
            }
            return Ok(());
        };
        // First the mark, so that what moves after the look is seen.
        let marks = partition.on_replica_progress(self.dirty.mark_of(said.slot));
        let mut held = Held { partition, unheard: None, _marks: marks };
        held.hear(fetch, now_ms);
        if let Some(before) = self.serving.mention(said.slot, key, fetch) {
            self.held.remove(&before);
        }
        self.held.insert(said.slot, held);
        Ok(())
    }

    fn on_marked(&mut self, slot: u32) {
        let now_ms = self.now_ms();
        if let Some(held) = self.held.get_mut(&slot)
            && let Some(said) = held.unheard
        {
            held.hear(said, now_ms);
        }
        self.serving.mark(slot);
    }

    fn now_ms(&self) -> u64 {
        self.service.clock.steady_ms()
    }

    /// Takes every look that memory answers.
    fn gather(&mut self) {
        loop {
            let (held, follower) = (&self.held, self.follower);
            let Some(turn) = self.serving.next_turn(|slot| is_in_sync(held, slot, follower)) else { return };
            let found = match held.get(&turn.slot) {
                Some(held) => found(held.partition.replica_fetch_in_memory(&turn.fetch, turn.max_bytes)),
                None => Found::NotYet,
            };
            self.serving.on_found(&turn, found, Instant::now());
            self.let_go(turn.slot);
        }
    }

    /// Has the disk read for who is far behind before it asks for more.
    fn look_ahead(&mut self) {
        let Some((slot, fetch)) = self.serving.next_ahead() else { return };
        let held = self.held.get(&slot);
        if held.is_some_and(|held| matches!(held.partition.replica_fetch_in_memory(&fetch, 0), Ok(None))) {
            self.serving.on_still_behind(slot);
        }
    }

    /// Begins a look at a disk, where one is due.
    fn read_disk(&mut self) {
        let (held, follower) = (&self.held, self.follower);
        let Some(turn) = self.serving.next_from_disk(|slot| is_in_sync(held, slot, follower)) else { return };
        let Some(partition) = self.held.get(&turn.slot).map(|held| held.partition.clone()) else {
            self.serving.on_found_on_disk(&turn, Found::NotYet, Instant::now());
            return;
        };
        let (fetch, max_bytes) = (turn.fetch, turn.max_bytes);
        let read = spawn_blocking(move || partition.replica_fetch(&fetch, max_bytes));
        self.reading = Some((turn, read));
    }

    fn on_read(&mut self, turn: &Turn, read: Read) {
        let found = match read {
            Ok(read) => found(read.map(Some)),
            Err(_) => {
                tracing::error!(follower = %self.follower, "reading for a follower panicked");
                Found::Refused(Refusal::Storage)
            }
        };
        self.serving.on_found_on_disk(turn, found, Instant::now());
        self.let_go(turn.slot);
    }

    /// Gives a partition up whose slot has ended.
    fn let_go(&mut self, slot: u32) {
        if self.serving.fetch_of(slot).is_none() {
            self.held.remove(&slot);
        }
    }

    /// When the reply that was asked for is to be given.
    fn reply_due(&self) -> Option<Instant> {
        let latest = self.asked? + self.wait;
        Some(self.serving.worth_a_reply_at(Instant::now()).map_or(latest, |worth| worth.min(latest)))
    }
}

fn is_in_sync(held: &BTreeMap<u32, Held>, slot: u32, follower: BrokerId) -> bool {
    held.get(&slot).is_some_and(|held| held.partition.duty().isr.contains(&follower))
}

fn key_of(said: &Position) -> Result<PartitionKey, Status> {
    let topic = <[u8; 16]>::try_from(&*said.topic_id).ok().and_then(|id| TopicId::from_bytes(id).ok());
    let topic = topic.ok_or_else(|| Status::invalid_argument("a topic id that is none"))?;
    Ok(PartitionKey { topic, index: said.partition })
}

fn found(read: Result<Option<ReplicaRead>, PartitionError>) -> Found {
    match read {
        Ok(Some(read)) => Found::Read(read),
        Ok(None) => Found::OnDisk,
        // The image that the follower knows has not got here. When it does, the partition moves.
        Err(PartitionError::UnknownEpoch { .. } | PartitionError::UnknownReplica { .. }) => Found::NotYet,
        Err(PartitionError::FencedEpoch { .. }) => Found::Refused(Refusal::FencedEpoch),
        Err(PartitionError::NotLeader { .. }) => Found::Refused(Refusal::NotLeader),
        Err(PartitionError::Closed) => Found::Refused(Refusal::UnknownPartition),
        Err(e) => {
            tracing::debug!(error = %e, "a partition cannot be read for a follower");
            Found::Refused(Refusal::Storage)
        }
    }
}

async fn read_of(
    reading: &mut Option<(Turn, JoinHandle<Result<ReplicaRead, PartitionError>>)>,
) -> (Turn, Read) {
    let read = match reading {
        Some((_, read)) => read.await,
        None => pending().await,
    };
    match reading.take() {
        Some((turn, _)) => (turn, read),
        None => pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
