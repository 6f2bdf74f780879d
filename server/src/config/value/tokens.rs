//! What tokens must be like, and where the keys are that they are checked by.

use super::Value;

/// Where the keys are by which tokens are signed (JWKS, RFC 7517): `file:PATH`, or a URL; "none" is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenKeys {
    /// There are none.
    #[default]
    None,
    /// In a file, which is looked at again when it changes.
    File(String),
    /// At a URL, which is asked again now and then.
    Url(String),
}

impl TokenKeys {
    /// Whether there are any.
    pub fn is_some(&self) -> bool {
        *self != Self::None
    }
}

impl Value for TokenKeys {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let is_url = ["https://", "http://"]
            .iter()
            .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        *self = match text.split_once(':') {
            None if text.is_empty() || text == "none" => Self::None,
            Some(("file", path)) if !path.is_empty() => Self::File(path.to_owned()),
            _ if is_url && !text.contains(char::is_whitespace) => Self::Url(text.to_owned()),
            _ => return Err("\"none\", file:PATH or a URL such as https://issuer.example/jwks.json".to_owned()),
        };
        Ok(())
    }

    fn show(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::File(path) => format!("file:{path}"),
            Self::Url(url) => url.clone(),
        }
    }
}

/// Words that a claim of a token may have, with commas between them; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims(Vec<String>);

impl Claims {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Value for Claims {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let words = text.split(',').map(str::trim).filter(|_| !text.is_empty());
        let words: Vec<String> = words.map(str::to_owned).collect();
        if words
            .iter()
            .any(|word| word.is_empty() || word.contains(char::is_control))
        {
            return Err("words with commas between them".to_owned());
        }
        self.0 = words;
        Ok(())
    }

    fn show(&self) -> String {
        self.0.join(",")
    }
}

/// The claim that says who somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimName(String);

impl ClaimName {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ClaimName {
    fn default() -> Self {
        Self("sub".to_owned())
    }
}

impl Value for ClaimName {
    fn read(&mut self, text: &str) -> Result<(), String> {
        if text.is_empty() || text.contains(char::is_whitespace) {
            return Err("the name of a claim, such as sub".to_owned());
        }
        text.clone_into(&mut self.0);
        Ok(())
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// How a token may be signed (RFC 7518): by a private key, of which all who look have the public one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAlgorithms(Vec<&'static str>);

impl TokenAlgorithms {
    /// All that there are. None of them takes a key that both sides know, or none at all.
    pub const ALL: [&'static str; 9] = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
    ];

    /// Their names.
    pub fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied()
    }
}

impl Default for TokenAlgorithms {
    fn default() -> Self {
        Self(vec!["RS256", "PS256", "ES256"])
    }
}

impl Value for TokenAlgorithms {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let names = text.split(',').map(str::trim);
        let known = names.map(|name| Self::ALL.into_iter().find(|known| *known == name));
        let known: Option<Vec<&'static str>> = known.collect();
        self.0 = known.ok_or_else(|| format!("some of {}, with commas between them", Self::ALL.join(", ")))?;
        Ok(())
    }

    fn show(&self) -> String {
        self.0.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_a_file_or_at_a_url() {
        let mut keys = TokenKeys::default();
        for text in [
            "none",
            "file:/etc/jwks.json",
            "https://a.example/keys",
            "http://127.0.0.1:8080/k",
        ] {
            keys.read(text).unwrap();
            assert_eq!(keys.show(), text);
        }
        for wrong in ["https://", "ftp://a", "/etc/jwks.json", "https://a b", "file:"] {
            assert!(keys.read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_algorithm_takes_a_key_that_both_sides_know() {
        let mut algorithms = TokenAlgorithms::default();
        for wrong in ["HS256", "none", "", "RS256,HS512"] {
            assert!(algorithms.read(wrong).is_err(), "{wrong}");
        }
        algorithms.read("ES384, EdDSA").unwrap();
        assert_eq!(algorithms.show(), "ES384,EdDSA");
    }
}
