//! Topic names and the rule for them, which is Kafka's (`org.apache.kafka.common.internals.Topic`).
//!
//! A [`TopicName`] is also safe as the name of a directory: that is what the rule is for.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A legal topic name: 1 to 249 of `[a-zA-Z0-9._-]`, and neither `.` nor `..`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Longest legal name, in bytes.
    pub const LEN_MAX: usize = 249;

    /// Checks the name.
    pub fn new(name: &str) -> Result<Self, TopicNameError> {
        check(name)?;
        Ok(Self(Arc::from(name)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(name: &str) -> Result<(), TopicNameError> {
    if name.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if name.len() > TopicName::LEN_MAX {
        return Err(TopicNameError::TooLong { len: name.len() });
    }
    if name == "." || name == ".." {
        return Err(TopicNameError::DirectoryAlias);
    }
    let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.chars().find(|c| !legal(c)) {
        Some(character) => Err(TopicNameError::IllegalCharacter { character }),
        None => Ok(()),
    }
}

/// Why a topic name is not legal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// There is no name.
    #[error("the topic name is empty")]
    Empty,
    /// The name is longer than [`TopicName::LEN_MAX`].
    #[error("the topic name has {len} bytes; at most {max} are allowed", max = TopicName::LEN_MAX)]
    TooLong {
        /// Bytes in the name.
        len: usize,
    },
    /// The name is `.` or `..`, which mean something else to a file system.
    #[error("a topic cannot be named \".\" or \"..\"")]
    DirectoryAlias,
    /// The name has a character outside `[a-zA-Z0-9._-]`.
    #[error("the topic name has the character {character:?}; only ASCII letters, digits, '.', '_' and '-' are allowed")]
    IllegalCharacter {
        /// The first such character.
        character: char,
    },
}

impl FromStr for TopicName {
    type Err = TopicNameError;

    fn from_str(name: &str) -> Result<Self, TopicNameError> {
        Self::new(name)
    }
}

impl TryFrom<&str> for TopicName {
    type Error = TopicNameError;

    fn try_from(name: &str) -> Result<Self, TopicNameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for TopicName {
    type Error = TopicNameError;

    fn try_from(name: String) -> Result<Self, TopicNameError> {
        check(&name)?;
        Ok(Self(Arc::from(name)))
    }
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names_are_taken_as_they_are() {
        for name in [
            "a",
            "orders",
            "Orders.v1_eu-west",
            "...",
            "-",
            "__consumer_offsets",
            &"x".repeat(249),
        ] {
            assert_eq!(TopicName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn each_illegal_name_is_refused_for_its_own_reason() {
        assert_eq!(TopicName::new(""), Err(TopicNameError::Empty));
        assert_eq!(TopicName::new("."), Err(TopicNameError::DirectoryAlias));
        assert_eq!(TopicName::new(".."), Err(TopicNameError::DirectoryAlias));
        assert_eq!(
            TopicName::new(&"x".repeat(250)),
            Err(TopicNameError::TooLong { len: 250 })
        );
        for (name, character) in [("a/b", '/'), ("a b", ' '), ("ü", 'ü'), ("a\0", '\0'), ("a\\b", '\\')] {
            assert_eq!(
                TopicName::new(name),
                Err(TopicNameError::IllegalCharacter { character })
            );
        }
    }
}
