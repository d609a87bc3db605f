//! Writes Rust from a table: structs, and for each its part of decode and encode. What these call is in `src/kafka`.

use std::fmt::Write;

use crate::schema::{Field, Kind, Literal, Struct, Table, Versions};

/// `FetchTopic` as `fetch_topic`.
pub(crate) fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// The modules, one a table.
pub(crate) fn modules(tables: &[Table]) -> String {
    let mut out = String::new();
    for table in tables {
        let module = snake_case(&table.name);
        let key = table.api_key.map(|key| format!(", key {key}")).unwrap_or_default();
        let _ = writeln!(out, "/// {}{key}, versions {}.", table.name, table.versions);
        let _ = writeln!(out, "pub mod {module} {{");
        let _ = writeln!(out, "    include!(concat!(env!(\"OUT_DIR\"), \"/kafka/{module}.rs\"));");
        let _ = writeln!(out, "}}\n");
    }
    out
}

/// `ApiKey` and its tables.
pub(crate) fn api_keys(tables: &[Table]) -> String {
    let apis: Vec<(i16, &Table)> = tables.iter().filter_map(|table| Some((table.api_key?, table))).collect();
    let mut out = String::from(
        "/// The APIs that have a table; the number is what a request header says.\n\
         #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]\n#[repr(i16)]\npub enum ApiKey {\n",
    );
    for (key, table) in &apis {
        let _ = writeln!(
            out,
            "    /// {}, versions {}.\n    {} = {key},",
            table.name, table.versions, table.name
        );
    }
    out.push_str(
        "}\n\nimpl ApiKey {\n    /// All of them, by number.\n    pub const ALL: &'static [ApiKey] = &[\n",
    );
    for (_, table) in &apis {
        let _ = writeln!(out, "        ApiKey::{},", table.name);
    }
    out.push_str("    ];\n}\n\n/// Name, versions and first flexible version of one API.\n");
    out.push_str("const fn facts(key: ApiKey) -> Facts {\n    match key {\n");
    for (_, table) in &apis {
        let Versions { first, last } = table.versions;
        let _ = writeln!(
            out,
            "        ApiKey::{0} => Facts {{ name: \"{0}\", first: {first}, last: {last}, flexible: {1:?} }},",
            table.name, table.flexible
        );
    }
    out.push_str("    }\n}\n");
    out
}

/// All of one table.
pub(crate) fn messages(table: &Table) -> String {
    let mut out = String::from("use crate::kafka::{DecodeError, Decoder, Encoder, Message, Part};\n");
    if table.structs.iter().any(|s| s.fields.iter().any(|f| f.kind == Kind::Chunks)) {
        out.push_str("use bytes::Bytes;\n");
    }
    for part in &table.structs {
        let writer = Writer { table, part, life: if borrows(table, part) { "<'a>" } else { "" } };
        out.push('\n');
        writer.definition(&mut out);
        writer.part(&mut out);
        if table.messages.contains(&part.name) {
            writer.message(&mut out);
        }
    }
    out
}

/// Whether a struct points into the frame.
fn borrows(table: &Table, part: &Struct) -> bool {
    part.fields.iter().any(|field| kind_borrows(table, &field.kind))
}

fn kind_borrows(table: &Table, kind: &Kind) -> bool {
    match kind {
        Kind::String | Kind::Bytes | Kind::Records => true,
        Kind::Struct(name) => table.find(name).is_some_and(|part| borrows(table, part)),
        Kind::Array(item) => kind_borrows(table, item),
        _ => false,
    }
}

/// Writes one struct.
struct Writer<'t> {
    table: &'t Table,
    part: &'t Struct,
    life: &'static str,
}

