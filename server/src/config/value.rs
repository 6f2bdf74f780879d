//! The types of configuration values, and how each is read from and printed as text.
//!
//! Files, environment and flags all arrive as text, so that a value is written the same way in each. Printing is exact:
//! what [`Value::show`] prints, [`Value::read`] reads back to the same value.

mod cluster;
mod groups;
mod http;
mod kafka;
mod names;
mod security;
mod tls;
mod tokens;
mod units;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use headwater_protocol::id::BrokerId;

pub use cluster::{Balance, HostPort, Members, PeerListen, Role};
pub use groups::Migration;
pub use http::Origins;
pub use kafka::KafkaListen;
pub use names::{ClusterId, CpuSet, HostName, HttpAddress, LogFilter, LogFormat, Rack};
pub use security::{AuditLevel, SaslMechanism, SaslMechanisms, SecretPlace, Users};
pub use tls::{ClientAuth, Files, PrincipalRules};
pub use tokens::{ClaimName, Claims, TokenAlgorithms, TokenKeys};
pub use units::{ByteSize, Micros, Millis, Ratio};

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

    /// What is given for it may be a secret by mistake, and is not repeated.
    fn is_secret(&self) -> bool {
        false
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

impl Value for BrokerId {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let number = text.parse::<u32>().ok().and_then(|number| i32::try_from(number).ok());
        *self = Self::new(number.ok_or_else(|| format!("a whole number up to {}", i32::MAX))?);
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn magnitude(&self) -> Option<u64> {
        u64::try_from(self.get()).ok()
    }

    fn toml(&self) -> String {
        self.show()
    }
}

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
        let text = text
            .strip_prefix("localhost:")
            .map_or_else(|| text.to_owned(), |port| format!("{}:{port}", Ipv4Addr::LOCALHOST));
        *self = text
            .parse()
            .map_err(|error| format!("an IP address (or localhost) and a port, such as 0.0.0.0:9292 ({error})"))?;
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
