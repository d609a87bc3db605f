//! One connection: frames in, replies out in the order of the requests, with a bound on everything and a deadline on every wait.
//!
//! A turn begins requests, gathers replies, writes and reads, until nothing moves. Produce is begun behind Produce without waiting for
//! the reply before it; any other request is begun when all before it are answered, so that a client sees its requests take effect in
//! order. Must know nothing of what a request means.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use floodmark_proto::kafka::frame::FrameError;
use floodmark_storage::clock::Stopwatch;
use tokio::net::TcpStream;
use tokio::sync::futures::OwnedNotified;
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep};

use super::dispatch::{self, Begun};
use super::inbound::Inbound;
use super::outbound::Outbound;
use super::request::{Answer, Refusal, Reply};
use crate::admission::Share;
use crate::ops::deadline::Alarm;
use crate::shared::Ground;

/// Produce requests of one connection that are not answered: their number, and their bytes, past which no more are begun.
const PIPELINE_REQUESTS_MAX: usize = 128;
const PIPELINE_BYTES_MAX: usize = 32 << 20;
/// Bytes of replies that a client has not read, past which nothing more is begun for it.
const UNREAD_BYTES_MAX: usize = 256 << 10;
/// Bytes that are read while a whole request waits for its turn: enough to notice that the client has gone.
const READ_AHEAD_BYTES: usize = 16 << 10;
/// Requests that are begun before other connections of the core get their turn.
const REQUESTS_A_TURN: usize = 128;
/// Bytes of replies that are there before they do: a reader that has all it asks for in memory would never wait for anything.
const BYTES_A_TURN: usize = 1 << 20;
/// A large frame or reply that moves gets a second more for so many bytes.
const BYTES_A_SECOND_MIN: u64 = 16 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    #[error("the client closed it")]
    ByPeer,
    #[error("{0}")]
    Broken(#[from] io::Error),
    #[error("nothing moved for connections.max.idle.ms")]
    Idle,
    #[error("a request did not arrive in time: {arrived} bytes of it did")]
    SlowRequest { arrived: usize },
    #[error("a reply was not read in time: {left} bytes are left")]
    SlowReader { left: usize },
    #[error("{0}")]
    BadFrame(#[from] FrameError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the broker stops")]
    Stopping,
}

/// Hands a frame to whoever answers it, with the name that the client had so far.
pub(super) type Dispatch = Box<dyn Fn(&mut Option<Arc<str>>, BytesMut) -> Result<Begun, Refusal> + Send>;

/// What a connection may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Largest frame.
    pub(super) frame_bytes_max: usize,
    /// Time without anything that moves.
    pub(super) idle: Duration,
    /// Time for a frame or reply to come or go, or to stand still meanwhile.
    pub(super) transfer: Duration,
}

/// A client's connection.
pub(super) struct Connection {
    socket: TcpStream,
    ground: Ground,
    limits: Limits,
    dispatch: Dispatch,
    client_id: Option<Arc<str>>,
    inbound: Inbound,
    outbound: Outbound,
    /// Of the replies of this turn.
    answered_bytes: usize,
    unanswered: Unanswered,
    share: Share,
    since_accepted: Stopwatch,
    /// When bytes last came, and when some last went.
    last_read: Duration,
    last_written: Duration,
    /// When the first byte of the frame came that has not arrived to its end.
    frame_since: Option<Duration>,
    /// What the requests wait for has deadlines too.
    requests_alarm: Arc<Alarm>,
    timer: Timer,
    drain: Pin<Box<OwnedNotified>>,
}

/// The one timer of a connection.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    at: Duration,
}

/// Requests that are begun and not answered, oldest first.
#[derive(Default)]
struct Unanswered {
    requests: VecDeque<Request>,
    bytes: usize,
    /// The oldest was asked in this turn, and is not ready.
    asked_first: bool,
}

struct Request {
    begun: Begun,
    bytes: usize,
    since: Duration,
}

