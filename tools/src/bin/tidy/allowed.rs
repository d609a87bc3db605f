//! The exceptions from the rules. Each has a reason; one that is no longer needed is a finding itself.

/// A file that may break a rule, and why.
pub(crate) struct Exception {
    pub(crate) path: &'static str,
    pub(crate) reason: &'static str,
}

/// A function that may be long, and why.
pub(crate) struct LongFunction {
    pub(crate) path: &'static str,
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
}

/// What the rules let pass.
pub(crate) struct Allowed {
    /// Files with `unsafe` in them.
    pub(crate) unsafe_code: &'static [Exception],
    /// Files with an `unwrap` or `expect` outside tests.
    pub(crate) unwraps: &'static [Exception],
    /// Files past the limit of lines.
    pub(crate) long_files: &'static [Exception],
    /// Functions past the limit of lines.
    pub(crate) long_functions: &'static [LongFunction],
}

impl Allowed {
    /// The exceptions of this workspace.
    pub(crate) fn here() -> Allowed {
        Allowed { unsafe_code: UNSAFE_CODE, unwraps: UNWRAPS, long_files: &[], long_functions: &[] }
    }
}

const UNSAFE_CODE: &[Exception] = &[
    Exception {
        path: "storage/src/fs/map.rs",
        reason: "a memory map is sound only while nobody shortens the file",
    },
    Exception {
        path: "storage/src/fs/sigbus.rs",
        reason: "a signal handler answers a page that cannot be read",
    },
    Exception {
        path: "storage/src/fs/write_back.rs",
        reason: "no crate wraps the call that has the system begin to write a file to the disk",
    },
    Exception {
        path: "proto/fuzz/src/memory.rs",
        reason: "an allocator that counts is the only way to see every allocation",
    },
    Exception {
        path: "benches/src/bin/read/allocations.rs",
        reason: "an allocator that counts is the only way to see every allocation",
    },
    Exception {
        path: "storage/fuzz/memory_limit.rs",
        reason: "an allocator that counts is the only way to see every allocation",
    },
];

const UNWRAPS: &[Exception] = &[];
