//! Leaders: preferred ones, and one that costs records.

use crate::nodes::{Nodes, eventually};

#[test]
fn preferred_replicas_lead_again_when_they_are_told_to() {
    // Not by themselves.
    let mut nodes = Nodes::start(3, &["leader.rebalance.interval.ms=0"]);
    nodes.fill("t", "6", "3", 60);
    nodes.await_well();
    nodes.stop(1);
    nodes.spawn(1);
    nodes.await_ready(1);
    nodes.await_well();
    let leaders = |nodes: &Nodes| nodes.broker(1)["leaders"].as_u64().unwrap();
    assert_eq!(leaders(&nodes), 0);
    let would = nodes.json(&["cluster", "elect", "--dry-run"]);
    assert!(would.len() >= 2 && would.iter().all(|e| e["leader"] == 1 && e["is_done"] == false), "{would:?}");
    let elected = nodes.json(&["cluster", "elect"]);
    assert_eq!(elected.len(), would.len());
    assert!(leaders(&nodes) >= 2);
    assert!(nodes.ok(&["cluster", "elect"]).contains("every partition is led by its preferred replica"));
    nodes.check("t", 60);
}

#[test]
fn an_unclean_election_is_ordered_by_name_and_with_open_eyes() {
    let mut nodes = Nodes::start(3, &["default.replication.factor=3"]);
    nodes.fill("t", "1", "1", 0);
    nodes.ok(&["cluster", "move", "t", "--to", "2,3"]);
    nodes.write("t", 0, 10);
    nodes.await_well();
    nodes.kill(3);
    eventually("broker 3 is out", || {
        nodes.json(&["topic", "describe", "t"])[0]["partitions"][0]["in_sync"] == serde_json::json!([2])
    });
    nodes.write("t", 10, 5);
    nodes.kill(2);
    // One voter of three is left: the third has to come back before anything can be decided.
    nodes.spawn(3);
    eventually("nobody leads it", || {
        let described = nodes.run(&["topic", "describe", "t", "--output", "json", "--timeout", "5s"]);
        described.status.success()
            && crate::nodes::objects(&described.stdout)[0]["partitions"][0]["leader"].is_null()
            && nodes.broker(3)["state"] == "serving"
    });
    let elect = ["cluster", "elect", "t", "--partition", "0", "--unclean"];
    let told = nodes.refused(&elect);
    assert!(told.contains("broker 3 would lead") && told.contains("in sync were: 2"), "{told}");
    assert!(told.contains("--accept-data-loss"), "{told}");
    nodes.ok(&[&elect[..], &["--dry-run"]].concat());
    let lost = nodes.json(&[&elect[..], &["--accept-data-loss"]].concat());
    assert_eq!((&lost[0]["leader"], &lost[0]["is_unclean"]), (&3.into(), &true.into()), "{lost:?}");
    // It is counted as the image passes.
    eventually("it is counted", || nodes.metric("floodmark_unclean_leader_elections_total") == 1.0);
    nodes.check("t", 10);
    assert_eq!(nodes.run(&["cluster", "elect", "--unclean"]).status.code(), Some(2));
}
