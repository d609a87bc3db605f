//! Each rule beside a tree that passes and trees that fail.

use crate::allowed::{Allowed, Exception, LongFunction};
use crate::tree::Tree;
use crate::{Finding, check, mask};

const NOTHING: Allowed = Allowed { unsafe_code: &[], unwraps: &[], long_files: &[], long_functions: &[] };

/// What the rules say of files given as path and text.
fn findings_with(files: &[(&str, &str)], allowed: &Allowed) -> Vec<Finding> {
    check(
        &Tree::new(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()),
        allowed,
    )
}

/// One file with a head before `body`, so that `body` starts on line 2.
fn findings_in(path: &str, body: &str) -> Vec<Finding> {
    findings_with(&[(path, &format!("//! Head.\n{body}"))], &NOTHING)
}

#[track_caller]
fn assert_passes(path: &str, body: &str) {
    let findings = findings_in(path, body);
    assert!(findings.is_empty(), "{findings:?}");
}

/// Exactly one finding, at `line`, that mentions `part`.
#[track_caller]
fn assert_fails(path: &str, body: &str, line: usize, part: &str) {
    assert_single(&findings_in(path, body), path, line, part);
}

#[track_caller]
fn assert_single(findings: &[Finding], path: &str, line: usize, part: &str) {
    assert!(
        matches!(findings, [f] if f.path == path && f.line == line && f.message.contains(part)),
        "expected one finding at {path}:{line} with {part:?}, found {findings:?}"
    );
}

#[test]
fn a_finding_names_file_and_line() {
    let findings = findings_in("proto/src/a.rs", "\nfn f() { g().unwrap() }\n");
    assert!(findings[0].to_string().starts_with("proto/src/a.rs:3: `.unwrap()`"), "{}", findings[0]);
}

#[test]
fn head() {
    assert_passes("proto/src/a.rs", "");
    for text in ["", "\n//! Late.\n", "// Plain.\n", "//!\n", "use a::b;\n"] {
        assert_single(&findings_with(&[("a.rs", text)], &NOTHING), "a.rs", 1, "no head");
    }
}

#[test]
fn files_and_sockets_stay_behind_the_seam() {
    let opens = "fn f() { std::fs::read(\"x\"); }\n";
    assert_passes("storage/src/fs/real.rs", opens);
    assert_passes("tools/src/a.rs", opens);
    assert_passes("storage/tests/crash.rs", opens);
    assert_passes("storage/src/log/tests.rs", opens);
    assert_passes("storage/src/a.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n");
    assert_passes("storage/src/a.rs", "// std::fs is named in a comment\nconst A: &str = \"std::fs\";\n");
    assert_passes("storage/src/a.rs", "use std::{fmt, io};\n");
    assert_fails("storage/src/a.rs", opens, 2, "storage/src/fs/");
    assert_fails("proto/src/a.rs", "use std::net::TcpStream;\n", 2, "std::net");
    assert_fails("storage/src/a.rs", "use std::{fmt, fs, io};\n", 2, "std::fs");
    assert_fails("storage/src/a.rs", "use std::{fmt::{self, Debug}, net::TcpStream};\n", 2, "std::net");
    assert_fails("storage/src/a.rs", "#[cfg(test)]\nmod tests {}\nuse std::fs;\n", 4, "std::fs");
    assert_fails("storage/src/a.rs", "use rustix::fs::fallocate;\n", 2, "rustix::fs");
}

#[test]
fn syncs_stay_behind_the_seam() {
    assert_passes("storage/src/fs/real.rs", "fn f(a: File) { a.sync_data(); }\n");
    assert_fails("storage/src/a.rs", "fn f(a: File) { a.sync_data(); }\n", 2, "SyncPoint");
}

#[test]
fn clock() {
    let asks = "fn f() { Instant::now(); }\n";
    for path in ["storage/src/clock.rs", "benches/src/bin/append.rs", "tools/tests/kafka_interop.rs"] {
        assert_passes(path, asks);
    }
    assert_passes("storage/src/a.rs", "fn f() { MyInstant::now(); }\n");
    assert_fails("tools/src/a.rs", asks, 2, "clock.rs");
    assert_fails("storage/src/a.rs", "fn f() {\n    SystemTime::now();\n}\n", 3, "clock.rs");
}

