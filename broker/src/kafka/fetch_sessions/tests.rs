//! Who is told what, request by request.

use super::*;

fn name(topic: &str, partition: i32) -> PartitionRef {
    (TopicRef::Name(topic.into()), partition)
}

fn at(fetch_offset: i64) -> Wanted {
    Wanted { fetch_offset, current_leader_epoch: -1, last_fetched_epoch: -1, max_bytes: 1 }
}

fn told(high_watermark: i64) -> Told {
    Told { error_code: 0, high_watermark, last_stable_offset: high_watermark, log_start_offset: 0 }
}

fn sessions(limits: SessionLimits) -> FetchSessions {
    FetchSessions::new(limits, Random::seeded(7))
}

fn ask(session_id: i32, epoch: i32) -> SessionRequest {
    SessionRequest { session_id, epoch, uses_topic_ids: false }
}

/// Opens a session on partitions 0 to `count` of `t` and tells all of them a high watermark of 5.
fn opened(sessions: &FetchSessions, count: i32) -> i32 {
    let wanted = (0..count).map(|p| (name("t", p), at(0))).collect();
    let fetch = sessions.begin(ask(0, 0), wanted, &[], 0).unwrap();
    assert!(!fetch.is_incremental);
    assert_ne!(fetch.session_id, 0);
    let count = count as usize;
    assert_eq!(sessions.finish(&fetch, &vec![told(5); count], &vec![false; count]), vec![true; count]);
    fetch.session_id
}

fn asked(fetch: &SessionFetch) -> Vec<(i32, i64)> {
    fetch.partitions.iter().map(|((_, partition), wanted)| (*partition, wanted.fetch_offset)).collect()
}

#[test]
fn without_a_session_everything_is_answered() {
    let sessions = sessions(SessionLimits::default());
    let fetch = sessions.begin(ask(0, -1), vec![(name("t", 0), at(3))], &[], 0).unwrap();
    assert_eq!((fetch.session_id, asked(&fetch)), (0, vec![(0, 3)]));
    assert_eq!(sessions.finish(&fetch, &[told(3)], &[false]), [true]);
    assert_eq!(sessions.counts(), (0, 0));
}

#[test]
fn an_incremental_request_stands_for_all_partitions_and_is_answered_with_what_changed() {
    let sessions = sessions(SessionLimits::default());
    let id = opened(&sessions, 3);
    let fetch = sessions.begin(ask(id, 1), vec![(name("t", 1), at(9))], &[], 1).unwrap();
    assert_eq!(asked(&fetch), [(0, 0), (1, 9), (2, 0)]);
    assert_eq!(sessions.finish(&fetch, &[told(5), told(5), told(6)], &[false; 3]), [false, false, true]);
    let empty = sessions.begin(ask(id, 2), vec![], &[name("t", 0)], 2).unwrap();
    assert_eq!(asked(&empty), [(1, 9), (2, 0)]);
    assert_eq!(sessions.finish(&empty, &[told(5), told(6)], &[true, false]), [true, false]);
    assert_eq!(sessions.counts(), (1, 2));
}

#[test]
fn who_had_its_share_goes_to_the_end() {
    let sessions = sessions(SessionLimits::default());
    let id = opened(&sessions, 3);
    let fetch = sessions.begin(ask(id, 1), vec![], &[], 1).unwrap();
    sessions.finish(&fetch, &[told(5); 3], &[true, false, false]);
    let next = sessions.begin(ask(id, 2), vec![], &[], 1).unwrap();
    assert_eq!(asked(&next), [(1, 0), (2, 0), (0, 0)]);
}

#[test]
fn an_error_is_told_each_time_and_so_is_its_end() {
    let sessions = sessions(SessionLimits::default());
    let id = opened(&sessions, 1);
    let failed = Told { error_code: 6, ..told(-1) };
    for (epoch, answer, is_news) in
        [(1, failed, true), (2, failed, true), (3, told(5), true), (4, told(5), false)]
    {
        let fetch = sessions.begin(ask(id, epoch), vec![], &[], 1).unwrap();
        assert_eq!(sessions.finish(&fetch, &[answer], &[false]), [is_news], "epoch {epoch}");
    }
}

#[test]
fn wrong_sessions_are_refused_by_their_own_errors() {
    let sessions = sessions(SessionLimits::default());
    let id = opened(&sessions, 1);
    assert_eq!(sessions.begin(ask(id, 2), vec![], &[], 0).unwrap_err(), SessionError::WrongEpoch);
    assert_eq!(sessions.begin(ask(id ^ 1, 1), vec![], &[], 0).unwrap_err(), SessionError::NotFound);
    let by_id = SessionRequest { uses_topic_ids: true, ..ask(id, 1) };
    assert_eq!(sessions.begin(by_id, vec![], &[], 0).unwrap_err(), SessionError::MixedTopicIds);
    assert_eq!(
        sessions.begin(ask(id, 1), vec![], &[], 0).unwrap_err(),
        SessionError::NotFound,
        "it was closed"
    );
    assert_eq!(sessions.counts(), (0, 0));
}

#[test]
fn the_last_request_closes_its_session() {
    let sessions = sessions(SessionLimits::default());
    let id = opened(&sessions, 2);
    sessions.begin(ask(id, -1), vec![(name("t", 0), at(0))], &[], 0).unwrap();
    assert_eq!(sessions.counts(), (0, 0));
}

#[test]
fn epochs_start_again_after_the_largest() {
    let sessions = sessions(SessionLimits::default());
    let id = opened(&sessions, 1);
    sessions.cache.lock().sessions.get_mut(&id).unwrap().next_epoch = i32::MAX;
    sessions.begin(ask(id, i32::MAX), vec![], &[], 0).unwrap();
    assert!(sessions.begin(ask(id, 1), vec![], &[], 0).is_ok());
}

#[test]
fn a_full_cache_keeps_who_is_active() {
    let limits = SessionLimits { sessions_max: 2, partitions_max: 3, evict_after_ms: 100 };
    let sessions = sessions(limits);
    let open = |partitions: i32, now_ms| {
        let wanted = (0..partitions).map(|p| (name("t", p), at(0))).collect();
        sessions.begin(ask(0, 0), wanted, &[], now_ms).unwrap().session_id
    };
    let (first, second) = (open(1, 0), open(1, 50));
    assert!(first != 0 && second != 0);
    assert_eq!(open(1, 99), 0, "both are in use");
    let third = open(1, 100);
    assert_ne!(third, 0);
    assert_eq!(sessions.begin(ask(first, 1), vec![], &[], 100).unwrap_err(), SessionError::NotFound);
    assert!(sessions.begin(ask(second, 1), vec![], &[], 100).is_ok());
    assert_eq!(open(4, 1000), 0, "more partitions than all sessions may hold");
    assert_eq!(sessions.counts().0, 2, "nobody had to go for it");
    assert_ne!(open(3, 1000), 0);
    assert_eq!(sessions.counts(), (1, 3), "the idle ones had to make room");
}

#[test]
fn a_session_that_outgrows_the_cache_is_closed_but_answered() {
    let sessions = sessions(SessionLimits { partitions_max: 2, ..SessionLimits::default() });
    let id = opened(&sessions, 2);
    let fetch = sessions.begin(ask(id, 1), vec![(name("u", 0), at(0))], &[], 0).unwrap();
    assert_eq!(fetch.partitions.len(), 3);
    assert_eq!(sessions.finish(&fetch, &[told(5); 3], &[false; 3]), [true; 3]);
    assert_eq!(sessions.begin(ask(id, 2), vec![], &[], 0).unwrap_err(), SessionError::NotFound);
}
