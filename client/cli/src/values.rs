//! Values of options: times, moments, pairs, escapes; and values as people read them.

use std::fmt::Display;
use std::time::Duration;

use headwater_client::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// `10s`, `1m 30s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 500ms, 10s or 1h 30m"))?;
    if duration.is_zero() {
        return Err("must be longer than zero".to_owned());
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
