//! `KEY=VALUE`, for settings and headers.

/// Two texts with the first `=` between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// For an argument; the value may be empty, the key may not.
pub(crate) fn argument(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(Pair { key: key.to_owned(), value: value.to_owned() }),
        _ => Err(format!("it takes KEY=VALUE, not {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sign_parts_key_and_value() {
        let pair = |key: &str, value: &str| Ok(Pair { key: key.to_owned(), value: value.to_owned() });
        assert_eq!(argument("a=b"), pair("a", "b"));
        assert_eq!(argument("a="), pair("a", ""));
        assert_eq!(argument("a=b=c"), pair("a", "b=c"));
        assert!(argument("a").is_err() && argument("=b").is_err());
    }
}
