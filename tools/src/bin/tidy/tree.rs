//! The files under version control, and what the rules ask of them.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail};

use crate::mask::{self, is_word};

/// A file of the tree.
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A Rust source with what was found out about it.
pub(crate) struct RustFile {
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with everything blank but code.
    pub(crate) code: String,
    /// The text with everything blank but comments.
    pub(crate) comments: String,
    /// Byte ranges of items under `#[cfg(test)]`.
    test_items: Vec<std::ops::Range<usize>>,
}

/// All text files.
pub(crate) struct Tree {
    pub(crate) rust: Vec<RustFile>,
    pub(crate) other: Vec<File>,
}

impl Tree {
    /// The files that git tracks, or would track, in the repository around the working directory. Blocks.
    #[expect(clippy::disallowed_methods, reason = "a check of the source tree reads the source tree")]
    pub(crate) fn of_working_directory() -> anyhow::Result<Tree> {
        let root = git(&["rev-parse", "--show-toplevel"])?;
        let root = root.trim_end();
        let names = git(&["-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
        let mut files = Vec::new();
        for name in names.split_terminator('\0') {
            let path = format!("{root}/{name}");
            // A file removed but not yet staged is still listed; one that is not UTF-8 is data, not text.
            let Ok(bytes) = fs::read(&path) else { continue };
            if let Ok(text) = String::from_utf8(bytes) {
                files.push((name.to_owned(), text));
            }
        }
        Ok(Tree::new(files))
    }

    /// A tree of these paths and texts.
    pub(crate) fn new(files: Vec<(String, String)>) -> Tree {
        let mut tree = Tree { rust: Vec::new(), other: Vec::new() };
        for (path, text) in files {
            if path.ends_with(".rs") {
                tree.rust.push(RustFile::new(path, text));
            } else {
                tree.other.push(File { path, text });
            }
        }
        tree
    }

    pub(crate) fn file_count(&self) -> usize {
        self.rust.len() + self.other.len()
    }

    /// Paths and texts of all files.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let rust = self.rust.iter().map(|f| (f.path.as_str(), f.text.as_str()));
        rust.chain(self.other.iter().map(|f| (f.path.as_str(), f.text.as_str())))
    }
}

fn git(args: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new("git").args(args).output().context("git did not start; tidy lists files with it")?;
    if !output.status.success() {
        bail!("git {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

impl RustFile {
    fn new(path: String, text: String) -> RustFile {
        let masked = mask::mask(&text);
        let test_items = test_items(&masked.code);
        RustFile { path, text, code: masked.code, comments: masked.comments, test_items }
    }

    /// Whether the whole file is test code; a fuzz crate is.
    pub(crate) fn is_test_file(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/") || self.path.contains("/fuzz/")
    }

    /// Whether the byte at `at` belongs to a test.
    pub(crate) fn is_test_at(&self, at: usize) -> bool {
        self.is_test_file() || self.test_items.iter().any(|item| item.contains(&at))
    }

    /// Line of the byte at `at`, from 1.
    pub(crate) fn line_at(&self, at: usize) -> usize {
        line_at(&self.text, at)
    }

    /// Each place in the code where `needle` stands and is not part of a longer name.
    pub(crate) fn code_places(&self, needle: &str) -> impl Iterator<Item = usize> {
        word_places(&self.code, needle)
    }
}

/// Line of the byte at `at`, from 1.
pub(crate) fn line_at(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count()
}

/// Each place where `needle` stands in `text` and is not part of a longer word.
pub(crate) fn word_places(text: &str, needle: &str) -> impl Iterator<Item = usize> {
    let bytes = text.as_bytes();
    let joins =
        |a: Option<&u8>, b: Option<&u8>| a.is_some_and(|a| is_word(*a)) && b.is_some_and(|b| is_word(*b));
    text.match_indices(needle).map(|(at, _)| at).filter(move |&at| {
        let end = at + needle.len();
        let before = at.checked_sub(1).and_then(|b| bytes.get(b));
        !joins(before, bytes.get(at)) && !joins(bytes.get(end - 1), bytes.get(end))
    })
}

/// The place behind the brace that closes the one at `open`; the end of the text if none does.
pub(crate) fn behind_block(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

fn test_items(code: &str) -> Vec<std::ops::Range<usize>> {
    code.match_indices("#[cfg(test)]")
        .filter_map(|(at, _)| {
            let open = at + code[at..].find(['{', ';'])?;
            Some(at..if code.as_bytes()[open] == b'{' { behind_block(code, open) } else { open })
        })
        .collect()
}
