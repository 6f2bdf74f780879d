//! The structs, and how they are read and written. All that is not a list of fields is in `src/value.rs`.

use std::fmt::Write;

use crate::schema::{Definition, Field, Versions};
use crate::types::{self, Message, condition, rust_name, snake};

/// The whole file: a module for each message.
pub fn messages(definitions: &[Definition]) -> String {
    let mut out = String::new();
    for definition in definitions {
        let message = Message::new(definition);
        module(&mut out, &message).expect("a string takes all that is written");
    }
    out
}

type Written = std::fmt::Result;

fn module(out: &mut String, message: &Message<'_>) -> Written {
    let Definition {
        name,
        valid_versions,
        flexible_versions,
        ..
    } = message.definition;
    let path = snake(name);
    writeln!(out, "pub use {path}::{name};")?;
    writeln!(out, "/// [`{name}`] and what it is made of.")?;
    writeln!(out, "pub mod {path} {{")?;
    writeln!(out, "use crate::value::*;")?;
    for &(structure, fields) in &message.structures {
        declaration(out, message, structure, fields)?;
        implementation(out, message, structure, fields)?;
    }
    for structure in types::nullable_structures(message) {
        writeln!(out, "nullable!({});", message.named(structure))?;
    }
    let Versions { min, max } = *valid_versions;
    let flexible = flexible_versions.and(*valid_versions);
    let flexible_from = if flexible.is_none() { i16::MAX } else { flexible.min };
    writeln!(out, "impl<'a> Message<'a> for {} {{", message.named(name))?;
    writeln!(out, "const NAME: &'static str = {name:?};")?;
    writeln!(out, "const VERSIONS: std::ops::RangeInclusive<i16> = {min}..={max};")?;
    writeln!(out, "const FLEXIBLE_FROM: i16 = {flexible_from};")?;
    writeln!(out, "}}\n}}")
}

fn declaration(out: &mut String, message: &Message<'_>, name: &str, fields: &[Field]) -> Written {
    let of = message.definition.valid_versions;
    if name == message.definition.name {
        writeln!(out, "/// Kafka's `{name}`, versions {} to {}.", of.min, of.max)?;
    } else {
        writeln!(out, "/// Part of [`{}`].", message.definition.name)?;
    }
    writeln!(out, "#[derive(Debug, Clone, PartialEq)]")?;
    writeln!(out, "pub struct {} {{", message.named(name))?;
    for field in fields {
        for line in field.about.lines() {
            writeln!(out, "/// {}", line.trim())?;
        }
        writeln!(out, "///\n/// {}", presence(field, of))?;
        writeln!(out, "pub {}: {},", rust_name(&field.name), message.rust_type(field))?;
    }
    writeln!(out, "}}")?;
    writeln!(out, "impl Default for {} {{", message.named(name).replace("'a", "'_"))?;
    writeln!(out, "fn default() -> Self {{ Self {{")?;
    for field in fields {
        writeln!(out, "{}: {},", rust_name(&field.name), types::default(field))?;
    }
    writeln!(out, "}} }}\n}}")
}

/// At which versions a field is there, and what becomes of it at the others, for its documentation.
fn presence(field: &Field, of: Versions) -> String {
    let Versions { min, max } = field.versions.and(of);
    let mut text = match (min <= of.min, max >= of.max) {
        _ if min > max => "In no version.".to_owned(),
        (true, true) => "In all versions.".to_owned(),
        (false, true) => format!("From version {min} on."),
        (true, false) => format!("Up to version {max}."),
        (false, false) => format!("In versions {min} to {max}."),
    };
    if (min, max) != (of.min, of.max) && field.ignorable {
        text.push_str(" Left out of the others.");
    }
    text
}

fn implementation(out: &mut String, message: &Message<'_>, name: &str, fields: &[Field]) -> Written {
    writeln!(out, "impl<'a> Value<'a> for {} {{", message.named(name))?;
    writeln!(out, "const SIZE_MIN: usize = {};", message.size_min(name))?;
    writeln!(
        out,
        "fn get(r: &mut Reader<'a>, v: Version) -> Result<Self, Malformed> {{"
    )?;
    read(out, message.definition, fields)?;
    writeln!(out, "}}")?;
    writeln!(
        out,
        "fn put(&self, out: &mut Vec<u8>, v: Version) -> Result<(), Unwritable> {{"
    )?;
    write(out, message.definition, fields)?;
    writeln!(out, "}}\n}}")
}

