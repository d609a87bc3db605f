//! Order, pipelining, backpressure and endings, with handlers that answer when the test says so.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::config::BrokerConfig;

const PRODUCE: u8 = 0;
/// May wait for an event.
const FETCH: u8 = 1;
const COMMIT: u8 = 8;
const AT_ONCE: u8 = 12;
/// Answered at once, with many bytes.
const LARGE: u8 = 13;
const LARGE_BYTES: usize = 300 << 10;
const BAD: u8 = 99;

type Promise = oneshot::Sender<Result<Reply, Refusal>>;

thread_local! {
    /// What the handlers of this test's thread were asked, in order, and where their replies are given.
    static LARGE_BEGUN: Cell<usize> = const { Cell::new(0) };
    static ASKED: RefCell<Vec<(u8, Promise)>> = const { RefCell::new(Vec::new()) };
}

/// Frames of the tests are a key of two bytes, a number, and padding.
fn scripted(_: &mut Option<Arc<str>>, frame: BytesMut) -> Result<Begun, Refusal> {
    let (key, number) = (frame[1], frame[2]);
    let begun = |answer| Begun { answer, served: 0, is_produce: key == PRODUCE, waits: key == FETCH };
    match key {
        BAD => Err(Refusal::NotServed { key: 99, version: 0 }),
        LARGE => {
            LARGE_BEGUN.set(LARGE_BEGUN.get() + 1);
            Ok(begun(Answer::Ready(reply(number, LARGE_BYTES))))
        }
        AT_ONCE => Ok(begun(Answer::Ready(reply(number, 1)))),
        _ => {
            let (promise, promised) = oneshot::channel();
            ASKED.with_borrow_mut(|asked| asked.push((number, promise)));
            // The frame lives as long as its request, as it does where records are kept.
            Ok(begun(Answer::later(async move {
                let _frame = frame;
                promised.await.unwrap_or(Ok(Reply::Nothing))
            })))
        }
    }
}

fn request(key: u8, number: u8, padding: usize) -> Vec<u8> {
    let mut frame = u32::try_from(3 + padding).unwrap().to_be_bytes().to_vec();
    frame.extend([0, key, number]);
    frame.resize(frame.len() + padding, 0);
    frame
}

/// So many times the number.
fn reply(number: u8, bytes: usize) -> Reply {
    Reply::Frame(vec![Bytes::from(vec![number; bytes])])
}

fn asked() -> Vec<u8> {
    ASKED.with_borrow(|asked| asked.iter().map(|(number, _)| *number).collect())
}

fn promise(number: u8) -> Promise {
    ASKED.with_borrow_mut(|asked| {
        let at = asked.iter().position(|(n, _)| *n == number).unwrap();
        asked.remove(at).1
    })
}

fn give(number: u8) {
    promise(number).send(Ok(reply(number, 1))).unwrap();
}

fn ground(settings: &[(&str, &str)]) -> (Ground, Limits) {
    let mut config = BrokerConfig::default();
    for (key, value) in settings {
        config.set(key, value).unwrap();
    }
    let limits = Limits {
        frame_bytes_max: config.request_bytes_max.as_usize(),
        idle: config.connections_max_idle.duration(),
        transfer: config.request_timeout.duration(),
    };
    (Ground::new(&config), limits)
}

struct Pair {
    client: TcpStream,
    server: JoinHandle<Closed>,
    ground: Ground,
}

impl Pair {
    async fn of(settings: &[(&str, &str)]) -> Pair {
        let (ground, limits) = ground(settings);
        Pair::with(ground, limits).await
    }

    async fn with(ground: Ground, limits: Limits) -> Pair {
        let listener = TcpListener::bind(SocketAddr::from((IpAddr::from([127, 0, 0, 1]), 0))).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let alarm = Arc::new(Alarm::new());
        let connection = Connection::new(socket, ground.clone(), limits, alarm, Box::new(scripted));
        let server = tokio::spawn(async move {
            let mut connection = connection;
            connection.run().await
        });
        Pair { client, server, ground }
    }

