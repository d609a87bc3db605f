//! Reads the message tables of `schema/kafka`: what they may say, and errors with file and line. How they read: docs/PROTOCOL.md.

use std::fmt;

/// First and last version, both included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) first: i16,
    pub(crate) last: i16,
}

impl Versions {
    /// Whether all of `other` lies inside.
    pub(crate) fn holds(self, other: Versions) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    pub(crate) fn contains(self, version: i16) -> bool {
        (self.first..=self.last).contains(&version)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// One file: an API with its two messages, or one record format.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// Kafka's name, as in `FindCoordinator`.
    pub(crate) name: String,
    /// The number of the API; none for a record format.
    pub(crate) api_key: Option<i16>,
    pub(crate) versions: Versions,
    /// First version with compact lengths and tagged fields.
    pub(crate) flexible: Option<i16>,
    /// Names of the structs that are whole messages.
    pub(crate) messages: Vec<String>,
    /// All structs, each before those it holds.
    pub(crate) structs: Vec<Struct>,
}

#[derive(Debug, Clone)]
pub(crate) struct Struct {
    pub(crate) name: String,
    /// Versions in which it can occur.
    pub(crate) versions: Versions,
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) versions: Versions,
    /// Versions in which it may be null.
    pub(crate) nullable: Option<Versions>,
    pub(crate) tag: Option<u32>,
    pub(crate) default: Literal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    I8,
    I16,
    I32,
    I64,
    Uuid,
    String,
    Bytes,
    /// Record batches that are read where they lie in the frame.
    Records,
    /// Record batches that are written from where they lie, chunk by chunk.
    Chunks,
    Struct(String),
    Array(Box<Kind>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Literal {
    /// Zero, false, nothing inside.
    Empty,
    Null,
    Number(i64),
    Bool(bool),
    Text(String),
}

/// What is wrong with a table, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SchemaError {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

impl std::error::Error for SchemaError {}

impl Table {
    /// Reads the text of one file; `file` names it in errors.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Table, SchemaError> {
        let at = |line, message| SchemaError { file: file.to_owned(), line, message };
        let mut lines = Vec::new();
        for (number, raw) in (1..).zip(text.lines()) {
            let line = raw.split('#').next().unwrap_or_default().trim_end();
            if !line.trim_start().is_empty() {
                let indent = line.len() - line.trim_start().len();
                lines.push(Line { number, indent, text: line.trim_start() });
            }
        }
        let (head, body) = lines.split_first().ok_or_else(|| at(1, "the table is empty".to_owned()))?;
        let mut parser = Parser { table: parse_head(head.text).map_err(|m| at(head.number, m))? };
        parser.body(body).map_err(|(line, message)| at(line, message))?;
        Ok(parser.table)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Struct> {
        self.structs.iter().find(|s| s.name == name)
    }
}

struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

struct Parser {
    table: Table,
}

type Located<T> = Result<T, (usize, String)>;

/// `api KEY NAME VERSIONS [flexible FIRST]` or `record NAME VERSIONS [flexible FIRST]`.
fn parse_head(text: &str) -> Result<Table, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (api_key, rest) = match words.as_slice() {
        ["api", key, rest @ ..] => (Some(key.parse().map_err(|_| format!("`{key}` is no API key"))?), rest),
        ["record", rest @ ..] => (None, rest),
        _ => return Err("a table starts with `api KEY NAME VERSIONS` or `record NAME VERSIONS`".to_owned()),
    };
    let (name, versions, flexible) = match rest {
        [name, versions] => (name, versions, None),
        [name, versions, "flexible", first] => (name, versions, Some(*first)),
        _ => return Err("after the name come the versions, then perhaps `flexible FIRST`".to_owned()),
    };
    let versions = parse_versions(versions, None)?;
    let flexible = flexible.map(|first| first.parse().map_err(|_| format!("`{first}` is no version")));
    let flexible: Option<i16> = flexible.transpose()?;
    if flexible.is_some_and(|first| !versions.contains(first)) {
        return Err(format!("the first flexible version lies outside of {versions}"));
    }
    let name = type_name(name)?;
    Ok(Table { name, api_key, versions, flexible, messages: Vec::new(), structs: Vec::new() })
}

/// `3`, `3-7`, or, within the versions of what holds it, `3+`.
fn parse_versions(text: &str, outer: Option<Versions>) -> Result<Versions, String> {
    let number = |text: &str| text.parse::<i16>().map_err(|_| format!("`{text}` is no version"));
    let versions = if let (Some(first), Some(outer)) = (text.strip_suffix('+'), outer) {
        Versions { first: number(first)?, last: outer.last }
    } else if let Some((first, last)) = text.split_once('-') {
        Versions { first: number(first)?, last: number(last)? }
    } else {
        Versions { first: number(text)?, last: number(text)? }
    };
    if versions.first < 0 || versions.first > versions.last {
        return Err(format!("versions {text} are empty"));
    }
    match outer.filter(|outer| !outer.holds(versions)) {
        Some(outer) => Err(format!("versions {versions} pass those around them, {outer}")),
        None => Ok(versions),
    }
}

fn type_name(name: &str) -> Result<String, String> {
    let is_name =
        name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric());
    if is_name { Ok(name.to_owned()) } else { Err(format!("`{name}` is no name of a struct")) }
}

