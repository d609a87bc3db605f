//! What can be wrong with a small file of the log, told exactly: which file, where in it, what was there.
//! Must not know paths or I/O; whoever read the bytes adds the path.

use std::fmt;

/// Where in a file something is wrong, in the unit in which that file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Line of a text file, counted from one.
    Line(usize),
    /// Entry of a table, counted from zero.
    Entry(usize),
    /// Byte, counted from zero.
    Byte(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(n) => write!(f, "line {n}"),
            Place::Entry(n) => write!(f, "entry {n}"),
            Place::Byte(n) => write!(f, "byte {n}"),
        }
    }
}

/// Why bytes are not the file they should be. `file` names the kind of file, not its path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Written by a newer program; nothing may be rewritten or deleted because of it.
    #[error(
        "{file} has version {found}, newer than {supported}, the newest this program reads: upgrade to open it"
    )]
    NewerVersion {
        /// Kind of file.
        file: &'static str,
        /// The version it says it has.
        found: i64,
        /// The newest version read here.
        supported: i64,
    },
    /// A version that was never written by anyone.
    #[error("{file} has version {found}, which does not exist")]
    UnknownVersion {
        /// Kind of file.
        file: &'static str,
        /// The version it says it has.
        found: i64,
    },
    /// Stored and computed checksums differ.
    #[error("{file} is damaged: its checksum says {stored:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// Kind of file.
        file: &'static str,
        /// What the file says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// Ends before what its head announces, or in the middle of an entry.
    #[error("{file} is cut short: needs {need_bytes} bytes, has {have_bytes}")]
    CutShort {
        /// Kind of file.
        file: &'static str,
        /// Bytes demanded.
        need_bytes: u64,
        /// Bytes present.
        have_bytes: u64,
    },
    /// Goes on after its end.
    #[error("{file} goes on at {place} after its end")]
    Trailing {
        /// Kind of file.
        file: &'static str,
        /// First place past the end.
        place: Place,
    },
    /// Larger than any such file can be.
    #[error("{file} of {size_bytes} bytes exceeds the limit of {limit_bytes}")]
    TooLarge {
        /// Kind of file.
        file: &'static str,
        /// Its size.
        size_bytes: u64,
        /// The cap.
        limit_bytes: u64,
    },
    /// A line that does not read as it must, is missing, or is not text.
    #[error("{file}, line {line}: expected {expected}")]
    Malformed {
        /// Kind of file.
        file: &'static str,
        /// Line, counted from one.
        line: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// A field of a line that is not a decimal number of its type.
    #[error("{file}, line {line}: {field} is not a number or out of range")]
    NotANumber {
        /// Kind of file.
        file: &'static str,
        /// Line, counted from one.
        line: usize,
        /// The field.
        field: &'static str,
    },
    /// A value that the field can never have.
    #[error("{file}, {place}: {field} is {value}, out of range")]
    OutOfRange {
        /// Kind of file.
        file: &'static str,
        /// Where.
        place: Place,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
    /// A value that breaks the order of its file.
    #[error("{file}, {place}: {field} is {value}, out of order after {previous}")]
    OutOfOrder {
        /// Kind of file.
        file: &'static str,
        /// Where.
        place: Place,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: i64,
        /// What came before it.
        previous: i64,
    },
    /// A key that may stand in the file only once.
    #[error("{file}, {place}: {field} {value} stands there for the second time")]
    Repeated {
        /// Kind of file.
        file: &'static str,
        /// Where the second one is.
        place: Place,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: i64,
    },
}