    async fn send(&mut self, requests: &[(u8, u8)]) {
        let bytes: Vec<u8> = requests.iter().flat_map(|&(key, number)| request(key, number, 0)).collect();
        self.client.write_all(&bytes).await.unwrap();
    }

    async fn replies(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let read = self.client.read_exact(&mut bytes);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        bytes
    }

    /// What becomes of the connection when the client goes.
    async fn hung_up(self) -> Closed {
        drop(self.client);
        tokio::time::timeout(PATIENCE, self.server).await.unwrap().unwrap()
    }

    async fn closed(self) -> Closed {
        tokio::time::timeout(PATIENCE, self.server).await.unwrap().unwrap()
    }
}

/// Nothing takes as long that goes well, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time in which what must not happen would happen. Not for what has to happen, which may take longer on a busy machine.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(30)).await;
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "waited in vain: {what}");
}

/// Waits until the handlers have been asked these, and holds that they are asked nothing more.
async fn are_asked(numbers: &[u8]) {
    until(&format!("{numbers:?} are asked"), || asked().len() >= numbers.len()).await;
    settle().await;
    assert_eq!(asked(), numbers);
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn produce_is_begun_behind_produce_and_answered_in_order() {
    run(async {
        let mut pair = Pair::of(&[]).await;
        pair.send(&[(PRODUCE, 1), (PRODUCE, 2), (PRODUCE, 3)]).await;
        are_asked(&[1, 2, 3]).await;
        give(3);
        give(2);
        settle().await;
        assert_eq!(pair.client.try_read(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        give(1);
        assert_eq!(pair.replies(3).await, [1, 2, 3]);
    });
}

#[test]
fn anything_else_waits_until_what_came_before_is_answered() {
    run(async {
        let mut pair = Pair::of(&[]).await;
        pair.send(&[(PRODUCE, 1), (COMMIT, 2), (PRODUCE, 3), (AT_ONCE, 4), (COMMIT, 5)]).await;
        are_asked(&[1]).await;
        give(1);
        are_asked(&[2]).await;
        give(2);
        are_asked(&[3]).await;
        give(3);
        are_asked(&[5]).await;
        assert_eq!(pair.replies(4).await, [1, 2, 3, 4]);
        give(5);
        assert_eq!(pair.replies(1).await, [5]);
    });
}

#[test]
fn produce_without_acknowledgement_leaves_no_byte_and_holds_nobody_up() {
    run(async {
        let mut pair = Pair::of(&[]).await;
        pair.send(&[(PRODUCE, 1), (PRODUCE, 2), (PRODUCE, 3)]).await;
        are_asked(&[1, 2, 3]).await;
        promise(2).send(Ok(Reply::Nothing)).unwrap();
        give(3);
        give(1);
        assert_eq!(pair.replies(2).await, [1, 3]);
        pair.send(&[(AT_ONCE, 4)]).await;
        assert_eq!(pair.replies(1).await, [4]);
    });
}

#[test]
fn unanswered_produce_is_bounded_by_number() {
    run(async {
        let mut pair = Pair::of(&[]).await;
        let many: Vec<(u8, u8)> = (0..=200).map(|n| (PRODUCE, n)).collect();
        pair.send(&many).await;
        until("the pipeline is full", || asked().len() >= PIPELINE_REQUESTS_MAX).await;
        settle().await;
        assert_eq!(asked().len(), PIPELINE_REQUESTS_MAX);
        for n in 0..=200 {
            until("the next one is asked", || asked().contains(&n)).await;
            give(n);
        }
        assert_eq!(pair.replies(201).await, (0..=200).collect::<Vec<_>>());
    });
}

#[test]
fn unanswered_produce_is_bounded_by_bytes_and_the_budget_comes_back() {
    run(async {
        let pair = Pair::of(&[]).await;
        let before = pair.ground.request_bytes.available_bytes();
        let (mut read, mut write) = pair.client.into_split();
        let sending = tokio::spawn(async move {
            for n in 0..20 {
                write.write_all(&request(PRODUCE, n, 4 << 20)).await.unwrap();
            }
            write
        });
        until("the pipeline is full", || asked().len() >= 8).await;
        settle().await;
        settle().await;
        assert_eq!(asked().len(), 8, "32 MiB of 4 MiB each");
        let held = before - pair.ground.request_bytes.available_bytes();
        assert!((32 << 20..48 << 20).contains(&held), "{held}");
        for n in 0..20 {
            until("the next one is asked", || asked().contains(&n)).await;
            give(n);
        }
        let mut replies = [0; 20];
        tokio::time::timeout(PATIENCE, read.read_exact(&mut replies)).await.unwrap().unwrap();
        assert_eq!(replies.to_vec(), (0..20).collect::<Vec<_>>());
        let _open = sending.await.unwrap();
        until("all is given back", || pair.ground.request_bytes.available_bytes() == before).await;
    });
}

/// The budget is smaller than what four clients send at once; each gets through all the same.
#[test]
fn requests_that_do_not_fit_the_budget_together_are_served_one_after_another() {
    run(async {
        let (ground, limits) = ground(&[("queued.max.request.bytes", "1MiB")]);
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let mut pair = Pair::with(ground.clone(), limits).await;
            tasks.push(tokio::spawn(async move {
                for _ in 0..5 {
                    pair.client.write_all(&request(AT_ONCE, 9, 3 << 20)).await.unwrap();
                    assert_eq!(pair.replies(1).await, [9]);
                }
            }));
        }
        for task in tasks {
            tokio::time::timeout(PATIENCE, task).await.expect("it gets its turn").unwrap();
        }
        until("all is given back", || ground.request_bytes.available_bytes() == 1 << 20).await;
    });
}

#[test]
fn a_closed_connection_drops_what_it_waited_for() {
    run(async {
        let mut pair = Pair::of(&[]).await;
        pair.send(&[(FETCH, 1)]).await;
        are_asked(&[1]).await;
        let promise = promise(1);
        assert!(!promise.is_closed());
        assert!(matches!(pair.hung_up().await, Closed::ByPeer));
        assert!(promise.is_closed());
    });
}

/// With acks=0 nobody waits for an answer before hanging up.
#[test]
fn what_was_sent_before_hanging_up_is_begun() {
    run(async {
        let mut pair = Pair::of(&[]).await;
        pair.send(&[(COMMIT, 1)]).await;
        are_asked(&[1]).await;
        let bytes =
            [request(PRODUCE, 2, 0), request(PRODUCE, 3, 0), request(PRODUCE, 4, 9)[..8].to_vec()].concat();
        pair.client.write_all(&bytes).await.unwrap();
        assert!(matches!(pair.hung_up().await, Closed::ByPeer));
        assert_eq!(asked(), [1, 2, 3]);
    });
}

#[test]
fn a_refusal_comes_after_the_replies_that_are_there() {
    run(async {
        let mut pair = Pair::of(&[]).await;
        pair.send(&[(AT_ONCE, 1), (AT_ONCE, 2), (BAD, 3)]).await;
        assert_eq!(pair.replies(2).await, [1, 2]);
        assert!(matches!(pair.closed().await, Closed::Refused(_)));
        let mut pair = Pair::of(&[]).await;
        pair.send(&[(PRODUCE, 1), (PRODUCE, 2)]).await;
        are_asked(&[1, 2]).await;
        promise(1).send(Err(Refusal::UnacknowledgedProduce { reason: "full".to_owned() })).unwrap();
        assert!(matches!(pair.closed().await, Closed::Refused(Refusal::UnacknowledgedProduce { .. })));
    });
}

#[test]
fn a_client_that_does_not_read_gets_no_more_begun() {
    run(async {
        let mut pair = Pair::of(&[("request.timeout.ms", "500")]).await;
        pair.send(&[(COMMIT, 1), (COMMIT, 2), (COMMIT, 3)]).await;
        are_asked(&[1]).await;
        promise(1).send(Ok(reply(1, 16 << 20))).unwrap();
        settle().await;
        assert!(asked().is_empty(), "the second waits until the first has left");
        let left = match pair.closed().await {
            Closed::SlowReader { left } => left,
            other => panic!("{other}"),
        };
        assert!(left > UNREAD_BYTES_MAX && left < 16 << 20, "{left}");
    });
}

/// Whoever else has something to do on the same core waits for no more than a megabyte at a time.
#[test]
fn a_reader_of_large_replies_lets_others_have_their_turn() {
    const REQUESTS: usize = 64;
    run(async {
        let mut pair = Pair::of(&[]).await;
        pair.send(&[(LARGE, 7); REQUESTS]).await;
        let mut client = pair.client.into_std().unwrap();
        client.set_nonblocking(false).unwrap();
        let reads = std::thread::spawn(move || {
            std::io::copy(
                &mut std::io::Read::take(&mut client, (REQUESTS * LARGE_BYTES) as u64),
                &mut std::io::sink(),
            )
        });
        let (mut most, mut before) = (0, 0);
        let beside = async {
            while before < REQUESTS {
                yield_now().await;
                let begun = LARGE_BEGUN.get();
                most = most.max(begun - before);
                before = begun;
            }
        };
        tokio::time::timeout(PATIENCE, beside).await.unwrap();
        assert!(most <= BYTES_A_TURN.div_ceil(LARGE_BYTES), "{most} in one turn");
        let read = tokio::task::spawn_blocking(move || reads.join().unwrap().unwrap()).await.unwrap();
        assert_eq!(read, (REQUESTS * LARGE_BYTES) as u64);
        drop(pair.server);
    });
}

#[test]
fn a_reader_that_is_slow_but_steady_is_served() {
    run(async {
        let served = async |timeout_ms: u64| {
            let mut pair = Pair::of(&[("request.timeout.ms", &*timeout_ms.to_string())]).await;
            pair.send(&[(COMMIT, 1)]).await;
            until("it is asked", || asked() == [1]).await;
            // Past its timeout alone; the size buys 256 s more.
            promise(1).send(Ok(reply(1, 4 << 20))).unwrap();
            let (mut left, began) = (4 << 20, Stopwatch::start());
            let (mut last_read, mut stood_still) = (began, Duration::ZERO);
            while left > 0 {
                let read = tokio::time::timeout(PATIENCE, pair.client.read(&mut vec![0; 256 << 10])).await;
                stood_still = stood_still.max(last_read.elapsed());
                last_read = Stopwatch::start();
                match read.unwrap() {
                    Ok(read) if read > 0 => left -= read,
                    closed => {
                        let timeout = Duration::from_millis(timeout_ms);
                        assert!(stood_still >= timeout, "{closed:?}, and it read all the time");
                        return false;
                    }
                }
                tokio::time::sleep(Duration::from_millis(timeout_ms / 10)).await;
            }
            assert!(began.elapsed() > Duration::from_millis(timeout_ms));
            pair.send(&[(AT_ONCE, 2)]).await;
            assert_eq!(pair.replies(1).await, [2]);
            true
        };
        // A test that was kept from reading for so long begins again, with more time.
        assert!(served(300).await || served(1000).await || served(5000).await);
    });
}

#[test]
fn a_request_in_progress_is_not_idle() {
    run(async {
        for idle_ms in [100, 1000, 10_000] {
            let mut pair = Pair::of(&[("connections.max.idle.ms", &*idle_ms.to_string())]).await;
            pair.send(&[(FETCH, 1)]).await;
            until("it is asked, or closed", || asked() == [1] || pair.server.is_finished()).await;
            if asked().is_empty() {
                // It was idle for as long as nobody ran here; again, with more time.
                continue;
            }
            tokio::time::sleep(Duration::from_millis(3 * idle_ms)).await;
            give(1);
            assert_eq!(pair.replies(1).await, [1]);
            assert!(matches!(pair.closed().await, Closed::Idle));
            return;
        }
        panic!("nothing is asked in time");
    });
}

#[test]
fn a_request_that_came_in_pieces_and_waits_for_its_turn_is_not_late() {
    run(async {
        for timeout_ms in [100, 1000, 10_000] {
            let timeout = Duration::from_millis(timeout_ms);
            let mut pair = Pair::of(&[("request.timeout.ms", &*timeout_ms.to_string())]).await;
            let bytes = [request(FETCH, 1, 0), request(COMMIT, 2, 9)].concat();
            let (first, second) = bytes.split_at(bytes.len() - 5);
            let began = Stopwatch::start();
            pair.client.write_all(first).await.unwrap();
            until("it is asked", || asked() == [1]).await;
            pair.client.write_all(second).await.unwrap();
            settle().await;
            if began.elapsed() >= timeout {
                // Nobody ran here meanwhile, and it is late; again, with more time.
                pair.hung_up().await;
                ASKED.with_borrow_mut(Vec::clear);
                continue;
            }
            // As long as the one before it waits for something to happen.
            tokio::time::sleep(timeout * 3).await;
            give(1);
            are_asked(&[2]).await;
            give(2);
            assert_eq!(pair.replies(2).await, [1, 2]);
            // One that has not come to its end is late as ever.
            pair.client.write_all(first).await.unwrap();
            assert!(matches!(pair.closed().await, Closed::SlowRequest { .. }));
            return;
        }
        panic!("it comes too late each time");
    });
}

#[test]
fn a_broker_that_stops_finishes_work_but_waits_for_no_event() {
    run(async {
        let idle = Pair::of(&[]).await;
        idle.ground.drain.begin();
        assert!(matches!(idle.closed().await, Closed::Stopping));

        let mut fetching = Pair::of(&[]).await;
        fetching.send(&[(FETCH, 1)]).await;
        are_asked(&[1]).await;
        fetching.ground.drain.begin();
        assert!(matches!(fetching.closed().await, Closed::Stopping));

        let mut producing = Pair::of(&[]).await;
        producing.send(&[(PRODUCE, 2), (PRODUCE, 3)]).await;
        are_asked(&[1, 2, 3]).await;
        producing.ground.drain.begin();
        settle().await;
        producing.send(&[(PRODUCE, 4)]).await;
        settle().await;
        assert_eq!(asked(), [1, 2, 3], "nothing new is begun");
        give(2);
        settle().await;
        assert!(!producing.server.is_finished());
        give(3);
        assert_eq!(producing.replies(2).await, [2, 3]);
        assert!(matches!(producing.closed().await, Closed::Stopping));
    });
}

#[test]
fn time_grows_with_bytes() {
    let timeout = Duration::from_secs(30);
    assert_eq!(transfer_time(timeout, 0), timeout);
    assert_eq!(transfer_time(timeout, 16 << 10), timeout + Duration::from_secs(1));
    assert_eq!(transfer_time(timeout, 100 << 20), timeout + Duration::from_secs(6400));
}

/// A turn that has done all that a task may do at a time waits for the deadlines of what it has begun all the same.
#[tokio::test]
async fn a_timer_that_is_set_at_the_end_of_a_long_turn_rings() {
    let soon = Duration::from_millis(20);
    let mut timer = Timer { sleep: Box::pin(sleep(soon * 1000)), at: Duration::ZERO };
    let mut polls = 0;
    let rings = poll_fn(|cx| {
        polls += 1;
        if polls > 1 {
            // The second turn is owed to the first one's length, and finds the timer set.
            timer.set_for(soon, soon / 2, cx);
            return if polls > 2 { Poll::Ready(()) } else { Poll::Pending };
        }
        while let Poll::Ready(step) = tokio::task::coop::poll_proceed(cx) {
            step.made_progress();
        }
        timer.set_for(soon, Duration::ZERO, cx);
        Poll::Pending
    });
    tokio::time::timeout(soon * 500, rings).await.unwrap();
}
