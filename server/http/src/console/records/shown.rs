//! A record as it is shown: cut to what a page bears, and as the text that somebody asked for. Records on a page keep none of the memory
//! that they were fetched into.

use headwater_client::{RecordView, Records};
use serde_json::{Value, json};

use crate::console::format::{hex, json as indent, visible};

/// Bytes that are shown of a key or a value in a list, and on a page of its own.
pub(super) const PREVIEW: usize = 2 << 10;
pub(super) const WHOLE: usize = 256 << 10;
/// Headers that are shown of a record.
const HEADERS_MAX: usize = 32;

/// How bytes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// JSON if it is, otherwise text if it is, otherwise hexadecimal digits.
    Auto,
    Text,
    Hex,
}

impl Manner {
    pub(super) const ALL: [(&str, &str, Manner); 3] = [
        ("auto", "JSON, text or hex", Manner::Auto),
        ("text", "as text", Manner::Text),
        ("hex", "as hex", Manner::Hex),
    ];

    pub(super) fn named(name: Option<&str>) -> Manner {
        let known = Self::ALL.iter().find(|(known, ..)| Some(*known) == name);
        known.map_or(Manner::Auto, |(.., manner)| *manner)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(.., manner)| *manner == self)
            .map_or("auto", |(name, ..)| name)
    }
}

/// The first bytes of a key, a value, or the value of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    bytes: Vec<u8>,
    /// How many there are in all.
    pub(super) len: usize,
}

impl Piece {
    pub(super) fn of(bytes: &[u8], most: usize) -> Piece {
        let (len, cut) = (bytes.len(), bytes.len().min(most));
        let bytes = bytes[..cut].to_vec();
        Piece { bytes, len }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.bytes.len() < self.len
    }

    /// As text, and what kind of text that is.
    pub(super) fn text(&self, manner: Manner) -> (String, &'static str) {
        match manner {
            Manner::Hex => (hex(&self.bytes), "hex"),
            Manner::Text => (visible(&String::from_utf8_lossy(&self.bytes)).into_owned(), "text"),
            Manner::Auto => match self.utf8() {
                Some(text) => match indent(text) {
                    Some(json) if !self.is_cut() => (visible(&json).into_owned(), "json"),
                    _ => (visible(text).into_owned(), "text"),
                },
                None => (hex(&self.bytes), "hex"),
            },
        }
    }

    /// What was cut within a character is text too. NUL is a sign of something else.
    fn utf8(&self) -> Option<&str> {
        let text = match std::str::from_utf8(&self.bytes) {
            Ok(text) => text,
            Err(error) if self.is_cut() && error.error_len().is_none() => {
                std::str::from_utf8(&self.bytes[..error.valid_up_to()]).ok()?
            }
            Err(_) => return None,
        };
        (!text.contains('\0')).then_some(text)
    }
}

/// A record on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) partition: i32,
    pub(super) offset: u64,
    pub(super) timestamp: i64,
    pub(super) key: Option<Piece>,
    pub(super) value: Option<Piece>,
    pub(super) headers: Vec<(String, Option<Piece>)>,
    /// Headers beyond those.
    pub(super) headers_left: usize,
}

impl Shown {
    pub(super) fn of(records: &Records, record: &RecordView<'_>, most: usize) -> Shown {
        let piece = |bytes: Option<&[u8]>| bytes.map(|bytes| Piece::of(bytes, most));
        let name = |name: &str| visible(&name.chars().take(256).collect::<String>()).into_owned();
        let headers = record.headers.clone();
        let shown = headers
            .clone()
            .take(HEADERS_MAX)
            .map(|header| (name(header.key), header.value.map(|value| Piece::of(value, most / 8))));
        Shown {
            partition: records.partition().get(),
            offset: record.offset.get(),
            timestamp: record.timestamp.get(),
            key: piece(record.key),
            value: piece(record.value),
            headers: shown.collect(),
            headers_left: headers.skip(HEADERS_MAX).count(),
        }
    }

    /// For the script, which makes nothing but text of it.
    pub(super) fn json(&self, manner: Manner, time: &str) -> Value {
        let piece = |piece: &Option<Piece>| {
            let Some(piece) = piece else { return Value::Null };
            let (text, kind) = piece.text(manner);
            json!({ "text": text, "kind": kind, "len": piece.len, "cut": piece.is_cut() })
        };
        let headers = self.headers.iter().map(|(name, value)| json!([name, piece(value)]));
        json!({
            "partition": self.partition,
            "offset": self.offset,
            "time": time,
            "key": piece(&self.key),
            "value": piece(&self.value),
            "headers": headers.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], manner: Manner) -> (String, &'static str) {
        Piece::of(bytes, PREVIEW).text(manner)
    }

    #[test]
    fn bytes_are_shown_as_what_they_are_or_as_somebody_wants_them() {
        assert_eq!(
            text(b"{\"a\":1}", Manner::Auto),
            ("{\n  \"a\": 1\n}".to_owned(), "json")
        );
        assert_eq!(text(b"{\"a\":1}", Manner::Text), ("{\"a\":1}".to_owned(), "text"));
        assert_eq!(
            text("gr\u{fc}n".as_bytes(), Manner::Auto),
            ("gr\u{fc}n".to_owned(), "text")
        );
        assert_eq!(text(b"\xff\xfe", Manner::Auto).1, "hex");
        assert_eq!(text(b"a\0b", Manner::Auto).1, "hex");
        assert_eq!(text(b"\xff\x1b[1m", Manner::Text).0, "\u{fffd}\\u{1b}[1m");
        assert_eq!(text(b"ab", Manner::Hex).1, "hex");
    }

    #[test]
    fn what_is_long_is_cut_and_still_text() {
        let long = "\u{20ac}".repeat(PREVIEW);
        let piece = Piece::of(long.as_bytes(), PREVIEW);
        assert!(piece.is_cut() && piece.len == long.len());
        let (shown, kind) = piece.text(Manner::Auto);
        assert_eq!(kind, "text");
        assert!(shown.len() <= PREVIEW && shown.chars().all(|character| character == '\u{20ac}'));
        // Half of a JSON document is none.
        let json = format!("[{}1]", "1,".repeat(PREVIEW));
        assert_eq!(Piece::of(json.as_bytes(), PREVIEW).text(Manner::Auto).1, "text");
    }
}
