//! Lays the sources of configuration over each other: defaults < file < environment < flags.
//!
//! Each layer sets knobs from text and notes itself as their source. All problems of all layers are collected before
//! any is reported. Nothing here reads the process's own environment: the caller passes it in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, ConfigError, Knob, Problem};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The program that embeds the broker.
    Program,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Program => f.write_str("program"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Who set each key; keys that nobody set are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<String, Source>);

impl Sources {
    /// The source of the value of `name` (`section.key`).
    pub fn of(&self, name: &str) -> Source {
        self.0.get(name).cloned().unwrap_or(Source::Default)
    }

    /// Everything that is not the default, for a configuration that was made in code.
    fn of_program(config: &Config) -> Self {
        let default = Config::default();
        let changed = Config::KNOBS
            .iter()
            .filter(|knob| knob.value(config).show() != knob.value(&default).show());
        Self(changed.map(|knob| (knob.name(), Source::Program)).collect())
    }
}

/// A checked configuration, and who set what.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The configuration.
    pub config: Config,
    /// Who set what.
    pub sources: Sources,
    /// What may be a mistake: a sentence each.
    pub warnings: Vec<String>,
}

/// The layers above the defaults, lowest first.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `HEADWATER_` are not looked at. One that names a section and no key of
    /// it is refused; any other that is not of Headwater's programs is worth a warning.
    pub environment: Vec<(String, String)>,
    /// Flags: how the flag was written, the key (`section.key`) and the value.
    pub flags: Vec<(String, String, String)>,
}

impl Layers {
    /// Reads all layers and checks the result.
    pub fn load(&self) -> Result<Effective, ConfigError> {
        let mut loader = Loader::default();
        if let Some(path) = &self.file {
            match std::fs::read_to_string(path) {
                Ok(text) => loader.file(path, &text),
                Err(source) => loader.problems.push(Problem::File {
                    path: path.clone(),
                    source,
                }),
            }
        }
        loader.environment(&self.environment);
        for (flag, name, value) in &self.flags {
            loader.set_by_name(name, value, Source::Flag(flag.clone()));
        }
        loader.finish()
    }
}

impl Config {
    /// Sets keys by name, as flags of the command line do, and checks the whole.
    pub fn with<'a>(self, flags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ConfigError> {
        let mut loader = Loader {
            sources: Sources::of_program(&self),
            config: self,
            ..Loader::default()
        };
        for (name, value) in flags {
            loader.set_by_name(name, value, Source::Flag("--set".to_owned()));
        }
        loader.finish().map(|effective| effective.config)
    }

    /// Checks every value and the values against each other. For a configuration made in code; [`Layers::load`] does it
    /// by itself.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let problems = self.problems(&Sources::of_program(self));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError { problems })
        }
    }
}

/// Every environment variable that is meant for Headwater begins so.
const PREFIX: &str = "HEADWATER_";

/// Those of them that are no key: the file of this program, and what the command line goes by.
const OF_OTHERS: [&str; 10] = [
    "HEADWATER_CONFIG",
    "HEADWATER_SERVER",
    "HEADWATER_TLS",
    "HEADWATER_TLS_CA",
    "HEADWATER_TLS_CERTIFICATE",
    "HEADWATER_TLS_KEY",
    "HEADWATER_TLS_SERVER_NAME",
    "HEADWATER_USER",
    "HEADWATER_PASSWORD",
    "HEADWATER_PASSWORD_FILE",
];

