//! What a field is in Rust: its type, its default, when it is there, and how many bytes it has at least.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::schema::{Definition, Field, Versions};

/// A message and its structures, each by name.
pub struct Message<'d> {
    pub definition: &'d Definition,
    /// All of them, the message itself among them, in the order of their first appearance.
    pub structures: Vec<(&'d str, &'d [Field])>,
    by_name: BTreeMap<&'d str, &'d [Field]>,
}

impl<'d> Message<'d> {
    pub fn new(definition: &'d Definition) -> Self {
        let mut message = Self {
            definition,
            structures: Vec::new(),
            by_name: BTreeMap::new(),
        };
        message.add(&definition.name, &definition.fields);
        for structure in &definition.common_structs {
            message.add(&structure.name, &structure.fields);
        }
        message
    }

    fn add(&mut self, name: &'d str, fields: &'d [Field]) {
        let same = self.by_name.insert(name, fields);
        assert!(same.is_none(), "{} has two structures {name}", self.definition.name);
        self.structures.push((name, fields));
        for field in fields.iter().filter(|field| !field.fields.is_empty()) {
            self.add(element(&field.kind), &field.fields);
        }
    }

    /// Whether a structure has something that borrows from the bytes that it was read from.
    pub fn borrows(&self, name: &str) -> bool {
        self.by_name[name].iter().any(|field| match element(&field.kind) {
            "string" | "bytes" | "records" => true,
            kind => self.by_name.contains_key(kind) && self.borrows(kind),
        })
    }

    /// The type of a structure.
    pub fn named(&self, name: &str) -> String {
        if self.borrows(name) {
            format!("{name}<'a>")
        } else {
            name.to_owned()
        }
    }

    /// The type of a field.
    pub fn rust_type(&self, field: &Field) -> String {
        let plain = self.plain(&field.kind);
        if is_nullable(field) {
            format!("Option<{plain}>")
        } else {
            plain
        }
    }

    fn plain(&self, kind: &str) -> String {
        if let Some(element) = kind.strip_prefix("[]") {
            return format!("Vec<{}>", self.plain(element));
        }
        let known = match kind {
            "bool" => "bool",
            "int8" => "i8",
            "int16" => "i16",
            "uint16" => "u16",
            "int32" => "i32",
            "int64" => "i64",
            "float64" => "f64",
            "uuid" => "Uuid",
            "string" => "Str<'a>",
            "bytes" | "records" => "Bytes<'a>",
            name => {
                assert!(self.by_name.contains_key(name), "no structure {name}");
                return self.named(name);
            }
        };
        known.to_owned()
    }

    /// The bytes of the shortest value of a structure, in any version of the message.
    pub fn size_min(&self, name: &str) -> usize {
        let Versions { min, max } = self.definition.valid_versions;
        let fields = self.by_name[name];
        let there =
            |version: &i16| name == self.definition.name || fields.iter().any(|it| it.versions.contains(*version));
        let sizes = (min..=max).filter(there).map(|version| self.size_min_at(name, version));
        sizes.min().unwrap_or(0).max(1)
    }

    fn size_min_at(&self, name: &str, version: i16) -> usize {
        let flexible = self.definition.flexible_versions.contains(version);
        let fields = self.by_name[name].iter();
        let untagged =
            fields.filter(|field| field.versions.contains(version) && !field.tagged_versions.contains(version));
        usize::from(flexible)
            + untagged
                .map(|field| self.field_size_min(field, version, flexible))
                .sum::<usize>()
    }

    fn field_size_min(&self, field: &Field, version: i16, flexible: bool) -> usize {
        match field.kind.as_str() {
            "bool" | "int8" => 1,
            "int16" | "uint16" => 2,
            "int32" => 4,
            "int64" | "float64" => 8,
            "uuid" => 16,
            _ if flexible => 1,
            "string" => 2,
            "bytes" | "records" => 4,
            kind if kind.starts_with("[]") => 4,
            _ if is_nullable(field) => 1,
            name => self.size_min_at(name, version),
        }
    }
}

/// The element of an array, or the type itself.
pub fn element(kind: &str) -> &str {
    kind.strip_prefix("[]").unwrap_or(kind)
}

/// Whether a field may be null in any version.
pub fn is_nullable(field: &Field) -> bool {
    !field.versions.and(field.nullable_versions).is_none()
}

/// The structures that a field may have in place of null.
pub fn nullable_structures<'d>(message: &Message<'d>) -> Vec<&'d str> {
    let fields = message.structures.iter().flat_map(|(_, fields)| *fields);
    let mut names: Vec<_> = fields
        .filter(|field| is_nullable(field) && message.by_name.contains_key(field.kind.as_str()))
        .map(|field| field.kind.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The default of a field as an expression.
pub fn default(field: &Field) -> String {
    let text = match &field.default {
        None => "",
        Some(Value::String(text)) => text,
        Some(other) => &other.to_string(),
    };
    if text == "null" {
        assert!(is_nullable(field), "{} is null and may not be", field.name);
        return "None".to_owned();
    }
    let plain = match field.kind.as_str() {
        "bool" => if text.is_empty() { "false" } else { text }.to_owned(),
        "int8" | "int16" | "uint16" | "int32" | "int64" => if text.is_empty() { "0" } else { text }.to_owned(),
        "float64" if text.is_empty() => "0.0".to_owned(),
        "uuid" if text.is_empty() => "[0; 16]".to_owned(),
        "string" => format!("Str::Borrowed({text:?})"),
        "bytes" | "records" if text.is_empty() => "Bytes::Borrowed(&[])".to_owned(),
        kind if kind.starts_with("[]") && text.is_empty() => "Vec::new()".to_owned(),
        name if text.is_empty() => format!("{name}::default()"),
        kind => panic!("{}: the default {text:?} of a {kind} is not understood", field.name),
    };
    if is_nullable(field) {
        format!("Some({plain})")
    } else {
        plain
    }
}

/// Whether the value of a field is not its default, as an expression over `self`.
pub fn differs(field: &Field) -> String {
    let name = rust_name(&field.name);
    let has_length = field.kind.starts_with("[]") || matches!(field.kind.as_str(), "string" | "bytes" | "records");
    if has_length && !is_nullable(field) && field.default.as_ref().is_none_or(|it| it == "") {
        return format!("!self.{name}.is_empty()");
    }
    format!("self.{name} != {}", default(field))
}

/// A field's name as Rust has it.
pub fn rust_name(name: &str) -> String {
    let snake = snake(name);
    match snake.as_str() {
        "match" | "type" => format!("r#{snake}"),
        _ => snake,
    }
}

/// `ThrottleTimeMs` -> `throttle_time_ms`.
pub fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Whether a version of the message has what these versions have, as an expression over `v.number`; `None` if all have.
pub fn condition(versions: Versions, of: Versions) -> Option<String> {
    let Versions { min, max } = versions.and(of);
    match (min <= of.min, max >= of.max) {
        _ if min > max => Some("false".to_owned()),
        (true, true) => None,
        (false, true) => Some(format!("v.number >= {min}")),
        (true, false) => Some(format!("v.number <= {max}")),
        (false, false) if min == max => Some(format!("v.number == {min}")),
        (false, false) => Some(format!("({min}..={max}).contains(&v.number)")),
    }
}
