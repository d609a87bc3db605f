//! Bytes that belong to no log any more and may still be wanted: they go under names that no log reads, and stay until somebody
//! removes them.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use super::files;
use crate::error::LogError;
use crate::fs::{
    Disk, DiskFile, OpenMode, SyncPoint, read_full_at, remove_if_present, with_suffix, write_all_at,
};
use crate::segment::name;

/// Bytes copied, or compared, at a time.
const COPY_BYTES: usize = 1 << 20;
const SUFFIX: &str = ".damaged-";

/// Bytes of one data file that go aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The data file.
    pub from: PathBuf,
    /// First byte that goes; with 0 the whole file may change its name.
    pub from_byte: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Their new place.
    pub to: PathBuf,
}

/// Whether this module gave a file its name.
pub(super) fn is_set_aside(name: &str) -> bool {
    name.split_once(SUFFIX).is_some_and(|(of, number)| {
        name::parse(of).is_some() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// `00000000000000000017.log.damaged-1`, or the next number that is free.
pub(super) fn free_name(disk: &dyn Disk, dir: &Path, path: &Path) -> Result<PathBuf, LogError> {
    let taken = disk.list(dir).map_err(LogError::io("list", dir))?;
    let is_taken = |path: &Path| {
        path.file_name().is_some_and(|name| taken.iter().any(|entry| entry.name.as_str() == name))
    };
    let mut names = (1_u64..).map(|n| with_suffix(path, &format!("{SUFFIX}{n}")));
    names.find(|name| !is_taken(name)).ok_or(LogError::Refused {
        path: dir.to_owned(),
        reason: "has no name left for damaged bytes".to_owned(),
    })
}

/// Copies the end of a data file, from `from_byte` on. Its copy is on the disk, under its name, when this returns; one that lies there
/// since an opening that a crash ended is taken for it.
pub(super) fn set_tail_aside(
    disk: &dyn Disk,
    dir: &Path,
    from: &Path,
    from_byte: u64,
    bytes: u64,
) -> Result<SetAside, LogError> {
    let mut part = SetAside { from: from.to_owned(), from_byte, bytes, to: free_name(disk, dir, from)? };
    if let Some(there) = copy_that_is_there(disk, dir, &part)? {
        part.to = there;
    } else {
        copy_tail(disk, &part)?;
    }
    // Also where it was there: whoever was stopped may not have come this far.
    files::settle_names(disk, dir)?;
    Ok(part)
}

/// Gives a whole data file another name, which is durable once names are settled.
pub(super) fn set_file_aside(
    disk: &dyn Disk,
    dir: &Path,
    from: &Path,
    bytes: u64,
) -> Result<SetAside, LogError> {
    let file = disk.open(from, OpenMode::Write).map_err(LogError::io("open", from))?;
    // No sync of the log's will ever cover it again.
    settle(&*file, from)?;
    let to = free_name(disk, dir, from)?;
    disk.rename(from, &to).map_err(LogError::io("rename", from))?;
    Ok(SetAside { from: from.to_owned(), from_byte: 0, bytes, to })
}

/// Copies what `part` names. Half a copy never has the name, so that nobody takes it for a whole one; where there is no room for it, it
/// takes none.
pub(super) fn copy_tail(disk: &dyn Disk, part: &SetAside) -> Result<(), LogError> {
    let unfinished = with_suffix(&part.to, files::TEMPORARY);
    copy_to(disk, part, &unfinished).inspect_err(|_| {
        // What is left of it goes at the next opening.
        let _ = remove_if_present(disk, &unfinished);
    })?;
    disk.rename(&unfinished, &part.to).map_err(LogError::io("rename", &unfinished))
}

fn copy_to(disk: &dyn Disk, part: &SetAside, to_path: &Path) -> Result<(), LogError> {
    let from = disk.open(&part.from, OpenMode::Read).map_err(LogError::io("open", &part.from))?;
    let to = disk.open(to_path, OpenMode::Create).map_err(LogError::io("create", to_path))?;
    let mut piece = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < part.bytes {
        let wanted = COPY_BYTES.min((part.bytes - at) as usize);
        let read = read_full_at(&*from, &mut piece[..wanted], part.from_byte + at)
            .map_err(LogError::io("read", &part.from))?;
        if read == 0 {
            return Err(LogError::damaged(&part.from, part.from_byte + at, "the file was cut meanwhile"));
        }
        write_all_at(&*to, &mut [IoSlice::new(&piece[..read])], at)
            .map_err(LogError::io("write", to_path))?;
        at += read as u64;
    }
    settle(&*to, to_path)
}

fn settle(file: &dyn DiskFile, path: &Path) -> Result<(), LogError> {
    file.sync(SyncPoint::SetAside).map_err(LogError::io("sync", path))
}

fn copy_that_is_there(disk: &dyn Disk, dir: &Path, part: &SetAside) -> Result<Option<PathBuf>, LogError> {
    let Some(of) = part.from.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    for entry in disk.list(dir).map_err(LogError::io("list", dir))? {
        let is_copy = entry.name.strip_prefix(of).is_some_and(|rest| rest.starts_with(SUFFIX))
            && is_set_aside(&entry.name)
            && entry.bytes == part.bytes;
        let path = dir.join(&entry.name);
        if is_copy && is_same(disk, part, &path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn is_same(disk: &dyn Disk, part: &SetAside, copy: &Path) -> Result<bool, LogError> {
    let from = disk.open(&part.from, OpenMode::Read).map_err(LogError::io("open", &part.from))?;
    let to = disk.open(copy, OpenMode::Read).map_err(LogError::io("open", copy))?;
    let (mut left, mut right) = (vec![0; COPY_BYTES], vec![0; COPY_BYTES]);
    let read = |file: &dyn DiskFile, path: &Path, into: &mut [u8], at: u64| {
        read_full_at(file, into, at).map_err(LogError::io("read", path))
    };
    let mut at = 0;
    while at < part.bytes {
        let wanted = COPY_BYTES.min((part.bytes - at) as usize);
        let of_log = read(&*from, &part.from, &mut left[..wanted], part.from_byte + at)?;
        let of_copy = read(&*to, copy, &mut right[..wanted], at)?;
        if of_log != wanted || of_copy != wanted || left[..wanted] != right[..wanted] {
            return Ok(false);
        }
        at += wanted as u64;
    }
    Ok(true)
}