impl Parser {
    fn body(&mut self, body: &[Line<'_>]) -> Located<()> {
        let versions = self.table.versions;
        if self.table.api_key.is_none() {
            let name = self.table.name.clone();
            self.table.messages.push(name.clone());
            return self.fields(name, versions, 0, body);
        }
        let first = body.first().map_or(1, |line| line.number);
        let response = body.iter().position(|line| line.indent == 0 && line.text == "response");
        let (Some("request"), Some(response)) = (body.first().map(|line| line.text), response) else {
            return Err((first, "an API has a part `request` and then a part `response`".to_owned()));
        };
        let (request, response) = body.split_at(response);
        for (suffix, part) in [("Request", request), ("Response", response)] {
            let name = format!("{}{suffix}", self.table.name);
            self.table.messages.push(name.clone());
            self.fields(name, versions, 0, &part[1..])?;
        }
        Ok(())
    }

    /// Reads the fields of a struct, which stand deeper than `outer_indent`, and the structs within them.
    fn fields(
        &mut self,
        name: String,
        versions: Versions,
        outer_indent: usize,
        lines: &[Line<'_>],
    ) -> Located<()> {
        let slot = self.table.structs.len();
        self.table.structs.push(Struct { name, versions, fields: Vec::new() });
        let mut fields: Vec<Field> = Vec::new();
        let mut rest = lines;
        while let Some((line, after)) = rest.split_first() {
            let indent = lines[0].indent;
            if line.indent <= outer_indent || line.indent != indent {
                return Err((line.number, "the indentation fits no struct around it".to_owned()));
            }
            let field = parse_field(line.text, versions).map_err(|message| (line.number, message))?;
            self.check_field(&field, &fields).map_err(|message| (line.number, message))?;
            let nested = after.iter().take_while(|next| next.indent > indent).count();
            let (nested, after) = after.split_at(nested);
            self.nested(&field, line.number, indent, nested)?;
            if field.tag.is_some() && self.holds_chunks(&field.kind) {
                let why = "chunks cannot be tagged: their length would have to be known before they are";
                return Err((line.number, why.to_owned()));
            }
            fields.push(field);
            rest = after;
        }
        self.table.structs[slot].fields = fields;
        Ok(())
    }

    /// The struct that a field brings along, or uses again.
    fn nested(&mut self, field: &Field, line: usize, indent: usize, lines: &[Line<'_>]) -> Located<()> {
        let Some(name) = struct_of(&field.kind) else {
            return match lines.first() {
                Some(next) => Err((next.number, "only a struct has fields within".to_owned())),
                None => Ok(()),
            };
        };
        match (self.table.find(name), lines) {
            (None, []) => Err((line, format!("struct {name} has no fields, here or above"))),
            (None, _) => self.fields(name.to_owned(), field.versions, indent, lines),
            (Some(known), []) if known.versions == field.versions => Ok(()),
            (Some(known), []) => Err((
                line,
                format!("struct {name} was told for versions {}, not {}", known.versions, field.versions),
            )),
            (Some(_), [next, ..]) => Err((next.number, format!("struct {name} has its fields already"))),
        }
    }

    fn holds_chunks(&self, kind: &Kind) -> bool {
        let part = struct_of(kind).and_then(|name| self.table.find(name));
        *kind == Kind::Chunks
            || part.is_some_and(|part| part.fields.iter().any(|f| self.holds_chunks(&f.kind)))
    }

    fn check_field(&self, field: &Field, before: &[Field]) -> Result<(), String> {
        if before.iter().any(|f| f.name == field.name) {
            return Err(format!("field {} stands here twice", field.name));
        }
        let Some(tag) = field.tag else { return Ok(()) };
        if self.table.flexible.is_none_or(|first| field.versions.first < first) {
            return Err("a tagged field needs flexible versions".to_owned());
        }
        if before.iter().any(|f| f.tag == Some(tag)) {
            return Err(format!("tag {tag} stands here twice"));
        }
        Ok(())
    }
}

/// The struct in a type, if there is one.
pub(crate) fn struct_of(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::Struct(name) => Some(name),
        Kind::Array(item) => struct_of(item),
        _ => None,
    }
}

/// `name type [versions] [null | null=versions] [tag=N] [= default]`.
fn parse_field(text: &str, outer: Versions) -> Result<Field, String> {
    let (text, default) = match text.split_once(" = ") {
        Some((text, default)) => (text, Some(default.trim())),
        None => (text, None),
    };
    let mut words = text.split_whitespace().peekable();
    let (Some(name), Some(kind)) = (words.next(), words.next()) else {
        return Err("a field is `name type [versions] [null] [tag=N] [= default]`".to_owned());
    };
    if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return Err(format!("`{name}` is no name of a field"));
    }
    let kind = parse_kind(kind)?;
    let spans = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    let versions = words.next_if(spans).map_or(Ok(outer), |word| parse_versions(word, Some(outer)))?;
    let mut field =
        Field { name: name.to_owned(), kind, versions, nullable: None, tag: None, default: Literal::Empty };
    for word in words {
        match word.split_once('=') {
            None if word == "null" => field.nullable = Some(versions),
            Some(("null", span)) => field.nullable = Some(parse_versions(span, Some(versions))?),
            Some(("tag", tag)) => field.tag = Some(tag.parse().map_err(|_| format!("`{tag}` is no tag"))?),
            _ => return Err(format!("`{word}` is neither versions nor null nor a tag")),
        }
    }
    if field.nullable.is_some() && !may_be_null(&field.kind) {
        return Err("this type cannot be null".to_owned());
    }
    field.default = default.map_or(Ok(Literal::Empty), |default| parse_default(default, &field))?;
    Ok(field)
}

fn may_be_null(kind: &Kind) -> bool {
    !matches!(kind, Kind::Bool | Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 | Kind::Uuid)
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    if let Some(item) = text.strip_prefix("[]") {
        return match parse_kind(item)? {
            Kind::Array(_) | Kind::Chunks => Err("an array holds no arrays and no chunks".to_owned()),
            item => Ok(Kind::Array(Box::new(item))),
        };
    }
    Ok(match text {
        "bool" => Kind::Bool,
        "i8" => Kind::I8,
        "i16" => Kind::I16,
        "i32" => Kind::I32,
        "i64" => Kind::I64,
        "uuid" => Kind::Uuid,
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "records" => Kind::Records,
        "chunks" => Kind::Chunks,
        name => Kind::Struct(type_name(name).map_err(|_| format!("`{name}` is no type"))?),
    })
}

fn parse_default(text: &str, field: &Field) -> Result<Literal, String> {
    let (low, high) = match field.kind {
        Kind::I8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        Kind::I16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        Kind::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match (&field.kind, text, quoted) {
        (_, "null", _) if field.nullable == Some(field.versions) => Ok(Literal::Null),
        (_, "null", _) => Err("only what may be null in each of its versions is null unless set".to_owned()),
        (Kind::Bool, "true", _) => Ok(Literal::Bool(true)),
        (Kind::String, _, Some(inside)) => Ok(Literal::Text(inside.to_owned())),
        (Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64, ..) => match text.parse::<i64>() {
            Ok(0) => Err("zero needs no mention".to_owned()),
            Ok(number) if (low..=high).contains(&number) => Ok(Literal::Number(number)),
            _ => Err(format!("`{text}` is no value of this type")),
        },
        _ => Err(format!("`{text}` is no default of this type")),
    }
}
