//! What stands behind the question mark of an address, and in a form: names and values, decoded. Everything is taken as text, and what is
//! wrong with a value is said by its name.

use std::fmt::Write as _;
use std::str::FromStr;

use super::page::Refusal;

/// Names and values that are looked at, of one address or form.
const PAIRS_MAX: usize = 256;

/// Names and values in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Takes apart `name=value&name=value`.
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        if pairs.clone().count() > PAIRS_MAX {
            return Err(Refusal::bad(format!("More than {PAIRS_MAX} values were sent.")));
        }
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        decoded.collect::<Result<_, Refusal>>().map(Self)
    }

    /// A value, if there is one that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.as_str())
    }

    /// A value that must be there.
    pub(super) fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name)
            .ok_or_else(|| Refusal::bad(format!("The address lacks a value for {name}.")))
    }

    /// A number, if there is one.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let parse = |value: &str| {
            let parsed = value.trim().parse().ok();
            parsed.ok_or_else(|| Refusal::bad(format!("The value for {name} is not a number that can be used here.")))
        };
        self.get(name).map(parse).transpose()
    }
}

fn decode(text: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let value = digit().and_then(|high| Some(high * 16 + digit()?));
                value.ok_or_else(|| Refusal::bad("The address has a % that no two hexadecimal digits follow."))? as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes)
        .map_err(|source| Refusal::bad(format!("The address is not UTF-8: {}.", source.utf8_error())))
}

/// Writes a name or a value into an address: all but letters, digits and `-._~` as `%` and two digits.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_into_an_address_is_read_out_of_it() {
        let hostile = "a&b=c+d %00\u{202e}\"<script>'/../\u{1f4a9}\n";
        let params = Params::read(&format!("id={}&n=%2B5&n=+&e=", encode(hostile))).unwrap();
        assert_eq!(params.get("id"), Some(hostile));
        assert_eq!(params.get("e"), None);
        assert_eq!(params.all("n").collect::<Vec<_>>(), ["+5", " "]);
        assert_eq!(params.number::<u32>("n").unwrap(), Some(5));
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_named() {
        for bad in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            Params::read(bad).unwrap_err();
        }
        Params::read(&"a=1&".repeat(PAIRS_MAX + 1)).unwrap_err();
        let params = Params::read("offset=-1").unwrap();
        assert!(params.number::<u64>("offset").unwrap_err().what.contains("offset"));
        params.need("partition").unwrap_err();
    }
}
