//! Records that were read, on their way to standard output.

use std::io;

use clap::{Args, ValueEnum};

use super::template::{self, Template};
use super::{SeenRecord, json};
use crate::input::escapes::{self, Separator};
use crate::output::table::{Column, Pages};
use crate::output::{Sink, text, time};

/// Characters of a key, value or header in a table.
const CELL_WIDTH: usize = 60;

const COLUMNS: [Column; 6] = [
    Column::Number("partition"),
    Column::Number("offset"),
    Column::Text("timestamp"),
    Column::Text("key"),
    Column::Text("value"),
    Column::Text("headers"),
];

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecordOutput {
    /// The bytes of the value, and a line end.
    Text,
    /// For people: long values are cut.
    Table,
    /// One object a line, which `floodmark produce --input json` takes back byte for byte.
    Json,
}

/// How records are printed.
#[derive(Debug, Args)]
pub(crate) struct RecordOutputArgs {
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = RecordOutput::Text)]
    output: RecordOutput,
    /// Print the key and this before each value; escapes such as \t are understood.
    #[arg(long, value_name = "S", value_parser = escapes::separator, allow_hyphen_values = true)]
    key_separator: Option<Separator>,
    /// Print this for each record, with fields: {topic} {partition} {offset} {timestamp} {time} {key} {value} {headers} {header:NAME}.
    #[arg(long, value_name = "TEMPLATE", value_parser = template::argument, conflicts_with = "key_separator", allow_hyphen_values = true)]
    format: Option<Template>,
    /// Ends each record of text, such as \0; may be empty.
    #[arg(long, value_name = "S", default_value = r"\n", value_parser = escapes::ending)]
    delimiter: Separator,
    /// Stands for a key or value that is null, in text.
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    null: String,
}

/// Prints records.
pub(crate) struct RecordWriter {
    sink: Sink,
    form: Form,
}

enum Form {
    Text { template: Template, delimiter: Vec<u8>, null: Vec<u8> },
    Table(Box<Pages>),
    Json,
}

impl RecordOutputArgs {
    pub(crate) fn is_json(&self) -> bool {
        self.output == RecordOutput::Json
    }

    /// Fails where options contradict each other.
    pub(crate) fn writer(&self) -> anyhow::Result<RecordWriter> {
        let is_text = self.output == RecordOutput::Text;
        if !is_text && (self.key_separator.is_some() || self.format.is_some()) {
            anyhow::bail!("--key-separator and --format are for text; leave --output out");
        }
        let form = match self.output {
            RecordOutput::Text => Form::Text {
                template: self
                    .format
                    .clone()
                    .unwrap_or_else(|| Template::of_lines(self.key_separator.as_ref().map(|s| &s.0[..]))),
                delimiter: self.delimiter.0.clone(),
                null: self.null.clone().into_bytes(),
            },
            RecordOutput::Table => Form::Table(Box::new(Pages::new(&COLUMNS))),
            RecordOutput::Json => Form::Json,
        };
        Ok(RecordWriter { sink: Sink::stdout(), form })
    }
}

impl RecordWriter {
    /// It may be kept until the next flush.
    pub(crate) fn write(&mut self, record: &SeenRecord<'_>) -> io::Result<()> {
        match &mut self.form {
            Form::Json => self.sink.json(&json::object(record)),
            Form::Table(pages) => pages.row(&mut self.sink, cells(record)),
            Form::Text { template, delimiter, null } => {
                template.write(record, null, &mut self.sink)?;
                io::Write::write_all(&mut self.sink, delimiter)
            }
        }
    }

    /// Everything is with whoever reads the output when this returns.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Form::Table(pages) = &mut self.form {
            pages.flush(&mut self.sink)?;
        }
        self.sink.flush()
    }
}

fn cells(record: &SeenRecord<'_>) -> Vec<String> {
    let headers = record.headers.iter().map(|header| {
        let name = text::cell(Some(header.name), Some(CELL_WIDTH));
        format!("{name}={}", text::cell(header.value, Some(CELL_WIDTH)))
    });
    vec![
        record.partition.to_string(),
        record.offset.to_string(),
        time::cell(record.timestamp_ms),
        text::cell(record.key, Some(CELL_WIDTH)),
        text::cell(record.value, Some(CELL_WIDTH)),
        headers.collect::<Vec<_>>().join(" "),
    ]
}
