//! The image, and three containers of it that are one cluster.

use crate::{check_cluster, effective, entries, items, scalar, text, value, yaml};

/// Instructions of a Dockerfile with their arguments, lines joined.
fn instructions(dockerfile: &str) -> Vec<(String, String)> {
    let joined = dockerfile.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        (name.to_owned(), rest.trim().to_owned())
    };
    lines.map(split).collect()
}

#[test]
fn the_image_holds_a_static_binary_and_nothing_else() {
    let all = instructions(&text("Dockerfile"));
    const KNOWN: [&str; 11] = [
        "FROM",
        "RUN",
        "COPY",
        "WORKDIR",
        "USER",
        "ENV",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "ENTRYPOINT",
        "CMD",
    ];
    for (name, rest) in &all {
        assert!(KNOWN.contains(&name.as_str()) && !rest.is_empty(), "{name} {rest}");
    }
    let last = all.iter().rposition(|(name, _)| name == "FROM").unwrap();
    assert_eq!(all[last].1, "scratch");
    let stage = &all[last..];
    let of = |wanted: &str| {
        stage.iter().filter(|(name, _)| name == wanted).map(|(_, rest)| rest.as_str()).collect::<Vec<_>>()
    };
    // Nothing can be run in an empty image, and only these two things are put into it.
    assert!(of("RUN").is_empty());
    assert_eq!(of("COPY").len(), 2, "{stage:?}");
    assert_eq!((of("ENTRYPOINT"), of("CMD")), (vec![r#"["/floodmark"]"#], vec![r#"["serve"]"#]));
    let user = of("USER")[0].split(':').next().unwrap().to_owned();
    assert!(
        user.parse::<u32>().is_ok_and(|user| user != 0),
        "an empty image knows no names, and root is not needed: {user}"
    );
    assert!(
        of("COPY").iter().any(|copy| copy.contains(&format!("--chown={user}:")) && copy.ends_with(" /data"))
    );
    let variables: Vec<(String, String)> = of("ENV")
        .iter()
        .map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap())
        .collect();
    assert_eq!(value(&effective(&[], &variables), "data.dirs"), of("VOLUME")[0]);
    let toolchain = include_str!("../../../rust-toolchain.toml");
    let version =
        toolchain.lines().find_map(|line| line.strip_prefix("channel = \"")).unwrap().trim_end_matches('"');
    assert!(all[0].1.starts_with(&format!("rust:{version}-alpine")), "{:?}", all[0]);
}

#[test]
fn three_containers_are_one_cluster() {
    let compose = &yaml("compose.yaml")[0];
    let mut brokers = Vec::new();
    let mut published = Vec::new();
    let mut volumes = Vec::new();
    for (name, service) in entries(&compose["services"]) {
        let environment = entries(&service["environment"]);
        let variables: Vec<(String, String)> = environment.map(|(key, value)| (key, scalar(value))).collect();
        let settings = effective(&[], &variables);
        // Containers find each other by the names of services.
        let at = value(&settings, "cluster.advertised").split(':').next().unwrap().to_owned();
        assert_eq!(at, name);
        for port in items(&service["ports"]).iter().map(scalar) {
            let [host, outside, inside] = port.split(':').collect::<Vec<_>>()[..] else { panic!("{port}") };
            // A client is sent to the address that a broker advertises, so both sides must have the same port.
            assert_eq!((host, outside), ("127.0.0.1", inside));
            let listens =
                ["kafka.listen", "grpc.listen", "http.listen"].map(|key| value(&settings, key).to_owned());
            assert!(listens.contains(&format!("0.0.0.0:{inside}")), "{inside} in {listens:?}");
            published.push(outside.to_owned());
        }
        let http = value(&settings, "http.listen").replace("0.0.0.0", "127.0.0.1");
        let asked: Vec<String> = items(&service["healthcheck"]["test"]).iter().map(scalar).collect();
        assert_eq!(asked, ["CMD", "/floodmark", "cluster", "ready", "--http", &http]);
        let [volume] = items(&service["volumes"]) else { panic!("one volume each") };
        volumes.push(scalar(volume).strip_suffix(":/data").unwrap().to_owned());
        assert_eq!(scalar(&service["image"]), "floodmark");
        brokers.push(settings);
    }
    check_cluster(&brokers);
    assert_eq!(brokers.len(), 3);
    let declared: Vec<String> = entries(&compose["volumes"]).map(|(name, _)| name).collect();
    assert_eq!(volumes, declared);
    let count = published.len();
    published.sort();
    published.dedup();
    assert_eq!(published.len(), count, "two containers on one port");
    let racks: std::collections::BTreeSet<&str> = brokers.iter().map(|b| value(b, "broker.rack")).collect();
    assert_eq!(racks.len(), 3);
}
