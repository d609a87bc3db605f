//! A broker that finds a log missing is killed at some moment of its start, and started again: what is lost is known to be so, however often
//! that happens, and what is new is not taken for lost.

use floodmark_replication::quorum::QuorumHandle;
use floodmark_storage::fs::sim::DiskImage;

use super::*;

/// Moments of a start that are tried, beside those around the first file of the log that is made.
const MOMENTS: usize = 60;

impl Brokers {
    /// What the process and its disk are when it is killed now.
    fn kill(&mut self) -> SimDisk {
        let node = &mut self.nodes[0];
        let left = node.disk.image().killed();
        node.broker = None;
        left
    }

    /// The only broker, on another disk.
    fn start_on(&mut self, disk: SimDisk) {
        let node = &mut self.nodes[0];
        (node.broker, node.disk) = (None, disk);
        self.start_all();
    }

    /// Starts on `disk`; gives the disk as it was at some moments of that, among them the last without a log of `partition` and those in
    /// which that is made.
    fn moments_of_start(&mut self, disk: SimDisk, partition: &str) -> Vec<DiskImage> {
        disk.record_images();
        self.start_on(disk.clone());
        let images = disk.take_images();
        let dir = PathBuf::from("data/logs").join(partition);
        let made = images.iter().position(|image| image.killed().list(&dir).is_ok()).unwrap();
        let step = (images.len() / MOMENTS).max(1);
        let is_tried = |n: usize| n.is_multiple_of(step) || (made.saturating_sub(1)..made + 6).contains(&n);
        images.into_iter().enumerate().filter(|(n, _)| is_tried(*n)).map(|(_, image)| image).collect()
    }

    /// Has `command` agreed on while the broker does not run, as other programs might have.
    fn agree_on(&self, command: Command) {
        let Node { config, disk, .. } = &self.nodes[0];
        let context = LogContext {
            disk: Arc::new(disk.clone()),
            clock: Clock::System,
            random: Random::System,
            tail_budget: TailBudget::new(1 << 20),
        };
        let open = |dir: &PathBuf| DataDir::open(context.clone(), dir).unwrap();
        let data_dirs = config.data_dirs.iter().map(open).collect::<Arc<[_]>>();
        self.runtime.block_on(async {
            let ground = Ground::new(config);
            let joining = joining(config, &context, &data_dirs, Vec::new(), &ground).unwrap();
            let quorum = QuorumHandle::start_at(joining.quorum.clone(), &joining.seat).await.unwrap();
            quorum.propose(command).await.unwrap();
            quorum.shutdown().await.unwrap();
        });
    }

    /// A broker with a program of these feature levels starts, beside the one that is tried.
    fn register_other(&self, feature_levels: (u16, u16)) {
        self.agree_on(Command::RegisterBroker {
            broker: BrokerId(2),
            incarnation: uuid::Uuid::from_u128(feature_levels.1.into()),
            rack: None,
            endpoints: Vec::new(),
            feature_levels,
            directories: Vec::new(),
        });
    }

    /// One that does not run, of two partitions of which one has no log any more. Another broker's program keeps the cluster at the first
    /// feature level.
    fn without_a_log_at_the_first_level() -> Brokers {
        let mut brokers = Brokers::unstarted(1, &[PathBuf::from("data")]);
        brokers.register_other((1, 1));
        brokers.begin(2);
        brokers.produce(3);
        brokers.restart(1);
        assert_eq!(brokers.quorum().image().feature_level(), 1);
        let left = brokers.kill();
        remove_log(&left, "t-0");
        brokers.nodes[0].disk = left;
        brokers
    }

    /// The first of two partitions, whichever moment of the start on this disk is the last.
    fn check_lost_wherever_the_start_ends(&mut self, disk: SimDisk) {
        let moments = self.moments_of_start(disk, "t-0");
        self.check_lost(0, "the first start");
        for moment in moments {
            let at = format!("killed at operation {}", moment.operation());
            self.start_on(moment.killed());
            self.check_lost(0, &at);
            assert!(self.leading(1).is_some(), "{at}: the other one is well");
        }
    }

    fn check_lost(&self, index: u32, at: &str) {
        let state = self.state(index);
        assert!(state.is_lost && state.leader.is_none(), "{at}: {state:?}");
        assert!(self.leading(index as i32).is_none(), "{at}: it leads what is lost");
    }
}

