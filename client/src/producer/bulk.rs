//! Sending many records at once: whatever must be waited for is waited for before the first of them is taken.

use headwater_protocol::batch::{BatchBuilder, HEADER_LEN};

use super::Shared;
use super::delivery::Delivery;
use crate::error::Error;
use crate::record::Record;

/// A part of the records is at most this share of the producer's memory, so that others are in flight while it is waited for.
const PART_SHARE: usize = 8;

/// What has become of the records until now.
#[derive(Default)]
struct Sent<'a> {
    results: Vec<Result<Delivery, Error>>,
    /// Topics that were looked for in vain. To look for them again would take as long for each record.
    unknown: Vec<(&'a str, Error)>,
}

pub(super) async fn send_all<'a>(
    shared: &Shared,
    records: impl Iterator<Item = Record<'a>>,
) -> Vec<Result<Delivery, Error>> {
    let part_max = shared.memory.max() / PART_SHARE;
    let mut sent = Sent::default();
    let (mut part, mut bytes) = (Vec::new(), 0);
    for record in records {
        let size = memory_for(&record);
        if bytes + size > part_max && !part.is_empty() {
            sent.send(shared, std::mem::take(&mut part), bytes).await;
            bytes = 0;
        }
        part.push(record);
        bytes += size;
    }
    sent.send(shared, part, bytes).await;
    sent.results
}

/// Each record may be the first of a batch.
fn memory_for(record: &Record<'_>) -> usize {
    HEADER_LEN + BatchBuilder::record_size_max(record.key, record.value, &record.headers)
}

impl<'a> Sent<'a> {
    async fn send(&mut self, shared: &Shared, part: Vec<Record<'a>>, bytes: usize) {
        for record in &part {
            if self.unknown(record.topic).is_none()
                && let Err(error) = shared.find_topic(record.topic).await
            {
                self.unknown.push((record.topic, error));
            }
        }
        let mut granted = match shared.await_memory(bytes).await {
            Ok(granted) => granted,
            Err(error) => return self.results.extend(part.iter().map(|_| Err(error.clone()))),
        };
        let mut left = bytes;
        for record in part {
            // Only what those that follow can do without, so that none of them has to wait.
            left -= memory_for(&record);
            let mut grant = Some(granted.split_off(granted.bytes().saturating_sub(left)));
            let result = match self.unknown(record.topic) {
                Some(error) => Err(error.clone()),
                None => shared.send(&record, &mut grant).await,
            };
            self.results.push(result);
            if let Some(rest) = grant {
                granted.merge(rest);
            }
        }
    }

    fn unknown(&self, topic: &str) -> Option<&Error> {
        self.unknown
            .iter()
            .find(|(unknown, _)| *unknown == topic)
            .map(|(_, error)| error)
    }
}