impl Connection {
    /// To be made on the runtime that it will run on.
    pub(super) fn new(
        socket: TcpStream,
        ground: Ground,
        limits: Limits,
        requests_alarm: Arc<Alarm>,
        dispatch: Dispatch,
    ) -> Connection {
        Connection {
            socket,
            limits,
            dispatch,
            client_id: None,
            inbound: Inbound::new(limits.frame_bytes_max),
            outbound: Outbound::default(),
            answered_bytes: 0,
            unanswered: Unanswered::default(),
            share: ground.request_bytes.share(),
            since_accepted: Stopwatch::start(),
            last_read: Duration::ZERO,
            last_written: Duration::ZERO,
            frame_since: None,
            requests_alarm,
            timer: Timer { sleep: Box::pin(sleep(limits.idle)), at: Duration::ZERO },
            drain: Box::pin(ground.drain.notified()),
            ground,
        }
    }

    /// Serves the client until either side ends it. Unanswered requests are dropped with it.
    pub(super) async fn run(&mut self) -> Closed {
        // Its task stays the same, so that once is enough to be woken.
        let _ = poll_fn(|cx| Poll::Ready(self.drain.as_mut().poll(cx))).await;
        let closed = poll_fn(|cx| match self.turn(cx) {
            Ok(()) => Poll::Pending,
            Err(closed) => {
                // Replies that are there leave before a bad request takes the connection down.
                let now = self.since_accepted.elapsed();
                let _ = self.outbound.poll_write(cx, &mut self.socket, now);
                Poll::Ready(closed)
            }
        });
        closed.await
    }

