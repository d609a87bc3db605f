//! Drained, given back, moved by name, cancelled.

use crate::nodes::{Nodes, eventually};

#[test]
fn a_broker_is_drained_and_gets_its_share_back() {
    let nodes = Nodes::start(3, &[]);
    nodes.fill("a", "6", "2", 600);
    nodes.await_well();
    let would = nodes.json(&["cluster", "drain", "3", "--dry-run"]);
    assert!(!would.is_empty() && would.iter().all(|moved| moved["is_begun"] == false), "{would:?}");
    assert!(nodes.broker(3)["replicas"].as_u64().unwrap() > 0);
    let moved = nodes.json(&["cluster", "drain", "3"]);
    assert_eq!(moved.len(), would.len());
    assert!(moved.iter().all(|moved| moved["is_begun"] == true && moved["error"].is_null()), "{moved:?}");
    assert_eq!(nodes.broker(3)["replicas"], 0);
    assert!(nodes.replicas("a").iter().all(|replicas| !replicas.contains(&3)));
    assert!(nodes.ok(&["cluster", "drain", "3"]).contains("holds nothing"));
    nodes.check("a", 600);

    nodes.ok(&["cluster", "move", "--balance-onto", "3"]);
    assert!(nodes.replicas("a").iter().filter(|replicas| replicas.contains(&3)).count() >= 3);
    nodes.await_well();
    nodes.check("a", 600);

    nodes.ok(&["cluster", "move", "a", "--partition", "0", "--to", "2,1"]);
    assert_eq!(nodes.replicas("a")[0], [2, 1]);
    eventually("broker 2 leads it", || {
        nodes.json(&["topic", "describe", "a"])[0]["partitions"][0]["leader"] == 2
    });
    nodes.ok(&["cluster", "move", "a", "--to", "1,2,3", "--copies", "1"]);
    assert_eq!(
        nodes.replicas("a").iter().map(|replicas| replicas[0]).collect::<Vec<_>>(),
        [1, 2, 3, 1, 2, 3]
    );
    nodes.check("a", 600);
    // Leaders were elected on the way, and each had everything.
    assert!(nodes.metric("floodmark_leader_elections_total") > 0.0);
    assert_eq!(nodes.metric("floodmark_unclean_leader_elections_total"), 0.0);
    eventually("one decides", || nodes.metric("floodmark_active_controller") == 1.0);
    let refused = nodes.refused(&["cluster", "move", "a", "--to", "1,9"]);
    assert!(refused.contains("broker 9") && refused.contains("nothing has been done\n"), "{refused}");
    let again = nodes.run(&["cluster", "move", "a", "--to", "1,2,3", "--copies", "1"]);
    assert!(again.status.success() && again.stdout.contains("nothing moves"), "{}", again.stdout);
    assert!(again.stderr.contains("of 6 partitions, 6 lie where they shall"), "{}", again.stderr);
    assert!(!again.stderr.contains(" moved"), "{}", again.stderr);
    assert!(nodes.refused(&["cluster", "move", "a", "--partition", "77", "--to", "1"]).contains("77"));
    assert!(nodes.refused(&["cluster", "move", "b", "--to", "1"]).contains('b'));
}

#[test]
fn a_move_is_taken_back_while_it_goes_on() {
    // So slow that it does not end by itself; what is in the leader's memory would not count as far behind.
    let nodes = Nodes::start(3, &["replica.catchup.bytes.per.second=1000", "tail.cache.bytes=0"]);
    nodes.ok(&["topic", "create", "t", "--partitions", "1", "--replication-factor", "1"]);
    let line = "x".repeat(1000);
    let lines: String = std::iter::repeat_n(format!("{line}\n"), 2000).collect();
    nodes.ok_with(&["produce", "t", "--compression", "none"], &lines);
    let before = nodes.replicas("t")[0].clone();
    let to = if before == [1] { "2" } else { "1" };
    let begun = nodes.json(&["cluster", "move", "t", "--to", to, "--no-wait"]);
    assert_eq!(begun[0]["is_begun"], true);
    let moves = nodes.json(&["cluster", "moves"]);
    assert_eq!((moves.len(), &moves[0]["topic"]), (1, &"t".into()));
    eventually("it is known what is to be copied", || {
        nodes.json(&["cluster", "moves"])[0]["lag_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    assert!(nodes.ok(&["topic", "describe", "t"]).contains(&format!("+{to}")));
    let timed_out = nodes.refused(&["cluster", "moves", "--wait", "--within", "1s"]);
    assert!(timed_out.contains("cluster cancel"), "{timed_out}");
    let would = nodes.json(&["cluster", "cancel", "t", "--dry-run"]);
    assert_eq!((would.len(), nodes.json(&["cluster", "moves"]).len()), (1, 1));
    let back = nodes.json(&["cluster", "cancel", "t"]);
    assert_eq!(back[0]["to"][0], before[0]);
    assert!(nodes.ok(&["cluster", "moves"]).contains("nothing moves"));
    assert_eq!(nodes.replicas("t")[0], before);
    assert_eq!(nodes.ok(&["consume", "t"]).lines().count(), 2000);
}
