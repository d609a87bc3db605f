//! `not_expected.txt`: what is not expected to pass against one broker without transactions and security, each with its reason.

use std::collections::BTreeMap;

/// Lines of the file: the name of a test, or of a test and one of its parts with a slash between them, then a colon and the reason.
const FILE: &str = include_str!("not_expected.txt");

/// Reason by name.
pub(crate) fn reasons() -> BTreeMap<&'static str, &'static str> {
    let lines = FILE.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no reason: {line}"))).collect()
}

/// Whether a test is run in parts, because some of them are not expected.
pub(crate) fn is_in_parts(test: &str) -> bool {
    reasons().keys().any(|name| name.split_once('/').is_some_and(|(whole, _)| whole == test))
}