#[test]
fn channels_have_a_bound() {
    assert_passes("tools/src/a.rs", "fn f() { mpsc::sync_channel(4); tokio::sync::mpsc::channel(8); }\n");
    assert_fails("tools/src/a.rs", "fn f() { mpsc::channel(); }\n", 2, "limit");
    assert_fails("tools/src/a.rs", "fn f() { mpsc::channel::<u8>(); }\n", 2, "limit");
    assert_fails("tools/src/a.rs", "fn f() { unbounded_channel(); }\n", 2, "limit");
}

#[test]
fn unsafe_code_is_listed() {
    const LISTED: Allowed =
        Allowed { unsafe_code: &[Exception { path: "storage/src/fs/map.rs", reason: "maps" }], ..NOTHING };
    let text = "//! Head.\nfn f() { unsafe { g() } }\n";
    assert!(findings_with(&[("storage/src/fs/map.rs", text)], &LISTED).is_empty());
    assert_passes("a.rs", "#![allow(unsafe_code, reason = \"not the word itself\")]\n");
    assert_fails("storage/src/fs/map.rs", "fn f() { unsafe { g() } }\n", 2, "unsafe");
    let unneeded = findings_with(&[("storage/src/fs/map.rs", "//! Head.\n")], &LISTED);
    assert_single(&unneeded, "storage/src/fs/map.rs", 1, "no longer needed");
}

#[test]
fn only_main_ends_the_process() {
    assert_passes("tools/src/main.rs", "fn main() { std::process::exit(1) }\n");
    assert_passes("storage/fuzz/memory_limit.rs", "fn f() { std::process::abort() }\n");
    assert_fails("tools/src/cmd.rs", "fn f() { std::process::exit(1) }\n", 2, "main.rs");
}

#[test]
fn leftover_notes() {
    assert_passes("a.rs", "// Methods, mastodons.\nconst A: &str = \"TODO in a literal\";\n");
    assert_passes("a.rs", "fn todo() {}\n");
    for note in ["TODO", "FIXME", "XXX", "HACK"] {
        assert_fails("a.rs", &format!("\n// {note}: later\n"), 3, note);
        let script = findings_with(&[(".ci/run", &format!("#!/bin/sh\n# {note}\n"))], &NOTHING);
        assert_single(&script, ".ci/run", 2, note);
    }
    for call in ["todo!()", "unimplemented!()", "dbg!(1)"] {
        assert_fails("a.rs", &format!("fn f() {{ {call} }}\n"), 2, "left over");
    }
}

#[test]
fn unwrap_only_in_tests() {
    let call = "fn f() { g().unwrap(); }\n";
    assert_passes("storage/tests/model.rs", call);
    assert_passes("storage/src/log/tests.rs", call);
    assert_passes("a.rs", &format!("#[cfg(test)]\nmod tests {{\n{call}}}\n"));
    assert_passes("a.rs", "fn f() { g().unwrap_or(1); }\n");
    assert_fails("a.rs", call, 2, ".unwrap()");
    assert_fails("a.rs", "fn f() { g().expect(\"why\"); }\n", 2, ".expect(");
    const LISTED: Allowed = Allowed { unwraps: &[Exception { path: "a.rs", reason: "a proof" }], ..NOTHING };
    assert!(findings_with(&[("a.rs", &format!("//! Head.\n{call}"))], &LISTED).is_empty());
    let only_in_test = format!("//! Head.\n#[cfg(test)]\nmod tests {{\n{call}}}\n");
    assert_single(&findings_with(&[("a.rs", &only_in_test)], &LISTED), "a.rs", 1, "no longer needed");
}

