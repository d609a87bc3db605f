//! The StatefulSet with its services and its disruption budget.

use yaml_rust2::Yaml;

use crate::{check_cluster, effective, entries, items, scalar, value, yaml};

fn of_kind<'a>(documents: &'a [Yaml], kind: &str) -> Vec<&'a Yaml> {
    documents.iter().filter(|document| document["kind"].as_str() == Some(kind)).collect()
}

/// The variables of pod `n`, as Kubernetes would resolve them.
fn variables(container: &Yaml, n: usize) -> Vec<(String, String)> {
    let mut known: Vec<(String, String)> = Vec::new();
    for variable in items(&container["env"]) {
        let name = scalar(&variable["name"]);
        let value = match &variable["valueFrom"]["fieldRef"]["fieldPath"] {
            Yaml::String(path) => match path.as_str() {
                "metadata.name" => format!("floodmark-{n}"),
                "metadata.namespace" => "default".to_owned(),
                "metadata.labels['apps.kubernetes.io/pod-index']" => n.to_string(),
                other => panic!("a field that pods have not got: {other}"),
            },
            _ => {
                // Only what stands before it is known to a variable.
                let text = scalar(&variable["value"]);
                known.iter().fold(text, |text, (name, value)| text.replace(&format!("$({name})"), value))
            }
        };
        assert!(!value.contains("$("), "{name} = {value}");
        known.push((name, value));
    }
    known.into_iter().filter(|(name, _)| name.starts_with("FLOODMARK_")).collect()
}

#[test]
fn pods_services_and_budget_fit_each_other() {
    let documents = yaml("k8s/floodmark.yaml");
    for document in &documents {
        assert!(document["apiVersion"].as_str().is_some() && document["metadata"]["name"].as_str().is_some());
    }
    let [set] = of_kind(&documents, "StatefulSet")[..] else { panic!("one StatefulSet") };
    let [budget] = of_kind(&documents, "PodDisruptionBudget")[..] else { panic!("one budget") };
    let services = of_kind(&documents, "Service");
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&set["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(budget["spec"]["maxUnavailable"].as_i64(), Some(1));
    let container = &items(&set["spec"]["template"]["spec"]["containers"])[0];
    let ports: Vec<(String, i64)> = items(&container["ports"])
        .iter()
        .map(|port| (scalar(&port["name"]), port["containerPort"].as_i64().unwrap()))
        .collect();
    for service in &services {
        assert_eq!(&service["spec"]["selector"], labels);
        for port in items(&service["spec"]["ports"]) {
            let of_service = (scalar(&port["name"]), port["port"].as_i64().unwrap());
            assert!(ports.contains(&of_service), "{of_service:?} in {ports:?}");
        }
    }
    let named = set["spec"]["serviceName"].as_str();
    let headless = services.iter().find(|service| service["metadata"]["name"].as_str() == named).unwrap();
    assert_eq!(headless["spec"]["clusterIP"].as_str(), Some("None"));
    // They form the cluster before any of them is ready, and none is before they have.
    assert_eq!(headless["spec"]["publishNotReadyAddresses"].as_bool(), Some(true));
    assert_eq!(set["spec"]["podManagementPolicy"].as_str(), Some("Parallel"));
}

#[test]
fn probes_ask_what_the_broker_serves() {
    let documents = yaml("k8s/floodmark.yaml");
    let set = of_kind(&documents, "StatefulSet")[0];
    let pod = &set["spec"]["template"]["spec"];
    let container = &items(&pod["containers"])[0];
    for (probe, path) in
        [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(container[probe]["httpGet"]["path"].as_str(), Some(path), "{probe}");
        assert_eq!(container[probe]["httpGet"]["port"].as_str(), Some("http"), "{probe}");
    }
    let stops_within_ms: i64 =
        value(&effective(&[], &variables(container, 0)), "shutdown.timeout.ms").parse().unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(grace * 1000 > stops_within_ms, "killed before it has stopped");
    // Kubernetes would put variables there that begin like those of settings.
    assert_eq!(pod["enableServiceLinks"].as_bool(), Some(false));
    assert_eq!(container["args"][0].as_str(), Some("serve"));
    let mounts: Vec<String> =
        items(&container["volumeMounts"]).iter().map(|mount| scalar(&mount["mountPath"])).collect();
    let dirs = variables(container, 0).into_iter().find(|(name, _)| name == "FLOODMARK_DATA_DIRS").unwrap().1;
    assert!(mounts.iter().any(|mount| dirs.starts_with(&format!("{mount}/"))), "{dirs} in {mounts:?}");
}

#[test]
fn the_pods_are_one_cluster() {
    let documents = yaml("k8s/floodmark.yaml");
    let set = of_kind(&documents, "StatefulSet")[0];
    let container = &items(&set["spec"]["template"]["spec"]["containers"])[0];
    let count = usize::try_from(set["spec"]["replicas"].as_i64().unwrap()).unwrap();
    let brokers: Vec<_> = (0..count).map(|n| effective(&[], &variables(container, n))).collect();
    check_cluster(&brokers);
    let service = set["spec"]["serviceName"].as_str().unwrap();
    for (n, broker) in brokers.iter().enumerate() {
        assert_eq!(value(broker, "node.id"), n.to_string());
        let host = format!("floodmark-{n}.{service}.default.svc:");
        for key in ["kafka.advertised", "grpc.advertised", "cluster.advertised"] {
            assert!(value(broker, key).starts_with(&host), "{key}");
        }
        for (name, port) in [("kafka", 9092), ("grpc", 9093), ("http", 9094), ("cluster", 9095)] {
            assert_eq!(value(broker, &format!("{name}.listen")), format!("0.0.0.0:{port}"));
        }
    }
    // Every key is one that the schema of its kind has at that place; a misspelt one would be dropped without a word.
    const POD: [&str; 8] = [
        "enableServiceLinks",
        "automountServiceAccountToken",
        "terminationGracePeriodSeconds",
        "securityContext",
        "affinity",
        "topologySpreadConstraints",
        "containers",
        "volumes",
    ];
    for (key, _) in entries(&set["spec"]["template"]["spec"]) {
        assert!(POD.contains(&key.as_str()), "{key}");
    }
}