#[derive(Default)]
struct Loader {
    config: Config,
    sources: Sources,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Loader {
    fn file(&mut self, path: &Path, text: &str) {
        let place = |position: usize| {
            let line = text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1;
            Source::File {
                path: path.to_owned(),
                line,
            }
        };
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let place = place(error.span().map_or(0, |span| span.start));
                self.problems.push(Problem::Syntax {
                    place,
                    message: error.message().to_owned(),
                });
                return;
            }
        };
        for (section, value) in &table {
            let DeValue::Table(keys) = value.get_ref() else {
                self.unknown(section.get_ref(), place(section.span().start));
                continue;
            };
            if !Config::SECTIONS.iter().any(|(name, _)| name == section.get_ref()) {
                self.unknown(section.get_ref(), place(section.span().start));
                continue;
            }
            for (key, value) in keys {
                let name = format!("{}.{}", section.get_ref(), key.get_ref());
                self.set_by_name(&name, &toml_text(value), place(key.span().start));
            }
        }
    }

    fn environment(&mut self, variables: &[(String, String)]) {
        let knobs: BTreeMap<String, &Knob> = Config::KNOBS.iter().map(|knob| (knob.variable(), knob)).collect();
        for (variable, value) in variables {
            if let Some(knob) = knobs.get(variable) {
                self.set(knob, value, Source::Environment(variable.clone()));
                continue;
            }
            let is_ours = variable.starts_with(PREFIX) && !OF_OTHERS.contains(&variable.as_str());
            if !is_ours || set_by_kubernetes(variable) {
                continue;
            }
            if names_a_section(variable) {
                self.problems.push(Problem::UnknownKey {
                    name: variable.clone(),
                    place: Source::Environment("the environment".to_owned()),
                    nearest: nearest(variable, knobs.keys().cloned()),
                });
            } else {
                let hint = meant_by(variable).map_or_else(String::new, |key| format!("; did you mean {key}?"));
                self.warnings.push(format!(
                    "the environment variable {variable} means nothing to the broker{hint}"
                ));
            }
        }
    }

    fn set_by_name(&mut self, name: &str, value: &str, place: Source) {
        match Config::KNOBS.iter().find(|knob| knob.name() == name) {
            Some(knob) => self.set(knob, value, place),
            None => self.unknown(name, place),
        }
    }

    fn set(&mut self, knob: &Knob, value: &str, place: Source) {
        match knob.set(&mut self.config, value, &place) {
            Ok(()) => drop(self.sources.0.insert(knob.name(), place)),
            Err(problem) => self.problems.push(problem),
        }
    }

    /// `name` is a section or a key that does not exist.
    fn unknown(&mut self, name: &str, place: Source) {
        let sections: BTreeSet<String> = Config::SECTIONS
            .iter()
            .map(|(section, _)| format!("[{section}]"))
            .collect();
        let nearest = if name.contains('.') {
            nearest(name, Config::KNOBS.iter().map(Knob::name))
        } else {
            let bare = Config::KNOBS.iter().find(|knob| knob.key == name).map(Knob::name);
            bare.or_else(|| nearest(&format!("[{name}]"), sections.into_iter()))
        };
        self.problems.push(Problem::UnknownKey {
            name: name.to_owned(),
            place,
            nearest,
        });
    }

    fn finish(mut self) -> Result<Effective, ConfigError> {
        self.problems.extend(self.config.problems(&self.sources));
        if self.problems.is_empty() {
            Ok(Effective {
                config: self.config,
                sources: self.sources,
                warnings: self.warnings,
            })
        } else {
            Err(ConfigError {
                problems: self.problems,
            })
        }
    }
}

/// The valid name most like `name`, if any is at all like it.
fn nearest(name: &str, valid: impl Iterator<Item = String>) -> Option<String> {
    const LIKE_MIN: f64 = 0.7;
    valid
        .map(|candidate| (strsim::jaro_winkler(name, &candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKE_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The variable that may be meant by one that names no section: that of a key of the same name, or one that looks like it.
fn meant_by(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(PREFIX)?;
    let of_key = Config::KNOBS.iter().find(|knob| knob.key.eq_ignore_ascii_case(rest));
    // What all have in common makes none of them more like it.
    let others = Config::KNOBS
        .iter()
        .map(|knob| knob.variable()[PREFIX.len()..].to_owned());
    let like = || nearest(rest, others).map(|name| format!("{PREFIX}{name}"));
    of_key.map(Knob::variable).or_else(like)
}

fn names_a_section(variable: &str) -> bool {
    let sections = Config::SECTIONS
        .iter()
        .map(|(section, _)| format!("HEADWATER_{}_", section.to_ascii_uppercase()));
    sections.into_iter().any(|prefix| variable.starts_with(&prefix))
}

/// Kubernetes gives each pod variables for every service: one that is called `headwater-broker` makes
/// `HEADWATER_BROKER_SERVICE_HOST`, `HEADWATER_BROKER_PORT` and so on, which nobody meant as configuration.
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
fn set_by_kubernetes(variable: &str) -> bool {
    [
        "_SERVICE_HOST",
        "_SERVICE_PORT",
        "_PORT",
        "_TCP",
        "_TCP_PROTO",
        "_TCP_PORT",
        "_TCP_ADDR",
    ]
    .iter()
    .any(|suffix| variable.ends_with(suffix))
        || variable.contains("_SERVICE_PORT_")
}

/// A TOML value as the text that a variable or a flag would hold; an array is its elements with commas between.
fn toml_text(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_overflow| number.to_string(), |number| number.to_string()),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Array(values) => values.iter().map(toml_text).collect::<Vec<_>>().join(","),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
