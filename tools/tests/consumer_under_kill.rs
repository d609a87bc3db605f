//! Members of a group that are processes of their own and are killed with SIGKILL while they work: at least once leaves no record out, at
//! most once gives none twice.
#![allow(clippy::disallowed_methods, reason = "real clocks and processes, from outside the client")]
#![allow(clippy::print_stdout, reason = "what a member has done, for the test that started it")]
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use floodmark_broker::{Broker, BrokerConfig};
use floodmark_client::admin::NewTopic;
use floodmark_client::{Client, Commit, ConsumerConfig, NewRecord, ProducerConfig, TopicPartition};
use tokio::runtime::Runtime;

/// What the member is to do: server, how it commits, its instance.
const TOLD: &str = "FLOODMARK_TEST_MEMBER";
const PARTITIONS: i32 = 4;
const RECORDS: i64 = 2000;
const KILLS: usize = 5;
/// Done between two kills.
const DONE_BETWEEN: usize = 150;
const PATIENCE: Duration = Duration::from_secs(60);

/// Partition and offset of a record that was done with.
type Done = (i32, i64);

/// Does nothing with each record but to say so, and takes a moment for it.
async fn work(server: &str, commit: &str, instance: &str) {
    let client = Client::connect(server).await.unwrap();
    let commit = match commit {
        "least" => Commit::AtLeastOnce { interval: Duration::from_millis(100) },
        _ => Commit::AtMostOnce,
    };
    let config = ConsumerConfig {
        commit,
        session_timeout: Duration::from_secs(2),
        heartbeat_interval: Duration::from_millis(100),
        // A batch at a time.
        message_bytes_max: 1000,
        instance_id: (instance != "-").then(|| instance.to_owned()),
        ..ConsumerConfig::group("g", ["t"]).from_start()
    };
    let mut consumer = client.consumer(config).await.unwrap();
    loop {
        let record = consumer.recv().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        println!("done {} {}", record.partition, record.offset);
    }
}

#[test]
#[ignore = "it is the member that the other tests start and kill"]
fn member() {
    let told = std::env::var(TOLD).unwrap();
    let [server, commit, instance] = told.split(' ').collect::<Vec<_>>()[..] else { panic!("{told}") };
    Runtime::new().unwrap().block_on(work(server, commit, instance));
}

/// A member that runs. Dropped, it is killed.
struct Member {
    child: Child,
    done: Receiver<Done>,
}

