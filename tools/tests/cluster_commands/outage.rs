//! All brokers killed in one moment, and one of them for longer: the others go on without it.

use std::time::Instant;

use crate::nodes::{Nodes, eventually, objects};

/// Each partition of a topic as somebody who is there tells it; nothing where nobody does.
pub(crate) fn partitions(nodes: &Nodes, topic: &str) -> Vec<serde_json::Value> {
    let described = nodes.run(&["topic", "describe", topic, "--output", "json", "--timeout", "5s"]);
    if !described.status.success() {
        return Vec::new();
    }
    objects(&described.stdout)[0]["partitions"].as_array().unwrap().clone()
}

#[test]
fn two_of_three_that_were_killed_serve_while_the_third_stays_away() {
    let mut nodes = Nodes::start(3, &["broker.session.timeout.ms=4000"]);
    nodes.fill("t", "6", "3", 300);
    nodes.ok(&["consume", "t", "--group", "g", "--max", "300"]);
    nodes.await_well();
    let mut records = 300;
    for away in [1, 2, 3, 2] {
        for id in 1..=3 {
            nodes.kill(id);
        }
        for id in (1..=3).filter(|id| *id != away) {
            nodes.spawn(id);
        }
        let since = Instant::now();
        eventually("somebody leads each partition", || {
            let found = partitions(&nodes, "t");
            let is_led =
                |p: &serde_json::Value| p["leader"].as_i64().is_some_and(|leader| leader != i64::from(away));
            !found.is_empty() && found.iter().all(is_led)
        });
        let led = since.elapsed();
        // Acknowledged by both that are there.
        nodes.write("t", records, 100);
        eprintln!("without broker {away}: led after {led:.1?}, written after {:.1?}", since.elapsed());
        records += 100;
        nodes.check("t", records);
        // Groups go on where they were.
        nodes.ok(&["consume", "t", "--group", "g", "--max", "100"]);
        nodes.spawn(away);
        nodes.await_well();
        nodes.check("t", records);
    }
    // Nobody was taken for in sync that lacked something.
    assert_eq!(nodes.metric("floodmark_unclean_leader_elections_total"), 0.0);
}
