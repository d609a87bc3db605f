//! Speeds as people type them.

use floodmark_client::replay::Rate;

/// For an argument.
pub(super) fn argument(text: &str) -> Result<Rate, String> {
    let number =
        |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= 1e9);
    let trimmed = text.trim();
    let rate = if trimmed == "max" {
        Some(Rate::Maximum)
    } else if let Some(count) = trimmed.strip_suffix("/s") {
        number(count).map(Rate::PerSecond)
    } else {
        trimmed.strip_suffix('x').and_then(number).map(Rate::TimesOriginal)
    };
    rate.ok_or_else(|| {
        format!("{text:?} is no speed; write max, 500/s for records a second, or 10x for times the original")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood_and_nothing_else() {
        for (text, rate) in [
            ("max", Rate::Maximum),
            ("500/s", Rate::PerSecond(500.0)),
            (" 0.5 /s", Rate::PerSecond(0.5)),
            ("10x", Rate::TimesOriginal(10.0)),
            ("0.25x", Rate::TimesOriginal(0.25)),
        ] {
            assert_eq!(argument(text), Ok(rate), "{text}");
        }
        for text in ["", "10", "x", "/s", "-1x", "0/s", "NaNx", "infx", "1e99x", "fast"] {
            assert!(argument(text).unwrap_err().contains("10x"), "{text}");
        }
    }
}
