//! Figures, times and bytes as people read them.
//!
//! Nothing here makes HTML. Text that others have written passes through [`visible`], so that a control character or a change of the
//! direction of writing is seen, and has no effect on what stands beside it.

use std::borrow::Cow;
use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Deeper than this JSON is not indented further: nothing but brackets would take the square of their number otherwise.
const INDENT_MAX: usize = 24;
/// Bytes in a line of hexadecimal digits.
const HEX_LINE: usize = 16;

/// A size, such as `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 {
        format!("{count} B")
    } else if value < 10.0 {
        format!("{value:.1} {}", units[unit])
    } else {
        format!("{value:.0} {}", units[unit])
    }
}

/// A number with a comma between thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A moment in UTC, of milliseconds since 1970.
pub(super) fn time(milliseconds: i64) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        Err(_) => format!("{milliseconds} ms"),
    }
}

/// A duration by its two largest units, such as `3 d 4 h`.
pub(super) fn duration(seconds: u64) -> String {
    let parts = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let parts = parts.map(|(size, unit)| {
        let count = rest / size;
        rest %= size;
        (count, unit)
    });
    let from = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = parts[from..].iter().take(2).filter(|(count, _)| *count > 0);
    let text: Vec<String> = shown.map(|(count, unit)| format!("{count} {unit}")).collect();
    if text.is_empty() {
        "0 s".to_owned()
    } else {
        text.join(" ")
    }
}

/// Milliseconds since 1970 of what somebody has typed: such a number, or `2026-11-30 17:20` and the like, in UTC.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let text = text.trim().trim_end_matches(['Z', 'z']);
    if let Ok(milliseconds) = text.parse::<i64>() {
        return Some(milliseconds).filter(|milliseconds| *milliseconds >= 0);
    }
    let time: DateTime = text.parse().ok()?;
    let time = time.to_zoned(TimeZone::UTC).ok()?;
    Some(time.timestamp().as_millisecond()).filter(|milliseconds| *milliseconds >= 0)
}

/// Text with every control character, and every one that changes the direction of writing or is not seen, as `\u{...}`. Line ends and
/// tabs stay.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hidden(character) {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

fn is_hidden(character: char) -> bool {
    let is_mark = matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    (character.is_control() && !matches!(character, '\n' | '\t')) || is_mark
}

/// JSON with line ends and spaces between its parts, which themselves stay as they are: no number is rounded and no name reordered.
/// `None` if it is no JSON object or list.
pub(super) fn json(text: &str) -> Option<String> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    Some(indented(text))
}

/// JSON is well formed here, so a look at the characters outside of strings is enough.
fn indented(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    let mut characters = text.chars().filter(|c| !matches!(c, '\n' | '\r' | '\t')).peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(INDENT_MAX)));
    };
    while let Some(character) = characters.next() {
        if in_string {
            out.push(character);
            match character {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match character {
            ' ' => {}
            '{' | '[' => {
                out.push(character);
                while characters.peek() == Some(&' ') {
                    characters.next();
                }
                if let Some(closing) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(closing);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(character);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => {
                in_string = other == '"';
                out.push(other);
            }
        }
    }
    out
}

/// Lines of an offset, sixteen bytes in hexadecimal digits, and the same as characters.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 5);
    for (line, chunk) in bytes.chunks(HEX_LINE).enumerate() {
        if line > 0 {
            out.push('\n');
        }
        let _ = write!(out, "{:06x} ", line * HEX_LINE);
        for place in 0..HEX_LINE {
            if place == HEX_LINE / 2 {
                out.push(' ');
            }
            let _ = match chunk.get(place) {
                Some(byte) => write!(out, " {byte:02x}"),
                None => write!(out, "   "),
            };
        }
        out.push_str("  ");
        let printable = |byte: &u8| {
            if byte.is_ascii_graphic() || *byte == b' ' {
                char::from(*byte)
            } else {
                '.'
            }
        };
        out.extend(chunk.iter().map(printable));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_true() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(20 << 30), "20 GiB");
        assert_eq!(bytes(u64::MAX), "16 EiB");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(12_345_678), "12,345,678");
        assert_eq!(duration(0), "0 s");
        assert_eq!(duration(3_725), "1 h 2 min");
        assert_eq!(duration(86_400), "1 d");
    }

    #[test]
    fn times_are_utc_both_ways() {
        assert_eq!(time(1_764_523_211_123), "2025-11-30 17:20:11.123");
        for same in ["2025-11-30 17:20:11.123", "2025-11-30T17:20:11.123Z", "1764523211123"] {
            assert_eq!(parse_time(same), Some(1_764_523_211_123), "{same}");
        }
        assert_eq!(parse_time("2025-11-30T17:20"), Some(1_764_523_200_000));
        assert_eq!(parse_time("-5"), None);
        assert_eq!(parse_time("yesterday"), None);
        assert_eq!(time(i64::MAX), format!("{} ms", i64::MAX));
    }

    #[test]
    fn nothing_that_is_not_seen_stays_as_it_is() {
        assert_eq!(visible("plain \u{e9}\n\t"), "plain \u{e9}\n\t");
        assert_eq!(
            visible("a\u{202e}b\0c\u{1b}[31m\u{feff}"),
            "a\\u{202e}b\\u{0}c\\u{1b}[31m\\u{feff}"
        );
    }

    #[test]
    fn json_is_indented_and_not_otherwise_changed() {
        let text = r#"{"z":12345678901234567890.10,"a":[1, {"b":"x, y: {\"}"}],"e":{ },"l":[]}"#;
        let expected = "{\n  \"z\": 12345678901234567890.10,\n  \"a\": [\n    1,\n    {\n      \"b\": \"x, y: {\\\"}\"\n    }\n  ],\n  \"e\": {},\n  \"l\": []\n}";
        assert_eq!(json(text).unwrap(), expected);
        assert_eq!(json("12"), None);
        assert_eq!(json("{\"a\":}"), None);
    }

    #[test]
    fn brackets_alone_do_not_make_a_page_of_their_square() {
        let text = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
        assert!(json(&text).is_none_or(|shown| shown.len() < 4_000 * (2 * INDENT_MAX + 2)));
    }

    #[test]
    fn bytes_are_shown_sixteen_a_line() {
        let shown = hex(b"<script>\0\xffabcdefgh");
        let expected = "000000  3c 73 63 72 69 70 74 3e  00 ff 61 62 63 64 65 66  <script>..abcdef\n\
                        000010  67 68                                             gh";
        assert_eq!(shown, expected);
    }
}
