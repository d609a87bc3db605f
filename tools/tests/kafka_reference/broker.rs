//! One Kafka broker that is its own controller, on free ports of the loopback address.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::files_with;
use super::process::{self, await_exit, poll};
use super::toolchain::Kafka;

const DEADLINE: Duration = Duration::from_secs(90);

/// A running broker; dropped, it is killed.
pub(crate) struct Broker {
    process: Child,
    dir: PathBuf,
    port: u16,
}

/// Where a broker that runs in `dir` keeps its partitions.
pub(crate) fn log_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

impl Kafka {
    /// Makes an empty log directory for a broker that will run in `dir`.
    pub(crate) fn format(&self, dir: &Path) {
        let settings = dir.join("server.properties");
        fs::write(&settings, properties(dir, free_ports())).unwrap();
        let mut command = self.java();
        // Any 16 bytes in base64 will do as the cluster's id.
        command.args([
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            "Zmxvb2RtYXJrUmVmZXJlbg",
            "-c",
        ]);
        command.arg(settings);
        let finished = process::run(command, dir, "format", DEADLINE);
        assert!(
            finished.status.success(),
            "StorageTool format failed: {}{}",
            finished.stdout,
            finished.stderr
        );
    }

    /// Starts a broker on the log directory in `dir`, and returns when it takes connections.
    pub(crate) fn start(&self, dir: &Path) -> Broker {
        self.start_with(dir, &[])
    }

    /// The same with further settings.
    pub(crate) fn start_with(&self, dir: &Path, more: &[(&str, &str)]) -> Broker {
        let ports = free_ports();
        let settings = dir.join("server.properties");
        // Of two lines with one name the last one counts.
        let more: String = more.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        fs::write(&settings, properties(dir, ports) + &more).unwrap();
        let mut command = self.java();
        command.arg("kafka.Kafka").arg(settings).stdin(Stdio::null());
        command.stdout(File::create(dir.join("broker.out")).unwrap());
        command.stderr(File::create(dir.join("broker.err")).unwrap());
        let mut broker = Broker { process: command.spawn().unwrap(), dir: dir.to_owned(), port: ports[0] };
        let is_up = poll(DEADLINE, || {
            assert!(
                broker.process.try_wait().unwrap().is_none(),
                "the broker ended at once: {}",
                broker.said()
            );
            TcpStream::connect((Ipv4Addr::LOCALHOST, ports[0])).is_ok()
        });
        assert!(is_up, "the broker takes no connections after {DEADLINE:?}: {}", broker.said());
        broker
    }
}

impl Broker {
    /// Address for clients.
    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Waits until all of a partition but its active segment is compacted.
    pub(crate) fn await_compaction(&self, partition: &str) {
        let (topic, number) = partition.rsplit_once('-').unwrap();
        let data = log_dir(&self.dir);
        let is_done = poll(DEADLINE, || {
            let segments = files_with(&data.join(partition), &["log"]);
            let active: u64 =
                segments.last().unwrap().file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let expected = format!("{topic} {number} {active}");
            process::read(&data.join("cleaner-offset-checkpoint")).lines().any(|line| line == expected)
        });
        assert!(is_done, "{partition} is not compacted after {DEADLINE:?}: {}", self.said());
    }

    /// Asks the broker to end, waits for it, and returns its log directory.
    pub(crate) fn stop(mut self) -> PathBuf {
        let asked = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(asked.success(), "the broker is gone already: {}", self.said());
        assert!(
            await_exit(&mut self.process, DEADLINE).is_some(),
            "the broker does not end: {}",
            self.said()
        );
        log_dir(&self.dir)
    }

    /// Ends the broker without warning, as `kill -9` does, and returns its log directory.
    pub(crate) fn kill(mut self) -> PathBuf {
        self.end();
        log_dir(&self.dir)
    }

    fn end(&mut self) {
        // Fails only where the process is gone, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn said(&self) -> String {
        process::read(&self.dir.join("broker.out")) + &process::read(&self.dir.join("broker.err"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Two ports that nobody listens on now: for clients, and for the controller.
fn free_ports() -> [u16; 2] {
    // Both are held before either is let go, so that they differ.
    let held = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// Settings for one small node: nothing goes by age, since the records carry old timestamps; cleaning is quick.
fn properties(dir: &Path, [port, controller_port]: [u16; 2]) -> String {
    let data = log_dir(dir);
    let listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}");
    let lines = [
        "process.roles=broker,controller",
        "node.id=1",
        &format!("controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}"),
        &format!("listeners={listeners}"),
        &format!("advertised.listeners={listeners}"),
        "controller.listener.names=CONTROLLER",
        "inter.broker.listener.name=PLAINTEXT",
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        &format!("log.dirs={}", data.display()),
        "offsets.topic.replication.factor=1",
        "offsets.topic.num.partitions=1",
        "group.initial.rebalance.delay.ms=0",
        "transaction.state.log.replication.factor=1",
        "transaction.state.log.min.isr=1",
        "transaction.state.log.num.partitions=1",
        "share.coordinator.state.topic.replication.factor=1",
        "share.coordinator.state.topic.min.isr=1",
        "num.partitions=4",
        "log.retention.ms=-1",
        "log.segment.delete.delay.ms=200",
        "log.cleaner.backoff.ms=200",
        "log.cleaner.dedupe.buffer.size=2097152",
        "num.network.threads=2",
        "num.io.threads=2",
        "",
    ];
    lines.join("\n")
}