fn is_tagged(field: &Field) -> bool {
    field.tag.is_some()
}

/// The version by which a field's value is written: a field may be plain where the message is flexible.
fn form(field: &Field) -> &'static str {
    match field.flexible_versions {
        None => "v",
        Some(versions) => {
            assert!(versions.is_none(), "{}: flexibleVersions other than none", field.name);
            "v.plain()"
        }
    }
}

/// When a field may be null, if that is not always.
fn null_condition(field: &Field, of: Versions) -> Option<String> {
    if types::is_nullable(field) {
        condition(field.nullable_versions, field.versions.and(of))
    } else {
        None
    }
}

fn read(out: &mut String, definition: &Definition, fields: &[Field]) -> Written {
    let of = definition.valid_versions;
    writeln!(out, "let mut it = Self::default();")?;
    for field in fields.iter().filter(|field| !is_tagged(field)) {
        let form = form(field);
        let value = match null_condition(field, of) {
            None => format!("Value::get(r, {form})?"),
            Some(null) => format!("if {null} {{ Value::get(r, {form})? }} else {{ Some(Value::get(r, {form})?) }}"),
        };
        let assignment = format!("it.{} = {value};", rust_name(&field.name));
        match condition(field.versions, of) {
            None => writeln!(out, "{assignment}")?,
            Some(there) => writeln!(out, "if {there} {{ {assignment} }}")?,
        }
    }
    let tagged: Vec<_> = fields.iter().filter(|field| is_tagged(field)).collect();
    if definition.flexible_versions.and(of).is_none() {
        // There is no form that has tags.
    } else if tagged.is_empty() {
        writeln!(out, "r.no_tags(v)?;")?;
    } else {
        writeln!(out, "if v.flexible {{ r.tags(|tag, r| {{ match tag {{")?;
        for field in tagged {
            let there = condition(field.tagged_versions, of).map_or(String::new(), |it| format!("if {it}"));
            let tag = field.tag.expect("it is tagged");
            writeln!(
                out,
                "{tag} {there} => it.{} = Value::get(r, v)?,",
                rust_name(&field.name)
            )?;
        }
        writeln!(out, "_ => return Ok(false), }} Ok(true) }})?; }}")?;
    }
    writeln!(out, "Ok(it)")
}

fn write(out: &mut String, definition: &Definition, fields: &[Field]) -> Written {
    let of = definition.valid_versions;
    for field in fields.iter().filter(|field| !is_tagged(field)) {
        let name = rust_name(&field.name);
        let form = form(field);
        let put = match null_condition(field, of) {
            None => format!("self.{name}.put(out, {form})?;"),
            Some(null) => format!(
                "if {null} {{ self.{name}.put(out, {form})?; }} else {{ required(self.{name}.as_ref(), {:?}, v)?.put(out, {form})?; }}",
                field.name
            ),
        };
        match condition(field.versions, of) {
            None => writeln!(out, "{put}")?,
            Some(there) => writeln!(out, "if {there} {{ {put} }} {}", lacking(field))?,
        }
    }
    let tagged: Vec<_> = fields.iter().filter(|field| is_tagged(field)).collect();
    for field in &tagged {
        if let (Some(there), false) = (condition(field.tagged_versions, of), field.ignorable) {
            writeln!(out, "if {there} {{}} {}", lacking(field))?;
        }
    }
    if definition.flexible_versions.and(of).is_none() {
        // There is no form that has tags.
    } else if tagged.is_empty() {
        writeln!(out, "no_tags(out, v);")?;
    } else {
        writeln!(out, "if v.flexible {{ let mut tags = Tags::new(out);")?;
        let mut in_order = tagged;
        in_order.sort_by_key(|field| field.tag);
        for field in in_order {
            let there = condition(field.tagged_versions, of).map_or(String::new(), |it| format!("{it} && "));
            let tag = field.tag.expect("it is tagged");
            let name = rust_name(&field.name);
            let differs = types::differs(field);
            writeln!(out, "if {there}{differs} {{ tags.put({tag}, &self.{name}, v)?; }}")?;
        }
        writeln!(out, "}}")?;
    }
    writeln!(out, "Ok(())")
}

/// What is done at a version that lacks a field: a value that would be lost is an error, unless it may be.
fn lacking(field: &Field) -> String {
    if field.ignorable {
        return String::new();
    }
    format!(
        "else if {} {{ return Err(lacks({:?}, v)); }}",
        types::differs(field),
        field.name
    )
}
