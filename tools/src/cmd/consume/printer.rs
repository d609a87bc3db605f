//! Prints records as they come, and tells when it has printed enough.

use std::io;

use floodmark_client::Record;

use crate::records::write::RecordWriter;

pub(super) struct Printer {
    writer: RecordWriter,
    /// Records that may still be printed; `None` for all.
    left: Option<u64>,
    /// Something was printed that nobody has seen yet.
    pub(super) is_dirty: bool,
}

impl Printer {
    pub(super) fn new(writer: RecordWriter, max: Option<u64>) -> Printer {
        Printer { writer, left: max, is_dirty: false }
    }

    pub(super) fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// False where it has printed enough already.
    pub(super) fn print(&mut self, record: &Record) -> io::Result<bool> {
        if self.is_full() {
            return Ok(false);
        }
        self.writer.write(&record.into())?;
        self.is_dirty = true;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(true)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.is_dirty = false;
        self.writer.flush()
    }
}
