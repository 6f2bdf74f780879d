//! Reads records for a page: so many, in so much time, of so many bytes, and then it ends.

use std::time::Duration;

use futures::future::try_join_all;
use headwater_client::{Advance, Client, Consumer, Error, Offset, OffsetSpec, PartitionIndex, Records, Timestamp};
use tokio::time::{Instant, timeout_at};

use super::shown::{PREVIEW, Shown};
use crate::console::page::Refusal;
use crate::console::visit::within;

/// Partitions that are read at one time.
pub(super) const PARTITIONS_MAX: usize = 32;
/// A search looks so long, at so many records of so many bytes.
const SEARCH_MAX: Duration = Duration::from_secs(4);
const SEARCHED_MAX: u64 = 200_000;
const SEARCHED_BYTES_MAX: u64 = 64 << 20;

/// What a consumer may fetch ahead: a page needs little, and a visitor's memory is the broker's.
const FETCH_BYTES: u32 = 512 << 10;
const PREFETCH_BYTES: usize = 2 << 20;
const DECOMPRESSED_BYTES_MAX: usize = 32 << 20;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// So many records before the end.
    Newest,
    Earliest,
    Offset(u64),
    Time(i64),
}

/// What is looked for.
#[derive(Debug, Clone)]
pub(super) struct Search {
    pub(super) topic: String,
    pub(super) partitions: Vec<PartitionIndex>,
    pub(super) from: Begin,
    /// Records with this key only.
    pub(super) key: Option<String>,
    /// Records with this in their value only.
    pub(super) text: Option<String>,
    /// Records on the page.
    pub(super) limit: usize,
}

impl Search {
    fn is_picky(&self) -> bool {
        self.key.is_some() || self.text.is_some()
    }

    fn is_meant(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
        let contains = |text: &String| value.is_some_and(|value| memory_contains(value, text.as_bytes()));
        self.key.as_ref().is_none_or(|wanted| key == Some(wanted.as_bytes())) && self.text.as_ref().is_none_or(contains)
    }
}

fn memory_contains(all: &[u8], part: &[u8]) -> bool {
    part.is_empty() || all.windows(part.len()).any(|window| window == part)
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// The newest first where those are asked for; otherwise the oldest first.
    pub(super) records: Vec<Shown>,
    /// Records that were looked at.
    pub(super) looked_at: u64,
    /// Where to go on in each partition, and where it ends.
    pub(super) spans: Vec<Span>,
    /// Why it ended before the end of what there is.
    pub(super) stopped: Option<String>,
}

/// A partition that was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) partition: PartitionIndex,
    pub(super) first: u64,
    pub(super) end: u64,
    /// The first offset that was not looked at.
    pub(super) next: u64,
    /// Records of it that are meant.
    taken: usize,
}

impl Span {
    fn is_done(&self, quota: usize) -> bool {
        self.next >= self.end || self.taken >= quota
    }
}

/// Finds what is looked for.
pub(super) async fn find(client: &Client, search: &Search) -> Result<Found, Refusal> {
    let mut found = Found {
        spans: within(spans(client, search)).await?,
        ..Found::default()
    };
    let open: Vec<Span> = found
        .spans
        .iter()
        .filter(|span| !span.is_done(search.limit))
        .copied()
        .collect();
    if !open.is_empty() {
        let mut consumer = within(Box::pin(consumer(client, &search.topic, &open).build())).await?;
        read(&mut consumer, search, &mut found).await?;
    }
    if search.from == Begin::Newest && !search.is_picky() {
        found
            .records
            .sort_by_key(|record| std::cmp::Reverse((record.timestamp, record.offset)));
    } else if found.spans.len() > 1 {
        found
            .records
            .sort_by_key(|record| (record.timestamp, record.partition, record.offset));
    }
    found.records.truncate(search.limit);
    Ok(found)
}

/// A consumer that takes little memory, of these partitions from here on.
fn consumer(client: &Client, topic: &str, spans: &[Span]) -> headwater_client::ConsumerBuilder {
    let small = small_consumer(client).assign(topic, spans.iter().map(|span| span.partition));
    spans.iter().fold(small, |builder, span| {
        builder.start_of(topic, span.partition, offset(span.next))
    })
}

/// A consumer that takes little memory.
pub(super) fn small_consumer(client: &Client) -> headwater_client::ConsumerBuilder {
    let builder = client
        .consumer()
        .fetch_bytes_max(FETCH_BYTES)
        .partition_bytes_max(FETCH_BYTES);
    builder
        .prefetch_bytes(PREFETCH_BYTES)
        .decompressed_bytes_max(DECOMPRESSED_BYTES_MAX)
}

fn offset(value: u64) -> Offset {
    Offset::new(value.min(i64::MAX as u64))
}

