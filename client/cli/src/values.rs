//! Values of options: times, moments, pairs, escapes; and values as people read them.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use headwater_client::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use regex::Regex;

/// Far below what a clock can count to.
const DURATION_MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// `10s`, `1m 30s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 500ms, 10s or 1h 30m"))?;
    if duration.is_zero() {
        return Err("must be longer than zero".to_owned());
    }
    if duration > DURATION_MAX {
        return Err("must be at most 100 years".to_owned());
    }
    Ok(duration)
}

/// A moment: `now`, `10m ago`, RFC 3339, a date with or without a time in the local time zone, or milliseconds since 1970.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    let now = jiff::Timestamp::now();
    if text == "now" {
        return Ok(Timestamp::new(now.as_millisecond()));
    }
    if let Some(age) = text.strip_suffix("ago") {
        let age = duration(age.trim())?;
        return Ok(Timestamp::new(now.as_millisecond() - age.as_millis() as i64));
    }
    if let Ok(millis) = text.parse::<i64>() {
        if millis < 0 {
            return Err("is before 1970".to_owned());
        }
        return Ok(Timestamp::new(millis));
    }
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp::new(moment.as_millisecond()));
    }
    let local = text
        .parse::<DateTime>()
        .ok()
        .and_then(|local| local.to_zoned(TimeZone::system()).ok());
    let local = local.ok_or_else(|| {
        "write a moment as \"10m ago\", 2026-01-31, \"2026-01-31 12:00\" (local time), 2026-01-31T12:00:00Z, or \
         milliseconds since 1970"
            .to_owned()
    })?;
    Ok(Timestamp::new(local.timestamp().as_millisecond()))
}

/// A moment in RFC 3339, in UTC; milliseconds where it is beyond every calendar.
pub fn rfc3339(timestamp: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(timestamp.get()) {
        Ok(moment) => format!("{moment:.3}"),
        Err(_beyond) => timestamp.get().to_string(),
    }
}

/// `name=value`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// Text with the escapes `\n`, `\r`, `\t`, `\0`, `\\` and `\xHH`, as bytes.
pub fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits = [rest.next(), rest.next()].map(|digit| char::from(digit.unwrap_or_default()).to_digit(16));
                match digits {
                    [Some(high), Some(low)] => (high * 16 + low) as u8,
                    _ => return Err("\\x is followed by two hexadecimal digits".to_owned()),
                }
            }
            _ => return Err("known escapes are \\n \\r \\t \\0 \\\\ and \\xHH".to_owned()),
        });
    }
    Ok(bytes)
}

/// The same as the value of an option.
pub fn bytes(text: &str) -> Result<Bytes, String> {
    unescaped(text).map(Bytes)
}

/// Bytes that were written with escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// A regular expression that has to match a name from its first letter to its last.
pub fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{text})$")).map_err(|error| error.to_string())
}

/// The same for text that must not be empty.
pub fn separator(text: &str) -> Result<Separator, String> {
    match unescaped(text)? {
        bytes if bytes.is_empty() => Err("must not be empty".to_owned()),
        bytes => Ok(Separator(bytes)),
    }
}

/// What stands between a key and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Separator(pub Vec<u8>);

/// A size as people read it: `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).to_string()
}

const TIMES: [(u64, &str); 5] = [
    (86_400_000, "d"),
    (3_600_000, "h"),
    (60_000, "m"),
    (1_000, "s"),
    (1, "ms"),
];
const SIZES: [(u64, &str); 5] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
    (1, "B"),
];

/// The value of a topic's setting as people read it, and may write it too: `7d`, `1GiB`, `unlimited`. Nothing is rounded, and the
/// same value is the same text however it was written.
pub fn setting(name: &str, value: &str) -> String {
    let (units, number) = match name.rsplit('.').next() {
        Some("ms") => {
            let time = humantime::parse_duration(value).ok();
            (TIMES, time.and_then(|time| u64::try_from(time.as_millis()).ok()))
        }
        Some("bytes") => (SIZES, value.parse().ok().map(|size: bytesize::ByteSize| size.as_u64())),
        _ => return value.to_owned(),
    };
    // Kafka has two words for it.
    if matches!(value.parse(), Ok(-1 | i64::MAX)) {
        return "unlimited".to_owned();
    }
    match value.parse().ok().or(number) {
        Some(number) => in_units(number, &units),
        None => value.to_owned(),
    }
}

/// The number in the largest unit that divides it.
fn in_units(number: u64, units: &[(u64, &str)]) -> String {
    let divides = |(length, _): &&(u64, &str)| number > 0 && number.is_multiple_of(*length);
    let (length, unit) = units.iter().find(divides).or(units.last()).copied().unwrap_or((1, ""));
    format!("{}{unit}", number / length)
}

/// Whether a terminal obeys the character instead of showing it. Lines and columns are what people want to see.
fn is_command(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\t')
}

/// Bytes as a terminal may be given them: what it would obey, and what is not UTF-8, is `\xHH`.
pub fn escaped(bytes: &[u8]) -> Cow<'_, [u8]> {
    let is_harmless =
        |chunk: std::str::Utf8Chunk<'_>| chunk.invalid().is_empty() && !chunk.valid().chars().any(is_command);
    if bytes.utf8_chunks().all(is_harmless) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len() * 2);
    let hex = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend(bytes.iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()));
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let encoded = character.encode_utf8(&mut buffer).as_bytes();
            if is_command(character) {
                hex(&mut out, encoded);
            } else {
                out.extend_from_slice(encoded);
            }
        }
        hex(&mut out, chunk.invalid());
    }
    Cow::Owned(out)
}

/// The same for text.
pub fn escaped_text(text: &str) -> String {
    String::from_utf8_lossy(&escaped(text.as_bytes())).into_owned()
}

