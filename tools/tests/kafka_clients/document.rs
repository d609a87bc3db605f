//! docs/COMPATIBILITY.md, which two runs write, each its own part of it.

use std::fs;
use std::path::Path;

/// Where the second part begins.
const HEADING: &str = "\n## librdkafka's own test-suite\n\n";

/// Which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "each of the two programs writes one")]
pub(crate) enum Part {
    /// Everything but what follows.
    Clients,
    /// What librdkafka's test-suite shows, without its heading.
    Suite,
}

/// Writes one part anew and leaves the other as it is.
pub(crate) fn write_part(part: Part, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/COMPATIBILITY.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, with_part(&before, part, text)).unwrap();
}

fn with_part(before: &str, part: Part, text: &str) -> String {
    let (clients, suite) = before.split_once(HEADING).unwrap_or((before, ""));
    match part {
        Part::Clients if suite.is_empty() => text.to_owned(),
        Part::Clients => format!("{text}{HEADING}{suite}"),
        Part::Suite => format!("{clients}{HEADING}{text}"),
    }
}

#[test]
fn each_part_leaves_the_other_alone() {
    let first = with_part("", Part::Clients, "clients\n");
    assert_eq!(first, "clients\n");
    let both = with_part(&first, Part::Suite, "suite\n");
    assert_eq!(both, format!("clients\n{HEADING}suite\n"));
    assert_eq!(with_part(&both, Part::Clients, "others\n"), format!("others\n{HEADING}suite\n"));
    assert_eq!(with_part(&both, Part::Suite, "again\n"), format!("clients\n{HEADING}again\n"));
}
