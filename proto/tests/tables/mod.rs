//! The message tables as tests read them, and bytes made from a table alone, by neither codec.

// Each test takes what it needs, and all read the sources of the crate.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../../build/schema.rs"]
pub(crate) mod schema;

use std::path::Path;

use schema::{Field, Kind, Literal, Struct, Table};

/// All tables of `schema/kafka`, by name of the file.
pub(crate) fn all() -> Vec<Table> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/kafka");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let parse =
        |path: &Path| Table::parse(&path.display().to_string(), &std::fs::read_to_string(path).unwrap());
    paths.iter().map(|path| parse(path).unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// A random source of which a seed tells everything.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Writes messages from a table: a third hand beside the two ends of the codec.
pub(crate) struct Sample<'t> {
    pub(crate) table: &'t Table,
    pub(crate) version: i16,
    /// None: every field has its default.
    pub(crate) chance: Option<Chance>,
}

impl Sample<'_> {
    /// The bytes of one message.
    pub(crate) fn message(&mut self, name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        self.part(name, &mut out);
        out
    }

    fn is_flexible(&self) -> bool {
        self.table.flexible.is_some_and(|first| self.version >= first)
    }

    fn find(&self, name: &str) -> Struct {
        self.table.find(name).unwrap().clone()
    }

    fn part(&mut self, name: &str, out: &mut Vec<u8>) {
        let part = self.find(name);
        let fields = || part.fields.iter().filter(|field| field.versions.contains(self.version));
        let (plain, mut tagged): (Vec<&Field>, Vec<&Field>) = fields().partition(|field| field.tag.is_none());
        for field in plain {
            self.field(field, out);
        }
        if !self.is_flexible() {
            return;
        }
        tagged.sort_by_key(|field| field.tag);
        let mut present = Vec::new();
        for field in tagged {
            let mut value = Vec::new();
            self.field(field, &mut value);
            let mut default = Vec::new();
            Sample { table: self.table, version: self.version, chance: None }.field(field, &mut default);
            if value != default {
                present.push((field.tag.unwrap(), value));
            }
        }
        varint(present.len(), out);
        for (tag, value) in present {
            varint(tag as usize, out);
            varint(value.len(), out);
            out.extend(value);
        }
    }

    fn field(&mut self, field: &Field, out: &mut Vec<u8>) {
        let may_be_null = field.nullable.is_some_and(|versions| versions.contains(self.version));
        let null = match &mut self.chance {
            None => field.default == Literal::Null,
            Some(chance) => may_be_null && chance.below(4) == 0,
        };
        match (&field.kind, null) {
            (Kind::Struct(_), true) => out.push(0xff),
            (kind, true) => self.length(None, matches!(kind, Kind::String), out),
            (Kind::Struct(_), false) if field.nullable.is_some() => {
                out.push(1);
                self.value(&field.kind, &field.default, out);
            }
            (kind, false) => self.value(kind, &field.default, out),
        }
    }

    fn value(&mut self, kind: &Kind, default: &Literal, out: &mut Vec<u8>) {
        match kind {
            Kind::Bool | Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 => {
                let number = self.number(kind, default).to_be_bytes();
                let width = match kind {
                    Kind::Bool | Kind::I8 => 1,
                    Kind::I16 => 2,
                    Kind::I32 => 4,
                    _ => 8,
                };
                out.extend(&number[8 - width..]);
            }
            Kind::Uuid => {
                let bytes = self.chance.as_mut().map_or([0; 16], |chance| {
                    let half = chance.next().to_be_bytes();
                    let mut uuid = [0; 16];
                    uuid[..8].copy_from_slice(&half);
                    uuid[8..].copy_from_slice(&half);
                    uuid
                });
                out.extend(bytes);
            }
            Kind::String => {
                let text = match (&mut self.chance, default) {
                    (Some(chance), _) => "aé漢🦀".chars().cycle().take(len(chance)).collect(),
                    (None, Literal::Text(text)) => text.clone(),
                    (None, _) => String::new(),
                };
                self.length(Some(text.len()), true, out);
                out.extend(text.as_bytes());
            }
            Kind::Bytes | Kind::Records | Kind::Chunks => {
                let bytes: Vec<u8> = self
                    .chance
                    .as_mut()
                    .map_or(Vec::new(), |chance| (0..len(chance)).map(|_| chance.next() as u8).collect());
                self.length(Some(bytes.len()), false, out);
                out.extend(bytes);
            }
            Kind::Struct(name) => self.part(name, out),
            Kind::Array(item) => {
                let count = self.chance.as_mut().map_or(0, |chance| chance.below(4) as usize);
                self.length(Some(count), false, out);
                for _ in 0..count {
                    self.value(item, &Literal::Empty, out);
                }
            }
        }
    }

    fn number(&mut self, kind: &Kind, default: &Literal) -> i64 {
        let Some(chance) = &mut self.chance else {
            return match default {
                Literal::Number(number) => *number,
                Literal::Bool(value) => i64::from(*value),
                _ => 0,
            };
        };
        let any = chance.next() as i64;
        match (kind, chance.below(4)) {
            (Kind::Bool, _) => any & 1,
            (_, 0) => -1,
            (_, 1) => any % 4,
            _ => any,
        }
    }

    fn length(&self, len: Option<usize>, short: bool, out: &mut Vec<u8>) {
        let plain = len.map_or(-1, |len| len as i32);
        match (self.is_flexible(), short) {
            (true, _) => varint(len.map_or(0, |len| len + 1), out),
            (false, true) => out.extend((plain as i16).to_be_bytes()),
            (false, false) => out.extend(plain.to_be_bytes()),
        }
    }
}

/// Mostly short; sometimes longer than one byte of varint tells.
fn len(chance: &mut Chance) -> usize {
    let bound = if chance.below(16) == 0 { 400 } else { 9 };
    chance.below(bound) as usize
}

fn varint(value: usize, out: &mut Vec<u8>) {
    let mut value = value;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
