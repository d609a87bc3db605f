//! `floodmark config`: which settings there are, what they are now, and who said so.

use clap::{Args, Subcommand};
use floodmark_broker::config::{BrokerConfig, Effective, Origin, nearest_setting};
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

/// A setting as programs read it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    key: &'a str,
    value: &'a str,
    default: &'a str,
    origin: OriginRow<'a>,
    documentation: &'a str,
    allowed: String,
    variable: String,
    flag: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum OriginRow<'a> {
    Default,
    File { path: String, line: usize },
    Environment { variable: &'a str },
    Flag { flag: &'a str },
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
    for (effective, default) in with_defaults(&config) {
        match args.output {
            Format::Json => sink.json(&row(&effective, &default))?,
            Format::Table => table.row(
                &mut sink,
                vec![
                    effective.setting.key.to_owned(),
                    effective.value,
                    effective.origin.to_string(),
                    wrapped(effective.setting.documentation.trim(), DOCUMENTATION_WIDTH),
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
    let Some((effective, default)) = with_defaults(&config).find(|(e, _)| e.setting.key == args.key) else {
        let advice =
            nearest_setting(&args.key).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        anyhow::bail!("there is no setting {}{advice}", args.key);
    };
    let mut sink = Sink::stdout();
    match args.output {
        Format::Json => sink.json(&row(&effective, &default))?,
        Format::Table => {
            let setting = effective.setting;
            sink.line(setting.key)?;
            sink.line(&wrapped(setting.documentation.trim(), 100))?;
            sink.line("")?;
            sink.line(&format!("value        {} ({})", effective.value, effective.origin))?;
            sink.line(&format!("default      {default}"))?;
            sink.line(&format!("allowed      {}", setting.allowed()))?;
            sink.line(&format!("in a file    {}", in_a_file(setting.key, &effective.value)))?;
            sink.line(&format!("environment  {}={}", setting.variable(), effective.value))?;
            if let Some((flag, _)) = setting.flag {
                sink.line(&format!("flag         --{flag} {}", effective.value))?;
            }
        }
    }
    sink.flush()?;
    Ok(Outcome::Good)
}

/// Each setting beside the value it has where nobody says anything.
fn with_defaults(config: &BrokerConfig) -> impl Iterator<Item = (Effective, String)> {
    let defaults: Vec<String> = BrokerConfig::default().effective().map(|e| e.value).collect();
    config.effective().zip(defaults)
}

fn row<'a>(effective: &'a Effective, default: &'a str) -> Row<'a> {
    let setting = effective.setting;
    Row {
        key: setting.key,
        value: &effective.value,
        default,
        origin: match &effective.origin {
            Origin::Default => OriginRow::Default,
            Origin::File { path, line } => OriginRow::File { path: path.display().to_string(), line: *line },
            Origin::Environment(variable) => OriginRow::Environment { variable },
            Origin::Flag(flag) => OriginRow::Flag { flag },
            Origin::Program => OriginRow::Program,
        },
        documentation: setting.documentation.trim(),
        allowed: setting.allowed(),
        variable: setting.variable(),
        flag: setting.flag.map(|(flag, _)| format!("--{flag}")),
    }
}

/// A line that a TOML file takes: numbers and truth values as they are, the rest in quotes.
fn in_a_file(key: &str, value: &str) -> String {
    if value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok() {
        format!("{key} = {value}")
    } else {
        format!("{key} = \"{}\"", value.escape_default())
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