fn remove_log(disk: &SimDisk, partition: &str) {
    let dir = PathBuf::from("data/logs").join(partition);
    for entry in disk.list(&dir).unwrap() {
        disk.remove_file(&dir.join(entry.name)).unwrap();
    }
    disk.remove_dir(&dir).unwrap();
}

#[test]
fn a_log_that_is_missing_is_lost_wherever_the_start_that_finds_it_so_ends() {
    let mut brokers = Brokers::start(1, 2);
    brokers.produce(3);
    brokers.restart(1);
    let left = brokers.kill();
    remove_log(&left, "t-0");
    brokers.check_lost_wherever_the_start_ends(left);
}

/// That its directory is gone is all that tells a partition with one copy, led since it was made, from a new one. The registration says so,
/// until another takes its place.
#[test]
fn what_lay_in_a_directory_that_is_gone_is_lost_wherever_the_start_that_finds_it_so_ends() {
    let dirs = ["data", "other"].map(PathBuf::from);
    let mut brokers = Brokers::start_in(1, 2, &dirs);
    let lies_in = |index: i32| brokers.leading(index).unwrap().1.dir().to_owned();
    let index = (0..2).find(|index| lies_in(*index).starts_with("other")).unwrap();
    let partition = brokers.leading(index).unwrap().1;
    brokers.try_append(&partition, "v").unwrap();
    drop(partition);
    let left = brokers.kill();
    brokers.nodes[0].config.data_dirs = dirs[..1].to_vec();
    let moments = brokers.moments_of_start(left, &format!("t-{index}"));
    brokers.check_lost(index as u32, "the first start");
    for moment in moments {
        brokers.start_on(moment.killed());
        brokers.check_lost(index as u32, &format!("killed at operation {}", moment.operation()));
    }
}

#[test]
fn a_log_that_was_never_made_is_not_lost_wherever_a_start_ends() {
    let mut brokers = Brokers::start(1, 1);
    let disk = brokers.nodes[0].disk.clone();
    disk.record_images();
    let id = TopicId::from_bytes([10; 16]).unwrap();
    let assignments = vec![vec![BrokerId(1)]];
    let create = Command::CreateTopic { name: "u".to_owned(), id, assignments, settings: Vec::new() };
    brokers.runtime.block_on(brokers.quorum().propose(create)).unwrap();
    brokers.until("it is made", |brokers| brokers.cluster(1).registry().get(id, 0));
    let images = disk.take_images();
    let is_made = |image: &DiskImage| image.killed().list(&PathBuf::from("data/logs/u-0")).is_ok();
    let before = images.iter().take_while(|image| !is_made(image)).last().unwrap();
    for moment in brokers.moments_of_start(before.killed(), "u-0") {
        let at = format!("killed at operation {}", moment.operation());
        brokers.start_on(moment.killed());
        let image = brokers.quorum().image();
        let state = image.topic_by_id(id).unwrap().partition(0).unwrap();
        assert!(!state.is_lost, "{at}: {state:?}");
        let partition = brokers.cluster(1).registry().get(id, 0).unwrap();
        brokers.until("it takes records", |brokers| brokers.try_append(&partition, "v").ok());
    }
}

/// No command of the first level says so.
#[test]
fn in_a_cluster_of_the_first_level_a_log_that_is_missing_is_lost_wherever_the_start_ends() {
    let mut brokers = Brokers::without_a_log_at_the_first_level();
    brokers.register_other((1, 2));
    let left = brokers.nodes[0].disk.clone();
    brokers.check_lost_wherever_the_start_ends(left);
}

/// It cannot be said while a broker is there that would not know what that means, and without that no log is made.
#[test]
fn where_an_older_program_keeps_the_first_level_nothing_takes_the_place_of_a_log_that_is_missing() {
    let mut brokers = Brokers::without_a_log_at_the_first_level();
    let Node { config, disk, .. } = &brokers.nodes[0];
    for _ in 0..2 {
        let never = std::future::pending();
        let refused = Broker::start_on(config.clone(), Arc::new(disk.clone()), never);
        let Err(StartError::NotRegistered { reason }) = refused else { panic!("it has started") };
        assert_eq!(reason, "broker 2 works at feature levels 1 to 1, not at 2");
        assert!(disk.list(&PathBuf::from("data/logs/t-0")).is_err());
    }
    brokers.register_other((1, 2));
    brokers.start_all();
    brokers.check_lost(0, "a start beside newer programs alone");
    assert!(brokers.leading(1).is_some());
}
