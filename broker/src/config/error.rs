//! What can be wrong with settings, told so that the reader knows which line to change, and to what.

use std::io;
use std::path::PathBuf;

use super::Origin;

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A name that no setting has.
    #[error("{origin}: there is no setting {key}{}", advice(nearest.as_deref()))]
    Unknown {
        /// The name.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// A value that its setting cannot have.
    #[error("{origin}: {key} cannot be {value:?}; allowed is {allowed}")]
    BadValue {
        /// The setting.
        key: String,
        /// The value.
        value: String,
        /// What may be written.
        allowed: String,
        /// Where it stands.
        origin: Origin,
    },
    /// The file is missing or cannot be read.
    #[error("settings file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{} line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from one.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// No temporary directory could be made.
    #[error("no temporary directory: {0}")]
    Temporary(#[source] io::Error),
}

fn advice(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean {name}?"),
        None => "; `floodmark config show` lists them all".to_owned(),
    }
}
