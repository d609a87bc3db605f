//! An end for processes that a test waits for: one that hangs is killed, and the test fails by what it then finds.

use std::process::{Child, Command};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Far longer than anything takes that goes well.
const PATIENCE: Duration = Duration::from_secs(150);

/// Kills a process that takes longer than any may. Dropped, it does not any more: to be done once the process has ended.
pub(crate) struct Deadline(#[expect(dead_code, reason = "held for its drop alone")] SyncSender<()>);

impl Deadline {
    #[allow(clippy::print_stderr, reason = "whoever reads of the failure shall know of the kill")]
    pub(crate) fn of(child: &Child, what: impl Into<String>) -> Deadline {
        let (held, dropped) = sync_channel(1);
        let (id, what) = (child.id().to_string(), what.into());
        thread::spawn(move || {
            if dropped.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("killed, because it has not ended for {PATIENCE:?}: {what}");
                let _ = Command::new("kill").args(["-KILL", &id]).status();
            }
        });
        Deadline(held)
    }
}