/// JSON as a terminal may be given it: of what it would obey, JSON itself escapes only what is below a space.
pub fn escaped_json(json: &str) -> String {
    let escape = |character| {
        if is_command(character) {
            format!("\\u{:04x}", u32::from(character))
        } else {
            character.to_string()
        }
    };
    json.chars().map(escape).collect()
}

/// Each on a line of its own.
pub fn lines<T: Display>(items: impl Iterator<Item = T>) -> String {
    items.fold(String::new(), |text, item| text + &item.to_string() + "\n")
}

/// `1 record`, `2 records`.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Numbers in order as ranges: `0-3, 5`.
pub fn ranges(numbers: impl IntoIterator<Item = i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let show = |(first, last): (i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}-{last}"),
    };
    ranges.into_iter().map(show).collect::<Vec<_>>().join(", ")
}

/// The words of a line as a shell would have them, for lines that have simple quotes at most.
#[cfg(test)]
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut started) = (Vec::new(), String::new(), None, false);
    for character in line.chars() {
        match quote {
            Some(end) if character == end => quote = None,
            None if character == '\'' || character == '"' => (quote, started) = (Some(character), true),
            None if character == ' ' => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            _ => {
                word.push(character);
                started = true;
            }
        }
    }
    if started {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_longer_than_zero_and_no_longer_than_anybody_lives() {
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert!(duration("99 years").is_ok());
        for bad in ["0s", "101 years", "500000000000 years", "ten"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_moment_is_written_in_any_of_five_ways() {
        let noon = Timestamp::new(1_769_860_800_000);
        assert_eq!(moment("1769860800000").unwrap(), noon);
        assert_eq!(moment("2026-01-31T12:00:00Z").unwrap(), noon);
        assert_eq!(moment("2026-01-31T13:00:00+01:00").unwrap(), noon);
        let local: DateTime = "2026-01-31T12:00".parse().unwrap();
        let local = local.to_zoned(TimeZone::system()).unwrap().timestamp().as_millisecond();
        assert_eq!(moment("2026-01-31 12:00").unwrap(), Timestamp::new(local));
        assert_eq!(moment("2026-01-31").unwrap(), Timestamp::new(local - 12 * 3_600_000));
        let hour = moment("now").unwrap().get() - moment("1h ago").unwrap().get();
        assert!((3_595_000..=3_600_000).contains(&hour), "{hour}");
        assert_eq!(rfc3339(noon), "2026-01-31T12:00:00.000Z");
        for bad in ["soon", "-1", "2026-13-01", "5 ago", ""] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn escapes_are_bytes_and_unknown_ones_are_refused() {
        assert_eq!(
            unescaped(r"a\t\x00\xfFé\\").unwrap(),
            [b"a\t\0\xff".as_slice(), "é\\".as_bytes()].concat()
        );
        for bad in [r"\q", r"\x1", r"\xgg", "\\"] {
            assert!(unescaped(bad).is_err(), "{bad}");
        }
        assert!(separator("").is_err());
    }

    #[test]
    fn settings_are_shown_exactly_and_as_they_may_be_written() {
        for (name, value, shown) in [
            ("retention.ms", "604800000", "7d"),
            ("retention.ms", "90000", "90s"),
            ("retention.ms", "1500", "1500ms"),
            ("min.compaction.lag.ms", "0", "0ms"),
            ("retention.ms", "-1", "unlimited"),
            ("max.compaction.lag.ms", "9223372036854775807", "unlimited"),
            ("retention.bytes", "-1", "unlimited"),
            ("segment.bytes", "1073741824", "1GiB"),
            ("segment.bytes", "1000000", "1000000B"),
            ("retention.ms", "24h", "1d"),
            ("segment.bytes", "1024MiB", "1GiB"),
            ("retention.ms", "unlimited", "unlimited"),
            ("retention.ms", "soon", "soon"),
            ("min.cleanable.dirty.ratio", "0.5", "0.5"),
            ("cleanup.policy", "compact,delete", "compact,delete"),
        ] {
            assert_eq!(setting(name, value), shown, "{name}={value}");
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_nothing_else() {
        for harmless in ["", "plain", "é→🦀", "two\nlines\tand a tab", "a\\b"] {
            assert_eq!(escaped(harmless.as_bytes()), harmless.as_bytes());
            assert_eq!(escaped_json(harmless), harmless);
        }
        assert_eq!(escaped(b"\x1b[2J\r\x07"), br"\x1b[2J\x0d\x07".as_slice());
        assert_eq!(escaped("\u{9b}2J\u{7f}".as_bytes()), br"\xc2\x9b2J\x7f".as_slice());
        assert_eq!(escaped(b"a\xffb"), br"a\xffb".as_slice());
        let json = serde_json::to_string("\u{1b}\u{7f}\u{9b}").unwrap();
        let shown = escaped_json(&json);
        assert_eq!(shown, r#""\u001b\u007f\u009b""#);
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), "\u{1b}\u{7f}\u{9b}");
    }

    #[test]
    fn a_pattern_means_whole_names() {
        let pattern = pattern("a|b.").unwrap();
        assert!(pattern.is_match("a") && pattern.is_match("b1"));
        assert!(!pattern.is_match("ab") && !pattern.is_match("b12"));
        assert!(super::pattern("(").is_err());
    }

    #[test]
    fn pairs_keep_what_follows_the_first_sign() {
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(pair("a=").unwrap(), ("a".to_owned(), String::new()));
        assert!(pair("=b").is_err() && pair("ab").is_err());
    }

    #[test]
    fn numbers_in_a_row_are_shown_as_a_range() {
        assert_eq!(ranges([0, 1, 2, 4, 6, 7]), "0-2, 4, 6, 7");
        assert_eq!(ranges([]), "");
    }
}