    /// What the client called itself last.
    pub(super) fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), Closed> {
        self.unanswered.asked_first = false;
        self.answered_bytes = 0;
        let mut begun = 0;
        loop {
            let mut moved = self.gather_replies(cx)?;
            let now_begun = self.begin_requests(cx, REQUESTS_A_TURN - begun)?;
            begun += now_begun;
            moved |= now_begun > 0;
            moved |= self.write(cx)?;
            moved |= self.read(cx)?;
            if begun >= REQUESTS_A_TURN || self.answered_bytes >= BYTES_A_TURN {
                give_way(cx);
                return Ok(());
            }
            if !moved {
                return self.wait(cx);
            }
        }
    }

    fn gather_replies(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let mut moved = false;
        while let Some(reply) = self.unanswered.poll_first(cx) {
            let (request, reply) = reply?;
            self.answer(request, reply);
            moved = true;
        }
        Ok(moved)
    }

    fn answer(&mut self, request: Request, reply: Reply) {
        let now = self.since_accepted.elapsed();
        let bytes = match reply {
            Reply::Nothing => 0,
            Reply::Frame(pieces) => {
                let before = self.outbound.bytes();
                self.outbound.push(pieces, now);
                self.outbound.bytes() - before
            }
        };
        self.answered_bytes += bytes;
        let api = &self.ground.metrics.kafka.apis[request.begun.served];
        api.on_answered(now.saturating_sub(request.since), request.bytes, bytes);
    }

    /// Begins as many requests as may be; returns how many.
    fn begin_requests(&mut self, cx: &mut Context<'_>, max: usize) -> Result<usize, Closed> {
        let mut count = 0;
        while count < max && self.may_begin()? {
            let Some(frame) = self.inbound.take()? else { break };
            let bytes = frame.len();
            let since = self.since_accepted.elapsed();
            let begun = (self.dispatch)(&mut self.client_id, frame)?;
            let mut request = Request { begun, bytes, since };
            count += 1;
            // Its first stage has run; this asks the second, which has nothing to wait for in most cases.
            match request.begun.answer.poll(cx)? {
                Poll::Ready(reply) if self.unanswered.requests.is_empty() => self.answer(request, reply),
                Poll::Ready(reply) => {
                    request.begun.answer = Answer::Ready(reply);
                    self.unanswered.push(request);
                }
                Poll::Pending => {
                    self.unanswered.asked_first |= self.unanswered.requests.is_empty();
                    self.unanswered.push(request);
                }
            }
        }
        if count > 0 {
            // Not from when it came: it may have waited for the turn of those before it.
            self.frame_since = self.inbound.is_partial().then(|| self.since_accepted.elapsed());
        }
        Ok(count)
    }

    /// True where a whole request is there and may go before those that are not answered.
    fn may_begin(&self) -> Result<bool, Closed> {
        let Some(frame) = self.inbound.peek()? else { return Ok(false) };
        let is_open = !self.ground.drain.has_begun() && self.outbound.bytes() < UNREAD_BYTES_MAX;
        Ok(is_open && self.unanswered.may_be_followed_by(frame))
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let before = self.outbound.bytes();
        if before > 0 {
            let now = self.since_accepted.elapsed();
            if let Poll::Ready(Err(e)) = self.outbound.poll_write(cx, &mut self.socket, now) {
                return Err(broken(e));
            }
            if self.outbound.bytes() < before {
                self.last_written = now;
            }
        }
        Ok(self.outbound.bytes() < before)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let has_whole = self.inbound.peek()?.is_some();
        if has_whole && self.inbound.len() >= READ_AHEAD_BYTES {
            return Ok(false);
        }
        // The right to go over the budget is for the request that has begun to arrive, not for the next.
        if self.share.is_overdrawn() && !self.inbound.is_partial() {
            self.share.shrink_to(self.held_bytes());
            if self.share.is_overdrawn() {
                return Ok(false);
            }
        }
        match self.socket.poll_read_ready(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(e)) => return Err(broken(e)),
            Poll::Ready(Ok(())) => {}
        }
        let room = self.inbound.room();
        if self.share.poll_hold(cx, self.held_bytes() + room).is_pending() {
            return Ok(false);
        }
        self.inbound.reserve(room);
        let mut buffer = self.inbound.buffer().limit(room);
        match tokio_util::io::poll_read_buf(Pin::new(&mut self.socket), cx, &mut buffer) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(e)) => Err(broken(e)),
            Poll::Ready(Ok(0)) => {
                self.begin_rest(cx);
                Err(Closed::ByPeer)
            }
            Poll::Ready(Ok(bytes)) => {
                self.inbound.on_read(bytes);
                self.last_read = self.since_accepted.elapsed();
                // One that is whole and waits for its turn owes nothing more.
                let is_partial = self.inbound.is_partial();
                self.frame_since = is_partial.then(|| self.frame_since.unwrap_or(self.last_read));
                Ok(true)
            }
        }
    }

    /// The client has gone. What it sent to the last byte is begun all the same, as it may have asked for no answer; none is waited for.
    fn begin_rest(&mut self, cx: &mut Context<'_>) {
        while let Ok(Some(frame)) = self.inbound.take() {
            match (self.dispatch)(&mut self.client_id, frame) {
                Ok(mut begun) => drop(begun.answer.poll(cx)),
                Err(_) => return,
            }
        }
    }

    /// Memory that requests of this connection take: what has arrived, and what is not answered.
    fn held_bytes(&self) -> usize {
        self.inbound.len() + self.unanswered.bytes
    }

    /// Nothing moves. Gives back what is not needed, and sees to it that somebody looks when the next deadline comes.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<(), Closed> {
        self.share.shrink_to(self.held_bytes());
        self.inbound.let_go();
        if self.ground.drain.has_begun() && self.is_done() {
            return Err(Closed::Stopping);
        }
        if self.share.is_waiting() {
            // It is us who do not read.
            self.last_read = self.since_accepted.elapsed();
            self.frame_since = self.frame_since.map(|_| self.last_read);
        }
        let now = self.since_accepted.elapsed();
        let deadline = self.deadline();
        if deadline <= now {
            return Err(self.overdue(now));
        }
        // The oldest request was polled in this turn, and with it each wait that it has.
        let waits_end = self.requests_alarm.take().map_or(Duration::MAX, |left| now.saturating_add(left));
        self.timer.set_for(deadline.min(waits_end), now, cx);
        Ok(())
    }

    /// Whether a broker that stops has nothing more to do here. What waits for events of the world is not waited for.
    fn is_done(&self) -> bool {
        let first = self.unanswered.requests.front();
        first.is_none_or(|request| request.begun.waits) && self.outbound.is_empty()
    }

    fn deadline(&self) -> Duration {
        let is_idle = self.unanswered.requests.is_empty() && self.outbound.is_empty();
        let idle = is_idle.then(|| self.last_read.max(self.last_written) + self.limits.idle);
        [self.request_deadline(), self.reply_deadline(), idle]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Duration::MAX)
    }

    /// When the request must be there of which the first bytes are.
    fn request_deadline(&self) -> Option<Duration> {
        let bytes = self.inbound.announced().ok().flatten().unwrap_or(0);
        self.frame_since.map(|since| self.transfer_deadline(since, self.last_read, bytes))
    }

    /// When the reply must be gone that leaves now.
    fn reply_deadline(&self) -> Option<Duration> {
        let (bytes, since) = self.outbound.first()?;
        Some(self.transfer_deadline(since, self.last_written.max(since), bytes))
    }

    fn transfer_deadline(&self, since: Duration, last_moved: Duration, bytes: usize) -> Duration {
        let timeout = self.limits.transfer;
        (last_moved + timeout).min(since + transfer_time(timeout, bytes))
    }

    fn overdue(&self, now: Duration) -> Closed {
        if self.reply_deadline().is_some_and(|deadline| deadline <= now) {
            Closed::SlowReader { left: self.outbound.bytes() }
        } else if self.request_deadline().is_some_and(|deadline| deadline <= now) {
            Closed::SlowRequest { arrived: self.inbound.len() }
        } else {
            Closed::Idle
        }
    }
}

