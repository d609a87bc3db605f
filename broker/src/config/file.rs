//! The settings file: TOML, of which only names, values and lines are taken. `a.b = 1` and `[a]` with `b = 1` say the same.

use std::io;
use std::path::Path;

use floodmark_storage::fs::{RealDisk, read_small_file};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ConfigError, Origin};

/// Far more than all settings with comments take.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One setting in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// All settings in `path`, in the order of their lines.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    // Mounted configuration is often a link, which the disk's seam does not follow.
    let target = std::fs::canonicalize(path).map_err(unreadable)?;
    let content = read_small_file(&RealDisk, &target, FILE_BYTES_MAX).map_err(unreadable)?;
    let content = content.ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
    let text = String::from_utf8(content)
        .map_err(|_| unreadable(io::Error::new(io::ErrorKind::InvalidData, "is not UTF-8")))?;
    entries(path, &text)
}

fn entries(path: &Path, text: &str) -> Result<Vec<Entry>, ConfigError> {
    let table = DeTable::parse(text).map_err(|e| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_at(text, e.span().map_or(0, |span| span.start)),
        message: e.message().to_owned(),
    })?;
    let mut found = Vec::new();
    flatten("", table.get_ref(), &mut |key, value| {
        let at = value.span().start;
        let line = line_at(text, at);
        let value = scalar(value.get_ref()).ok_or_else(|| ConfigError::Syntax {
            path: path.to_owned(),
            line,
            message: format!("{key} is a {}, and no setting has one", value.get_ref().type_str()),
        })?;
        found.push((at, Entry { key, value, origin: Origin::File { path: path.to_owned(), line } }));
        Ok(())
    })?;
    found.sort_by_key(|(at, _)| *at);
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

fn flatten<E>(
    prefix: &str,
    table: &DeTable<'_>,
    found: &mut impl FnMut(String, &Spanned<DeValue<'_>>) -> Result<(), E>,
) -> Result<(), E> {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&key, inner, found)?,
            _ => found(key, value)?,
        }
    }
    Ok(())
}

/// The value as a flag would give it.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().replace('_', "")),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(|item| scalar(item.get_ref())).collect();
            texts.map(|texts| texts.join(","))
        }
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&b| b == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_dotted_names_say_the_same() {
        let dotted = "node.id = 7\n\n# where\nkafka.listen = \"127.0.0.1:1\"\n";
        let tables = "[node]\nid = 0x7\n[kafka]\nlisten = '127.0.0.1:1'\n";
        for (text, lines) in [(dotted, [1, 4]), (tables, [2, 4])] {
            let entries = entries(Path::new("f"), text).unwrap();
            let seen: Vec<_> = entries.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect();
            assert_eq!(seen, [("node.id", "7"), ("kafka.listen", "127.0.0.1:1")]);
            let origins = lines.map(|line| Origin::File { path: "f".into(), line });
            assert_eq!(entries.iter().map(|e| e.origin.clone()).collect::<Vec<_>>(), origins);
        }
    }

    #[test]
    fn what_is_no_toml_or_no_value_is_told_with_its_line() {
        for (text, line, says) in
            [("a = 1\nb = \n", 2, ""), ("a = 1\na = 2\n", 2, ""), ("\n\nwhen = 2024-01-01\n", 3, "datetime")]
        {
            match entries(Path::new("f"), text) {
                Err(ConfigError::Syntax { line: at, message, .. }) => {
                    assert_eq!(at, line, "{message}");
                    assert!(message.contains(says), "{message}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn lists_and_underscores_read_as_flags_do() {
        let entries = entries(Path::new("f"), "data.dirs = ['a', 'b']\nn = 1_000\nt = true\n").unwrap();
        let seen: Vec<_> = entries.iter().map(|e| e.value.as_str()).collect();
        assert_eq!(seen, ["a,b", "1000", "true"]);
    }
}
