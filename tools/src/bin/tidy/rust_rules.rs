//! How a Rust file reads: its head, its length, its functions' length, its name, and why a test is left out.

use crate::Finding;
use crate::allowed::Allowed;
use crate::call_rules::UNWRAPS;
use crate::mask::is_word;
use crate::tree::{RustFile, Tree, behind_block};

const FILE_LINES_MAX: usize = 600;
const TEST_FILE_LINES_MAX: usize = 900;
const FUNCTION_LINES_MAX: usize = 90;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"];

pub(crate) fn check(tree: &Tree, allowed: &Allowed, findings: &mut Vec<Finding>) {
    for file in &tree.rust {
        check_head(file, findings);
        check_names(file, findings);
        check_length(file, allowed, findings);
        check_functions(file, allowed, findings);
        check_ignored(file, findings);
    }
    check_exceptions_needed(tree, allowed, findings);
}

fn check_head(file: &RustFile, findings: &mut Vec<Finding>) {
    let says_something = file
        .text
        .lines()
        .next()
        .is_some_and(|l| l.strip_prefix("//! ").is_some_and(|l| !l.trim().is_empty()));
    if !says_something {
        findings.push(Finding::new(
            &file.path,
            1,
            "no head; the first line says what the file is for, as `//! …`",
        ));
    }
}

fn check_names(file: &RustFile, findings: &mut Vec<Finding>) {
    let path_names = file.path.trim_end_matches(".rs").split('/');
    for name in path_names.filter(|name| EMPTY_NAMES.contains(name)) {
        findings.push(Finding::new(
            &file.path,
            1,
            format!("module name `{name}` says nothing; name it after what it holds"),
        ));
    }
    for at in file.code_places("mod ") {
        let name = word_after(&file.code, at + "mod ".len());
        if EMPTY_NAMES.contains(&name) {
            let message = format!("module name `{name}` says nothing; name it after what it holds");
            findings.push(Finding::new(&file.path, file.line_at(at), message));
        }
    }
}

fn check_length(file: &RustFile, allowed: &Allowed, findings: &mut Vec<Finding>) {
    let lines = file.text.lines().count();
    let max = lines_max(file);
    if lines > max && !allowed.long_files.iter().any(|e| e.path == file.path) {
        let message = format!("{lines} lines, more than {max}; split it where it holds two things");
        findings.push(Finding::new(&file.path, lines, message));
    }
}

fn lines_max(file: &RustFile) -> usize {
    if file.is_test_file() { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX }
}

/// A function with a body: name, place and lines.
struct Function<'a> {
    name: &'a str,
    at: usize,
    lines: usize,
}

fn functions(file: &RustFile) -> impl Iterator<Item = Function<'_>> {
    file.code_places("fn ").filter_map(|at| {
        let name = word_after(&file.code, at + "fn ".len());
        let open = at + body_start(&file.code[at..])?;
        let end = behind_block(&file.code, open);
        let lines = file.line_at(end - 1) - file.line_at(at) + 1;
        (!name.is_empty()).then_some(Function { name, at, lines })
    })
}

/// The brace that opens the body; `None` where a `;` ends the signature first. Semicolons in array types do not count.
fn body_start(code: &str) -> Option<usize> {
    let mut depth = 0i32;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

fn check_functions(file: &RustFile, allowed: &Allowed, findings: &mut Vec<Finding>) {
    let may =
        |f: &Function<'_>| allowed.long_functions.iter().any(|e| e.path == file.path && e.name == f.name);
    for function in functions(file).filter(|f| f.lines > FUNCTION_LINES_MAX && !may(f)) {
        let message = format!(
            "function `{}` has {} lines, more than {FUNCTION_LINES_MAX}; move pure computation out",
            function.name, function.lines
        );
        findings.push(Finding::new(&file.path, file.line_at(function.at), message));
    }
}

fn check_ignored(file: &RustFile, findings: &mut Vec<Finding>) {
    for (at, _) in file.code.match_indices("#[ignore]") {
        let message = "test left out without a reason; write `#[ignore = \"why\"]`";
        findings.push(Finding::new(&file.path, file.line_at(at), message));
    }
}

/// An exception outlives its need unless somebody looks.
fn check_exceptions_needed(tree: &Tree, allowed: &Allowed, findings: &mut Vec<Finding>) {
    let file_of = |path: &str| tree.rust.iter().find(|f| f.path == path);
    for e in allowed.long_files {
        if file_of(e.path).is_none_or(|f| f.text.lines().count() <= lines_max(f)) {
            findings.push(not_needed(e.path, e.reason));
        }
    }
    for e in allowed.long_functions {
        let is_long = |f: Function<'_>| f.name == e.name && f.lines > FUNCTION_LINES_MAX;
        if !file_of(e.path).is_some_and(|f| functions(f).any(is_long)) {
            findings.push(not_needed(e.path, e.reason));
        }
    }
    let has_unsafe = |f: &RustFile| f.code_places("unsafe").next().is_some();
    let has_unwrap =
        |f: &RustFile| UNWRAPS.iter().any(|word| f.code_places(word).any(|at| !f.is_test_at(at)));
    let unsafe_code = allowed.unsafe_code.iter().filter(|e| !file_of(e.path).is_some_and(has_unsafe));
    let unwraps = allowed.unwraps.iter().filter(|e| !file_of(e.path).is_some_and(has_unwrap));
    findings.extend(unsafe_code.chain(unwraps).map(|e| not_needed(e.path, e.reason)));
}

fn not_needed(path: &str, reason: &str) -> Finding {
    Finding::new(
        path,
        1,
        format!("exception no longer needed (\"{reason}\"); take it out of tidy's allowed.rs"),
    )
}

/// The name that starts at `at`, which may be empty.
fn word_after(code: &str, at: usize) -> &str {
    let rest = &code[at..];
    &rest[..rest.bytes().take_while(|&b| is_word(b)).count()]
}