/// Where to read in each partition: what is there now, not what comes meanwhile.
async fn spans(client: &Client, search: &Search) -> Result<Vec<Span>, Error> {
    let admin = client.admin();
    let (admin, topic) = (&admin, search.topic.as_str());
    let spans = search.partitions.iter().map(|&partition| async move {
        let ask = |spec| admin.list_offset(topic, partition, spec);
        let (first, end) = futures::try_join!(ask(OffsetSpec::Earliest), ask(OffsetSpec::Latest))?;
        let (first, end) = (first.map_or(0, Offset::get), end.map_or(0, Offset::get));
        let next = match search.from {
            // A search has to begin somewhere: with the oldest.
            Begin::Newest if search.is_picky() => first,
            Begin::Newest => end.saturating_sub(search.limit as u64),
            Begin::Earliest => first,
            Begin::Offset(offset) => offset,
            Begin::Time(time) => {
                let time = OffsetSpec::Timestamp(Timestamp::new(time));
                ask(time).await?.map_or(end, Offset::get)
            }
        };
        let next = next.max(first);
        Ok(Span {
            partition,
            first,
            end,
            next,
            taken: 0,
        })
    });
    try_join_all(spans).await
}

async fn read(consumer: &mut Consumer, search: &Search, found: &mut Found) -> Result<(), Refusal> {
    let until = Instant::now() + SEARCH_MAX;
    let mut bytes = 0_u64;
    loop {
        // A search goes on until the page is full; otherwise each partition may fill it, as the page takes the first of them all.
        let is_full = search.is_picky() && found.records.len() >= search.limit;
        if is_full || found.spans.iter().all(|span| span.is_done(search.limit)) {
            return Ok(());
        }
        if found.looked_at >= SEARCHED_MAX || bytes >= SEARCHED_BYTES_MAX {
            found.stopped = Some("A look takes no more than this at one time.".to_owned());
            return Ok(());
        }
        let Ok(advance) = timeout_at(until, consumer.advance()).await else {
            found.stopped = Some(match consumer.retrying_after() {
                Some(error) => format!("Some of it does not answer: {error}."),
                None => "A look takes no longer than this at one time.".to_owned(),
            });
            return Ok(());
        };
        match advance? {
            Advance::Records(records) => {
                bytes += take(&records, search, found)?;
                let span = found.spans.iter().find(|span| span.partition == records.partition());
                if span.is_some_and(|span| span.is_done(search.limit)) {
                    consumer.pause(&search.topic, records.partition())?;
                }
            }
            Advance::Skip(skip) => {
                if let Some(span) = found.spans.iter_mut().find(|span| span.partition == skip.partition) {
                    span.next = span.next.max(skip.to.get());
                }
            }
        }
    }
}

/// Takes of a batch what is meant, and says how many bytes were looked at.
fn take(records: &Records, search: &Search, found: &mut Found) -> Result<u64, Error> {
    let Some(span) = found
        .spans
        .iter_mut()
        .find(|span| span.partition == records.partition())
    else {
        return Ok(0);
    };
    let mut bytes = 0_u64;
    for record in records {
        let record = record?;
        if span.is_done(search.limit) {
            break;
        }
        if record.offset.get() < span.next {
            continue;
        }
        span.next = record.offset.get() + 1;
        found.looked_at += 1;
        bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        if record.offset.get() < span.end && search.is_meant(record.key, record.value) {
            span.taken += 1;
            found.records.push(Shown::of(records, &record, PREVIEW));
        }
    }
    if !span.is_done(search.limit) {
        span.next = span.next.max(records.next_offset().get());
    }
    Ok(bytes)
}

/// One record, whole as far as a page bears that.
pub(super) async fn one(
    client: &Client,
    topic: &str,
    partition: PartitionIndex,
    wanted: u64,
    most: usize,
) -> Result<Option<Shown>, Refusal> {
    let search = Search {
        topic: topic.to_owned(),
        partitions: vec![partition],
        from: Begin::Offset(wanted),
        key: None,
        text: None,
        limit: 1,
    };
    let spans = within(spans(client, &search)).await?;
    if spans.iter().any(|span| wanted < span.first || wanted >= span.end) {
        return Ok(None);
    }
    let mut consumer = within(Box::pin(consumer(client, topic, &spans).build())).await?;
    let Advance::Records(records) = within(consumer.advance()).await? else {
        return Ok(None);
    };
    for record in &records {
        let record = record?;
        if record.offset.get() == wanted {
            return Ok(Some(Shown::of(&records, &record, most)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_meant_as_a_whole_and_a_value_in_part() {
        let search = |key: Option<&str>, text: Option<&str>| Search {
            topic: "t".to_owned(),
            partitions: Vec::new(),
            from: Begin::Earliest,
            key: key.map(str::to_owned),
            text: text.map(str::to_owned),
            limit: 10,
        };
        assert!(search(None, None).is_meant(None, None));
        assert!(search(Some("k"), None).is_meant(Some(b"k"), None));
        assert!(!search(Some("k"), None).is_meant(Some(b"kk"), None));
        assert!(!search(Some("k"), None).is_meant(None, Some(b"k")));
        assert!(search(None, Some("b\u{e9}")).is_meant(None, Some("ab\u{e9}c".as_bytes())));
        assert!(!search(Some("k"), Some("x")).is_meant(Some(b"k"), Some(b"abc")));
    }
}
