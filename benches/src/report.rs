//! What a run prints: a table for people, JSON for programs.

use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::{Value, json};

use crate::measure::Compared;

/// How figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table.
    Table,
    /// One JSON object.
    Json,
}

/// Where we want a figure to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aim {
    /// Smaller is better.
    AtMost(f64),
    /// Larger is better.
    AtLeast(f64),
    /// Told for orientation.
    None,
}

impl Aim {
    /// Whether `value` reaches the aim; `None` where there is none.
    #[must_use]
    pub fn is_met_by(self, value: f64) -> Option<bool> {
        match self {
            Aim::AtMost(limit) => Some(value <= limit),
            Aim::AtLeast(limit) => Some(value >= limit),
            Aim::None => None,
        }
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    name: String,
    aim: Aim,
    value: f64,
    detail: String,
}

/// The figures of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    title: &'static str,
    figures: Vec<Figure>,
}

impl Report {
    /// A report without figures.
    #[must_use]
    pub fn new(title: &'static str) -> Report {
        Report { title, figures: Vec::new() }
    }

    /// Adds a single figure; `detail` says what it is made of, with its units.
    pub fn value(&mut self, name: impl Into<String>, aim: Aim, value: f64, detail: impl Into<String>) {
        self.figures.push(Figure { name: name.into(), aim, value, detail: detail.into() });
    }

    /// Adds the ratio of two sides, told with the unit of the sides.
    pub fn compared(&mut self, name: impl Into<String>, aim: Aim, compared: &Compared, unit: &str) {
        let Compared { ours, bare, ratio, ratio_min, ratio_max } = compared;
        let detail = format!("{ours:.3} against {bare:.3} {unit}; pairs {ratio_min:.2} to {ratio_max:.2}");
        self.value(name, aim, *ratio, detail);
    }

    /// Prints everything to standard output.
    #[allow(clippy::print_stdout, reason = "this is what the programs are for")]
    pub fn print(&self, output: Output) {
        match output {
            Output::Table => println!("{}\n{}", self.title, self.table()),
            Output::Json => println!("{}", self.json()),
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["figure", "measured", "aim", "met", "detail"]);
        for figure in &self.figures {
            let (aim, met) = (aim_text(figure.aim), figure.aim.is_met_by(figure.value));
            let met = met.map_or("", |met| if met { "yes" } else { "no" });
            let value = format!("{:.3}", figure.value);
            table.add_row([figure.name.as_str(), &value, &aim, met, &figure.detail]);
        }
        table
    }

    fn json(&self) -> Value {
        let figures = self.figures.iter().map(|figure| {
            json!({
                "figure": figure.name,
                "measured": figure.value,
                "aim": aim_text(figure.aim),
                "met": figure.aim.is_met_by(figure.value),
                "detail": figure.detail,
            })
        });
        json!({ "bench": self.title, "figures": figures.collect::<Vec<_>>() })
    }
}

fn aim_text(aim: Aim) -> String {
    match aim {
        Aim::AtMost(limit) => format!("<= {limit}"),
        Aim::AtLeast(limit) => format!(">= {limit}"),
        Aim::None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aims_are_met_at_their_limit_and_missed_beyond_it() {
        assert_eq!(Aim::AtMost(1.3).is_met_by(1.3), Some(true));
        assert_eq!(Aim::AtMost(1.3).is_met_by(1.31), Some(false));
        assert_eq!(Aim::AtLeast(0.8).is_met_by(0.79), Some(false));
        assert_eq!(Aim::None.is_met_by(1.0), None);
    }

    #[test]
    fn json_and_table_tell_the_same_figures() {
        let mut report = Report::new("append");
        let compared = Compared { ours: 1.2, bare: 1.0, ratio: 1.2, ratio_min: 1.1, ratio_max: 1.3 };
        report.compared("1 MiB", Aim::AtMost(1.3), &compared, "CPU s/GiB");
        let json = report.json();
        assert_eq!(json["figures"][0]["measured"], 1.2);
        assert_eq!(json["figures"][0]["met"], true);
        assert!(report.table().to_string().contains("1.200 against 1.000 CPU s/GiB"));
    }
}
