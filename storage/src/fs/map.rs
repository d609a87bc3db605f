//! A read-only memory map of a file's first bytes that turns a bad page into an error instead of the end of the process.
#![allow(unsafe_code, reason = "memory maps; each block says why it is sound")]

use std::io;
use std::ops::Range;

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapAsRawDesc, MmapOptions};

use super::sigbus::{self, Guarded};

/// Mapped (or, on a simulated disk, copied) bytes of a file that will not change.
#[derive(Debug)]
pub struct FileMap {
    held: Held,
}

#[derive(Debug)]
enum Held {
    Mapped { map: Mmap, guard: Guarded },
    Copied(Bytes),
}

impl FileMap {
    /// Maps the first `bytes` of `file`. The SIGBUS guard is set before the first byte can be touched.
    pub(super) fn of_file(file: impl MmapAsRawDesc, bytes: u64) -> io::Result<FileMap> {
        if bytes == 0 {
            return Ok(FileMap::of_copy(Bytes::new()));
        }
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        // SAFETY: a map is sound as long as its bytes do not change beneath a `&[u8]`. Only sealed segments and their
        // indexes are mapped: this process writes them no more, replaces them by rename instead of in place, and holds the
        // directory's lock against others. A page that cannot be read is made zero by the SIGBUS guard, which readers ask.
        let map = unsafe { MmapOptions::new().len(len).map(file)? };
        let guard = sigbus::guard(map.as_ptr() as usize, len)?;
        Ok(FileMap { held: Held::Mapped { map, guard } })
    }

    /// Bytes that stand in for a map.
    pub(super) fn of_copy(bytes: Bytes) -> FileMap {
        FileMap { held: Held::Copied(bytes) }
    }

    /// Brings the pages of `range` into memory, and reports a page that the disk cannot read as an error here instead of as
    /// a signal later. Blocks on the disk where pages are not resident.
    pub fn populate(&self, range: Range<usize>) -> io::Result<()> {
        match &self.held {
            Held::Copied(_) => Ok(()),
            Held::Mapped { guard, .. } if guard.is_damaged() => Err(damaged()),
            // Asking which pages are there costs a tenth of populating them again.
            Held::Mapped { map, .. } if is_resident(map, &range) => Ok(()),
            Held::Mapped { map, guard } => {
                match map.advise_range(Advice::PopulateRead, range.start, range.len()) {
                    // Kernels before 5.14 do not know the advice; there the guard alone stands watch.
                    Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                    other => other?,
                }
                if guard.is_damaged() { Err(damaged()) } else { Ok(()) }
            }
        }
    }

    /// True where every page of `range` is in memory now, and none has turned out to be unreadable.
    #[must_use]
    pub fn is_resident(&self, range: &Range<usize>) -> bool {
        match &self.held {
            Held::Copied(_) => true,
            Held::Mapped { map, guard } => !guard.is_damaged() && is_resident(map, range),
        }
    }

    /// Fails if a page of this map turned out to be unreadable since it was made; what was read from it is then not to be
    /// trusted. To be asked after bytes were used, not before.
    pub fn check(&self) -> io::Result<()> {
        match &self.held {
            Held::Mapped { guard, .. } if guard.is_damaged() => Err(damaged()),
            _ => Ok(()),
        }
    }
}

impl AsRef<[u8]> for FileMap {
    fn as_ref(&self) -> &[u8] {
        match &self.held {
            Held::Mapped { map, .. } => map,
            Held::Copied(bytes) => bytes,
        }
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        // The address range may belong to another map as soon as this one is gone.
        if let Held::Mapped { guard, .. } = &mut self.held {
            guard.release();
        }
    }
}

/// True where every page of `range` is in memory now; false also where that cannot be told.
fn is_resident(map: &Mmap, range: &Range<usize>) -> bool {
    const PAGES_A_CALL: usize = 1024;
    if range.end > map.len() {
        return false;
    }
    let page = rustix::param::page_size();
    let mut at = range.start - range.start % page;
    while at < range.end {
        let bytes = (range.end - at).min(PAGES_A_CALL * page);
        let mut pages = [0u8; PAGES_A_CALL];
        // SAFETY: the range lies in the map, begins at a page, and has no more pages than the array has bytes.
        let asked = unsafe { libc::mincore(map.as_ptr().add(at) as *mut _, bytes, pages.as_mut_ptr()) };
        if asked != 0 || pages[..bytes.div_ceil(page)].iter().any(|page| page & 1 == 0) {
            return false;
        }
        at += bytes;
    }
    true
}

fn damaged() -> io::Error {
    io::Error::other("a mapped page could not be read from the disk")
}
