//! Rules for every text file: no conflict markers, no blanks at line ends, no tabs in Rust, no notes left for later.

use crate::Finding;
use crate::tree::{Tree, line_at, word_places};

/// Spelled in halves, so that this file passes.
const NOTES: [&str; 4] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
const NOTE_MACROS: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

pub(crate) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    for (path, text) in tree.texts().filter(|(path, _)| is_ours(path)) {
        check_lines(path, text, findings);
    }
    for file in &tree.rust {
        check_notes(&file.path, &file.comments, findings);
        for name in NOTE_MACROS {
            for at in file.code_places(name) {
                findings.push(Finding::new(
                    &file.path,
                    file.line_at(at),
                    format!("`{name}` left over; finish it or leave it out"),
                ));
            }
        }
    }
    for file in tree.other.iter().filter(|f| is_ours(&f.path) && !f.path.ends_with(".md")) {
        check_notes(&file.path, &file.text, findings);
    }
}

/// Golden data, fuzz seeds, the licence and lock files are as others wrote them.
fn is_ours(path: &str) -> bool {
    let is_data = ["/golden/", "/seeds/", "/corpus/"].iter().any(|folder| path.contains(folder));
    !is_data && !path.ends_with("Cargo.lock") && path != "LICENSE"
}

fn check_lines(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (number, line) in (1..).zip(text.split('\n')) {
        if is_conflict_marker(line) {
            findings.push(Finding::new(path, number, "conflict marker; finish the merge"));
        }
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(path, number, "blanks at the end of the line"));
        }
        if path.ends_with(".rs") && line.contains('\t') {
            findings.push(Finding::new(
                path,
                number,
                "tab; indent with spaces, and write `\\t` in a literal",
            ));
        }
    }
}

fn is_conflict_marker(line: &str) -> bool {
    ["<", ">", "|"]
        .iter()
        .any(|c| line.strip_prefix(&c.repeat(7)).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
        || line == "=".repeat(7)
}

fn check_notes(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for note in NOTES {
        for at in word_places(text, note) {
            findings.push(Finding::new(
                path,
                line_at(text, at),
                format!("note `{note}` left over; do it, or open an issue"),
            ));
        }
    }
}
