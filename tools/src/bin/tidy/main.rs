//! The house rules as a program: reads the tree, prints each breach as `file:line: what, and what to do`, and exits 1 if there is one.
//!
//! - [`tree`]: the files, and Rust sources with comments and strings told apart from code.
//! - [`text_rules`]: what holds for every file.
//! - [`rust_rules`], [`call_rules`]: how a Rust file reads, and which calls only some files may make.
//! - [`crate_rules`]: arrows between crates, and the list of dependencies.
//! - [`sync_rules`]: each named sync stands at one place in the code.
//! - [`allowed`]: the exceptions, each with its reason.

mod allowed;
mod call_rules;
mod crate_rules;
mod mask;
mod rust_rules;
mod sync_rules;
#[cfg(test)]
mod tests;
mod text_rules;
mod tree;

use std::fmt;
use std::process::ExitCode;

use allowed::Allowed;
use tree::Tree;

/// One breach of one rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

fn main() -> ExitCode {
    let tree = match Tree::of_working_directory() {
        Ok(tree) => tree,
        Err(error) => {
            print_line(&format!("tidy: {error:#}"));
            return ExitCode::FAILURE;
        }
    };
    let findings = check(&tree, &Allowed::here());
    for finding in &findings {
        print_line(&finding.to_string());
    }
    let verdict = if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    print_line(&format!("tidy: {} files, {} findings", tree.file_count(), findings.len()));
    verdict
}

/// All rules over the whole tree; sorted.
fn check(tree: &Tree, allowed: &Allowed) -> Vec<Finding> {
    let mut findings = Vec::new();
    text_rules::check(tree, &mut findings);
    rust_rules::check(tree, allowed, &mut findings);
    call_rules::check(tree, allowed, &mut findings);
    crate_rules::check(tree, &mut findings);
    sync_rules::check(tree, &mut findings);
    findings.sort();
    findings.dedup();
    findings
}

#[expect(clippy::print_stdout, reason = "a command line program speaks on its standard output")]
fn print_line(line: &str) {
    println!("{line}");
}
