//! How the cluster is: with everything in order, with a broker missing, and with that broker back.

use serde_json::Value;

use crate::nodes::{Nodes, Ran, eventually, floodmark, objects, run};

fn ready(nodes: &Nodes, id: i32) -> Ran {
    let mut ready = floodmark();
    ready.args(["cluster", "ready", "--http", &nodes.node(id).http()]);
    run(ready, "")
}

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
        // Each alone knows that, so whoever answers has asked the others.
        assert_eq!(broker["replicas_failed"], 0, "{broker}");
        assert!(broker["leaders"].as_u64().unwrap() > 0, "{broker}");
    }
    assert!(nodes.ok(&["cluster", "status"]).contains("serving"));
    assert_eq!(nodes.json(&["cluster", "brokers"]).len(), 3);

    nodes.kill(3);
    eventually("broker 3 is fenced", || nodes.broker(3)["state"] == "fenced");
    assert_eq!(nodes.broker(3)["replicas_failed"], Value::Null);
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
    let lacks: Vec<_> = followers.filter(|f| f["lag_records"] != 0).collect();
    assert!(!lacks.is_empty(), "{described}");
    for follower in lacks {
        let is_known = follower["lag_records"].as_i64().is_some_and(|records| records > 0)
            && follower["lag_bytes"].as_u64().is_some_and(|bytes| bytes > 0);
        assert!(follower["broker"] == 3 && (is_known || follower["lag_records"].is_null()), "{described}");
    }
    let table = nodes.ok(&["topic", "describe", "t"]);
    assert!(table.contains("4 under-replicated") && table.contains("3: "), "{table}");
    assert_eq!(ready(&nodes, 3).status.code(), Some(2));

    // Who leads in its place has never heard of it: nobody knows what it lacks there.
    let is_unheard = |partition: &Value| {
        let followers = partition["followers"].as_array().unwrap().iter();
        let mut dead = followers.filter(|follower| follower["broker"] == 3);
        dead.any(|f| f["lag_records"].is_null() && f["lag_bytes"].is_null() && f["end"].is_null())
    };
    assert!(described["partitions"].as_array().unwrap().iter().any(is_unheard), "{described}");
    let table = nodes.ok(&["topic", "describe", "t"]);
    assert!(table.contains("3: unknown, "), "{table}");

    nodes.spawn(3);
    nodes.await_ready(3);
    nodes.await_well();
    nodes.check("t", 200);
}

/// Whoever is left, the controller or another, must not say that all is well.
#[test]
fn a_broker_without_a_majority_says_that_nobody_leads() {
    let mut nodes = Nodes::start(3, &[]);
    nodes.fill("t", "3", "3", 10);
    nodes.await_well();
    for led in [true, false] {
        let controller = i32::try_from(nodes.status()["controller"].as_i64().unwrap()).unwrap();
        let [one, other] = [controller % 3 + 1, (controller + 1) % 3 + 1];
        let (survivor, dead) = if led { (controller, [one, other]) } else { (one, [controller, other]) };
        for id in dead {
            nodes.kill(id);
        }
        let status = || {
            let ran = nodes.run(&["cluster", "status", "--check", "--output", "json"]);
            // None where the machine was too busy for an answer.
            (ran.status.code(), objects(&ran.stdout).pop().unwrap_or_default())
        };
        let mut told = (None, Value::Null);
        eventually("nobody is said to lead", || {
            told = status();
            told.1.get("controller").is_some_and(Value::is_null)
        });
        let (code, said) = told;
        assert_eq!(
            (code, &said["is_well"], &said["is_current"]),
            (Some(1), &false.into(), &false.into()),
            "{said}"
        );
        let table = nodes.run(&["cluster", "status"]).stdout;
        assert!(table.contains("nobody leads the metadata") && table.contains("last known: "), "{table}");
        let unready = ready(&nodes, survivor);
        assert!(!unready.status.success(), "{}", unready.stdout);
        let said = unready.stdout + &unready.stderr;
        assert!(said.contains("no leader of the metadata is heard"), "{said}");
        assert_eq!(nodes.metric("floodmark_metadata_has_leader"), 0.0);
        assert_eq!(nodes.metric("floodmark_quorum_leader"), -1.0);
        for refused in [&["cluster", "elect"][..], &["cluster", "drain", "1", "--dry-run"]] {
            let told = nodes.refused(&[refused, &["--timeout", "3s"]].concat());
            assert!(told.contains("nobody leads the metadata quorum"), "{refused:?}: {told}");
        }
        for id in dead {
            nodes.spawn(id);
        }
        nodes.await_well();
        assert!(ready(&nodes, survivor).status.success());
    }
}
