//! The ground that brokers stand on: a network namespace and a small disk for each of them, in namespaces of the whole run that vanish with
//! it. Where the machine does not allow that, loopback and plain directories: then nothing can be cut off or filled up.
//!
//! A cut in one direction is an entry in the sender's neighbour table that leads nowhere: frames are sent and nobody takes them, without a
//! word to anybody. A disk is an ext4 file system in a sparse file; a power cut shuts it down without writing what is not synced.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// Set in the process that is inside the namespaces of the run.
const INSIDE: &str = "FLOODMARK_FAULTS_INSIDE";
const DISK_BYTES: u64 = 4 << 30;
/// A hardware address that nobody has.
const NOBODY: &str = "02:00:00:00:de:ad";
/// `EXT4_IOC_SHUTDOWN`, without flushing the journal.
const SHUTDOWN: &str = r#"my $how = pack("L", 2); open(my $file, "<", $ARGV[0]) or die "open: $!";
    ioctl($file, 0x8004587D, $how) or die "shutdown: $!";"#;

/// Where one broker is.
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    /// Added to each port: on loopback brokers have one address.
    port_offset: u16,
    pub(crate) disk: PathBuf,
    /// Keeps the namespace; ends when its standard input does.
    holder: Option<Child>,
}

pub(crate) struct Ground {
    pub(crate) is_isolated: bool,
    dir: PathBuf,
    pub(crate) places: Vec<Place>,
}

