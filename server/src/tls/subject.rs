//! The subject of a certificate as Kafka knows it: RFC 2253 as Java prints it (`X500Principal.getName()`).
//!
//! The last part comes first. Attributes that RFC 2253 does not name, and values that are no text to Java, are written as numbers
//! and as the hexadecimal digits of their encoding.

use std::fmt::Write as _;

use x509_parser::{asn1_rs::Any, x509::AttributeTypeAndValue, x509::X509Name};

/// The keywords of RFC 2253.
const KEYWORDS: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// Kinds of values that are text to Java: `UTF8String`, `PrintableString`, `T61String`, `IA5String`, `GeneralString`, `BMPString`.
const TEXT: [u32; 6] = [12, 19, 20, 22, 27, 30];

/// The whole name.
pub(super) fn rfc_2253(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let number = attribute.attr_type().to_id_string();
    let value = attribute.attr_value();
    let keyword = KEYWORDS.iter().find(|(known, _)| *known == number);
    match keyword {
        Some((_, keyword)) if TEXT.contains(&value.tag().0) => {
            format!("{keyword}={}", escaped(&String::from_utf8_lossy(value.data)))
        }
        Some((_, keyword)) => format!("{keyword}=#{}", encoding(value)),
        None => format!("{number}=#{}", encoding(value)),
    }
}

fn escaped(text: &str) -> String {
    let is_space = |letter: char| letter == ' ' || letter == '\r';
    let trimmed = text.trim_matches(is_space);
    let begin = text.len() - text.trim_start_matches(is_space).len();
    let end = begin + trimmed.len();
    let mut out = String::with_capacity(text.len());
    for (at, letter) in text.char_indices() {
        match letter {
            '\0' => out.push_str("\\00"),
            ',' | '=' | '+' | '<' | '>' | '#' | ';' | '"' | '\\' => out.extend(['\\', letter]),
            _ if at < begin || at >= end => out.extend(['\\', letter]),
            _ => out.push(letter),
        }
    }
    out
}

/// The digits of the value's DER: its kind, its length, its bytes.
fn encoding(value: &Any<'_>) -> String {
    let mut bytes = vec![value.tag().0 as u8];
    match value.data.len() {
        short @ 0..128 => bytes.push(short as u8),
        long => {
            let length = long.to_be_bytes();
            let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            bytes.push(0x80 | length.len() as u8);
            bytes.extend(length);
        }
    }
    bytes.extend_from_slice(value.data);
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
