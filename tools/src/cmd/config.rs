//! `floodmark config`: which settings there are, what they are now, and who said so.

use std::fmt;

use clap::{Args, Subcommand};
use floodmark_broker::config::{BrokerConfig, Origin, nearest_setting};
use serde::Serialize;

use super::Outcome;
use super::settings::SettingArgs;
use crate::output::table::{Column, Pages};
use crate::output::{Format, Sink};

/// Columns of a terminal that the documentation gets in a table.
const DOCUMENTATION_WIDTH: usize = 60;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// List every setting of a broker with its value, where that came from, and what it does.
    #[command(after_help = "Example: floodmark config show --config broker.toml --output json")]
    Show(ShowArgs),
    /// Tell everything about one setting.
    #[command(after_help = "Example: floodmark config explain connections.max.idle.ms")]
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    settings: SettingArgs,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Name of the setting.
    key: String,
    #[command(flatten)]
    settings: SettingArgs,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// A setting as programs read it. `value` is null where another name of the same thing has one, `default` where it has another unit.
#[derive(Debug, Serialize)]
struct Row {
    key: &'static str,
    value: Option<String>,
    default: Option<String>,
    origin: OriginRow,
    documentation: &'static str,
    allowed: String,
    variable: String,
    flag: Option<String>,
    /// What topics call it, where they take it over.
    topic_setting: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum OriginRow {
    Default,
    File { path: String, line: usize },
    Environment { variable: String },
    Flag { flag: String },
    Program,
}

pub(crate) fn run(command: ConfigCommand) -> anyhow::Result<Outcome> {
    match command {
        ConfigCommand::Show(args) => show(&args),
        ConfigCommand::Explain(args) => explain(&args),
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<Outcome> {
    let config = args.settings.load()?;
    let mut sink = Sink::stdout();
    let columns = ["setting", "value", "origin", "what it does"].map(Column::Text);
    let mut table = Pages::new(&columns);
    for row in rows(&config) {
        match args.output {
            Format::Json => sink.json(&row)?,
            Format::Table if row.value.is_none() => {}
            Format::Table => table.row(
                &mut sink,
                vec![
                    row.key.to_owned(),
                    row.value.unwrap_or_default(),
                    row.origin.to_string(),
                    wrapped(row.documentation, DOCUMENTATION_WIDTH),
                ],
            )?,
        }
    }
    table.flush(&mut sink)?;
    sink.flush()?;
    Ok(Outcome::Good)
}

fn explain(args: &ExplainArgs) -> anyhow::Result<Outcome> {
    let config = args.settings.load()?;
    let Some(row) = rows(&config).into_iter().find(|row| row.key == args.key) else {
        let advice =
            nearest_setting(&args.key).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        anyhow::bail!("there is no setting {}{advice}", args.key);
    };
    let mut sink = Sink::stdout();
    match args.output {
        Format::Json => sink.json(&row)?,
        Format::Table => explain_in_words(&row, &mut sink)?,
    }
    sink.flush()?;
    Ok(Outcome::Good)
}

fn explain_in_words(row: &Row, sink: &mut Sink) -> std::io::Result<()> {
    let value = row.value.as_deref();
    let example = value.or(row.default.as_deref());
    sink.line(row.key)?;
    sink.line(&wrapped(row.documentation, 100))?;
    if let Some(name) = row.topic_setting {
        sink.line(&format!("Topics take it over where they have no {name} of their own."))?;
    }
    sink.line("")?;
    sink.line(&format!("value        {} ({})", value.unwrap_or("none"), row.origin))?;
    if let Some(default) = &row.default {
        sink.line(&format!("default      {default}"))?;
    }
    sink.line(&format!("allowed      {}", row.allowed))?;
    sink.line(&format!("in a file    {} = {}", row.key, example.map_or("VALUE".to_owned(), in_a_file)))?;
    let example = example.unwrap_or("VALUE");
    sink.line(&format!("environment  {}={example}", row.variable))?;
    if let Some(flag) = &row.flag {
        sink.line(&format!("flag         {flag} {example}"))?;
    }
    Ok(())
}

/// All settings: the broker's own, then those that topics take over.
fn rows(config: &BrokerConfig) -> Vec<Row> {
    let defaults = BrokerConfig::default();
    let own = config.effective().zip(defaults.effective()).map(|(effective, default)| Row {
        key: effective.setting.key,
        value: Some(effective.value),
        default: Some(default.value),
        origin: effective.origin.into(),
        documentation: effective.setting.documentation.trim(),
        allowed: effective.setting.allowed(),
        variable: effective.setting.variable(),
        flag: effective.setting.flag.map(|(flag, _)| format!("--{flag}")),
        topic_setting: None,
    });
    let taken_over = config.log_defaults().into_iter().map(|log_default| Row {
        key: log_default.key,
        allowed: log_default.allowed(),
        variable: log_default.variable(),
        value: log_default.value,
        default: log_default.default.map(str::to_owned),
        origin: log_default.origin.into(),
        documentation: log_default.topic_setting.documentation,
        flag: None,
        topic_setting: Some(log_default.topic_setting.name),
    });
    own.chain(taken_over).collect()
}

impl From<Origin> for OriginRow {
    fn from(origin: Origin) -> OriginRow {
        match origin {
            Origin::Default => OriginRow::Default,
            Origin::File { path, line } => OriginRow::File { path: path.display().to_string(), line },
            Origin::Environment(variable) => OriginRow::Environment { variable },
            Origin::Flag(flag) => OriginRow::Flag { flag },
            Origin::Program => OriginRow::Program,
        }
    }
}

impl fmt::Display for OriginRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OriginRow::Default => f.write_str("default"),
            OriginRow::File { path, line } => write!(f, "{path} line {line}"),
            OriginRow::Environment { variable } => write!(f, "environment variable {variable}"),
            OriginRow::Flag { flag } => write!(f, "flag {flag}"),
            OriginRow::Program => f.write_str("program"),
        }
    }
}

/// As a TOML file takes it: numbers and truth values as they are, the rest in quotes.
fn in_a_file(value: &str) -> String {
    if value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok() {
        value.to_owned()
    } else {
        format!("\"{}\"", value.escape_default())
    }
}

/// Lines of at most `width` characters, broken between words.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            lines.push('\n');
            column = 0;
        } else if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines
}
