//! A message as a list of lines, one a field, in the order of the bytes: the form in which two definitions are compared.

use serde_json::Value;

use super::tables::schema::{Field, Kind, Literal, Table, Versions, struct_of};

/// What a definition says of one message.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) lines: Vec<String>,
}

impl Facts {
    pub(crate) fn of_table(table: &Table, message: &str) -> Facts {
        let mut lines = Vec::new();
        table_fields(table, message, "", &mut lines);
        let mut facts = Facts { lines: head(table.api_key, table.versions, table.flexible) };
        facts.lines.extend(shown(&lines, table.versions));
        facts
    }

    /// From Kafka's JSON. The newest version is left out where it is not stable: brokers do not offer it.
    pub(crate) fn of_json(json: &Value, newest_is_unstable: bool) -> Facts {
        known_keys(
            json,
            &[
                "apiKey",
                "type",
                "listeners",
                "name",
                "validVersions",
                "flexibleVersions",
                "fields",
                "commonStructs",
                "latestVersionUnstable",
            ],
        );
        let mut versions = versions(&json["validVersions"], Versions { first: 0, last: i16::MAX }).unwrap();
        versions.last -= i16::from(newest_is_unstable);
        let flexible = versions_of(json, "flexibleVersions", versions).map(|flexible| flexible.first);
        let is_api = matches!(json["type"].as_str(), Some("request" | "response"));
        let api_key = is_api.then(|| json["apiKey"].as_i64().unwrap() as i16);
        let mut lines = Vec::new();
        json_fields(&json["fields"], &json["commonStructs"], "", versions, &mut lines);
        let mut facts = Facts { lines: head(api_key, versions, flexible) };
        facts.lines.extend(shown(&lines, versions));
        facts
    }
}

fn head(api_key: Option<i16>, versions: Versions, flexible: Option<i16>) -> Vec<String> {
    vec![format!("key {api_key:?}"), format!("versions {versions}"), format!("flexible {flexible:?}")]
}

fn table_fields(table: &Table, name: &str, path: &str, lines: &mut Vec<Line>) {
    for field in &table.find(name).unwrap().fields {
        let path = format!("{path}/{}", field.name);
        lines.push(Line {
            path: path.clone(),
            kind: kind_name(&field.kind),
            versions: field.versions,
            null: field.nullable,
            tag: field.tag,
            default: default_text(field),
        });
        if let Some(inner) = struct_of(&field.kind) {
            table_fields(table, inner, &path, lines);
        }
    }
}

struct Line {
    path: String,
    kind: String,
    versions: Versions,
    null: Option<Versions>,
    tag: Option<u32>,
    default: String,
}

/// As text. All versions of the message are `all`, so that only its head tells two ways of counting them apart.
fn shown(lines: &[Line], all: Versions) -> impl Iterator<Item = String> {
    let span =
        move |versions: Versions| if versions == all { "all".to_owned() } else { versions.to_string() };
    lines.iter().map(move |Line { path, kind, versions, null, tag, default }| {
        let null = null.map_or("never".to_owned(), span);
        format!("{path} {kind} in {} null in {null} tag {tag:?} default {default}", span(*versions))
    })
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "bool".to_owned(),
        Kind::I8 => "int8".to_owned(),
        Kind::I16 => "int16".to_owned(),
        Kind::I32 => "int32".to_owned(),
        Kind::I64 => "int64".to_owned(),
        Kind::Uuid => "uuid".to_owned(),
        Kind::String => "string".to_owned(),
        Kind::Bytes => "bytes".to_owned(),
        Kind::Records | Kind::Chunks => "records".to_owned(),
        Kind::Struct(name) => name.clone(),
        Kind::Array(item) => format!("[]{}", kind_name(item)),
    }
}

fn default_text(field: &Field) -> String {
    match &field.default {
        Literal::Empty => String::new(),
        Literal::Null => "null".to_owned(),
        Literal::Number(number) => number.to_string(),
        Literal::Bool(value) => value.to_string(),
        Literal::Text(text) => text.clone(),
    }
}

fn json_fields(fields: &Value, common: &Value, path: &str, outer: Versions, lines: &mut Vec<Line>) {
    for field in fields.as_array().unwrap() {
        known_keys(
            field,
            &[
                "name",
                "type",
                "versions",
                "nullableVersions",
                "taggedVersions",
                "tag",
                "default",
                "fields",
                "about",
                "entityType",
                "ignorable",
                "mapKey",
                "zeroCopy",
            ],
        );
        let Some(versions) = versions(&field["versions"], outer) else { continue };
        let path = format!("{path}/{}", snake_case(field["name"].as_str().unwrap()));
        let tagged = versions_of(field, "taggedVersions", versions);
        assert!(tagged.is_none_or(|tagged| tagged == versions), "{path} is tagged in some versions only");
        let kind = field["type"].as_str().unwrap();
        lines.push(Line {
            path: path.clone(),
            kind: kind.to_owned(),
            versions,
            null: versions_of(field, "nullableVersions", versions),
            tag: field["tag"].as_u64().map(|tag| tag as u32),
            default: json_default(&field["default"]),
        });
        let inner = kind.trim_start_matches("[]");
        let known = common.as_array().into_iter().flatten().find(|part| part["name"] == inner);
        match (field.get("fields"), known) {
            (Some(fields), _) => json_fields(fields, common, &path, versions, lines),
            (None, Some(part)) => json_fields(&part["fields"], common, &path, versions, lines),
            (None, None) => assert!(inner.starts_with(|c: char| c.is_ascii_lowercase()), "{path}: {inner}"),
        }
    }
}

/// The default as text; what is zero or empty unless said otherwise is nothing.
fn json_default(default: &Value) -> String {
    let text = match default {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let hex = text.strip_prefix("0x").map(|digits| i64::from_str_radix(digits, 16).unwrap().to_string());
    match hex.unwrap_or(text).as_str() {
        "0" | "false" => String::new(),
        other => other.to_owned(),
    }
}

/// A key that is not known may matter to the bytes.
fn known_keys(json: &Value, known: &[&str]) {
    for key in json.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "`{key}` in {} is new", json["name"]);
    }
}

fn versions_of(json: &Value, key: &str, outer: Versions) -> Option<Versions> {
    json.get(key).and_then(|text| versions(text, outer))
}

/// `3`, `3-7` or `3+`, as far as it lies in `outer`; `none` is none.
fn versions(text: &Value, outer: Versions) -> Option<Versions> {
    let number = |text: &str| text.parse::<i16>().unwrap();
    let (first, last) = match text.as_str().unwrap() {
        "none" => return None,
        text => match (text.strip_suffix('+'), text.split_once('-')) {
            (Some(first), _) => (number(first), i16::MAX),
            (None, Some((first, last))) => (number(first), number(last)),
            (None, None) => (number(text), number(text)),
        },
    };
    let versions = Versions { first: first.max(outer.first), last: last.min(outer.last) };
    (versions.first <= versions.last).then_some(versions)
}

fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
