//! Kinds of resources, of sources and of values, which values Kafka allows, and its words for others.

use std::fmt::Display;

use headwater_protocol::error::ErrorCode;

use crate::model::refusal::Refusal;

/// What has settings.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;

/// Where a value comes from: the topic, the broker's configuration, or nobody has set it.
pub(super) const FROM_TOPIC: i8 = 1;
pub(super) const FROM_BROKER: i8 = 4;
pub(super) const FROM_DEFAULT: i8 = 5;

/// The kind of a value, as Kafka numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(super) enum Kind {
    Boolean = 1,
    Text = 2,
    Int = 3,
    Short = 4,
    Long = 5,
    Double = 6,
    List = 7,
}

impl Kind {
    pub(super) const fn number(self) -> i8 {
        self as i8
    }
}

/// Which values of a kind are allowed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Allowed {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    OneOf(&'static [&'static str]),
    /// A share of something.
    Share,
}

/// Refuses a value that Kafka does not allow for this setting.
pub(super) fn check(name: &str, (kind, allowed): (Kind, Allowed), value: &str) -> Result<(), Refusal> {
    let wrong = |why: &dyn Display| {
        let message = format!("Invalid value {value} for configuration {name}: {why}");
        Err(Refusal::new(ErrorCode::InvalidConfig, message))
    };
    let trimmed = value.trim();
    match kind {
        Kind::Boolean if !["true", "false"].contains(&trimmed.to_ascii_lowercase().as_str()) => {
            wrong(&"Expected value to be either true or false")
        }
        Kind::Int | Kind::Short | Kind::Long => {
            let (word, range) = match kind {
                Kind::Int => ("INT", i64::from(i32::MIN)..=i32::MAX.into()),
                Kind::Short => ("SHORT", i64::from(i16::MIN)..=i16::MAX.into()),
                _ => ("LONG", i64::MIN..=i64::MAX),
            };
            let Some(number) = trimmed.parse().ok().filter(|number| range.contains(number)) else {
                return wrong(&format_args!("Not a number of type {word}"));
            };
            match allowed {
                Allowed::AtLeast(min) | Allowed::Between(min, _) if number < min => {
                    wrong(&format_args!("Value must be at least {min}"))
                }
                Allowed::Between(_, max) if number > max => wrong(&format_args!("Value must be no more than {max}")),
                _ => Ok(()),
            }
        }
        Kind::Double => match (trimmed.parse::<f64>(), allowed) {
            (Err(_), _) => wrong(&"Not a number of type DOUBLE"),
            (Ok(share), Allowed::Share) if share < 0.0 => wrong(&"Value must be at least 0"),
            (Ok(share), Allowed::Share) if share > 1.0 => wrong(&"Value must be no more than 1"),
            _ => Ok(()),
        },
        Kind::Text | Kind::List => match allowed {
            Allowed::OneOf(words) if !elements(kind, value).all(|element| words.contains(&element)) => {
                wrong(&format_args!("String must be one of: {}", words.join(", ")))
            }
            _ => Ok(()),
        },
        Kind::Boolean => Ok(()),
    }
}

/// A list may be empty.
fn elements(kind: Kind, value: &str) -> impl Iterator<Item = &str> {
    let is_list = kind == Kind::List;
    let elements = value.split(move |letter| is_list && letter == ',').map(str::trim);
    elements.filter(move |element| !(is_list && element.is_empty()))
}