impl Member {
    fn start(server: &str, commit: &str, instance: &str) -> Member {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["member", "--exact", "--ignored", "--nocapture"]);
        command.env(TOLD, format!("{server} {commit} {instance}"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (sender, done) = sync_channel(RECORDS as usize * 2);
        std::thread::spawn(move || {
            for line in lines {
                let words: Vec<&str> = line.split(' ').collect();
                // The harness may have begun the line.
                if let [.., "done", partition, offset] = words[..] {
                    let done = (partition.parse().unwrap(), offset.parse().unwrap());
                    if sender.send(done).is_err() {
                        return;
                    }
                }
            }
        });
        Member { child, done }
    }

    fn next(&self) -> Done {
        self.done.recv_timeout(PATIENCE).unwrap()
    }

    /// SIGKILL; what it had done and nobody had heard yet.
    fn kill(mut self) -> Vec<Done> {
        assert!(self.child.try_wait().unwrap().is_none(), "the member has ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.done.iter().collect()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker with a filled topic.
struct Stage {
    broker: Broker,
    runtime: Runtime,
    client: Client,
    server: String,
}

impl Stage {
    fn set() -> Stage {
        let mut config = BrokerConfig::temporary().unwrap();
        config.set("group.initial.rebalance.delay.ms", "0").unwrap();
        config.set("group.min.session.timeout.ms", "1000").unwrap();
        let broker = Broker::start(config).unwrap();
        let server = broker.grpc_address().unwrap().to_string();
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(async {
            let client = Client::connect(&server).await.unwrap();
            client.admin().create_topic(NewTopic::new("t").partitions(PARTITIONS)).await.unwrap();
            // A batch is what a broker cannot send in parts, and so what is committed at most once before it is handed out.
            let config = ProducerConfig { batch_bytes: 1000, ..ProducerConfig::default() };
            let producer = client.producer(config).unwrap();
            for number in 0..RECORDS {
                let partition = (number % i64::from(PARTITIONS)) as i32;
                let record = NewRecord::to("t").partition(partition).value("something to be done");
                drop(producer.send(record).await.unwrap());
            }
            producer.close().await.unwrap();
            client
        });
        Stage { broker, runtime, client, server }
    }

    fn is_all_committed(&self) -> bool {
        let parts: Vec<TopicPartition> = (0..PARTITIONS).map(|at| TopicPartition::new("t", at)).collect();
        let committed = self.runtime.block_on(self.client.admin().committed("g", &parts)).unwrap();
        committed.iter().all(|committed| committed.offset == Some(RECORDS / i64::from(PARTITIONS)))
    }

    /// What each life of the member did, until `is_over`, which is told for how long nothing new was done; all but the last were killed.
    fn lives(
        &self,
        commit: &str,
        instance: &str,
        is_over: impl Fn(&[Vec<Done>], Duration) -> bool,
    ) -> Vec<Vec<Done>> {
        let mut lives: Vec<Vec<Done>> = Vec::new();
        for _ in 0..KILLS {
            let member = Member::start(&self.server, commit, instance);
            let mut done: Vec<Done> = (0..DONE_BETWEEN).map(|_| member.next()).collect();
            done.extend(member.kill());
            lives.push(done);
        }
        let member = Member::start(&self.server, commit, instance);
        lives.push(Vec::new());
        let (since, mut newest) = (Instant::now(), Instant::now());
        while !is_over(&lives, newest.elapsed()) {
            assert!(since.elapsed() < PATIENCE, "{} done by the last", lives[KILLS].len());
            if let Ok(done) = member.done.recv_timeout(Duration::from_millis(50)) {
                newest = Instant::now();
                lives[KILLS].push(done);
                lives[KILLS].extend(member.done.try_iter());
            }
        }
        lives[KILLS].extend(member.kill());
        lives
    }
}

/// In each life, each partition's records come in their order and without a gap.
fn are_in_order(lives: &[Vec<Done>]) {
    for done in lives {
        for partition in 0..PARTITIONS {
            let offsets: Vec<i64> = done.iter().filter(|(at, _)| *at == partition).map(|(_, o)| *o).collect();
            assert!(offsets.windows(2).all(|two| two[1] == two[0] + 1), "{partition}: {offsets:?}");
        }
    }
}

#[test]
fn at_least_once_leaves_nothing_out() {
    // One that must be missed before another has its partitions, and one that comes back under its name.
    for instance in ["-", "worker"] {
        let stage = Stage::set();
        let lives = stage.lives("least", instance, |lives, _| {
            lives.iter().flatten().collect::<BTreeSet<_>>().len() as i64 == RECORDS
        });
        are_in_order(&lives);
        let count: usize = lives.iter().map(Vec::len).sum();
        let again = count as i64 - RECORDS;
        println!("{instance}: {again} records came again after {KILLS} kills");
        assert!(again > 0, "nothing was under way when it was killed, which shows nothing");
        // Commits have an effect: without any, each life would begin at the start.
        let most = (KILLS * DONE_BETWEEN) as i64 * 2;
        assert!(again < most, "{again} records came again");
        for (at, done) in lives.iter().enumerate().skip(1) {
            let before: BTreeSet<&Done> = lives[..at].iter().flatten().collect();
            for partition in 0..PARTITIONS {
                let Some((_, first)) = done.iter().find(|(of, _)| *of == partition) else { continue };
                let next = (0..).find(|offset| !before.contains(&(partition, *offset))).unwrap();
                assert!(*first <= next, "{partition}@{next} was left out in life {at}");
            }
        }
        stage.broker.stop();
    }
}

#[test]
fn at_most_once_gives_nothing_twice() {
    for instance in ["-", "worker"] {
        let stage = Stage::set();
        // Everything is committed before it is handed out, so that the last records come a little later.
        let lives = stage.lives("most", instance, |_, quiet_for| {
            quiet_for > Duration::from_secs(1) && stage.is_all_committed()
        });
        are_in_order(&lives);
        let all: Vec<&Done> = lives.iter().flatten().collect();
        let once: BTreeSet<&Done> = all.iter().copied().collect();
        assert_eq!(all.len(), once.len(), "records came twice");
        let lost = RECORDS - once.len() as i64;
        println!("{instance}: {lost} records lost by {KILLS} kills");
        assert!(lost > 0, "nothing was under way when it was killed, which shows nothing");
        // A message that was being handed out, at each kill.
        assert!(lost < RECORDS / 4, "{lost} records are lost");
        stage.broker.stop();
    }
}