#[test]
fn ignored_tests_say_why() {
    assert_passes("a.rs", "#[ignore = \"takes an hour\"]\nfn f() {}\n");
    assert_fails("a.rs", "#[ignore]\nfn f() {}\n", 2, "reason");
}

#[test]
fn length_of_files() {
    let lines = |n: usize| "\n".repeat(n - 1);
    assert_passes("a.rs", &lines(600));
    assert_passes("a/tests.rs", &lines(900));
    assert_fails("a.rs", &lines(601), 601, "more than 600");
    assert_fails("a/tests/b.rs", &lines(901), 901, "more than 900");
    const LISTED: Allowed =
        Allowed { long_files: &[Exception { path: "a.rs", reason: "one table" }], ..NOTHING };
    assert!(findings_with(&[("a.rs", &format!("//! Head.\n{}", lines(601)))], &LISTED).is_empty());
    assert_single(&findings_with(&[("a.rs", "//! Head.\n")], &LISTED), "a.rs", 1, "no longer needed");
}

#[test]
fn length_of_functions() {
    let function = |n: usize| format!("fn long(a: [u8; 4]) {{{}}}\n", "\n".repeat(n - 1));
    assert_passes("a.rs", &function(90));
    assert_passes("a.rs", &format!("trait A {{ fn long(); }}\n{}", function(90)));
    assert_fails("a.rs", &function(91), 2, "`long` has 91 lines");
    const LISTED: Allowed = Allowed {
        long_functions: &[LongFunction { path: "a.rs", name: "long", reason: "a table" }],
        ..NOTHING
    };
    assert!(findings_with(&[("a.rs", &format!("//! Head.\n{}", function(91)))], &LISTED).is_empty());
    assert_single(
        &findings_with(&[("a.rs", "//! Head.\nfn long() {}\n")], &LISTED),
        "a.rs",
        1,
        "no longer needed",
    );
}

#[test]
fn names_of_modules() {
    assert_passes("storage/src/segment/name.rs", "mod commonly;\n");
    for path in ["storage/src/util.rs", "storage/src/helpers/mod.rs", "storage/tests/common/mod.rs"] {
        assert_fails(path, "", 1, "says nothing");
    }
    assert_fails("a.rs", "mod misc {}\n", 2, "`misc`");
}

#[test]
fn conflict_markers_blanks_and_tabs() {
    assert_passes("a.rs", "// =======, a < b\nconst A: &str = \"\\t\";\n");
    for marker in ["<", ">", "="] {
        assert_fails("a.rs", &format!("{}\n", marker.repeat(7)), 2, "conflict marker");
    }
    assert_fails("a.rs", "fn f() {} \n", 2, "blanks");
    assert_fails("a.rs", "\tfn f() {}\n", 2, "tab");
    assert_single(&findings_with(&[("README.md", "a\nb \n")], &NOTHING), "README.md", 2, "blanks");
    for data in ["a/golden/x.txt", "storage/fuzz/seeds/manifest/x", "Cargo.lock"] {
        assert!(findings_with(&[(data, "a \n")], &NOTHING).is_empty());
    }
}

/// A manifest with `lines` under `[dependencies]`, on line 2 and after.
fn manifest(lines: &str) -> String {
    format!("[dependencies]\n{lines}\n\n[lints]\nworkspace = true\n")
}

#[test]
fn arrows_between_crates() {
    let arrow =
        |from: &str, line: &str| findings_with(&[(&format!("{from}/Cargo.toml"), &manifest(line))], &NOTHING);
    for (from, to) in [("storage", "proto"), ("tools", "storage"), ("benches", "proto"), ("broker", "proto")]
    {
        assert!(arrow(from, &format!("floodmark-{to}.workspace = true")).is_empty(), "{from} to {to}");
    }
    assert!(arrow("storage/fuzz", "floodmark-storage = { path = \"..\" }").is_empty());
    for (from, to) in
        [("proto", "storage"), ("storage", "tools"), ("client", "storage"), ("benches", "tools")]
    {
        let findings = arrow(from, &format!("floodmark-{to} = {{ path = \"../{to}\" }}"));
        assert_single(&findings, &format!("{from}/Cargo.toml"), 2, &format!("arrow {from} -> {to}"));
    }
    let in_tests = "[dev-dependencies]\nfloodmark-tools.workspace = true\n";
    assert_single(
        &findings_with(&[("proto/Cargo.toml", in_tests)], &NOTHING),
        "proto/Cargo.toml",
        2,
        "arrow",
    );
    let as_section = "[dependencies.floodmark-tools]\npath = \"../tools\"\n";
    assert_single(
        &findings_with(&[("proto/Cargo.toml", as_section)], &NOTHING),
        "proto/Cargo.toml",
        1,
        "arrow",
    );
}

