//! openraft's own suite for stores, on the machine's disk and on the simulated one.

use floodmark_storage::fs::RealDisk;
use openraft::testing::{StoreBuilder, Suite};

use super::*;

struct OnDisk(Option<SimDisk>);

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Option<tempfile::TempDir>> for OnDisk {
    async fn build(
        &self,
    ) -> Result<(Option<tempfile::TempDir>, LogStore, StateMachine), types::StorageError> {
        let mut options = options(&self.0.clone().unwrap_or_default());
        let mut guard = None;
        if self.0.is_some() {
            // Every store begins on a disk of its own.
            options.context = context(&new_disk());
        } else {
            let dir = tempfile::tempdir().unwrap();
            options.context.disk = Arc::new(RealDisk);
            options.data_dir = dir.path().to_owned();
            guard = Some(dir);
        }
        let pressure = Arc::new(DiskPressure::default());
        let opened = open_alone(&options, &pressure).await.unwrap();
        let growth = Growth { bytes: 0, limit_bytes: u64::MAX, is_large: Arc::default() };
        let (machine, _) = StateMachine::new(opened.state, opened.snapshots, growth);
        let (store, _) = LogStore::spawn(opened.log, pressure).unwrap();
        Ok((guard, store, machine))
    }
}

#[test]
fn openraft_suite_on_a_real_disk() {
    Suite::test_all(OnDisk(None)).unwrap();
}

#[test]
fn openraft_suite_on_a_simulated_disk() {
    Suite::test_all(OnDisk(Some(SimDisk::new()))).unwrap();
}
