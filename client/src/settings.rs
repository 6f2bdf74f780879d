//! Settings by name, as from a file, a map or the environment: one table says what there is, how it is read, and what it means.
//!
//! `ClientBuilder::set` and `docs/client-settings.md` both come from that table. Kafka's names mean what they mean there; those that
//! have no meaning here are told from names that nobody knows.

mod foreign;
mod reference;
mod table;
mod value;

#[cfg(test)]
mod tests;

use std::ffi::OsString;

use crate::client::ClientBuilder;
use crate::consumer::{FetchSettings, GroupDefaults, Start};
use crate::error::Error;
use crate::producer::ProducerSettings;

pub use reference::settings_reference;

use foreign::FOREIGN;
use table::SETTINGS;

/// A setting that a client can be given by name.
struct Setting {
    /// Its name: that of the builder's method.
    name: &'static str,
    /// What Kafka's clients call it.
    kafka: &'static [&'static str],
    part: Part,
    /// The value that it has if nothing else is said, as `set` reads it; empty for none.
    default: &'static str,
    /// What it means, in Markdown.
    meaning: &'static str,
    set: fn(&mut ClientBuilder, &str) -> Result<(), String>,
}

/// Whose setting it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Client,
    Producer,
    /// Those in groups included.
    Consumer,
    Group,
}

/// What producers and consumers begin their configuration with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults {
    pub(crate) producer: ProducerSettings,
    pub(crate) fetch: FetchSettings,
    pub(crate) start: Start,
    pub(crate) group: GroupDefaults,
    pub(crate) group_id: Option<String>,
}

impl Setting {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.kafka.iter().copied())
    }
}

/// Gives a builder one setting.
pub(crate) fn set(builder: &mut ClientBuilder, name: &str, value: &str) -> Result<(), Error> {
    let wanted = normal(name);
    let is_wanted = |known: &str| normal(known) == wanted;
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.names().any(is_wanted)) {
        let done = (setting.set)(builder, value.trim());
        return done.map_err(|reason| Error::config(setting.name, reason));
    }
    let name = name.to_owned();
    if let Some((_, instead)) = FOREIGN.iter().find(|(names, _)| foreign::matches(names, &wanted)) {
        return Err(Error::ForeignSetting { name, instead });
    }
    let nearest = SETTINGS
        .iter()
        .flat_map(Setting::names)
        .map(|known| (strsim::jaro_winkler(&normal(known), &wanted), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known);
    Err(Error::UnknownSetting { name, nearest })
}

/// Gives a builder what the variables say whose names begin with `prefix`.
pub(crate) fn set_from(
    builder: &mut ClientBuilder,
    prefix: &str,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), Error> {
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let Some(name) = name.strip_prefix(prefix) else {
            continue;
        };
        let Some(value) = value.to_str() else {
            let reason = format!("the value of {prefix}{name} is not UTF-8");
            return Err(Error::config("environment", reason));
        };
        set(builder, name, value)?;
    }
    Ok(())
}

/// Names in files, in the environment and in Rust differ by their case and by what is between words.
fn normal(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace(['.', '-'], "_")
}