/// Whether this process is in namespaces of its own.
pub(crate) fn is_entered() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Goes on in namespaces of its own, where the machine allows that; does not return then. To be called before anything else.
pub(crate) fn enter() {
    if is_entered() {
        return;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command
    };
    // All that a run needs, once.
    let probe = "set -e; ip link add p0 type bridge; mount -t tmpfs none /mnt; truncate -s 16M /mnt/i; mkfs.ext4 -q /mnt/i; \
                 mkdir /mnt/m; mount -o loop /mnt/i /mnt/m; touch /mnt/m/f; perl -e 1; fallocate -l 4096 /mnt/m/f; umount /mnt/m";
    let probed = unshare().args(["sh", "-c", probe]).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let why = match probed {
        Ok(output) if output.status.success() => {
            // The shell is there because the first process of a namespace takes no signals.
            let mut command = unshare();
            command.args(["sh", "-c", r#""$0" "$@"; exit $?"#]);
            command.arg(env::current_exe().unwrap()).args(env::args_os().skip(1));
            panic!("unshare: {}", command.env(INSIDE, "1").exec());
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(e) => format!("unshare: {e}"),
    };
    println!(
        "!! no namespaces or loop devices here ({why}): brokers stand on loopback and plain directories."
    );
    println!(
        "!! LEFT OUT: cuts of the network, full disks, power cuts (kill -9 of all at once instead; the page cache survives that)."
    );
}

impl Ground {
    /// Room for so many brokers, under `dir`.
    pub(crate) fn for_brokers(count: usize, dir: &Path) -> Ground {
        let is_isolated = is_entered();
        let mut ground = Ground { is_isolated, dir: dir.to_owned(), places: Vec::new() };
        if is_isolated {
            run("ip", &["link", "set", "lo", "up"]);
            run("ip", &["link", "add", "fm-switch", "type", "bridge"]);
            run("ip", &["addr", "add", "10.77.0.100/24", "dev", "fm-switch"]);
            run("ip", &["link", "set", "fm-switch", "up"]);
        }
        for index in 0..count {
            let place = if is_isolated { ground.isolated_place(index) } else { ground.loopback_place(index) };
            fs::create_dir_all(&place.disk).unwrap();
            ground.places.push(place);
            if is_isolated {
                ground.make_disk(index);
            }
        }
        ground
    }

    fn isolated_place(&self, index: usize) -> Place {
        let mut holder = Command::new("unshare");
        holder.args(["--net", "sh", "-c", "ip link set lo up; echo up; read _"]);
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 2];
        holder.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        let (pid, port) = (holder.id().to_string(), format!("fm-{index}"));
        let address = Ipv4Addr::new(10, 77, 0, index as u8 + 1);
        run("ip", &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        run("ip", &["link", "set", &port, "master", "fm-switch", "up"]);
        inside(&pid, &["ip", "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        inside(&pid, &["ip", "link", "set", "eth0", "up"]);
        let disk = self.dir.join(format!("disk-{index}"));
        Place { address: IpAddr::V4(address), port_offset: 0, disk, holder: Some(holder) }
    }

    fn loopback_place(&self, index: usize) -> Place {
        let port_offset = 20_000 + (std::process::id() % 1000) as u16 * 20 + index as u16 * 4;
        let disk = self.dir.join(format!("disk-{index}"));
        Place { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port_offset, disk, holder: None }
    }

    fn image(&self, index: usize) -> PathBuf {
        self.dir.join(format!("image-{index}"))
    }

    /// An empty disk, in place of the one that is there.
    fn make_disk(&self, index: usize) {
        let image = self.image(index);
        fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        run("mkfs.ext4", &["-q", "-F", &image.to_string_lossy()]);
        self.mount(index);
    }

    fn mount(&self, index: usize) {
        let (image, disk) = (self.image(index), &self.places[index].disk);
        run("mount", &["-o", "loop", &image.to_string_lossy(), &disk.to_string_lossy()]);
    }

    /// Cuts the power of a disk and gives it back: what was not synced is gone. Its broker must have ended. Panics where the disk takes
    /// writes without power.
    pub(crate) fn cut_power(&self, index: usize) {
        let disk = &self.places[index].disk;
        let witness = disk.join("witness");
        fs::write(&witness, b"").unwrap();
        run("perl", &["-e", SHUTDOWN, &witness.to_string_lossy()]);
        assert!(fs::write(disk.join("refused"), b"x").is_err(), "a disk without power takes writes");
        run("umount", &[&disk.to_string_lossy()]);
        self.mount(index);
    }

    /// Leaves no room on a broker's disk; true where that is so.
    pub(crate) fn fill(&self, index: usize) -> bool {
        // A broker that meets a full disk gives back what it had filled ahead.
        wait_until(Duration::from_secs(30), || self.fill_once(index))
    }

    fn fill_once(&self, index: usize) -> bool {
        let disk = &self.places[index].disk;
        let ballast = disk.join("ballast");
        // In ever smaller pieces, since the last blocks are for the file system itself.
        let mut size = DISK_BYTES;
        let mut held = 0;
        while size >= 4096 {
            let text = (held, size);
            let grown = Command::new("fallocate")
                .args(["-o", &text.0.to_string(), "-l", &text.1.to_string()])
                .arg(&ballast)
                .stderr(Stdio::null())
                .status()
                .unwrap();
            if grown.success() { held += size } else { size /= 2 }
        }
        let refused = fs::write(disk.join("refused"), vec![1; 1 << 16])
            .and_then(|()| fs::File::open(disk.join("refused"))?.sync_all());
        let _ = fs::remove_file(disk.join("refused"));
        refused.is_err_and(|e| e.kind() == io::ErrorKind::StorageFull)
    }

    pub(crate) fn make_room(&self, index: usize) {
        fs::remove_file(self.places[index].disk.join("ballast")).unwrap();
    }

    /// Nothing that `from` sends reaches `to` any more; true where that is so.
    pub(crate) fn cut(&self, from: usize, to: usize) -> bool {
        let address = self.places[to].address.to_string();
        self.at(
            from,
            &["ip", "neigh", "replace", &address, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"],
        );
        !self.reaches(from, to)
    }

    pub(crate) fn heal(&self, from: usize, to: usize) {
        let address = self.places[to].address.to_string();
        self.at(from, &["ip", "neigh", "del", &address, "dev", "eth0"]);
    }

    /// Whether a connection from one broker's place to another's listener comes about.
    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        let at = self.places[to].kafka();
        let attempt = format!("timeout 0.4 bash -c 'exec 3<>/dev/tcp/{}/{}' 2>/dev/null", at.ip(), at.port());
        let mut command = self.command_at(from, "bash");
        command.args(["-c", &attempt]).status().unwrap().success()
    }

    fn at(&self, index: usize, command: &[&str]) {
        let pid = self.places[index].holder.as_ref().unwrap().id().to_string();
        inside(&pid, command);
    }

    /// A command that runs where this broker is.
    pub(crate) fn command_at(&self, index: usize, program: impl AsRef<OsStr>) -> Command {
        let Some(holder) = &self.places[index].holder else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.args(["--target", &holder.id().to_string(), "--net", "--"]).arg(program);
        command
    }
}

impl Place {
    fn at(&self, port: u16) -> SocketAddr {
        match self.port_offset {
            0 => SocketAddr::new(self.address, port),
            offset => SocketAddr::new(self.address, offset + port % 4),
        }
    }

    pub(crate) fn kafka(&self) -> SocketAddr {
        self.at(9092)
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        self.at(9093)
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.at(9094)
    }

    pub(crate) fn cluster(&self) -> SocketAddr {
        self.at(9095)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for place in &mut self.places {
            if let Some(mut holder) = place.holder.take() {
                drop(holder.stdin.take());
                let _ = holder.wait();
                let _ = Command::new("umount").arg(&place.disk).stderr(Stdio::null()).status();
            }
        }
    }
}

fn inside(pid: &str, command: &[&str]) {
    let arguments = [&["--target", pid, "--net", "--"], command].concat();
    run("nsenter", &arguments);
}

/// Runs a command that must succeed.
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {complaint}");
}

/// Waits until something is so; false where it is not in time.
pub(crate) fn wait_until(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let since = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if since.elapsed() > within {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Says what happens, with the time since the run began.
pub(crate) fn tell(since: Instant, what: &str) {
    println!("{:8.3} {what}", since.elapsed().as_secs_f64());
    let _ = io::stdout().flush();
}
