//! Calls that only some files may make, so that a simulation can own disk and clock, and every queue has a bound.

use crate::Finding;
use crate::allowed::Allowed;
use crate::tree::{RustFile, Tree, behind_block};

/// Calls that panic where there is nothing.
pub(crate) const UNWRAPS: [&str; 4] = [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("];

/// Something in the code that may stand only where `may` says so.
struct Ban {
    /// Any of these, as whole words.
    words: &'static [&'static str],
    may: fn(&RustFile, usize) -> bool,
    instead: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        words: &["std::fs", "std::net", "std::os::fd", "std::os::unix", "rustix::fs", "libc::"],
        may: |file, at| {
            !in_pure_crate(file) || file.path.starts_with("storage/src/fs/") || file.is_test_at(at)
        },
        instead: "files are reached through storage/src/fs/, sockets not from here at all",
    },
    Ban {
        words: &[".sync_all(", ".sync_data(", "fdatasync", "fsync"],
        may: |file, at| {
            !in_pure_crate(file) || file.path.starts_with("storage/src/fs/") || file.is_test_at(at)
        },
        instead: "sync through storage/src/fs/, naming the SyncPoint",
    },
    Ban {
        words: &["SystemTime::now", "Instant::now"],
        may: |file, at| {
            matches!(file.path.as_str(), "storage/src/clock.rs" | "client/src/clock.rs")
                || file.path.starts_with("benches/")
                || file.is_test_at(at)
                || is_runtime_clock(file, at)
        },
        instead: "take the time from storage/src/clock.rs, so that a simulation can own it",
    },
    Ban {
        words: &["mpsc::channel()", "mpsc::channel::<", "unbounded_channel", "unbounded"],
        may: |_, _| false,
        instead: "every queue has a limit; use a bounded channel",
    },
    Ban {
        words: &["process::exit", "process::abort"],
        may: |file, _| file.path.ends_with("/main.rs") || file.is_test_file(),
        instead: "return the error; only a main.rs ends the process",
    },
];

pub(crate) fn check(tree: &Tree, allowed: &Allowed, findings: &mut Vec<Finding>) {
    for file in &tree.rust {
        for ban in BANS {
            check_ban(file, ban, findings);
        }
        check_grouped_imports(file, findings);
        check_unwraps(file, allowed, findings);
        check_unsafe(file, allowed, findings);
    }
}

/// The runtime's own clock, which stands still where a test says so and a simulation can own it.
fn is_runtime_clock(file: &RustFile, at: usize) -> bool {
    let imports = |line: &str| line.starts_with("use tokio::time::") && line.contains("Instant");
    file.text[..at].ends_with("tokio::time::")
        || (file.text[at..].starts_with("Instant") && file.text.lines().any(imports))
}

/// The crates that reach no file and no socket but through the seam.
fn in_pure_crate(file: &RustFile) -> bool {
    file.path.starts_with("storage/src/") || file.path.starts_with("proto/src/")
}

fn check_ban(file: &RustFile, ban: &Ban, findings: &mut Vec<Finding>) {
    for word in ban.words {
        for at in file.code_places(word).filter(|&at| !(ban.may)(file, at)) {
            findings.push(Finding::new(&file.path, file.line_at(at), format!("`{word}`: {}", ban.instead)));
        }
    }
}

/// `use std::{fs, io}` names `std::fs` too.
fn check_grouped_imports(file: &RustFile, findings: &mut Vec<Finding>) {
    if !in_pure_crate(file) || file.path.starts_with("storage/src/fs/") {
        return;
    }
    for at in file.code_places("std::{").filter(|&at| !file.is_test_at(at)) {
        let open = at + "std::".len();
        let group = &file.code[open + 1..behind_block(&file.code, open) - 1];
        for name in top_level_names(group).filter(|name| matches!(*name, "fs" | "net")) {
            let message = format!(
                "`std::{name}`: files are reached through storage/src/fs/, sockets not from here at all"
            );
            findings.push(Finding::new(&file.path, file.line_at(at), message));
        }
    }
}

/// The first segment of each path in a group of imports.
fn top_level_names(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let parts = group.split(move |c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.map(|part| part.split("::").next().unwrap_or(part).trim())
}

fn check_unwraps(file: &RustFile, allowed: &Allowed, findings: &mut Vec<Finding>) {
    if allowed.unwraps.iter().any(|e| e.path == file.path) {
        return;
    }
    for word in UNWRAPS {
        for at in file.code_places(word).filter(|&at| !file.is_test_at(at)) {
            let message = format!("`{word}`: return the error, or say in the types why it cannot happen");
            findings.push(Finding::new(&file.path, file.line_at(at), message));
        }
    }
}

fn check_unsafe(file: &RustFile, allowed: &Allowed, findings: &mut Vec<Finding>) {
    if allowed.unsafe_code.iter().any(|e| e.path == file.path) {
        return;
    }
    for at in file.code_places("unsafe") {
        let message = "`unsafe` outside the files that tidy's allowed.rs names; use a safe call, or name the file with its reason";
        findings.push(Finding::new(&file.path, file.line_at(at), message));
    }
}
