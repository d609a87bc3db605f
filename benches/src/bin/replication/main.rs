//! What copying costs: `acks=all` over three brokers beside the same bytes in three brokers that know nothing of each other, and a follower that
//! was down beside bare copies of the files that it lacks.

mod bare_copy;
mod brokers;

use std::thread;

use clap::Parser;
use floodmark_benches::kafka::Kafka;
use floodmark_benches::measure::{Compared, take_turns};
use floodmark_benches::report::{Aim, Report};
use floodmark_benches::workload::{Setup, Template, renew_memory};
use floodmark_storage::clock::Stopwatch;

use brokers::{Brokers, TOPIC};

/// The one that the `floodmark` binary has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Partitions of the topic: one for each broker to lead.
const PARTITIONS: i32 = 3;
/// Memory that is touched and given back before a side of catching up runs, beyond what the side writes.
const RENEWED_BYTES: u64 = 512 << 20;

/// Throughput of acks=all over three brokers, and the rate at which a follower that was down catches up.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    setup: Setup,
    /// MiB produced in each run, three times that on disks
    #[arg(long, default_value_t = 384)]
    mib: u64,
    /// KiB of a batch
    #[arg(long, default_value_t = 256)]
    batch_kib: usize,
    /// Batches that a producer has under way
    #[arg(long, default_value_t = 4)]
    under_way: usize,
    /// MiB that a follower lacks when it starts again
    #[arg(long, default_value_t = 384)]
    lacks_mib: u64,
    /// Leave out throughput
    #[arg(long)]
    only_catch_up: bool,
    /// Leave out catching up
    #[arg(long)]
    only_throughput: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new("replication: three brokers in one process");
    if !args.only_catch_up {
        compare_throughput(&args, &mut report)?;
    }
    if !args.only_throughput {
        compare_catch_up(&args, &mut report)?;
    }
    report.print(args.setup.output);
    Ok(())
}

fn compare_throughput(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let template = Template::of_bytes(args.batch_kib << 10)?;
    let batches = template.count_in((args.mib << 20) / PARTITIONS as u64);
    let mib = (batches * template.size_bytes()) as f64 * f64::from(PARTITIONS) / f64::from(1 << 20);
    let scratch = args.setup.scratch()?;
    let cluster = Brokers::cluster(&scratch.path().join("cluster"))?;
    cluster.create(PARTITIONS)?;
    let alone = Brokers::alone(&scratch.path().join("alone"))?;
    alone.create(PARTITIONS)?;
    let rate = |brokers: &Brokers| -> anyhow::Result<f64> {
        let begun = Stopwatch::start();
        produce(&brokers.leaders()?, &template, batches, args.under_way)?;
        Ok(mib / begun.elapsed().as_secs_f64())
    };
    let compared = take_turns(args.setup.pairs, &mut (), |()| rate(&cluster), |()| rate(&alone))?;
    report.compared(
        "acks=all over three brokers / three brokers alone",
        Aim::AtLeast(0.7),
        &compared,
        "MiB/s",
    );
    cluster.stop();
    alone.stop();
    Ok(())
}

/// Sends `batches` to each leader, all at once; returns when all are acknowledged.
fn produce(
    leaders: &[(i32, std::net::SocketAddr)],
    template: &Template,
    batches: usize,
    under_way: usize,
) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let send = |(partition, leader): &(i32, std::net::SocketAddr)| {
            let (partition, leader) = (*partition, *leader);
            scope.spawn(move || {
                Kafka::connect(leader)?.produce_all(TOPIC, partition, template, batches, under_way)
            })
        };
        let sending: Vec<_> = leaders.iter().map(send).collect();
        sending.into_iter().try_for_each(|sent| match sent.join() {
            Ok(sent) => sent,
            Err(_) => anyhow::bail!("a producer panicked"),
        })
    })
}

/// What is caught up with, or copied, and how.
#[derive(Debug, Clone, Copy)]
enum Side {
    Follower,
    Files,
    Connection,
}

/// In which order the sides run, pair after pair: each is first, second and last as often as the others.
const ORDERS: [[Side; 3]; 3] = [
    [Side::Follower, Side::Files, Side::Connection],
    [Side::Files, Side::Connection, Side::Follower],
    [Side::Connection, Side::Follower, Side::Files],
];

/// A follower that was down beside two bare copies of as many bytes.
fn compare_catch_up(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let template = Template::of_bytes(args.batch_kib << 10)?;
    let scratch = args.setup.scratch()?;
    let folder = scratch.path().join("catch-up");
    let mut cluster = Brokers::cluster(&folder)?;
    cluster.create(1)?;
    let away = cluster.follower()?;
    let (mut over_files, mut over_connection) = (Vec::new(), Vec::new());
    // The first round makes the files that the others copy, and does not count.
    for turn in 0..=args.setup.pairs.max(1) {
        let (mut ours, mut files, mut connection) = (None, 0.0, 0.0);
        for side in ORDERS[turn % ORDERS.len()] {
            match side {
                Side::Follower => ours = catch_up(&mut cluster, away, &template, args)?,
                Side::Files | Side::Connection => {
                    renew(args)?;
                    let from = bare_copy::newest(&cluster.folder_of_leader(&folder)?, args.lacks_mib << 20)?;
                    let to = folder.join("copy");
                    match side {
                        Side::Files => files = bare_copy::of_files(&from, &to)?,
                        _ => connection = bare_copy::over_a_connection(&from, &to)?,
                    }
                }
            }
        }
        // Of a start that took longer than one with more to copy nothing can be told.
        if let Some(ours) = ours.filter(|_| turn > 0) {
            over_files.push((ours, files));
            over_connection.push((ours, connection));
        }
    }
    let aim = Aim::AtLeast(0.8);
    let over_files = Compared::of_pairs(&over_files);
    report.compared("a follower catches up / bare copy of the files", aim, &over_files, "MiB/s");
    let over_connection = Compared::of_pairs(&over_connection);
    report.compared(
        "a follower catches up / bare copy over a loopback connection",
        aim,
        &over_connection,
        "MiB/s",
    );
    cluster.stop();
    Ok(())
}

fn renew(args: &Args) -> anyhow::Result<()> {
    renew_memory(((args.lacks_mib << 20) + RENEWED_BYTES) as usize)
}

/// A start costs what has nothing to do with bytes. So a follower starts once lacking much and once lacking little, and the difference counts:
/// MiB per second.
fn catch_up(
    cluster: &mut Brokers,
    away: usize,
    template: &Template,
    args: &Args,
) -> anyhow::Result<Option<f64>> {
    let little = lack(cluster, away, template, 16 << 20, args)?;
    let much = lack(cluster, away, template, args.lacks_mib << 20, args)?;
    let mib = much.bytes.saturating_sub(little.bytes) as f64 / f64::from(1 << 20);
    let seconds = much.seconds - little.seconds;
    Ok((seconds > 0.0).then(|| mib / seconds))
}

struct Lacked {
    bytes: u64,
    seconds: f64,
}

/// Stops a follower, has the others go on, and starts it again: until it is in sync.
fn lack(
    cluster: &mut Brokers,
    away: usize,
    template: &Template,
    bytes: u64,
    args: &Args,
) -> anyhow::Result<Lacked> {
    cluster.stop_one(away);
    let batches = template.count_in(bytes);
    produce(&cluster.leaders()?, template, batches, args.under_way)?;
    renew(args)?;
    let begun = Stopwatch::start();
    cluster.start_one(away)?;
    cluster.wait_in_sync(3)?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Lacked { bytes: (batches * template.size_bytes()) as u64, seconds })
}
