//! The table of requests: `ApiKey`, and a row for each.

use std::fmt::Write;

use crate::schema::{Definition, Kind};

/// The whole file.
pub fn table(definitions: &[Definition]) -> String {
    let mut requests: Vec<_> = definitions.iter().filter(|it| it.kind == Kind::Request).collect();
    requests.sort_by_key(|it| it.api_key);
    let mut out = String::new();
    emit(&mut out, &requests, definitions).expect("a string takes all that is written");
    out
}

fn name(request: &Definition) -> &str {
    request
        .name
        .strip_suffix("Request")
        .expect("the name of a request says so")
}

/// From which version on an answer begins with the time for which the client should wait.
fn throttle_from(definitions: &[Definition], name: &str) -> i16 {
    let mut answers = definitions.iter().filter(|it| it.kind == Kind::Response);
    let answer = answers.find(|it| it.name.strip_suffix("Response") == Some(name));
    let first = answer.and_then(|answer| answer.fields.first());
    let first = first.filter(|field| field.name == "ThrottleTimeMs" && field.tag.is_none());
    first.map_or(i16::MAX, |field| field.versions.min)
}

fn emit(out: &mut String, requests: &[&Definition], definitions: &[Definition]) -> std::fmt::Result {
    writeln!(out, "/// What can be asked for, with Kafka's numbers.")?;
    writeln!(
        out,
        "#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]"
    )?;
    writeln!(out, "#[repr(i16)]")?;
    writeln!(out, "pub enum ApiKey {{")?;
    for request in requests {
        let key = request.api_key.expect("a request has a key");
        writeln!(
            out,
            "/// [`{}`](crate::messages::{}).\n{} = {key},",
            request.name,
            request.name,
            name(request)
        )?;
    }
    writeln!(out, "}}")?;
    writeln!(out, "impl ApiKey {{")?;
    let all: Vec<_> = requests.iter().map(|it| format!("Self::{}", name(it))).collect();
    writeln!(out, "/// All of them, in the order of their numbers.")?;
    writeln!(out, "pub const ALL: &[Self] = &[{}];", all.join(", "))?;
    writeln!(out, "/// The one with this number.")?;
    writeln!(
        out,
        "pub const fn from_i16(number: i16) -> Option<Self> {{ Some(match number {{"
    )?;
    for request in requests {
        writeln!(
            out,
            "{} => Self::{},",
            request.api_key.unwrap_or_default(),
            name(request)
        )?;
    }
    writeln!(out, "_ => return None, }}) }}")?;
    writeln!(out, "/// What is known of it.")?;
    writeln!(out, "pub const fn api(self) -> Api {{ match self {{")?;
    for request in requests {
        let versions = request.valid_versions;
        let max = versions.max - i16::from(request.latest_version_unstable);
        let flexible = request.flexible_versions.and(versions);
        let flexible_from = if flexible.is_none() { i16::MAX } else { flexible.min };
        let name = name(request);
        let throttle_from = throttle_from(definitions, name);
        writeln!(
            out,
            "Self::{name} => Api {{ key: self, name: {name:?}, version_min: {}, version_max: {max}, flexible_from: {flexible_from}, throttle_from: {throttle_from} }},",
            versions.min
        )?;
    }
    writeln!(out, "}} }}\n}}")
}
