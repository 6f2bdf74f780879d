//! What is known of one key of the configuration, and the macro that declares structs and keys together.
//!
//! A [`Knob`] reaches its field through two function pointers, so that loading, checking and printing are loops over
//! [`Config::KNOBS`](super::Config::KNOBS) and never name a field.

use std::fmt;
use std::ops::RangeInclusive;

use super::value::Value;
use super::{Config, Problem, Source};

/// One key of the configuration.
pub struct Knob {
    /// Section of the file, such as `log`.
    pub section: &'static str,
    /// Key in the section, such as `segment_size_bytes`.
    pub key: &'static str,
    /// What it does, as printed by `--print-config`.
    pub doc: &'static str,
    /// When to move it, as a sentence; may be empty.
    pub advice: &'static str,
    /// Allowed values in the knob's own unit, for those that have an order.
    pub range: Option<RangeInclusive<u64>>,
    pub(super) get: fn(&Config) -> &dyn Value,
    pub(super) get_mut: fn(&mut Config) -> &mut dyn Value,
}

impl Knob {
    /// The value that `config` has for this key.
    pub fn value<'a>(&self, config: &'a Config) -> &'a dyn Value {
        (self.get)(config)
    }

    /// `section.key`, the name by which files, flags and errors know it.
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// The environment variable that sets it, such as `HEADWATER_LOG_SEGMENT_SIZE_BYTES`.
    pub fn variable(&self) -> String {
        format!("HEADWATER_{}_{}", self.section, self.key).to_ascii_uppercase()
    }

    /// Sets the knob from text, as written in a file, a variable or a flag.
    pub(super) fn set(&self, config: &mut Config, text: &str, place: &Source) -> Result<(), Problem> {
        (self.get_mut)(config)
            .read(text.trim())
            .map_err(|expected| Problem::Unreadable {
                name: self.name(),
                value: if self.value(config).is_secret() {
                    "***".to_owned()
                } else {
                    text.to_owned()
                },
                place: place.clone(),
                expected,
            })
    }

    /// The allowed range in words, empty if every value of the type is allowed.
    pub fn allowed(&self, config: &Config) -> String {
        let value = (self.get)(config);
        match &self.range {
            Some(range) if range.start() == range.end() => format!("only {}", value.show_magnitude(*range.start())),
            Some(range) if *range.end() == u64::MAX => format!("{} or more", value.show_magnitude(*range.start())),
            Some(range) => {
                format!(
                    "{} to {}",
                    value.show_magnitude(*range.start()),
                    value.show_magnitude(*range.end())
                )
            }
            None => String::new(),
        }
    }

    /// The value, if it lies outside the range.
    pub(super) fn out_of_range(&self, config: &Config) -> Option<String> {
        let value = (self.get)(config);
        let outside = value
            .magnitude()
            .zip(self.range.as_ref())
            .is_some_and(|(n, range)| !range.contains(&n));
        outside.then(|| value.show())
    }
}

impl fmt::Debug for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Knob({}.{})", self.section, self.key)
    }
}

/// Declares the sections of the configuration: `key: Type = default, range;` with its text as a doc comment of one line, and
/// when to move it as another.
///
/// Expands to a struct for each section, `Config` which holds them, and `Config::KNOBS` and `Config::SECTIONS` which
/// list them.
macro_rules! sections {
    ($(
        #[doc = $section_doc:literal]
        $section:ident : $Section:ident {
            $( #[doc = $doc:literal] $( #[doc = $advice:literal] )? $key:ident : $Type:ty = $default:expr $(, $range:expr)? ; )+
        }
    )+) => {
        $(
            #[doc = $section_doc]
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Section {
                $( #[doc = $doc] $( #[doc = $advice] )? pub $key: $Type, )+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )+ }
                }
            }
        )+

        /// The whole configuration of a broker. Made by [`Layers::load`], or in code from `Config::default()` followed
        /// by [`Config::validate`].
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Config {
            $( #[doc = $section_doc] pub $section: $Section, )+
        }

        impl Config {
            /// Name and purpose of each section, in the order of printing.
            pub const SECTIONS: &'static [(&'static str, &'static str)] =
                &[$( (stringify!($section), $section_doc.trim_ascii()), )+];

            /// Every key, in the order of printing.
            #[expect(clippy::large_stack_arrays, reason = "it is a constant, and on no stack")]
            pub const KNOBS: &'static [Knob] = &[$( $( Knob {
                section: stringify!($section),
                key: stringify!($key),
                doc: $doc.trim_ascii(),
                advice: concat!($($advice)?).trim_ascii(),
                range: $crate::config::knob::range!($($range)?),
                get: |config| &config.$section.$key,
                get_mut: |config| &mut config.$section.$key,
            }, )+ )+];
        }
    };
}

/// The optional range of a knob.
macro_rules! range {
    () => {
        None
    };
    ($range:expr) => {
        Some($range)
    };
}

pub(super) use {range, sections};
