//! Has the system begin to write a file's bytes to the disk, without waiting for them. Must know nothing of what they are.
#![allow(unsafe_code, reason = "a system call that no crate wraps; the block says why it is sound")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Begins with all that was written to the file and is not on its way yet. Does not make the system's report of an earlier failure its
/// own: whoever syncs through the handle hears of that.
pub(super) fn begin(file: impl AsFd) -> io::Result<()> {
    let (from, bytes) = (0, 0);
    // SAFETY: the descriptor is open as long as `file` lives, and the call takes no memory of ours. No bytes means up to the file's end.
    let outcome =
        unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), from, bytes, libc::SYNC_FILE_RANGE_WRITE) };
    if outcome == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // A system, a file system or a filter of calls that knows nothing of it leaves all to the sync.
        Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL | libc::ESPIPE | libc::EPERM) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a file of the machine, and one that is none")]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_begun_and_what_has_no_disk_is_left_to_the_sync() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        begin(&file).unwrap();
        file.sync_data().unwrap();
        begin(File::open("/dev/zero").unwrap()).unwrap();
        let (read, _write) = io::pipe().unwrap();
        begin(read).unwrap();
    }
}
