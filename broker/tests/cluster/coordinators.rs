//! Coordinators of groups that go, and those that take over.

use floodmark_proto::kafka::ErrorCode;

use crate::setup::Three;

/// R30, R31 over a whole cluster: commits are made all the time, coordinators go one after the other, and what is answered never goes back.
#[test]
fn no_commit_goes_back_when_its_coordinator_goes() {
    let mut three = Three::start();
    three.topic(1, "t", 1);
    let mut last = 0;
    for round in 0..3 {
        let (coordinator, _) = three.coordinator(three.ids()[0], "g");
        let mut kafka = three.kafka(coordinator);
        // Some are acknowledged before it goes, one is under way.
        for _ in 0..10 {
            three.until("a commit", || match kafka.commit("g", "t", 0, last + 1).unwrap() {
                0 => Some(()),
                code => {
                    assert!(ErrorCode::from_code(code).unwrap().is_retriable(), "round {round}: {code}");
                    None
                }
            });
            last += 1;
        }
        let under_way = last + 1;
        let committing = std::thread::spawn(move || kafka.commit("g", "t", 0, under_way));
        three.drop_broker(coordinator);
        if matches!(committing.join().unwrap(), Ok(0)) {
            last = under_way;
        }
        let next = three.until("another one coordinates", || {
            let (next, _) = three.coordinator(three.ids()[0], "g");
            (next != coordinator).then_some(next)
        });
        let mut kafka = three.kafka(next);
        let found = three.until("the groups are loaded", || match kafka.committed("g", "t", 0).unwrap() {
            Ok(offset) => Some(offset),
            Err(code) => {
                assert!(ErrorCode::from_code(code).unwrap().is_retriable(), "{code}");
                None
            }
        });
        assert!((last..=under_way).contains(&found), "committed {last}, perhaps {under_way}, found {found}");
        last = found;
        assert_eq!(
            three.until("a commit", || (kafka.commit("g", "t", 0, last + 1).unwrap() == 0).then_some(())),
            ()
        );
        last += 1;
        assert_eq!(kafka.committed("g", "t", 0).unwrap(), Ok(last));
        three.start_again(coordinator);
        // It is in sync again before the next one goes.
        three.until("all are in sync", || {
            let metadata = three.metadata(next, &["__consumer_offsets"]);
            metadata.partitions.values().all(|p| p.isr_nodes.len() == 3).then_some(())
        });
        // Whoever coordinated once and does not now says so, and nothing old.
        let told = three.kafka(coordinator).committed("g", "t", 0).unwrap();
        let now = three.coordinator(coordinator, "g").0;
        match told {
            Ok(offset) => assert_eq!((offset, now), (last, coordinator)),
            Err(code) => assert!(ErrorCode::from_code(code).unwrap().is_retriable(), "{code}"),
        }
    }
}
