//! Arrows between crates run one way, low crates stay free of what they must not know, and each dependency has its reason in
//! docs/DEPENDENCIES.md.

use std::collections::BTreeMap;

use crate::Finding;
use crate::tree::{File, Tree};

/// The drawing of the crates: an arrow is allowed where a path of these leads.
const ARROWS: &[(&str, &[&str])] = &[
    ("tools", &["broker", "client"]),
    ("benches", &["broker", "client", "storage"]),
    ("broker", &["replication"]),
    ("replication", &["storage"]),
    ("storage", &["proto"]),
    ("client", &["proto"]),
    ("proto", &[]),
];

/// What a crate must never know.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("proto", &["tokio", "mio", "socket2", "memmap2", "rustix", "libc", "tempfile"], "proto does no I/O"),
    (
        "storage",
        &["tokio", "mio", "socket2", "tonic", "hyper"],
        "storage is synchronous and knows no network",
    ),
    ("proto", &["anyhow"], "errors below the edge are exact types"),
    ("storage", &["anyhow"], "errors below the edge are exact types"),
    ("replication", &["anyhow"], "errors below the edge are exact types"),
];

const REASONS: &str = "docs/DEPENDENCIES.md";

/// A dependency in a manifest.
struct Dependency<'a> {
    name: &'a str,
    line: usize,
}

pub(crate) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut used: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
    for manifest in tree.other.iter().filter(|f| f.path == "Cargo.toml" || f.path.ends_with("/Cargo.toml")) {
        for dependency in dependencies(&manifest.text) {
            used.entry(dependency.name).or_insert((&manifest.path, dependency.line));
            check_arrow(manifest, &dependency, findings);
            check_forbidden(manifest, &dependency, findings);
        }
    }
    let doc = tree.other.iter().find(|f| f.path == REASONS);
    check_reasons(doc, &used, findings);
}

/// Names under `[dependencies]`, `[dev-dependencies]`, `[workspace.dependencies]` and the like.
fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut found = Vec::new();
    let mut in_list = false;
    for (line, text) in (1..).zip(manifest.lines().map(str::trim)) {
        if let Some(section) = text.strip_prefix('[').and_then(|t| t.split(']').next()) {
            in_list = section.ends_with("dependencies");
            if let Some((_, name)) = section.rsplit_once("dependencies.") {
                found.push(Dependency { name, line });
            }
        } else if in_list && !text.is_empty() && !text.starts_with('#') && !text.starts_with([']', '"', '}'])
        {
            let name = text.split(['=', '.', ' ']).next().unwrap_or(text);
            found.push(Dependency { name, line });
        }
    }
    found
}

/// The folder whose rules hold for a manifest; a fuzz crate lies in the folder that it attacks.
fn folder_of(manifest: &File) -> &str {
    manifest.path.split('/').next().unwrap_or_default()
}

fn check_arrow(manifest: &File, dependency: &Dependency<'_>, findings: &mut Vec<Finding>) {
    let from = folder_of(manifest);
    let Some(to) = dependency.name.strip_prefix("floodmark-") else { return };
    if manifest.path == "Cargo.toml" || from == to || leads(from, to) {
        return;
    }
    let message = format!(
        "arrow {from} -> {to} is not in the drawing; dependencies run one way: tools, broker, replication, storage, proto"
    );
    findings.push(Finding::new(&manifest.path, dependency.line, message));
}

fn leads(from: &str, to: &str) -> bool {
    let next = ARROWS.iter().find(|(name, _)| *name == from).map_or(&[][..], |(_, next)| next);
    next.iter().any(|&step| step == to || leads(step, to))
}

fn check_forbidden(manifest: &File, dependency: &Dependency<'_>, findings: &mut Vec<Finding>) {
    let folder = folder_of(manifest);
    // The attacker may use what the attacked must not know.
    if manifest.path.contains("/fuzz/") {
        return;
    }
    for (_, names, why) in FORBIDDEN.iter().filter(|(crate_name, ..)| *crate_name == folder) {
        if names.contains(&dependency.name) {
            let message = format!("{folder} must not depend on `{}`: {why}", dependency.name);
            findings.push(Finding::new(&manifest.path, dependency.line, message));
        }
    }
}

/// Each dependency has a row ``| `name` | reason |``, and each row a dependency.
fn check_reasons(doc: Option<&File>, used: &BTreeMap<&str, (&str, usize)>, findings: &mut Vec<Finding>) {
    let rows: Vec<(&str, usize)> = doc.map_or(Vec::new(), |doc| {
        (1..).zip(doc.text.lines()).filter_map(|(line, text)| Some((row_name(text)?, line))).collect()
    });
    for (name, (path, line)) in used {
        if !name.starts_with("floodmark-") && !rows.iter().any(|(row, _)| row == name) {
            findings.push(Finding::new(
                path,
                *line,
                format!("`{name}` has no line with its reason in {REASONS}"),
            ));
        }
    }
    for (name, line) in rows {
        if !used.contains_key(name) {
            findings.push(Finding::new(
                REASONS,
                line,
                format!("`{name}` is no dependency any more; take its line out"),
            ));
        }
    }
}

fn row_name(line: &str) -> Option<&str> {
    line.strip_prefix("| `")?.split_once("` | ").map(|(name, _)| name)
}
