//! How long brokers may be silent, and how long they may trust.

use floodmark_proto::ids::ClusterId;

use super::*;
use crate::cluster::{Command, apply};

const SESSION: Duration = Duration::from_millis(2000);
const LEASE: Duration = Duration::from_millis(600);

fn done(image: &mut ClusterImage, command: &Command) {
    let (next, outcome) = apply(image, command);
    outcome.unwrap();
    *image = next;
}

fn register(image: &mut ClusterImage, broker: i32, incarnation: u128) {
    let register = Command::RegisterBroker {
        broker: BrokerId(broker),
        incarnation: uuid::Uuid::from_u128(incarnation),
        rack: None,
        endpoints: Vec::new(),
        feature_levels: (1, 2),
        directories: Vec::new(),
        in_sync_defaults: None,
    };
    done(image, &register);
}

fn epoch(image: &ClusterImage, broker: i32) -> BrokerEpoch {
    image.broker(BrokerId(broker)).unwrap().epoch
}

/// Live brokers 1 to 3.
fn cluster() -> ClusterImage {
    let mut image = ClusterImage::new(ClusterId::from_bytes([3; 16]));
    for broker in 1..=3 {
        register(&mut image, broker, 1);
        let unfence = Command::UnfenceBroker { broker: BrokerId(broker), epoch: epoch(&image, broker) };
        done(&mut image, &unfence);
    }
    image
}

