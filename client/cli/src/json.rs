//! Records and partitions as JSON.
//!
//! Bytes that are UTF-8 are strings under their own name; others are base64 under the name with `_base64`. Null is null.
//! What `consume` prints, `produce --input json` reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use headwater_client::{BrokerId, HeaderRef, PartitionDescription, RecordView};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::values::rfc3339;

/// One record.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<JsonHeader>,
}

/// One header of a record.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonHeader {
    name: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// A key or a value; `None` is null.
pub type Part = Option<Vec<u8>>;

impl JsonRecord {
    /// A record as it is stored.
    pub fn new(topic: &str, partition: i32, record: &RecordView<'_>) -> Self {
        let (key, key_base64) = written(record.key);
        let (value, value_base64) = written(record.value);
        let header = |header: HeaderRef<'_>| {
            let (value, value_base64) = written(header.value);
            JsonHeader {
                name: header.key.to_owned(),
                value,
                value_base64,
            }
        };
        Self {
            topic: Some(topic.to_owned()),
            partition: Some(partition),
            offset: Some(record.offset.get()),
            timestamp: Some(record.timestamp.get()),
            key,
            key_base64,
            value,
            value_base64,
            headers: record.headers.clone().map(header).collect(),
        }
    }

    /// The key.
    pub fn key(&self) -> Result<Part, String> {
        read("key", self.key.as_ref(), self.key_base64.as_ref())
    }

    /// The value.
    pub fn value(&self) -> Result<Part, String> {
        read("value", self.value.as_ref(), self.value_base64.as_ref())
    }

    /// Names and values of the headers.
    pub fn headers(&self) -> Result<Vec<(String, Part)>, String> {
        let header = |header: &JsonHeader| {
            let value = read("value", header.value.as_ref(), header.value_base64.as_ref())?;
            Ok((header.name.clone(), value))
        };
        self.headers.iter().map(header).collect()
    }
}

fn written(bytes: Option<&[u8]>) -> (Option<String>, Option<String>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text.to_owned()), None),
        Some((bytes, Err(_binary))) => (None, Some(STANDARD.encode(bytes))),
    }
}

fn read(name: &str, text: Option<&String>, base64: Option<&String>) -> Result<Part, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("it has both {name} and {name}_base64")),
        (Some(text), None) => Ok(Some(text.clone().into_bytes())),
        (None, Some(base64)) => {
            let bytes = STANDARD.decode(base64);
            bytes
                .map(Some)
                .map_err(|error| format!("{name}_base64 is not base64: {error}"))
        }
        (None, None) => Ok(None),
    }
}

/// A partition of a topic.
pub fn partition(partition: &PartitionDescription) -> Value {
    let mut fields = Map::new();
    let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    add("partition", json!(partition.partition.get()));
    add("leader", json!(partition.leader.get()));
    add("leader_epoch", json!(partition.leader_epoch.get()));
    add("core", json!(partition.core.get()));
    add("segments", json!(partition.segments));
    add("log_start_offset", json!(partition.log_start_offset.get()));
    add("high_watermark", json!(partition.high_watermark.get()));
    add("log_end_offset", json!(partition.log_end_offset.get()));
    add("size_bytes", json!(partition.size_bytes));
    let numbers = |ids: &[BrokerId]| -> Value { ids.iter().map(|id| id.get()).collect() };
    let replicas = &partition.replicas;
    for (name, ids) in [
        ("replicas", &replicas.replicas),
        ("isr", &replicas.isr),
        ("elr", &replicas.elr),
        ("failed", &replicas.offline),
        ("adding", &replicas.adding),
        ("removing", &replicas.removing),
    ] {
        add(name, numbers(ids));
    }
    add("partition_epoch", json!(replicas.partition_epoch));
    add("min_isr", json!(replicas.min_isr));
    add("error", json!(partition.error.as_ref().map(ToString::to_string)));
    Value::Object(fields)
}

/// Who leads a partition, in words.
pub fn leader(partition: &PartitionDescription) -> String {
    let leader = partition.leader;
    if leader.get() < 0 {
        "none".to_owned()
    } else {
        leader.to_string()
    }
}

/// Whether a partition is served, in words.
pub fn partition_state(partition: &PartitionDescription) -> String {
    match &partition.error {
        None => "online".to_owned(),
        Some(error) => format!("offline: {error}"),
    }
}

/// A moment with its name in both forms that programs like.
pub fn moment(timestamp: headwater_client::Timestamp) -> Value {
    json!({"milliseconds": timestamp.get(), "time": rfc3339(timestamp)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_kind_come_back() {
        for bytes in [None, Some(&b""[..]), Some("é".as_bytes()), Some(&[0xff, 0, 1][..])] {
            let (text, base64) = written(bytes);
            assert_eq!(read("value", text.as_ref(), base64.as_ref()).unwrap().as_deref(), bytes);
        }
        let both = JsonRecord {
            key: Some(String::new()),
            key_base64: Some(String::new()),
            ..JsonRecord::default()
        };
        assert!(both.key().is_err());
        assert!(
            serde_json::from_str::<JsonRecord>(r#"{"vlaue": "x"}"#).is_err(),
            "a slip is noticed"
        );
    }
}
