//! The two brokers, each in a process of its own on loopback, ended when they go.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use floodmark_benches::server::serve;

const READY_WITHIN: Duration = Duration::from_secs(60);
/// What Kafka's own start script gives its broker.
const KAFKA_JVM: &[&str] = &[
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
    "-Djava.awt.headless=true",
];

/// A running broker.
pub(crate) struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    pub(crate) fn floodmark(program: &Path, dir: &Path) -> anyhow::Result<Broker> {
        let address = free_address()?;
        let mut command = serve(program);
        command.arg("--data-dir").arg(dir);
        command.arg("--kafka-listen").arg(address.to_string());
        command.args(["--grpc-listen", "off"]);
        command.arg("--http-listen").arg(free_address()?.to_string());
        start(command, address)
    }

    pub(crate) fn kafka(jars: &Path, dir: &Path) -> anyhow::Result<Broker> {
        std::fs::create_dir_all(dir)?;
        let (address, controller) = (free_address()?, free_address()?);
        let settings = dir.join("server.properties");
        std::fs::write(&settings, kafka_settings(&dir.join("data"), address, controller))?;
        let format =
            ["kafka.tools.StorageTool", "format", "--standalone", "-t", "Zmxvb2RtYXJrUmVmZXJlbg", "-c"];
        let mut formatter = java(jars, &[]);
        formatter.args(format).arg(&settings).stdout(Stdio::null()).stderr(Stdio::null());
        ensure!(formatter.status().context("start java")?.success(), "Kafka's StorageTool failed");
        let mut command = java(jars, KAFKA_JVM);
        command.arg("kafka.Kafka").arg(&settings);
        start(command, address)
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `java` with the jars on its class path.
pub(crate) fn java(jars: &Path, options: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(options).arg("-cp").arg(jars.join("*")).stdin(Stdio::null());
    command
}

fn start(mut command: Command, address: SocketAddr) -> anyhow::Result<Broker> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut broker = Broker { child: child.with_context(|| format!("start {command:?}"))?, address };
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        ensure!(started.elapsed() < READY_WITHIN, "{command:?} does not listen on {address}");
        ensure!(broker.child.try_wait()?.is_none(), "{command:?} has ended; run it by hand to see why");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(broker)
}

fn kafka_settings(data: &Path, address: SocketAddr, controller: SocketAddr) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers={controller}\n\
         listeners=PLAINTEXT://{address},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{address},CONTROLLER://{controller}\n\
         controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={}\nnum.partitions=1\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n",
        data.display()
    )
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
