//! The format string of `consume`: read once into pieces, then written for each record.

use std::io::{self, Write};

use headwater_client::RecordView;

use crate::values::{escaped, rfc3339, unescaped};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Date,
    Key,
    Value,
    Headers,
    KeySize,
    ValueSize,
}

/// How a record is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format(Vec<Piece>);

impl Format {
    /// The key, the separator, the value and a line end; without a separator only value and line end.
    pub fn lines(key_separator: Option<&[u8]>) -> Self {
        let end = Piece::Bytes(b"\n".to_vec());
        Self(match key_separator {
            Some(separator) => vec![Piece::Key, Piece::Bytes(separator.to_vec()), Piece::Value, end],
            None => vec![Piece::Value, end],
        })
    }

    /// Values and nothing else.
    pub fn raw() -> Self {
        Self(vec![Piece::Value])
    }

    /// Reads a format string.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            let (before, after) = rest.split_at(at);
            if !before.is_empty() {
                pieces.push(Piece::Bytes(unescaped(before)?));
            }
            let mut letters = after[1..].chars();
            pieces.push(match letters.next() {
                Some('t') => Piece::Topic,
                Some('p') => Piece::Partition,
                Some('o') => Piece::Offset,
                Some('T') => Piece::Timestamp,
                Some('D') => Piece::Date,
                Some('k') => Piece::Key,
                Some('v') => Piece::Value,
                Some('h') => Piece::Headers,
                Some('K') => Piece::KeySize,
                Some('V') => Piece::ValueSize,
                Some('%') => Piece::Bytes(b"%".to_vec()),
                Some(other) => {
                    return Err(format!(
                        "%{other} is not known; known are %t %p %o %T %D %k %v %h %K %V and %%"
                    ));
                }
                None => return Err("a single % at the end; write %% for a percent sign".to_owned()),
            });
            rest = letters.as_str();
        }
        if !rest.is_empty() {
            pieces.push(Piece::Bytes(unescaped(rest)?));
        }
        Ok(Self(pieces))
    }

    /// Writes a record; its own bytes as they are, or as a terminal may be given them.
    pub fn write(
        &self,
        out: &mut impl Write,
        (topic, partition): (&str, i32),
        record: &RecordView<'_>,
        escape: bool,
    ) -> io::Result<()> {
        let size = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
        let own = |out: &mut dyn Write, bytes: &[u8]| {
            if escape {
                out.write_all(&escaped(bytes))
            } else {
                out.write_all(bytes)
            }
        };
        for piece in &self.0 {
            match piece {
                Piece::Bytes(bytes) => out.write_all(bytes)?,
                Piece::Topic => out.write_all(topic.as_bytes())?,
                Piece::Partition => write!(out, "{partition}")?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Timestamp => write!(out, "{}", record.timestamp.get())?,
                Piece::Date => out.write_all(rfc3339(record.timestamp).as_bytes())?,
                Piece::Key => own(out, record.key.unwrap_or_default())?,
                Piece::Value => own(out, record.value.unwrap_or_default())?,
                Piece::KeySize => write!(out, "{}", size(record.key))?,
                Piece::ValueSize => write!(out, "{}", size(record.value))?,
                Piece::Headers => {
                    for (index, header) in record.headers.clone().enumerate() {
                        let comma = if index > 0 { "," } else { "" };
                        out.write_all(comma.as_bytes())?;
                        own(out, header.key.as_bytes())?;
                        out.write_all(b"=")?;
                        own(out, header.value.unwrap_or_default())?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_read_into_its_pieces_or_refused() {
        let pieces = Format::parse(r"%p@%o\t%v%%\n").unwrap().0;
        let bytes = |bytes: &[u8]| Piece::Bytes(bytes.to_vec());
        let expected = [
            Piece::Partition,
            bytes(b"@"),
            Piece::Offset,
            bytes(b"\t"),
            Piece::Value,
            bytes(b"%"),
            bytes(b"\n"),
        ];
        assert_eq!(pieces, expected);
        assert_eq!(Format::parse("").unwrap().0, []);
        for bad in ["%", "%q", "%é", r"a\q"] {
            assert!(Format::parse(bad).is_err(), "{bad}");
        }
    }
}
