//! What is found out of logs that are gone.

use super::*;

/// Removes what lies in a partition's directories, and those themselves where `whole` is wanted.
fn lose(disk: &SimDisk, name: &str, whole: bool) {
    for dir in ["a", "b"].map(|data| Path::new(data).join("logs").join(name)) {
        for entry in disk.list(&dir).unwrap_or_default() {
            disk.remove_file(&dir.join(entry.name)).unwrap();
        }
        if whole {
            let _ = disk.remove_dir(&dir);
        }
    }
}

fn missing(disk: &SimDisk, cluster: &Cluster) -> BTreeSet<(TopicId, u32)> {
    missing_logs(&data_dirs(disk), &cluster.0, NODE).unwrap()
}

/// One topic whose log is closed, and one that is to lose its own.
fn kept_and_gone(disk: &SimDisk) -> (Cluster, TopicId) {
    let mut cluster = Cluster::new();
    cluster.create("kept", 1, 1);
    let gone = cluster.create("gone", 2, 1);
    let registry = open(disk, &cluster);
    runtime().block_on(append(&registry.get(gone, 0).unwrap()));
    registry.close(PATIENCE);
    (cluster, gone)
}

/// Its directory alone says nothing of what was in it.
#[test]
fn a_log_that_is_gone_is_missing_with_its_directory_or_without() {
    for whole in [true, false] {
        let disk = SimDisk::new();
        let (mut cluster, gone) = kept_and_gone(&disk);
        assert_eq!(missing(&disk, &cluster), BTreeSet::new());
        lose(&disk, "gone-0", whole);
        let files = disk.files();
        // Nothing is made by a look: a process that is killed behind it leaves the same to the next.
        for _ in 0..2 {
            assert_eq!(missing(&disk, &cluster), [(gone, 0)].into());
            assert_eq!(disk.files(), files);
        }
        let elsewhere = missing_logs(&data_dirs(&disk), &cluster.0, BrokerId(2)).unwrap();
        assert_eq!(elsewhere, BTreeSet::new(), "it holds none of them");
        cluster.change(Command::DeleteTopic { topic: gone });
        assert_eq!(missing(&disk, &cluster), BTreeSet::new(), "nobody wants it any more");
    }
}

#[test]
fn a_log_is_missing_also_where_there_is_no_room_for_another() {
    let disk = SimDisk::new();
    let (cluster, gone) = kept_and_gone(&disk);
    lose(&disk, "gone-0", true);
    disk.limit_capacity(disk.files().values().map(Vec::len).sum::<usize>() as u64);
    assert_eq!(missing(&disk, &cluster), [(gone, 0)].into());
    let (registry, unusable) = open_all(&disk, &cluster);
    assert_eq!(unusable.len(), 1, "{unusable:?}");
    disk.limit_capacity(u64::MAX);
    assert!(registry.0.follow(&cluster.0).is_empty());
    assert_eq!(registry.get(gone, 0).unwrap().log_end(), Offset(0));
}

/// What another topic of its name has left is not its log.
#[test]
fn a_log_is_missing_where_only_a_topic_that_is_gone_has_one_of_its_name() {
    let disk = SimDisk::new();
    let (mut cluster, gone) = kept_and_gone(&disk);
    cluster.change(Command::DeleteTopic { topic: gone });
    let again = cluster.create("gone", 3, 2);
    assert_eq!(missing(&disk, &cluster), [(again, 0), (again, 1)].into());
}

/// A log of which a part is left is damaged, and one that cannot be looked at may be well: nothing is made in the place of either.
#[test]
fn a_log_that_cannot_be_read_is_not_missing() {
    let disk = SimDisk::new();
    let (cluster, _) = kept_and_gone(&disk);
    let there = ["a/logs/gone-0", "b/logs/gone-0"].map(Path::new);
    let dir = there.into_iter().find(|dir| disk.list(dir).is_ok()).unwrap();
    disk.make_unreadable(&dir.join("partition.metadata"), 0, 1);
    assert_eq!(missing(&disk, &cluster), BTreeSet::new());
    disk.remove_file(&dir.join("partition.metadata")).unwrap();
    disk.remove_file(&dir.join("log.manifest")).unwrap();
    assert_eq!(missing(&disk, &cluster), BTreeSet::new());
}
