//! Keys, values and headers in JSON: bytes as text, as JSON, or in base64.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, display::Base64Display, engine::general_purpose::STANDARD};
use headwater_client::{HeaderRef, RecordView};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap as _, SerializeSeq as _},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Bytes that a caller sends: a string is its UTF-8, and an object says which form they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Data<'a>(pub(crate) Cow<'a, [u8]>);

/// Bytes in JSON, in one of three forms. In a request a plain string stands for `text`.
#[derive(ToSchema)]
#[schema(as = Data, min_properties = 1, max_properties = 1)]
#[allow(dead_code, reason = "it describes what Data reads and Shown writes")]
pub(crate) struct DataSchema {
    /// UTF-8.
    #[schema(nullable = false)]
    text: Option<String>,
    /// JSON, kept letter for letter.
    #[schema(value_type = Option<Object>, nullable = false)]
    json: Option<()>,
    /// Any bytes, in base64 (RFC 4648, with padding).
    #[schema(nullable = false, content_encoding = "base64")]
    base64: Option<String>,
}

const FORMS: &str = "a string, null, or an object with one of text, json, base64";

impl<'de: 'a, 'a> Deserialize<'de> for Data<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMS)
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Data<'de>, E> {
        Ok(Data(Cow::Borrowed(text.as_bytes())))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Data<'de>, E> {
        Ok(Data(Cow::Owned(text.as_bytes().to_vec())))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Data<'de>, M::Error> {
        let form: Option<Cow<'de, str>> = map.next_key()?;
        match form.as_deref() {
            Some("text") => visit_only(&mut map, |text: Text<'de>| Ok(text.0)),
            Some("json") => visit_only(&mut map, |json: &'de RawValue| Ok(Cow::Borrowed(json.get().as_bytes()))),
            Some("base64") => visit_only(&mut map, |text: Text<'de>| {
                let decoded = STANDARD.decode(&text.0);
                decoded
                    .map(Cow::Owned)
                    .map_err(|error| format!("base64 cannot be read: {error}"))
            }),
            Some(other) => Err(de::Error::unknown_field(other, &["text", "json", "base64"])),
            None => Err(de::Error::custom(format!("nothing is in it: it must be {FORMS}"))),
        }
    }
}

/// The one value that the object has.
fn visit_only<'de, M: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut M,
    read: impl FnOnce(T) -> Result<Cow<'de, [u8]>, String>,
) -> Result<Data<'de>, M::Error> {
    let value = read(map.next_value()?).map_err(de::Error::custom)?;
    match map.next_key::<Cow<'de, str>>()? {
        None => Ok(Data(value)),
        Some(_second) => Err(de::Error::custom(format!("it has several forms: it must be {FORMS}"))),
    }
}

/// A string, borrowed where nothing in it is escaped.
struct Text<'a>(Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text.as_bytes())))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.as_bytes().to_vec())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Reads a list of so many items at most: a body of few bytes could name very many.
pub(crate) fn bounded<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct ListVisitor<T, const MAX: usize>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of {MAX} at most")
        }

        fn visit_seq<S: SeqAccess<'de>>(self, mut sequence: S) -> Result<Vec<T>, S::Error> {
            let mut items = Vec::new();
            while let Some(item) = sequence.next_element()? {
                if items.len() == MAX {
                    return Err(de::Error::invalid_length(MAX + 1, &self));
                }
                items.push(item);
            }
            Ok(items)
        }
    }
    deserializer.deserialize_seq(ListVisitor::<T, MAX>(std::marker::PhantomData))
}

/// How bytes are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// As text where they are UTF-8, else in base64.
    #[default]
    Text,
    /// As JSON where they are JSON, else as text, else in base64.
    Json,
    /// In base64 always.
    Base64,
}

/// Bytes as a caller sees them.
struct Shown<'a>(&'a [u8], Format);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Shown(bytes, format) = *self;
        let mut map = serializer.serialize_map(Some(1))?;
        let text = match format {
            Format::Base64 => None,
            Format::Text | Format::Json => str::from_utf8(bytes).ok(),
        };
        let json = match format {
            Format::Json => text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok()),
            Format::Text | Format::Base64 => None,
        };
        match (json, text) {
            (Some(json), _) => map.serialize_entry("json", json)?,
            (None, Some(text)) => map.serialize_entry("text", text)?,
            (None, None) => map.serialize_entry("base64", &Encoded(bytes))?,
        }
        map.end()
    }
}

struct Encoded<'a>(&'a [u8]);

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

/// A record as a caller sees it, borrowed from the batch that it came in.
pub(crate) struct ShownRecord<'a, H> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: u64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: H,
    pub(crate) format: Format,
}

