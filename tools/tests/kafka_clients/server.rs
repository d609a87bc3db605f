//! The broker that the clients are driven against.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::kafka_reference::Kafka;
use crate::kafka_reference::broker::Broker;
use crate::kafka_reference::process::{await_exit, poll, read};

const DEADLINE: Duration = Duration::from_secs(60);

/// A broker; dropped, it is ended unless it was there before.
pub(crate) enum Server {
    /// Somebody else's, by its address.
    Given(String),
    Kafka {
        broker: Broker,
        _dir: TempDir,
    },
    Floodmark {
        process: Child,
        address: String,
        /// Of the native door.
        grpc: String,
        dir: TempDir,
    },
}

impl Server {
    /// `FLOODMARK_TEST_BOOTSTRAP` names a broker that runs; `FLOODMARK_CLIENTS_AGAINST=kafka` asks for Apache Kafka; otherwise it is ours.
    pub(crate) fn start() -> Server {
        // Each of the many groups would wait for three seconds.
        Server::start_with(&[("group.initial.rebalance.delay.ms", "0")])
    }

    /// The same with settings, by the names that both brokers have for them; one that runs already keeps its own.
    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Server {
        if let Ok(bootstrap) = env::var("FLOODMARK_TEST_BOOTSTRAP") {
            return Server::Given(bootstrap);
        }
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        match env::var("FLOODMARK_CLIENTS_AGAINST").as_deref() {
            Ok("kafka") => {
                let kafka = Kafka::try_obtain().unwrap_or_else(|why| panic!("Kafka cannot be run: {why}"));
                kafka.format(dir.path());
                Server::Kafka { broker: kafka.start_with(dir.path(), settings), _dir: dir }
            }
            Ok(other) => panic!("FLOODMARK_CLIENTS_AGAINST={other}: only `kafka` is known"),
            Err(_) => Server::floodmark(dir, settings),
        }
    }

    fn floodmark(dir: TempDir, settings: &[(&str, &str)]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_floodmark"));
        command.args(["serve", "--data-dir"]).arg(dir.path().join("data"));
        command.args(["--kafka-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"]);
        command.args(["--http-listen", "off"]);
        for (key, value) in settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        // What steers the tests is no setting of the broker, which refuses what it does not know.
        for (name, _) in env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("FLOODMARK_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(File::create(dir.path().join("serve.out")).unwrap());
        command.stderr(File::create(dir.path().join("serve.err")).unwrap());
        let mut process = command.spawn().unwrap();
        let mut addresses = None;
        poll(DEADLINE, || {
            assert!(process.try_wait().unwrap().is_none(), "`floodmark serve` ended: {}", said(dir.path()));
            let out = read(&dir.path().join("serve.out"));
            addresses = printed_address(&out, "Kafka ").zip(printed_address(&out, "gRPC "));
            addresses.is_some()
        });
        let Some((address, grpc)) = addresses else {
            let _ = process.kill();
            panic!("`floodmark serve` prints no addresses within {DEADLINE:?}: {}", said(dir.path()));
        };
        Server::Floodmark { process, address, grpc, dir }
    }

    /// Address for clients.
    pub(crate) fn bootstrap(&self) -> String {
        match self {
            Server::Given(bootstrap) => bootstrap.clone(),
            Server::Kafka { broker, .. } => broker.bootstrap(),
            Server::Floodmark { address, .. } => address.clone(),
        }
    }

    /// Address for native clients; only ours has one.
    #[allow(dead_code, reason = "some who share this file have Kafka clients alone")]
    pub(crate) fn grpc(&self) -> Option<&str> {
        match self {
            Server::Floodmark { grpc, .. } => Some(grpc),
            Server::Given(_) | Server::Kafka { .. } => None,
        }
    }

    /// What it is, for the report.
    pub(crate) fn describe(&self) -> String {
        match self {
            Server::Given(bootstrap) => format!("the broker at {bootstrap}"),
            Server::Kafka { .. } => "Apache Kafka".to_owned(),
            Server::Floodmark { .. } => "`floodmark serve`".to_owned(),
        }
    }
}

/// Where it listens, once its line for such clients is whole.
fn printed_address(out: &str, door: &str) -> Option<String> {
    let lines = out.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter_map(|line| line.trim().strip_prefix(door)).map(|address| address.trim().to_owned()).next()
}

fn said(dir: &Path) -> String {
    read(&dir.join("serve.out")) + &read(&dir.join("serve.err"))
}

impl Drop for Server {
    fn drop(&mut self) {
        let Server::Floodmark { process, dir, .. } = self else { return };
        // Asked first, so that its log tells how it ended; a broker that does not end is a fault of its own, found elsewhere.
        let _ = Command::new("kill").args(["-TERM", &process.id().to_string()]).status();
        if await_exit(process, Duration::from_secs(20)).is_none() {
            let _ = process.kill();
            let _ = process.wait();
        }
        // Kept for a look after a failure.
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka-clients");
        let _ = fs::create_dir_all(&kept);
        let _ = fs::write(kept.join("serve.log"), said(dir.path()));
    }
}
