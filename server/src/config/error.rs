//! What can be wrong with a configuration. Each problem is one sentence that names the key, its value, where that came
//! from and what is allowed; all problems are reported together.

use std::fmt;
use std::path::PathBuf;

use super::Source;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file could not be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: not valid TOML: {message}")]
    Syntax {
        /// The file and the line.
        place: Source,
        /// What the parser says.
        message: String,
    },
    /// There is no such key.
    #[error("{name} (from {place}): there is no such key{}", nearest.as_ref().map_or_else(String::new, |key| format!("; did you mean {key}?")))]
    UnknownKey {
        /// The key as written.
        name: String,
        /// Who named it.
        place: Source,
        /// The valid key which looks most like it.
        nearest: Option<String>,
    },
    /// The text is not a value of the key's type.
    #[error("{name} = {value:?} (from {place}): expected {expected}")]
    Unreadable {
        /// The key.
        name: String,
        /// The text.
        value: String,
        /// Who set it.
        place: Source,
        /// What was expected.
        expected: String,
    },
    /// The value is outside the key's range.
    #[error("{name} = {value} (from {place}): allowed is {allowed}")]
    OutOfRange {
        /// The key.
        name: String,
        /// The value.
        value: String,
        /// Who set it.
        place: Source,
        /// The range.
        allowed: String,
    },
    /// Two values do not go together, or one has a form that a range cannot say.
    #[error("{name} = {value} (from {place}): {rule}")]
    Conflict {
        /// The key.
        name: String,
        /// The value.
        value: String,
        /// Who set it.
        place: Source,
        /// What is allowed, with the value of the other key and where that came from.
        rule: String,
    },
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug)]
pub struct ConfigError {
    /// The problems in the order in which they were found.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