/// A record that was read.
#[derive(ToSchema)]
#[schema(as = Record)]
#[allow(dead_code, reason = "it describes what ShownRecord writes")]
pub(crate) struct RecordSchema {
    /// The topic.
    topic: String,
    /// The partition.
    partition: i32,
    /// The number of the record in the partition.
    offset: u64,
    /// When it was, in milliseconds since 1970.
    timestamp: i64,
    /// The key; null is none.
    #[schema(inline = false)]
    key: Option<DataSchema>,
    /// The value; null is none.
    #[schema(inline = false)]
    value: Option<DataSchema>,
    /// The headers in order.
    headers: Vec<HeaderSchema>,
}

/// A header of a record. Several may have the same name.
#[derive(ToSchema)]
#[schema(as = Header)]
#[allow(dead_code, reason = "it describes what is written")]
pub(crate) struct HeaderSchema {
    /// The name.
    name: String,
    /// The value; null is none.
    value: Option<DataSchema>,
}

impl<'a, H: Iterator<Item = HeaderRef<'a>> + Clone> Serialize for ShownRecord<'a, H> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let show = |bytes: Option<&'a [u8]>| bytes.map(|bytes| Shown(bytes, self.format));
        let mut map = serializer.serialize_map(Some(7))?;
        map.serialize_entry("topic", self.topic)?;
        map.serialize_entry("partition", &self.partition)?;
        map.serialize_entry("offset", &self.offset)?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        map.serialize_entry("key", &show(self.key))?;
        map.serialize_entry("value", &show(self.value))?;
        map.serialize_entry("headers", &ShownHeaders(&self.headers, self.format))?;
        map.end()
    }
}

struct ShownHeaders<'h, H>(&'h H, Format);

impl<'a, H: Iterator<Item = HeaderRef<'a>> + Clone> Serialize for ShownHeaders<'_, H> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for header in self.0.clone() {
            list.serialize_element(&ShownHeader(header, self.1))?;
        }
        list.end()
    }
}

struct ShownHeader<'a>(HeaderRef<'a>, Format);

impl Serialize for ShownHeader<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("name", self.0.key)?;
        map.serialize_entry("value", &self.0.value.map(|bytes| Shown(bytes, self.1)))?;
        map.end()
    }
}

/// What a record takes of what an answer may have.
pub(crate) fn size(record: &RecordView<'_>) -> usize {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers = record
        .headers
        .clone()
        .map(|header| header.key.len() + len(header.value));
    len(record.key) + len(record.value) + headers.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<u8>, String> {
        let data: Result<Data<'_>, _> = serde_json::from_str(text);
        data.map(|data| data.0.into_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn bytes_are_read_in_each_form_and_anything_else_is_refused_with_what_is_right() {
        assert_eq!(read(r#""a\nb""#).unwrap(), b"a\nb");
        assert_eq!(read(r#"{"text":"ä"}"#).unwrap(), "ä".as_bytes());
        assert_eq!(read(r#"{"json": {"a" : 1.50} }"#).unwrap(), br#"{"a" : 1.50}"#);
        assert_eq!(read(r#"{"base64":"AP8="}"#).unwrap(), [0, 255]);
        for wrong in [
            "1",
            "true",
            "[]",
            "{}",
            r#"{"text":1}"#,
            r#"{"hex":"00"}"#,
            r#"{"base64":"?"}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(r#"{"text":"a","json":1}"#).unwrap_err().contains("several forms"));
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same_bytes() {
        for bytes in [
            &b"plain"[..],
            b"{\"a\":1}",
            &[0xff, 0],
            b"",
            b"</script>\r\n",
            "ä\u{2028}".as_bytes(),
        ] {
            for format in [Format::Text, Format::Json, Format::Base64] {
                let shown = serde_json::to_string(&Shown(bytes, format)).unwrap();
                assert_eq!(read(&shown).unwrap(), bytes, "{shown}");
            }
        }
        assert_eq!(
            serde_json::to_string(&Shown(b"[1]", Format::Json)).unwrap(),
            r#"{"json":[1]}"#
        );
    }

    #[test]
    fn a_list_ends_where_it_must() {
        #[derive(Debug, Deserialize)]
        struct List {
            #[serde(deserialize_with = "bounded::<_, _, 2>")]
            items: Vec<u8>,
        }
        let read = |text| serde_json::from_str::<List>(text);
        assert_eq!(read(r#"{"items":[1,2]}"#).unwrap().items, [1, 2]);
        assert!(
            read(r#"{"items":[1,2,3]}"#)
                .unwrap_err()
                .to_string()
                .contains("2 at most")
        );
    }
}
