//! The containers of the compose file without a container engine: each service in a network of its own, by the names and with the variables
//! that the file gives it. Shows that they find each other and form one cluster. Where the machine does not allow namespaces, it says so.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{effective, entries, scalar, value, yaml};

/// In namespaces that vanish with the command, with everything that runs in them.
fn isolated(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-euc",
        script,
    ]);
    command
}

/// What the script asks the machine for, once.
fn what_is_missing() -> Option<String> {
    let probe = "mount -t tmpfs none /run; ip link add p0 type bridge; ip netns add p; ip netns del p";
    match isolated(probe).stdout(Stdio::null()).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(e) => Some(format!("unshare: {e}")),
    }
}

/// A shell script that starts the services and asks one of them how the cluster is, once all are ready.
fn script(services: &[(String, Vec<(String, String)>)], dir: &Path) -> String {
    let program = env!("CARGO_BIN_EXE_floodmark");
    let hosts = dir.join("hosts");
    let names: String = (1..).zip(services).map(|(n, (name, _))| format!("10.88.0.{n} {name}\n")).collect();
    fs::write(&hosts, format!("127.0.0.1 localhost\n{names}")).unwrap();
    let mut script = format!(
        "mount -t tmpfs none /run\nmount --bind {} /etc/hosts\nip link add switch type bridge\nip link set switch up\n",
        hosts.display()
    );
    for (n, (name, variables)) in (1..).zip(services) {
        let _ = writeln!(
            script,
            "ip netns add {name}\nip link add port{n} type veth peer name eth0 netns {name}\nip link set port{n} master switch up\n\
             ip -n {name} link set lo up\nip -n {name} addr add 10.88.0.{n}/24 dev eth0\nip -n {name} link set eth0 up"
        );
        let variables: String = variables.iter().map(|(key, value)| format!(" '{key}={value}'")).collect();
        let data = dir.join(name);
        let _ = writeln!(
            script,
            "ip netns exec {name} env{variables} 'FLOODMARK_DATA_DIRS={}' {program} serve >/dev/null 2>{}.log &",
            data.display(),
            data.display()
        );
    }
    for (name, variables) in services {
        let http = value(&effective(&[], variables), "http.listen").replace("0.0.0.0", "127.0.0.1");
        let _ = writeln!(script, "ip netns exec {name} {program} cluster ready --http {http} --wait 60s >&2");
    }
    let (first, variables) = &services[0];
    let grpc = value(&effective(&[], variables), "grpc.listen").replace("0.0.0.0", "127.0.0.1");
    let _ = writeln!(script, "ip netns exec {first} {program} cluster status --server {grpc} --output json");
    script
}

#[test]
fn the_services_of_the_compose_file_form_one_cluster() {
    if let Some(reason) = what_is_missing() {
        eprintln!("skipped: no namespaces here: {reason}");
        return;
    }
    let compose = &yaml("compose.yaml")[0];
    let service = |(name, service): (String, &yaml_rust2::Yaml)| {
        let variables = entries(&service["environment"]).map(|(key, value)| (key, scalar(value)));
        (name, variables.collect())
    };
    let services: Vec<(String, Vec<(String, String)>)> = entries(&compose["services"]).map(service).collect();
    let dir = TempDir::new().unwrap();
    let mut command = isolated(&script(&services, dir.path()));
    for (variable, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FLOODMARK_"))
    {
        command.env_remove(variable);
    }
    let output = command.output().unwrap();
    let logs = || {
        let read = |(name, _): &(String, _)| fs::read_to_string(dir.path().join(format!("{name}.log")));
        services.iter().filter_map(|service| read(service).ok()).collect::<String>()
    };
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), logs());
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let brokers = status["brokers"].as_array().unwrap();
    let states: Vec<_> =
        brokers.iter().map(|broker| (&broker["broker"], &broker["state"], &broker["rack"])).collect();
    for (n, (id, state, rack)) in (1..).zip(&states) {
        assert_eq!((id.as_i64(), state.as_str()), (Some(n), Some("serving")), "{states:?}");
        assert_eq!(rack.as_str(), Some(format!("rack-{n}").as_str()));
    }
    let voters =
        status["members"].as_array().unwrap().iter().filter(|member| member["is_voter"] == true).count();
    assert_eq!((brokers.len(), voters), (3, 3), "{status}");
}