#[test]
fn what_low_crates_must_not_know() {
    let doc = ("docs/DEPENDENCIES.md", "| `tokio` | tasks |\n");
    let text = manifest("tokio.workspace = true");
    assert!(findings_with(&[("broker/Cargo.toml", &text), doc], &NOTHING).is_empty());
    assert_single(
        &findings_with(&[("storage/Cargo.toml", &text), doc], &NOTHING),
        "storage/Cargo.toml",
        2,
        "storage must not depend on `tokio`",
    );
}

#[test]
fn each_dependency_has_its_reason() {
    let doc = "# Dependencies\n\n| crate | why |\n|---|---|\n| `bytes` | shared slices |\n";
    let root = "[workspace.dependencies]\n# Why.\nbytes = \"1\"\nfloodmark-proto = { path = \"proto\" }\n";
    assert!(findings_with(&[("Cargo.toml", root), ("docs/DEPENDENCIES.md", doc)], &NOTHING).is_empty());
    let two = format!("{root}snap = \"1\"\n");
    let missing = findings_with(&[("Cargo.toml", &two), ("docs/DEPENDENCIES.md", doc)], &NOTHING);
    assert_single(&missing, "Cargo.toml", 5, "`snap` has no line");
    let stale = findings_with(&[("docs/DEPENDENCIES.md", doc)], &NOTHING);
    assert_single(&stale, "docs/DEPENDENCIES.md", 5, "no dependency any more");
}

#[test]
fn each_sync_point_names_one_sync() {
    let seam = "//! Seam.\npub enum SyncPoint {\n    /// First.\n    A,\n    /// Second.\n    Ab,\n}\n\
                impl SyncPoint { const ALL: [SyncPoint; 2] = [SyncPoint::A, SyncPoint::Ab]; }\n";
    let with = |calls: &str| {
        let log =
            format!("//! Log.\n{calls}\n#[cfg(test)]\nmod tests {{ fn t() {{ skip(SyncPoint::A); }} }}\n");
        findings_with(&[("storage/src/fs/mod.rs", seam), ("storage/src/log.rs", &log)], &NOTHING)
    };
    assert!(with("fn f() { sync(SyncPoint::A); sync(SyncPoint::Ab); }").is_empty());
    assert_single(
        &with("fn f() { sync(SyncPoint::A); }"),
        "storage/src/fs/mod.rs",
        6,
        "`SyncPoint::Ab` names no sync",
    );
    let twice = with("fn f() { sync(SyncPoint::A); sync(SyncPoint::Ab);\n sync(SyncPoint::A); }");
    assert_single(&twice, "storage/src/fs/mod.rs", 4, "2 syncs (storage/src/log.rs:2, storage/src/log.rs:3)");
}

#[test]
fn literals_and_comments_are_told_apart_from_code() {
    let text = "let a = \"x // \\\" y\"; // c \"1\n/* a /* b */ c */ let b = r#\"z\" '\"#; let c = '\"'; let d: &'a u8 = b\"\\\\\";";
    let masked = mask::mask(text);
    let squeezed = masked.code.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeezed, "let a = \" ; let b = r#\" ; let c = ; let d: &'a u8 = b\" ;");
    assert_eq!(masked.comments.split_whitespace().collect::<String>(), "//c\"1/*a/*b*/c*/");
    assert_eq!(masked.code.len(), text.len());
}
