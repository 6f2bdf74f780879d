//! Sizes and times. Each prints in the largest unit that divides it, so that nothing is rounded.

use std::fmt;
use std::time::Duration;

use super::{Optional, Value};

/// A number of bytes. Written as a plain number or with a unit: `64MiB`, `1GiB`, `1.5MB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// `bytes` bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory (the broker runs on 64-bit machines only).
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that divides it, so that nothing is rounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 > 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Value for ByteSize {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let expected = |problem: &dyn fmt::Display| format!("a size, such as 64MiB or a number of bytes ({problem})");
        // Plain numbers and numbers with a unit that fit exactly never pass through a float.
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            *self = Self(text.parse().map_err(|error| expected(&error))?);
        } else {
            *self = Self(
                text.parse::<bytesize::ByteSize>()
                    .map_err(|error| expected(&error))?
                    .as_u64(),
            );
        }
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn magnitude(&self) -> Option<u64> {
        Some(self.0)
    }

    fn show_magnitude(&self, magnitude: u64) -> String {
        Self(magnitude).to_string()
    }
}

impl Optional for ByteSize {
    const NONE: &'static [&'static str] = &["unlimited", "-1"];
}

/// A share of a whole, from 0 to 1, exact to a millionth. Written as `0.5`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

impl Ratio {
    /// The whole, in millionths.
    pub const WHOLE: u64 = 1_000_000;

    /// So many hundredths.
    pub const fn percent(count: u32) -> Self {
        Self(count * 10_000)
    }

    /// As a number from 0 to 1.
    pub fn get(self) -> f64 {
        f64::from(self.0) / Self::WHOLE as f64
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

impl Value for Ratio {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let expected = || "a number from 0 to 1, such as 0.5".to_owned();
        let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        *self = Self((ratio.ok_or_else(expected)? * Self::WHOLE as f64).round() as u32);
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn magnitude(&self) -> Option<u64> {
        Some(u64::from(self.0))
    }

    fn show_magnitude(&self, magnitude: u64) -> String {
        Self(magnitude as u32).to_string()
    }

    fn toml(&self) -> String {
        self.show()
    }
}

/// Reads `10ms`, `7d` or `1h 30m`; a plain number counts units of `unit`.
fn read_duration(text: &str, unit: Duration, unit_name: &str) -> Result<u64, String> {
    let expected =
        |problem: &dyn fmt::Display| format!("a time, such as 10ms or 7d, or a number of {unit_name} ({problem})");
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|error| expected(&error));
    }
    let duration = humantime::parse_duration(text).map_err(|error| expected(&error))?;
    if !duration.as_nanos().is_multiple_of(unit.as_nanos()) {
        return Err(expected(&"it is not a whole number of them"));
    }
    u64::try_from(duration.as_nanos() / unit.as_nanos()).map_err(|error| expected(&error))
}

/// The largest unit that divides the duration, so that nothing is rounded.
fn show_duration(count: u64, units: &[(u64, &str)]) -> String {
    let largest = units
        .iter()
        .find(|(length, _)| count > 0 && count.is_multiple_of(*length));
    let (length, unit) = largest.or(units.last()).copied().unwrap_or((1, ""));
    format!("{}{unit}", count / length)
}

macro_rules! time {
    ($(#[$doc:meta])* $Type:ident, $from:ident, $name:literal, $units:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $Type(u64);

        impl $Type {
            #[doc = concat!("That many ", $name, ".")]
            pub const fn new(count: u64) -> Self {
                Self(count)
            }

            #[doc = concat!("The number of ", $name, ".")]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The same as a duration of the standard library.
            pub const fn duration(self) -> Duration {
                Duration::$from(self.0)
            }
        }

        impl fmt::Display for $Type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&show_duration(self.0, $units))
            }
        }

        impl Value for $Type {
            fn read(&mut self, text: &str) -> Result<(), String> {
                *self = Self(read_duration(text, Duration::$from(1), $name)?);
                Ok(())
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn magnitude(&self) -> Option<u64> {
                Some(self.0)
            }

            fn show_magnitude(&self, magnitude: u64) -> String {
                Self(magnitude).to_string()
            }
        }
    };
}

time!(
    /// A number of milliseconds. Written as a plain number or with a unit: `10ms`, `7d`.
    Millis, from_millis, "milliseconds",
    &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")]
);

time!(
    /// A number of microseconds. Written as a plain number or with a unit: `50us`, `1ms`.
    Micros, from_micros, "microseconds", &[(1_000_000, "s"), (1000, "ms"), (1, "us")]
);

impl Optional for Millis {
    const NONE: &'static [&'static str] = &["unlimited", "-1"];
}