impl Writer<'_> {
    fn definition(&self, out: &mut String) {
        let Struct { name, versions, fields } = self.part;
        let plain = fields.iter().all(|field| self.is_plain_default(field));
        let _ = writeln!(out, "/// `{name}`, versions {versions}.");
        let _ = writeln!(out, "#[derive(Debug, Clone, PartialEq{})]", if plain { ", Default" } else { "" });
        let _ = writeln!(out, "pub struct {name}{} {{", self.life);
        for field in fields {
            let _ = writeln!(out, "    /// {}", describe(field));
            let _ = writeln!(out, "    pub {}: {},", rust_name(&field.name), self.rust_type(field));
        }
        out.push_str("}\n\n");
        if !plain {
            let anonymous = if self.life.is_empty() { "" } else { "<'_>" };
            let _ = writeln!(
                out,
                "impl Default for {name}{anonymous} {{\n    fn default() -> Self {{\n        Self {{"
            );
            for field in fields {
                let _ = writeln!(out, "            {}: {},", rust_name(&field.name), self.default(field));
            }
            out.push_str("        }\n    }\n}\n\n");
        }
    }

    fn part(&self, out: &mut String) {
        let _ = writeln!(out, "impl<'a> Part<'a> for {}{} {{", self.part.name, self.life);
        let (min_len, decode, encode) = (self.min_len(), self.decode(), self.encode());
        let named = |body: &str, name: &'static str| {
            if uses(body, name) { name.to_owned() } else { format!("_{name}") }
        };
        let version = named(&min_len, "version");
        let _ =
            writeln!(out, "    fn min_len({version}: i16, _flexible: bool) -> usize {{\n{min_len}    }}\n");
        let version = named(&decode, "version");
        let d = named(&decode, "d");
        let _ = writeln!(
            out,
            "    fn decode_part({d}: &mut Decoder<'a>, {version}: i16, _field: &'static str) -> Result<Self, DecodeError> {{\n\
             {decode}    }}\n"
        );
        let version = named(&encode, "version");
        let e = named(&encode, "e");
        let _ = writeln!(
            out,
            "    fn encode_part(&self, {e}: &mut Encoder, {version}: i16, _field: &'static str) {{\n{encode}    }}\n}}\n"
        );
    }

    fn message(&self, out: &mut String) {
        let Versions { first, last } = self.part.versions;
        let _ = writeln!(
            out,
            "impl<'a> Message<'a> for {0}{1} {{\n    const NAME: &'static str = \"{0}\";\n    \
             const VERSIONS: std::ops::RangeInclusive<i16> = {first}..={last};\n    \
             const FIRST_FLEXIBLE: Option<i16> = {2:?};\n}}",
            self.part.name, self.life, self.table.flexible
        );
    }

    /// The name that errors carry, quoted.
    fn path(&self, field: &Field) -> String {
        format!("\"{}.{}\"", self.part.name, field.name)
    }

    fn rust_type(&self, field: &Field) -> String {
        let kind = self.kind_type(&field.kind);
        if field.nullable.is_some() { format!("Option<{kind}>") } else { kind }
    }

    fn kind_type(&self, kind: &Kind) -> String {
        match kind {
            Kind::Bool => "bool".to_owned(),
            Kind::I8 => "i8".to_owned(),
            Kind::I16 => "i16".to_owned(),
            Kind::I32 => "i32".to_owned(),
            Kind::I64 => "i64".to_owned(),
            Kind::Uuid => "[u8; 16]".to_owned(),
            Kind::String => "&'a str".to_owned(),
            Kind::Bytes | Kind::Records => "&'a [u8]".to_owned(),
            Kind::Chunks => "Vec<Bytes>".to_owned(),
            Kind::Struct(name) if kind_borrows(self.table, kind) => format!("{name}<'a>"),
            Kind::Struct(name) => name.clone(),
            Kind::Array(item) => format!("Vec<{}>", self.kind_type(item)),
        }
    }

    /// Whether Rust's own default is the schema's.
    fn is_plain_default(&self, field: &Field) -> bool {
        match field.default {
            Literal::Empty => field.nullable.is_none(),
            Literal::Null => true,
            _ => false,
        }
    }

    fn default(&self, field: &Field) -> String {
        let inside = match (&field.default, &field.kind) {
            (Literal::Null, _) => return "None".to_owned(),
            (Literal::Number(i64::MAX), _) => "i64::MAX".to_owned(),
            (Literal::Number(number), _) => number.to_string(),
            (Literal::Bool(value), _) => value.to_string(),
            (Literal::Text(text), _) => format!("{text:?}"),
            (Literal::Empty, Kind::Bool) => "false".to_owned(),
            (Literal::Empty, Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64) => "0".to_owned(),
            (Literal::Empty, Kind::Uuid) => "[0; 16]".to_owned(),
            (Literal::Empty, Kind::String) => "\"\"".to_owned(),
            (Literal::Empty, Kind::Bytes | Kind::Records) => "&[]".to_owned(),
            (Literal::Empty, Kind::Chunks | Kind::Array(_)) => "Vec::new()".to_owned(),
            (Literal::Empty, Kind::Struct(name)) => format!("{name}::default()"),
        };
        if field.nullable.is_some() { format!("Some({inside})") } else { inside }
    }

    /// Whether a value differs from the default, as an expression over `self`.
    fn differs(&self, field: &Field) -> String {
        let name = rust_name(&field.name);
        match (&field.default, &field.kind) {
            (Literal::Null, _) => format!("self.{name}.is_some()"),
            (Literal::Empty, Kind::Bool) => format!("self.{name}"),
            (Literal::Empty, Kind::Array(_) | Kind::String | Kind::Bytes | Kind::Records)
                if field.nullable.is_none() =>
            {
                format!("!self.{name}.is_empty()")
            }
            _ => format!("self.{name} != {}", self.default(field)),
        }
    }

    fn is_flexible_at(&self, version: i16) -> bool {
        self.table.flexible.is_some_and(|first| version >= first)
    }

    /// Bytes of the shortest encoding at a version.
    fn min_len_at(&self, version: i16) -> usize {
        let flexible = self.is_flexible_at(version);
        let fields = self.part.fields.iter().filter(|f| f.tag.is_none() && f.versions.contains(version));
        let lens = fields.map(|field| match &field.kind {
            Kind::Bool | Kind::I8 => 1,
            Kind::I16 => 2,
            Kind::I32 => 4,
            Kind::I64 => 8,
            Kind::Uuid => 16,
            Kind::Struct(_) if field.nullable.is_some() => 1,
            Kind::Struct(name) => self
                .table
                .find(name)
                .map_or(0, |part| Writer { table: self.table, part, life: "" }.min_len_at(version)),
            _ if flexible => 1,
            Kind::String => 2,
            Kind::Bytes | Kind::Records | Kind::Chunks | Kind::Array(_) => 4,
        });
        lens.sum::<usize>() + usize::from(flexible)
    }

    fn min_len(&self) -> String {
        let Versions { first, last } = self.part.versions;
        let mut steps: Vec<(i16, usize)> = Vec::new();
        for version in first..=last {
            let len = self.min_len_at(version);
            if steps.last().is_none_or(|&(_, before)| before != len) {
                steps.push((version, len));
            }
        }
        if let [(_, len)] = steps.as_slice() {
            return format!("        {len}\n");
        }
        let mut out = String::from("        match version {\n");
        for (at, (from, len)) in steps.iter().enumerate() {
            let _ = match steps.get(at + 1).map(|(next, _)| next - 1) {
                Some(to) if to == *from => writeln!(out, "            {from} => {len},"),
                Some(to) => writeln!(out, "            {from}..={to} => {len},"),
                None => writeln!(out, "            _ => {len},"),
            };
        }
        out.push_str("        }\n");
        out
    }

    /// The condition on `version` under which it lies in `versions`; none if it always does.
    fn condition(&self, versions: Versions) -> Option<String> {
        condition_within(versions, self.part.versions)
    }

    /// The versions of this struct that have tagged fields.
    fn flexible_versions(&self) -> Option<Versions> {
        let Versions { first, last } = self.part.versions;
        let first = self.table.flexible?.max(first);
        (first <= last).then_some(Versions { first, last })
    }

    /// The condition under which a null is legal.
    fn null_condition(&self, field: &Field) -> Option<String> {
        let nullable = field.nullable?;
        if nullable == field.versions {
            return Some("true".to_owned());
        }
        Some(self.condition(nullable).unwrap_or_else(|| "true".to_owned()))
    }

    fn tagged(&self) -> Vec<&Field> {
        let mut tagged: Vec<&Field> = self.part.fields.iter().filter(|field| field.tag.is_some()).collect();
        tagged.sort_by_key(|field| field.tag);
        tagged
    }

    fn decode(&self) -> String {
        let mut out = String::new();
        let tagged = self.tagged();
        let opening = match (self.flexible_versions(), tagged.is_empty()) {
            (None, _) => "Ok(Self {",
            (Some(_), true) => "let this = Self {",
            (Some(_), false) => "let mut this = Self {",
        };
        let _ = writeln!(out, "        {opening}");
        for field in &self.part.fields {
            let name = rust_name(&field.name);
            let _ = match (field.tag, self.condition(field.versions)) {
                (Some(_), _) => writeln!(out, "            {name}: {},", self.default(field)),
                (None, None) => writeln!(out, "            {name}: {},", self.read(field)),
                (None, Some(condition)) => writeln!(
                    out,
                    "            {name}: if {condition} {{ {} }} else {{ {} }},",
                    self.read(field),
                    self.default(field)
                ),
            };
        }
        let Some(flexible) = self.flexible_versions() else {
            out.push_str("        })\n");
            return out;
        };
        out.push_str("        };\n");
        wrap(&mut out, self.condition(flexible), &self.decode_tags(flexible, &tagged));
        out.push_str("        Ok(this)\n");
        out
    }

    fn decode_tags(&self, flexible: Versions, tagged: &[&Field]) -> String {
        let name = &self.part.name;
        if tagged.is_empty() {
            return format!("d.skip_tags(\"{name}\")?;\n");
        }
        let mut out = format!("let mut tags = d.tags(\"{name}\")?;\n");
        out.push_str("while let Some(tag) = d.next_tag(&mut tags)? {\n    match tag.number() {\n");
        for field in tagged {
            let guard = condition_within(field.versions, flexible).map(|c| format!(" if {c}"));
            let _ = writeln!(
                out,
                "        {}{} => this.{} = {},",
                field.tag.unwrap_or_default(),
                guard.unwrap_or_default(),
                rust_name(&field.name),
                self.read(field)
            );
        }
        out.push_str("        _ => d.skip_tag(),\n    }\n    d.end_tag(tag)?;\n}\n");
        out
    }

    /// The expression that reads a value.
    fn read(&self, field: &Field) -> String {
        let path = self.path(field);
        let null = self.null_condition(field);
        match (&field.kind, null) {
            (Kind::Bool, _) => format!("d.bool({path})?"),
            (Kind::I8, _) => format!("d.i8({path})?"),
            (Kind::I16, _) => format!("d.i16({path})?"),
            (Kind::I32, _) => format!("d.i32({path})?"),
            (Kind::I64, _) => format!("d.i64({path})?"),
            (Kind::Uuid, _) => format!("d.uuid({path})?"),
            (Kind::String, None) => format!("d.string({path})?"),
            (Kind::String, Some(null)) => format!("d.nullable_string({null}, {path})?"),
            (Kind::Bytes | Kind::Records, None) => format!("d.bytes({path})?"),
            (Kind::Bytes | Kind::Records, Some(null)) => format!("d.nullable_bytes({null}, {path})?"),
            (Kind::Chunks, None) => format!("d.chunks({path})?"),
            (Kind::Chunks, Some(null)) => format!("d.nullable_chunks({null}, {path})?"),
            (Kind::Struct(_), None) => format!("Part::decode_part(d, version, {path})?"),
            (Kind::Struct(_), Some(null)) => format!("d.nullable_part({null}, version, {path})?"),
            (Kind::Array(_), None) => format!("d.array(version, {path})?"),
            (Kind::Array(_), Some(null)) => format!("d.nullable_array({null}, version, {path})?"),
        }
    }

    fn encode(&self) -> String {
        let mut out = String::new();
        // Neighbours of the same versions share one condition.
        let mut group: (Option<String>, String) = (None, String::new());
        for field in self.part.fields.iter().filter(|field| field.tag.is_none()) {
            let condition = self.condition(field.versions);
            if condition != group.0 {
                wrap(&mut out, group.0, &group.1);
                group = (condition, String::new());
            }
            let _ = writeln!(group.1, "{};", self.write(field));
        }
        wrap(&mut out, group.0, &group.1);
        if let Some(flexible) = self.flexible_versions() {
            wrap(&mut out, self.condition(flexible), &self.encode_tags(flexible));
        }
        out
    }

    fn encode_tags(&self, flexible: Versions) -> String {
        let tagged = self.tagged();
        if tagged.is_empty() {
            return "e.no_tags();\n".to_owned();
        }
        let mut out = String::from("let tags = e.tags();\n");
        for field in tagged {
            let guard = condition_within(field.versions, flexible).map(|c| format!("{c} && "));
            let _ = writeln!(
                out,
                "if {}{} {{\n    let tag = e.start_tag(tags, {});\n    {};\n    e.end_tag(tag);\n}}",
                guard.unwrap_or_default(),
                self.differs(field),
                field.tag.unwrap_or_default(),
                self.write(field)
            );
        }
        out
    }

    /// The expression that writes a value.
    fn write(&self, field: &Field) -> String {
        let path = self.path(field);
        let name = format!("self.{}", rust_name(&field.name));
        let null = self.null_condition(field);
        match (&field.kind, null) {
            (Kind::Bool, _) => format!("e.bool({name})"),
            (Kind::I8, _) => format!("e.i8({name})"),
            (Kind::I16, _) => format!("e.i16({name})"),
            (Kind::I32, _) => format!("e.i32({name})"),
            (Kind::I64, _) => format!("e.i64({name})"),
            (Kind::Uuid, _) => format!("e.uuid(&{name})"),
            (Kind::String, None) => format!("e.string({name}, {path})"),
            (Kind::String, Some(null)) => format!("e.nullable_string({name}, {null}, {path})"),
            (Kind::Bytes | Kind::Records, None) => format!("e.bytes({name}, {path})"),
            (Kind::Bytes | Kind::Records, Some(null)) => format!("e.nullable_bytes({name}, {null}, {path})"),
            (Kind::Chunks, None) => format!("e.chunks(&{name}, {path})"),
            (Kind::Chunks, Some(null)) => format!("e.nullable_chunks({name}.as_deref(), {null}, {path})"),
            (Kind::Struct(_), None) => format!("{name}.encode_part(e, version, {path})"),
            (Kind::Struct(_), Some(null)) => {
                format!("e.nullable_part({name}.as_ref(), {null}, version, {path})")
            }
            (Kind::Array(_), None) => format!("e.array(&{name}, version, {path})"),
            (Kind::Array(_), Some(null)) => {
                format!("e.nullable_array({name}.as_deref(), {null}, version, {path})")
            }
        }
    }
}

