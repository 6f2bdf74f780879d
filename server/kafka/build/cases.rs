//! What the tests need of every message: how to make one of random bytes, and a list of all.

use std::fmt::Write;

use crate::schema::{Definition, Field, Versions};
use crate::types::{self, Message, condition, rust_name, snake};

/// The whole file.
pub fn cases(definitions: &[Definition]) -> String {
    let mut out = String::new();
    emit(&mut out, definitions).expect("a string takes all that is written");
    out
}

fn emit(out: &mut String, definitions: &[Definition]) -> std::fmt::Result {
    for definition in definitions {
        let message = Message::new(definition);
        for &(name, fields) in &message.structures {
            writeln!(
                out,
                "impl<'a> Random for messages::{}::{} {{",
                snake(&definition.name),
                message.named(name)
            )?;
            writeln!(
                out,
                "fn random(source: &mut Source<'_>, v: Version) -> Self {{ let mut it = Self::default();"
            )?;
            for field in fields {
                random(out, field, definition.valid_versions)?;
            }
            writeln!(out, "it }} }}")?;
        }
    }
    writeln!(out, "pub(super) const CASES: &[Case] = &[")?;
    for Definition { name, .. } in definitions {
        writeln!(out, "case!({name}),")?;
    }
    writeln!(out, "];")
}

fn random(out: &mut String, field: &Field, of: Versions) -> std::fmt::Result {
    let value = match condition(field.nullable_versions, field.versions.and(of)) {
        Some(null) if types::is_nullable(field) => {
            format!("if {null} {{ Random::random(source, v) }} else {{ Some(Random::random(source, v)) }}")
        }
        _ => "Random::random(source, v)".to_owned(),
    };
    let assignment = format!("it.{} = {value};", rust_name(&field.name));
    match condition(field.versions, of) {
        None => writeln!(out, "{assignment}"),
        Some(there) => writeln!(out, "if {there} {{ {assignment} }}"),
    }
}
