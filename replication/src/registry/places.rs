//! In which data directory each partition lies. Must know nothing of what is in them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use floodmark_storage::LogError;
use floodmark_storage::data_dir::{DataDir, DirLoad, PartitionName, choose};

/// Partitions by the data directories that have a directory of their name, mostly one.
#[derive(Debug, Default)]
pub(super) struct Places {
    dirs: BTreeMap<PartitionName, Vec<usize>>,
    /// Partitions in each data directory.
    counts: Vec<usize>,
    /// Taken out of the way here.
    set_aside: Vec<PathBuf>,
}

impl Places {
    /// What lies in the directories now.
    pub(super) fn look(data_dirs: &[DataDir]) -> Result<Places, LogError> {
        let mut places = Places { counts: vec![0; data_dirs.len()], ..Places::default() };
        for (at, dir) in data_dirs.iter().enumerate() {
            for name in dir.partitions()? {
                places.note(name, at);
            }
        }
        Ok(places)
    }

    fn note(&mut self, name: PartitionName, at: usize) {
        self.counts[at] += 1;
        self.dirs.entry(name).or_default().push(at);
    }

    /// The directory is gone.
    pub(super) fn forget(&mut self, name: &PartitionName, at: usize) {
        let Some(dirs) = self.dirs.get_mut(name) else { return };
        dirs.retain(|dir| *dir != at);
        if dirs.is_empty() {
            self.dirs.remove(name);
        }
        self.counts[at] -= 1;
    }

    /// The data directories that have a directory of this name.
    pub(super) fn of(&self, name: &PartitionName) -> Vec<usize> {
        self.dirs.get(name).cloned().unwrap_or_default()
    }

    /// Gives a partition the data directory where it shall lie.
    pub(super) fn choose(&mut self, data_dirs: &[DataDir], name: &PartitionName) -> Result<usize, LogError> {
        let at = choose_among(data_dirs, &self.counts)?;
        self.note(name.clone(), at);
        Ok(at)
    }

    /// The directory was taken out of the way.
    pub(super) fn set_aside(&mut self, name: &PartitionName, at: usize, aside: PathBuf) {
        self.set_aside.push(aside);
        self.forget(name, at);
    }

    /// The directory of each partition that `is_known` does not know, and those that were set aside.
    pub(super) fn strays(
        &self,
        data_dirs: &[DataDir],
        is_known: impl Fn(&PartitionName) -> bool,
    ) -> Vec<PathBuf> {
        let unknown = self.dirs.iter().filter(|(name, _)| !is_known(name));
        let paths =
            unknown.flat_map(|(name, dirs)| dirs.iter().map(|at| data_dirs[*at].partition_path(name)));
        paths.chain(self.set_aside.iter().cloned()).collect()
    }
}

fn choose_among(data_dirs: &[DataDir], counts: &[usize]) -> Result<usize, LogError> {
    let loads = data_dirs.iter().zip(counts).map(|(dir, partitions)| {
        Ok(DirLoad { partitions: *partitions, available_bytes: dir.available_bytes()? })
    });
    let loads: Vec<DirLoad> = loads.collect::<Result<_, LogError>>()?;
    // There is at least one directory.
    Ok(choose(&loads).unwrap_or(0))
}
