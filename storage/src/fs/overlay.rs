//! A disk over another one that keeps every change in memory: what an operation would do, without doing it.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DirEntry, Disk, DiskFile, DiskLock, FileMap, OpenMode, SyncPoint, read_full_at};

/// Reads through to the disk below, and never writes to it. Takes memory for what is written.
#[derive(Debug)]
pub struct OverlayDisk {
    below: Arc<dyn Disk>,
    /// Files that were written or renamed; `None` for names that were removed.
    changed: Mutex<BTreeMap<PathBuf, Option<Arc<OverlayFile>>>>,
}

impl OverlayDisk {
    /// As `below` is now, with nothing changed.
    #[must_use]
    pub fn new(below: Arc<dyn Disk>) -> OverlayDisk {
        OverlayDisk { below, changed: Mutex::new(BTreeMap::new()) }
    }

    /// The file as it is to be seen here, ready to be changed.
    fn wrapped(&self, path: &Path) -> io::Result<Arc<OverlayFile>> {
        match self.changed.lock().get(path) {
            Some(Some(file)) => Ok(Arc::clone(file)),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => Ok(Arc::new(OverlayFile::over(self.below.open(path, OpenMode::Read)?)?)),
        }
    }
}

impl Disk for OverlayDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = match mode {
            OpenMode::Read if !self.changed.lock().contains_key(path) => {
                return self.below.open(path, OpenMode::Read);
            }
            OpenMode::Read | OpenMode::Write => self.wrapped(path)?,
            // Nothing of it comes to a disk.
            OpenMode::Through(_) => return Err(io::ErrorKind::InvalidInput.into()),
            OpenMode::Create => Arc::new(OverlayFile::default()),
        };
        self.changed.lock().insert(path.to_owned(), Some(Arc::clone(&file)));
        Ok(file)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.below.list(path).map(|_| ())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries: BTreeMap<String, DirEntry> =
            self.below.list(dir)?.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        for (path, file) in self.changed.lock().iter().filter(|(path, _)| path.parent() == Some(dir)) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some(file) = file else {
                entries.remove(name);
                continue;
            };
            let modified_ms = entries.get(name).map_or(0, |entry| entry.modified_ms);
            let entry = DirEntry { name: name.to_owned(), is_dir: false, bytes: file.size()?, modified_ms };
            entries.insert(name.to_owned(), entry);
        }
        Ok(entries.into_values().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.wrapped(from)?;
        let mut changed = self.changed.lock();
        changed.insert(from.to_owned(), None);
        changed.insert(to.to_owned(), Some(file));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.wrapped(path)?;
        self.changed.lock().insert(path.to_owned(), None);
        Ok(())
    }

    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a dry run removes no directories"))
    }

    fn sync_dir(&self, _dir: &Path, _point: SyncPoint) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<DiskLock> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a dry run takes locks from the disk below"))
    }

    fn available_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.below.available_bytes(dir)
    }
}

#[derive(Debug, Default)]
struct OverlayFile {
    below: Option<Arc<dyn DiskFile>>,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    /// Leading bytes that the file below still gives.
    below_bytes: u64,
    size: u64,
    /// In the order in which they were written.
    patches: Vec<(u64, Vec<u8>)>,
}

impl OverlayFile {
    fn over(below: Arc<dyn DiskFile>) -> io::Result<OverlayFile> {
        let size = below.size()?;
        let content = Content { below_bytes: size, size, patches: Vec::new() };
        Ok(OverlayFile { below: Some(below), content: Mutex::new(content) })
    }
}

impl DiskFile for OverlayFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content.lock().size)
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let content = self.content.lock();
        let wanted = content.size.saturating_sub(at).min(into.len() as u64);
        let into = &mut into[..wanted as usize];
        into.fill(0);
        if let Some(below) = &self.below {
            let from_below = content.below_bytes.saturating_sub(at).min(wanted);
            read_full_at(&**below, &mut into[..from_below as usize], at)?;
        }
        for (start, bytes) in &content.patches {
            let from = at.max(*start);
            let to = (at + wanted).min(start + bytes.len() as u64);
            if from < to {
                into[(from - at) as usize..(to - at) as usize]
                    .copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
            }
        }
        Ok(into.len())
    }

    /// Nobody asks whoever looks on for more speed.
    fn read_at_hand(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn write_at(&self, from: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let bytes: Vec<u8> = from.iter().flat_map(|slice| slice.iter().copied()).collect();
        let mut content = self.content.lock();
        content.size = content.size.max(at + bytes.len() as u64);
        let written = bytes.len();
        content.patches.push((at, bytes));
        Ok(written)
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        content.size = bytes;
        content.below_bytes = content.below_bytes.min(bytes);
        for (start, patch) in &mut content.patches {
            patch.truncate(bytes.saturating_sub(*start) as usize);
        }
        Ok(())
    }

    fn sync(&self, _point: SyncPoint) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, _bytes: u64) -> io::Result<FileMap> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a changed file lies in memory already"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{SimDisk, read_small_file, write_all_at};

    fn write(disk: &dyn Disk, path: &Path, mode: OpenMode, bytes: &[u8], at: u64) {
        let file = disk.open(path, mode).unwrap();
        write_all_at(&*file, &mut [IoSlice::new(bytes)], at).unwrap();
    }

    #[test]
    fn changes_are_seen_above_and_not_below() {
        let below = SimDisk::new();
        let dir = Path::new("d");
        below.create_dir_all(dir).unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| dir.join(name));
        write(&below, &a, OpenMode::Create, b"0123456789", 0);
        write(&below, &b, OpenMode::Create, b"kept", 0);
        let before = below.list(dir).unwrap();

        let disk = OverlayDisk::new(Arc::new(below.clone()));
        let read = |path: &Path| read_small_file(&disk, path, 100).unwrap();
        write(&disk, &a, OpenMode::Write, b"xy", 3);
        assert_eq!(read(&a).unwrap(), b"012xy56789");
        disk.open(&a, OpenMode::Write).unwrap().set_size(4).unwrap();
        write(&disk, &a, OpenMode::Write, b"z", 6);
        assert_eq!(read(&a).unwrap(), b"012x\0\0z");
        disk.rename(&a, &c).unwrap();
        assert_eq!((read(&a), read(&c).unwrap()), (None, b"012x\0\0z".to_vec()));
        disk.remove_file(&b).unwrap();
        assert!(disk.remove_file(&b).is_err() && disk.open(&b, OpenMode::Write).is_err());
        write(&disk, &b, OpenMode::Create, b"new", 0);
        let names: Vec<(String, u64)> =
            disk.list(dir).unwrap().into_iter().map(|entry| (entry.name, entry.bytes)).collect();
        assert_eq!(names, [("b".to_owned(), 3), ("c".to_owned(), 7)]);

        assert_eq!(below.list(dir).unwrap(), before);
        assert_eq!(read_small_file(&below, &a, 100).unwrap().unwrap(), b"0123456789");
        assert_eq!(read_small_file(&below, &b, 100).unwrap().unwrap(), b"kept");
    }
}