impl Timer {
    /// Deadlines move on with every request; it is set again only when it rings, or for an earlier one.
    fn set_for(&mut self, at: Duration, now: Duration, cx: &mut Context<'_>) {
        if now < self.at && at >= self.at {
            return;
        }
        self.sleep.set(sleep(at.saturating_sub(now)));
        self.at = at;
        // What this turn has done counts against it, and a timer that is refused for it is not set.
        if pin!(unconstrained(self.sleep.as_mut())).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

impl Unanswered {
    fn push(&mut self, request: Request) {
        self.bytes += request.bytes;
        self.requests.push_back(request);
    }

    fn may_be_followed_by(&self, frame: &[u8]) -> bool {
        let Some(last) = self.requests.back() else { return true };
        last.begun.is_produce
            && dispatch::is_produce(frame)
            && self.requests.len() < PIPELINE_REQUESTS_MAX
            && self.bytes < PIPELINE_BYTES_MAX
    }

    /// The oldest request and its reply, once that is there.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Option<Result<(Request, Reply), Refusal>> {
        if self.asked_first {
            return None;
        }
        let first = self.requests.front_mut()?;
        let reply = match first.begun.answer.poll(cx) {
            Ok(Poll::Ready(reply)) => reply,
            Ok(Poll::Pending) => {
                self.asked_first = true;
                return None;
            }
            Err(refusal) => return Some(Err(refusal)),
        };
        let request = self.requests.pop_front()?;
        self.bytes -= request.bytes;
        Some(Ok((request, reply)))
    }
}

/// Has the task go on behind all that is ready, and behind a look at what has come for others: one that merely wakes itself would be
/// polled many times before that.
fn give_way(cx: &mut Context<'_>) {
    let _ = pin!(yield_now()).poll(cx);
}

/// How long so many bytes may be under way.
fn transfer_time(timeout: Duration, bytes: usize) -> Duration {
    timeout + Duration::from_secs(bytes as u64 / BYTES_A_SECOND_MIN)
}

/// A client that goes without a word is no fault worth telling.
fn broken(e: io::Error) -> Closed {
    match e.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            Closed::ByPeer
        }
        _ => Closed::Broken(e),
    }
}

#[cfg(test)]
mod tests;