fn beat(image: &ClusterImage, broker: i32) -> Heartbeat {
    Heartbeat {
        broker: BrokerId(broker),
        epoch: epoch(image, broker),
        image_version: image.version(),
        wants: Wants::Serve,
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn everybody_has_a_session_to_find_a_new_controller_and_the_one_before_a_shorter_one() {
    let (image, start) = (cluster(), Instant::now() + ms(10_000));
    let liveness = Liveness::begin(&image, SESSION, Some((BrokerId(1), LEASE)), start);
    let silent = |broker, after| liveness.is_silent(BrokerId(broker), start + after);
    assert!(!silent(1, SESSION - LEASE - ms(1)) && silent(1, SESSION - LEASE));
    assert!(!silent(2, SESSION - ms(1)) && silent(2, SESSION));
    assert!(!silent(9, SESSION), "who is not registered is not missed");
    assert_eq!(liveness.next_end(&image), Some(start + SESSION - LEASE));
    // However long it cannot have had a lease, one that lives after all gets to say so.
    let liveness = Liveness::begin(&image, SESSION, Some((BrokerId(1), 2 * SESSION)), start);
    let silent = |after| liveness.is_silent(BrokerId(1), start + after);
    assert!(!silent(SESSION / 8 - ms(1)) && silent(SESSION / 8));
}

#[test]
fn who_has_spoken_is_waited_for_anew_and_who_is_given_up_is_not() {
    let (image, start) = (cluster(), Instant::now());
    let mut liveness = Liveness::begin(&image, SESSION, None, start);
    for broker in [1, 2, 3] {
        let at = start + ms(100) * broker;
        liveness.on_heartbeat(&image, &beat(&image, broker.cast_signed()), ms(0), at).unwrap();
    }
    assert_eq!(liveness.next_end(&image), Some(start + ms(100) + SESSION));
    liveness.give_up(BrokerId(1), epoch(&image, 1));
    assert_eq!(liveness.next_end(&image), Some(start + ms(200) + SESSION));
}

#[test]
fn a_lease_is_what_is_left_of_a_session_since_a_majority_followed() {
    let (image, now) = (cluster(), Instant::now());
    let mut liveness = Liveness::begin(&image, SESSION, None, now);
    let mut lease = |since| liveness.on_heartbeat(&image, &beat(&image, 2), since, now).unwrap();
    assert_eq!(lease(ms(0)), SESSION);
    assert_eq!(lease(ms(500)), ms(1500));
    assert_eq!(lease(ms(2500)), ms(0));
}

/// Whatever a broker was granted has ended before it is silent for long enough to be fenced, by this controller or the next.
#[test]
fn no_lease_outlives_the_session_that_it_came_from() {
    let (image, start) = (cluster(), Instant::now() + ms(10_000));
    for since_ack in [0, 100, 600, 1999] {
        let mut first = Liveness::begin(&image, SESSION, None, start);
        let now = start + ms(5000);
        let lease = first.on_heartbeat(&image, &beat(&image, 2), ms(since_ack), now).unwrap();
        let end = now + lease;
        assert!(end <= now + SESSION && first.is_silent(BrokerId(2), now + SESSION));
        // The next one leads at the earliest one leader lease after the last majority.
        let next_leads = now - ms(since_ack) + LEASE;
        let next = Liveness::begin(&image, SESSION, Some((BrokerId(2), LEASE)), next_leads);
        assert!(!next.is_silent(BrokerId(2), end - ms(1)), "fenced while it trusts, since {since_ack} ms");
    }
}

#[test]
fn a_broker_with_an_old_image_trusts_for_less() {
    let (mut image, start) = (cluster(), Instant::now());
    let mut liveness = Liveness::begin(&image, SESSION, None, start);
    let old = beat(&image, 2);
    let lease = |liveness: &mut Liveness, image: &ClusterImage, after| {
        liveness.on_heartbeat(image, &old, ms(0), start + after).unwrap()
    };
    assert_eq!(lease(&mut liveness, &image, ms(1000)), SESSION);
    done(&mut image, &Command::SetFeatureLevel { level: 2 });
    // The image was last seen as the broker has it 300 ms ago: since then something may have been taken from it.
    assert_eq!(lease(&mut liveness, &image, ms(1300)), SESSION - ms(300));
    assert!(liveness.is_fresh(old.image_version, start + ms(1300)));
    done(&mut image, &Command::SetFeatureLevel { level: 2 });
    assert_eq!(lease(&mut liveness, &image, ms(2600)), SESSION - ms(1600));
    assert!(!liveness.is_fresh(old.image_version, start + ms(2600)));
    assert_eq!(lease(&mut liveness, &image, ms(3500)), ms(0));
    let now = start + ms(3500);
    assert_eq!(liveness.on_heartbeat(&image, &beat(&image, 2), ms(0), now), Ok(SESSION));
}

#[test]
fn many_changes_are_remembered_by_few_moments_and_never_as_later_than_they_were() {
    let (mut image, start) = (cluster(), Instant::now());
    let mut liveness = Liveness::begin(&image, SESSION, None, start);
    let first = image.version();
    for n in 0..10_000 {
        done(&mut image, &Command::SetFeatureLevel { level: 2 });
        liveness.on_image(&image, start + ms(n));
    }
    assert!(liveness.moments.past.len() <= MOMENTS as usize + 2);
    for n in (8_100..10_000).step_by(37) {
        // Version `first + n + 1` was the image's from `n` to `n + 1`.
        let at = liveness.moments.last_at(first + n + 1).unwrap();
        assert!(at <= start + ms(n + 1) && at + SESSION / MOMENTS * 2 >= start + ms(n), "{n}");
    }
    assert_eq!(liveness.moments.last_at(first + 10), None);
}

#[test]
fn who_is_given_up_gets_nothing_until_it_is_fenced_and_let_in_again() {
    let (mut image, now) = (cluster(), Instant::now());
    let mut liveness = Liveness::begin(&image, SESSION, None, now);
    liveness.give_up(BrokerId(2), BrokerEpoch(-1));
    assert_eq!(liveness.given_up(), [], "that was another start of the broker");
    let epoch = epoch(&image, 2);
    liveness.give_up(BrokerId(2), epoch);
    assert_eq!(liveness.given_up(), [(BrokerId(2), epoch)]);
    assert_eq!(liveness.on_heartbeat(&image, &beat(&image, 2), ms(0), now), Ok(ms(0)));
    assert!(liveness.is_silent(BrokerId(2), now), "what was decided is decided");
    assert_eq!(liveness.last(BrokerId(2), now), None);
    done(&mut image, &Command::FenceBroker { broker: BrokerId(2), epoch });
    assert_eq!(liveness.on_heartbeat(&image, &beat(&image, 2), ms(0), now), Ok(ms(0)));
    assert!(liveness.last(BrokerId(2), now).is_some());
    done(&mut image, &Command::UnfenceBroker { broker: BrokerId(2), epoch });
    assert_eq!(liveness.on_heartbeat(&image, &beat(&image, 2), ms(0), now), Ok(SESSION));
}

#[test]
fn another_registration_begins_with_nothing_of_the_one_before() {
    let (mut image, start) = (cluster(), Instant::now());
    let mut liveness = Liveness::begin(&image, SESSION, None, start);
    let before = beat(&image, 2);
    liveness.give_up(BrokerId(2), before.epoch);
    register(&mut image, 2, 2);
    let stale = liveness.on_heartbeat(&image, &before, ms(0), start).unwrap_err();
    assert!(matches!(stale, HeartbeatError::StaleEpoch { broker: BrokerId(2), .. }), "{stale}");
    liveness.on_image(&image, start + ms(100));
    assert!(!liveness.is_silent(BrokerId(2), start + ms(100)));
    assert_eq!(liveness.last(BrokerId(2), start + ms(100)), None);
    let unknown = Heartbeat { broker: BrokerId(9), ..before };
    let refused = liveness.on_heartbeat(&image, &unknown, ms(0), start).unwrap_err();
    assert_eq!(refused, HeartbeatError::NotRegistered { broker: BrokerId(9) });
}
