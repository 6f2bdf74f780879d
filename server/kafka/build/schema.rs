//! Kafka's message definitions as they are written: JSON with comments. What is not understood stops the build.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// One message.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Definition {
    pub api_key: Option<i16>,
    #[serde(rename = "type")]
    pub kind: Kind,
    pub name: String,
    pub valid_versions: Versions,
    pub flexible_versions: Versions,
    /// The newest version may still change, and is not offered.
    #[serde(default)]
    pub latest_version_unstable: bool,
    pub fields: Vec<Field>,
    /// Structures that several fields have.
    #[serde(default)]
    pub common_structs: Vec<Structure>,
    /// Which of Kafka's listeners answers it: no matter here.
    #[serde(rename = "listeners")]
    _listeners: Option<Value>,
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Request,
    Response,
    Header,
    Data,
}

/// A structure that is named apart from the fields that have it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Structure {
    pub name: String,
    #[serde(rename = "versions")]
    _versions: Versions,
    pub fields: Vec<Field>,
}

/// One field of a message or structure.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Field {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub versions: Versions,
    #[serde(default)]
    pub nullable_versions: Versions,
    #[serde(default)]
    pub tagged_versions: Versions,
    pub tag: Option<u32>,
    /// Only `none` is known here: the plain form at every version.
    pub flexible_versions: Option<Versions>,
    pub default: Option<Value>,
    /// A version that lacks the field may be written all the same, whatever its value.
    #[serde(default)]
    pub ignorable: bool,
    pub about: String,
    #[serde(default)]
    pub fields: Vec<Field>,
    /// What it names: no matter here.
    #[serde(rename = "entityType")]
    _entity_type: Option<String>,
    #[serde(rename = "mapKey")]
    _map_key: Option<bool>,
    #[serde(rename = "zeroCopy")]
    _zero_copy: Option<bool>,
}

/// A range of versions: `none`, `3`, `0-5` or `4+`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Versions {
    pub min: i16,
    pub max: i16,
}

impl Default for Versions {
    fn default() -> Self {
        Self::NONE
    }
}

impl Versions {
    pub const NONE: Self = Self { min: 0, max: -1 };

    pub fn is_none(self) -> bool {
        self.min > self.max
    }

    pub fn contains(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    pub fn and(self, other: Self) -> Self {
        let both = Self {
            min: self.min.max(other.min),
            max: self.max.min(other.max),
        };
        if both.is_none() { Self::NONE } else { both }
    }
}

impl TryFrom<String> for Versions {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |part: &str| {
            part.parse::<i16>()
                .map_err(|error| format!("versions {text:?}: {error}"))
        };
        if text == "none" {
            return Ok(Self::NONE);
        }
        if let Some(min) = text.strip_suffix('+') {
            return Ok(Self {
                min: number(min)?,
                max: i16::MAX,
            });
        }
        let (min, max) = text.split_once('-').unwrap_or((&text, &text));
        Ok(Self {
            min: number(min)?,
            max: number(max)?,
        })
    }
}

impl Definition {
    /// Reads one file.
    pub fn read(path: &Path) -> Self {
        let name = path.display();
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        // Comments have lines of their own.
        let plain: Vec<_> = text
            .lines()
            .map(|line| if line.trim_start().starts_with("//") { "" } else { line })
            .collect();
        serde_json::from_str(&plain.join("\n")).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}
