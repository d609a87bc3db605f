//! Runs a program to its end under a deadline; its output goes through files, so that it never blocks on a full pipe.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// What a program left behind.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` with its output in `dir/<name>.out` and `.err`. Panics where it does not start or does not end in time; it is
/// dead then.
pub(crate) fn run(mut command: Command, dir: &Path, name: &str, deadline: Duration) -> Finished {
    let (out, err) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
    command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let Some(status) = await_exit(&mut child, deadline) else {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("{command:?} did not end within {deadline:?}; {} says:\n{}", err.display(), read(&err));
    };
    Finished { status, stdout: read(&out), stderr: read(&err) }
}

/// Waits until `child` ends, at most for `deadline`.
pub(crate) fn await_exit(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let mut status = None;
    poll(deadline, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status
}

/// Asks until the answer is yes; false where the deadline passes first.
pub(crate) fn poll(deadline: Duration, mut is_done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !is_done() {
        if start.elapsed() > deadline {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

/// A file as text, whatever its bytes.
pub(crate) fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
