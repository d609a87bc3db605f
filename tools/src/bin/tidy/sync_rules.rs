//! Each variant of `SyncPoint` names one sync in the code: a name without a site promises nothing, and two sites
//! under one name cannot be skipped one at a time by a test.

use crate::Finding;
use crate::tree::{Tree, behind_block};

const SEAM: &str = "storage/src/fs/";
const DEFINITION: &str = "storage/src/fs/mod.rs";
const ENUM: &str = "enum SyncPoint";

pub(crate) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let Some(definition) = tree.rust.iter().find(|f| f.path == DEFINITION) else { return };
    let Some(at) = definition.code_places(ENUM).next() else { return };
    for (name, at) in variants(&definition.code, at) {
        let sites = sites(tree, name);
        if sites.len() != 1 {
            let message = match sites.as_slice() {
                [] => format!("`SyncPoint::{name}` names no sync; sync there, or take the name out"),
                _ => format!(
                    "`SyncPoint::{name}` names {} syncs ({}); give each its own",
                    sites.len(),
                    sites.join(", ")
                ),
            };
            findings.push(Finding::new(DEFINITION, definition.line_at(at), message));
        }
    }
}

/// Names and places of an enum's variants, which carry no data.
fn variants(code: &str, at: usize) -> Vec<(&str, usize)> {
    let Some(open) = code[at..].find('{').map(|open| at + open) else { return Vec::new() };
    let mut found = Vec::new();
    let mut start = open + 1;
    for part in code[start..behind_block(code, open) - 1].split(',') {
        let name = part.trim();
        if !name.is_empty() {
            found.push((name, start + (part.len() - part.trim_start().len())));
        }
        start += part.len() + 1;
    }
    found
}

/// Crates that sync files.
const SYNCING: [&str; 2] = ["storage/src/", "replication/src/"];

/// Where the code names `variant`; the seam passes points on and has no syncs of its own.
fn sites(tree: &Tree, variant: &str) -> Vec<String> {
    let needle = format!("SyncPoint::{variant}");
    let may_sync = |path: &str| SYNCING.iter().any(|c| path.starts_with(c)) && !path.starts_with(SEAM);
    let callers = tree.rust.iter().filter(|f| may_sync(&f.path));
    callers
        .flat_map(|f| {
            let places: Vec<usize> = f.code_places(&needle).filter(|&at| !f.is_test_at(at)).collect();
            places.into_iter().map(|at| format!("{}:{}", f.path, f.line_at(at)))
        })
        .collect()
}
