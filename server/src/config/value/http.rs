//! What REST needs to be told: whose web pages may use it.

use super::Value;

/// Origins of web pages (RFC 6454), such as `https://dash.example.com:8443`. Written with commas between them; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    /// Each of them, as browsers send it.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Value for Origins {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let names = text.split(',').map(str::trim).filter(|_| !text.is_empty());
        let mut origins = Vec::new();
        for name in names {
            let host = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://"));
            let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-.:[]".contains(letter);
            if !host.is_some_and(|host| !host.is_empty() && host.chars().all(is_plain)) {
                return Err("origins such as https://dash.example.com, with commas between them and nothing behind the host or its port".to_owned());
            }
            origins.push(name.to_ascii_lowercase());
        }
        self.0 = origins;
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
    fn only_origins_are_taken_for_some() {
        let mut origins = Origins::default();
        origins.read("https://a.example.com, http://localhost:3000").unwrap();
        assert_eq!(origins.show(), "https://a.example.com,http://localhost:3000");
        for wrong in [
            "*",
            "null",
            "https://",
            "https://a/",
            "a.example.com",
            "https://a\r\nx",
            "https://a,,https://b",
        ] {
            assert!(origins.read(wrong).is_err(), "{wrong}");
        }
        origins.read("").unwrap();
        assert_eq!(origins.iter().count(), 0);
    }
}
