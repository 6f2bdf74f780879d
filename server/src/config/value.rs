//! The types of configuration values, and how each is read from and printed as text.
//!
//! Files, environment and flags all arrive as text, so that a value is written the same way in each. Printing is exact:
//! what [`Value::show`] prints, [`Value::read`] reads back to the same value.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

/// What a file, a variable or a flag can set. Object-safe, so that knobs of all types fit one table.
pub trait Value: fmt::Debug {
    /// Takes the value from text, or says what was expected instead and leaves the old value.
    fn read(&mut self, text: &str) -> Result<(), String>;

    /// The value as text that [`Value::read`] accepts, and so people see it in errors.
    fn show(&self) -> String;

    /// The value as a number in the knob's own unit, for range checks. None: it has no order, or is unlimited.
    fn magnitude(&self) -> Option<u64> {
        None
    }

    /// A bound of the range in the form in which values are shown.
    fn show_magnitude(&self, magnitude: u64) -> String {
        magnitude.to_string()
    }

    /// The value as TOML.
    fn toml(&self) -> String {
        toml::Value::String(self.show()).to_string()
    }
}

/// A value which may be absent, and the words for that; the first is the one that is printed.
pub trait Optional: Value + Default {
    /// Words that stand for no value.
    const NONE: &'static [&'static str];
}

impl<T: Optional> Value for Option<T> {
    fn read(&mut self, text: &str) -> Result<(), String> {
        if T::NONE.contains(&text) {
            *self = None;
            return Ok(());
        }
        let mut value = T::default();
        value
            .read(text)
            .map_err(|expected| format!("\"{}\" or {expected}", T::NONE[0]))?;
        *self = Some(value);
        Ok(())
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| T::NONE[0].to_owned(), T::show)
    }

    fn magnitude(&self) -> Option<u64> {
        self.as_ref().and_then(T::magnitude)
    }

    fn show_magnitude(&self, magnitude: u64) -> String {
        T::default().show_magnitude(magnitude)
    }
}

macro_rules! number {
    ($($Type:ty),+) => { $(
        impl Value for $Type {
            fn read(&mut self, text: &str) -> Result<(), String> {
                *self = text.parse().map_err(|error| format!("a whole number up to {} ({error})", <$Type>::MAX))?;
                Ok(())
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn magnitude(&self) -> Option<u64> {
                Some(u64::from(*self))
            }

            fn toml(&self) -> String {
                self.show()
            }
        }
    )+ };
}

number!(u16, u32);

impl Value for bool {
    fn read(&mut self, text: &str) -> Result<(), String> {
        *self = text
            .parse()
            .map_err(|_error: std::str::ParseBoolError| "true or false".to_owned())?;
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn toml(&self) -> String {
        self.show()
    }
}

impl Value for SocketAddr {
    fn read(&mut self, text: &str) -> Result<(), String> {
        *self = text
            .parse()
            .map_err(|error| format!("an IP address and a port, such as 0.0.0.0:9292 ({error})"))?;
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    fn read(&mut self, text: &str) -> Result<(), String> {
        if text.is_empty() || text.contains('\0') {
            return Err("the path of a directory".to_owned());
        }
        *self = PathBuf::from(text);
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string_lossy().into_owned()
    }
}

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

macro_rules! text {
    ($(#[$doc:meta])* $Type:ident, $valid:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $Type(String);

        impl $Type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Value for $Type {
            fn read(&mut self, text: &str) -> Result<(), String> {
                let valid: fn(&str) -> bool = $valid;
                if !valid(text) {
                    return Err($expected.to_owned());
                }
                text.clone_into(&mut self.0);
                Ok(())
            }

            fn show(&self) -> String {
                self.0.clone()
            }
        }

        impl Optional for $Type {
            const NONE: &'static [&'static str] = &["auto"];
        }

        impl std::str::FromStr for $Type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let mut value = Self::default();
                value.read(text)?;
                Ok(value)
            }
        }
    };
}

text!(
    /// Identity of a cluster: 1 to 64 of `[a-zA-Z0-9_-]`, by default a UUID.
    ClusterId,
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)),
    "1 to 64 letters, digits, _ and -"
);

text!(
    /// Name or IP address of a host, as clients resolve it (RFC 1123 limits it to 253 characters).
    HostName,
    |text| text.parse::<std::net::IpAddr>().is_ok_and(|ip| !ip.is_unspecified())
        || ((1..=253).contains(&text.len())
            && text.parse::<std::net::IpAddr>().is_err()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))),
    "a host name or an IP address, without a port"
);

/// CPUs by number, in rising order. Written as in taskset: `0,2-3`. Empty: not chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<u16>);

impl CpuSet {
    /// Largest number of a CPU that Linux is built for (`CONFIG_NR_CPUS`).
    const CPU_MAX: u16 = 8191;

    /// The CPUs in rising order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u16> + '_ {
        self.0.iter().copied()
    }

    /// How many CPUs were chosen.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if none was chosen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<u16> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u16>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl Value for CpuSet {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let expected = || format!("CPU numbers up to {}, such as 0,2-3", Self::CPU_MAX);
        let number = |part: &str| {
            part.trim()
                .parse()
                .ok()
                .filter(|cpu| *cpu <= Self::CPU_MAX)
                .ok_or_else(expected)
        };
        let mut cpus = BTreeSet::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u16, u16) = (number(first)?, number(last)?);
            if first > last {
                return Err(expected());
            }
            cpus.extend(first..=last);
        }
        self.0 = cpus;
        Ok(())
    }

    fn show(&self) -> String {
        self.0.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Form of the lines on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line for each event.
    #[default]
    Text,
    /// One JSON object for each event.
    Json,
}

impl Value for LogFormat {
    fn read(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "text" => Self::Text,
            "json" => Self::Json,
            _ => return Err("\"text\" or \"json\"".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Json => "json".to_owned(),
        }
    }
}

/// Which events are logged, in the syntax of `tracing_subscriber::EnvFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The directives as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter for the subscriber.
    pub fn env_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl Value for LogFilter {
    fn read(&mut self, text: &str) -> Result<(), String> {
        EnvFilter::try_new(text)
            .map_err(|error| format!("directives such as \"info,headwater_engine=debug\" ({error})"))?;
        text.clone_into(&mut self.0);
        Ok(())
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}
