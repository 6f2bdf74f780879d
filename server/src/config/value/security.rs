//! Users, how they prove who they are, and where secrets are. No secret is a value itself, so none is ever printed.

use std::{env, fs, path::Path};

use super::Value;

/// Names of users. Written with commas between them; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(Vec<String>);

impl Users {
    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Value for Users {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let names = text.split(',').map(str::trim).filter(|_| !text.is_empty());
        let mut users = Vec::new();
        for name in names {
            let name = name.strip_prefix("User:").unwrap_or(name);
            if name.is_empty() || name == "*" || name.contains(char::is_control) {
                return Err("names of users, such as alice,bob".to_owned());
            }
            users.push(name.to_owned());
        }
        self.0 = users;
        Ok(())
    }

    fn show(&self) -> String {
        self.0.join(",")
    }
}

/// Which decisions are written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditLevel {
    /// None.
    #[default]
    Off,
    /// That something was denied.
    Denied,
    /// Also that something was allowed.
    All,
}

impl Value for AuditLevel {
    fn read(&mut self, text: &str) -> Result<(), String> {
        *self = match text {
            "off" => Self::Off,
            "denied" => Self::Denied,
            "all" => Self::All,
            _ => return Err("\"off\", \"denied\" or \"all\"".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> String {
        let name = match self {
            Self::Off => "off",
            Self::Denied => "denied",
            Self::All => "all",
        };
        name.to_owned()
    }
}

/// A way for a client to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password itself.
    Plain,
    /// A proof that the client knows it, with SHA-256.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
    /// A token of an issuer that is trusted.
    OauthBearer,
}

impl SaslMechanism {
    /// All of them.
    pub const ALL: [SaslMechanism; 4] = [Self::Plain, Self::ScramSha256, Self::ScramSha512, Self::OauthBearer];

    /// Its name in SASL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<SaslMechanism> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// The mechanisms that are offered. Written with commas between them; empty: nobody is asked who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaslMechanisms(Vec<SaslMechanism>);

impl SaslMechanisms {
    /// Whether nobody is asked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one is offered.
    pub fn has(&self, mechanism: SaslMechanism) -> bool {
        self.0.contains(&mechanism)
    }

    /// Those that are offered.
    pub fn iter(&self) -> impl Iterator<Item = SaslMechanism> {
        self.0.iter().copied()
    }
}

impl Value for SaslMechanisms {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let names = text.split(',').map(str::trim).filter(|_| !text.is_empty());
        let mut mechanisms = Vec::new();
        for name in names {
            let known = SaslMechanism::named(name);
            let known = known.ok_or_else(|| {
                let all = SaslMechanism::ALL.map(SaslMechanism::name).join(", ");
                format!("some of {all}, with commas between them")
            })?;
            if !mechanisms.contains(&known) {
                mechanisms.push(known);
            }
        }
        self.0 = mechanisms;
        Ok(())
    }

    fn show(&self) -> String {
        let names: Vec<&str> = self.iter().map(SaslMechanism::name).collect();
        names.join(",")
    }
}

/// Where a secret is: `file:/etc/headwater/secret` or `env:NAME`; "none" is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecretPlace {
    /// There is none.
    #[default]
    None,
    /// The content of a file, without the end of its line.
    File(String),
    /// The value of an environment variable.
    Environment(String),
}

impl SecretPlace {
    /// Whether there is a secret.
    pub fn is_some(&self) -> bool {
        *self != Self::None
    }

    /// The secret, if there is to be one; or why it cannot be had, without a word of what it is.
    pub fn fetch(&self) -> Result<Option<String>, String> {
        let secret = match self {
            Self::None => return Ok(None),
            Self::File(path) => fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
            Self::Environment(name) => env::var(name).map_err(|_absent| format!("the environment has no {name}"))?,
        };
        let secret = secret.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(format!("{} is empty", self.show()));
        }
        Ok(Some(secret.to_owned()))
    }

    /// The file that it is in.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(Path::new(path)),
            Self::None | Self::Environment(_) => None,
        }
    }
}

impl Value for SecretPlace {
    fn read(&mut self, text: &str) -> Result<(), String> {
        // What was given is not repeated: it may be the secret.
        let expected = "\"none\", file:PATH or env:NAME: where the secret is, not the secret itself";
        *self = match text.split_once(':') {
            None if text.is_empty() || text == "none" => Self::None,
            Some(("file", path)) if !path.is_empty() => Self::File(path.to_owned()),
            Some(("env", name)) if !name.is_empty() => Self::Environment(name.to_owned()),
            _ => return Err(expected.to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::File(path) => format!("file:{path}"),
            Self::Environment(name) => format!("env:{name}"),
        }
    }

    fn is_secret(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_fetched_from_where_it_is_and_is_no_value_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let mut place = SecretPlace::default();
        assert_eq!(place.fetch(), Ok(None));
        place.read(&format!("file:{}", path.display())).unwrap();
        assert!(place.fetch().is_err());
        fs::write(&path, "hush\n").unwrap();
        assert_eq!(place.fetch(), Ok(Some("hush".to_owned())));
        fs::write(&path, "\n").unwrap();
        assert!(place.fetch().is_err());
        for wrong in ["hush", "file:", "env:", "other:x"] {
            assert!(!place.read(wrong).unwrap_err().contains("hush"), "{wrong}");
        }
        place.read("env:HEADWATER_NO_SUCH_SECRET").unwrap();
        assert!(place.fetch().is_err());
    }
}
