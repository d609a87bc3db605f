//! How the cluster is: with everything in order, with a broker missing, and with that broker back.

use crate::nodes::{Nodes, eventually, floodmark, run};

#[test]
fn a_broker_that_is_missing_is_told_and_forgotten_when_it_is_back() {
    let mut nodes = Nodes::start(3, &[]);
    nodes.fill("t", "4", "3", 100);
    nodes.await_well();
    eventually("all can do what this program can", || {
        nodes.status()["feature_level"].as_u64().is_some_and(|level| level >= 2)
    });
    let status = nodes.status();
    assert_eq!(status["is_well"], true, "{status}");
    let voters =
        status["members"].as_array().unwrap().iter().filter(|member| member["is_voter"] == true).count();
    assert_eq!((voters, status["brokers"].as_array().unwrap().len()), (3, 3), "{status}");
    for id in 1..=3 {
        let broker = nodes.broker(id);
        assert_eq!(
            (&broker["state"], &broker["replicas_behind"]),
            (&"serving".into(), &0.into()),
            "{broker}"
        );
        assert!(broker["leaders"].as_u64().unwrap() > 0, "{broker}");
    }
    assert!(nodes.ok(&["cluster", "status"]).contains("serving"));
    assert_eq!(nodes.json(&["cluster", "brokers"]).len(), 3);

    nodes.kill(3);
    eventually("broker 3 is fenced", || nodes.broker(3)["state"] == "fenced");
    let ran = nodes.run(&["cluster", "status", "--check"]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stdout);
    assert!(ran.stdout.contains("under-replicated") && ran.stdout.contains("fenced"), "{}", ran.stdout);
    nodes.write("t", 100, 100);
    let described = nodes.json(&["topic", "describe", "t"]).remove(0);
    for partition in described["partitions"].as_array().unwrap() {
        assert_eq!(partition["is_under_replicated"], true, "{partition}");
        assert_eq!(partition["is_below_minimum"], false, "{partition}");
        assert_ne!(partition["leader"], 3);
    }
    let followers =
        described["partitions"].as_array().unwrap().iter().flat_map(|p| p["followers"].as_array().unwrap());
    let lacks: Vec<_> = followers.filter(|f| f["lag_records"].as_i64().unwrap() > 0).collect();
    assert!(!lacks.is_empty(), "{described}");
    assert!(lacks.iter().all(|f| f["broker"] == 3 && f["lag_bytes"].as_u64().unwrap() > 0), "{described}");
    let table = nodes.ok(&["topic", "describe", "t"]);
    assert!(table.contains("4 under-replicated") && table.contains("3: "), "{table}");
    let mut ready = floodmark();
    ready.args(["cluster", "ready", "--http", &nodes.node(3).http()]);
    assert_eq!(run(ready, "").status.code(), Some(2));

    nodes.spawn(3);
    nodes.await_ready(3);
    nodes.await_well();
    nodes.check("t", 200);
}
