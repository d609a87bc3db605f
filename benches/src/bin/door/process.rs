//! The other side of the socket, in a process of its own, so that its CPU time and memory can be told from the load's.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

const READY_WITHIN: Duration = Duration::from_secs(20);

/// A server that is ended when this goes.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// From the start of the process until its port took a connection.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts `floodmark serve` on an empty directory.
    pub(crate) fn floodmark(program: &Path, data_dir: &Path) -> anyhow::Result<Server> {
        let address = free_address()?;
        let http = free_address()?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--data-dir").arg(data_dir);
        command.arg("--kafka-listen").arg(address.to_string());
        command.arg("--http-listen").arg(http.to_string());
        Server::start(command, address)
    }

    /// Starts this program again as one of the bare servers.
    pub(crate) fn bare(kind: &str, file: &Path) -> anyhow::Result<Server> {
        let address = free_address()?;
        let own = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(own);
        command.arg("bare").arg(kind).arg(address.to_string()).arg(file);
        Server::start(command, address)
    }

    fn start(mut command: Command, address: SocketAddr) -> anyhow::Result<Server> {
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.with_context(|| format!("start {command:?}"))?;
        let mut server = Server { child, address, ready_after: Duration::ZERO };
        while TcpStream::connect(address).is_err() {
            ensure!(started.elapsed() < READY_WITHIN, "{command:?} does not listen on {address}");
            ensure!(server.child.try_wait()?.is_none(), "{command:?} has ended; run it by hand to see why");
            thread::sleep(Duration::from_millis(1));
        }
        server.ready_after = started.elapsed();
        Ok(server)
    }

    /// CPU time of all its threads so far, to the nanosecond.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end between the listing and the look at it; what it used is then lost to us.
            let Ok(stat) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanos += stat.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback port that nobody has now.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