/// The condition on `version` under which it lies in `versions`, given that it lies in `outer`; none if it always does.
fn condition_within(versions: Versions, outer: Versions) -> Option<String> {
    let Versions { first, last } = versions;
    match (first > outer.first, last < outer.last) {
        (false, false) => None,
        (true, false) => Some(format!("version >= {first}")),
        (false, true) => Some(format!("version <= {last}")),
        (true, true) if first == last => Some(format!("version == {first}")),
        (true, true) => Some(format!("({first}..={last}).contains(&version)")),
    }
}

/// Appends the lines of a function's body, under a condition if there is one.
fn wrap(out: &mut String, condition: Option<String>, lines: &str) {
    let indent = if condition.is_some() { 12 } else { 8 };
    if let (Some(condition), false) = (&condition, lines.is_empty()) {
        let _ = writeln!(out, "        if {condition} {{");
    }
    for line in lines.lines() {
        let _ = writeln!(out, "{:indent$}{line}", "");
    }
    if condition.is_some() && !lines.is_empty() {
        out.push_str("        }\n");
    }
}

/// Whether `name` stands in `body` as a word of its own.
fn uses(body: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '"';
    body.match_indices(name)
        .any(|(at, _)| !body[..at].ends_with(is_word) && !body[at + name.len()..].starts_with(is_word))
}

/// The documentation of a field: Kafka's name and versions, and where it is not the ordinary case.
fn describe(field: &Field) -> String {
    let mut out = format!(
        "{} {}",
        if field.versions.first == field.versions.last { "Version" } else { "Versions" },
        field.versions
    );
    if let Some(nullable) = field.nullable {
        let _ = if nullable == field.versions {
            write!(out, ", nullable")
        } else {
            write!(out, ", nullable in {nullable}")
        };
    }
    if let Some(tag) = field.tag {
        let _ = write!(out, ", tag {tag}");
    }
    out.push('.');
    out
}

/// A field's name; none of Kafka's is a word that Rust keeps for itself but these.
fn rust_name(name: &str) -> String {
    if matches!(name, "type" | "match" | "final") { format!("r#{name}") } else { name.to_owned() }
}
