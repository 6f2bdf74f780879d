//! A keeper of a compacted topic: writes what is the latest of a few keys, again and again, or that there is nothing any more. And the
//! book of what must be left of each key, whatever compaction has done.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    rc::Rc,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use headwater_client::{Client, ErrorCode, NewTopic, PartitionIndex, Record, RecordView};

use super::{
    client::{Brokers, connect},
    judge::read_all,
    wire::{pause, tell},
};
use crate::machine;

const TOPIC: &str = "profiles";

const KEYS: u32 = 8;

/// The header with a record's number.
const NUMBER: &str = "number";

/// A record of a key: the how-manieth of all, and whether it says that there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    number: u32,
    is_tombstone: bool,
}

/// What was written of each key, in order, and how much of it was acknowledged.
#[derive(Default)]
pub(in crate::simulation) struct Book {
    written: RefCell<BTreeMap<u32, Vec<Entry>>>,
    acknowledged: RefCell<BTreeMap<u32, u32>>,
    /// Records that were there no more, at last.
    compacted: Cell<usize>,
}

pub(in crate::simulation) struct Keeper {
    pub(in crate::simulation) brokers: Brokers,
    pub(in crate::simulation) book: Rc<Book>,
    /// Records to write, at most.
    pub(in crate::simulation) count: u32,
    /// Nothing new is written any more.
    pub(in crate::simulation) is_calm: Rc<Cell<bool>>,
}

impl Keeper {
    /// Works until everything is acknowledged.
    pub(in crate::simulation) async fn run(self) {
        let client = connect(&self.brokers).await;
        create(&client).await;
        let producer = loop {
            match client
                .producer()
                .delivery_timeout(Duration::from_hours(24))
                .build()
                .await
            {
                Ok(producer) => break producer,
                Err(error) => tell(&format!("cannot be built: {error}")),
            }
            pause(Duration::from_millis(400)).await;
        };
        let (book, mut under_way) = (&self.book, FuturesUnordered::new());
        for number in 0..self.count {
            if self.is_calm.get() {
                break;
            }
            let key = machine::random::<u32>() % KEYS;
            let entry = Entry {
                number,
                is_tombstone: machine::random::<u32>().is_multiple_of(6),
            };
            book.written.borrow_mut().entry(key).or_default().push(entry);
            let (name, mark, value) = (key.to_le_bytes(), number.to_le_bytes(), vec![key as u8; 200]);
            let delivery = loop {
                let record = Record::to(TOPIC)
                    .partition(PartitionIndex::new(0))
                    .key(&name)
                    .header(NUMBER, &mark);
                let record = if entry.is_tombstone {
                    record
                } else {
                    record.value(&value)
                };
                match producer.send(record).await {
                    Ok(delivery) => break delivery,
                    Err(error) => tell(&format!("cannot send: {error}")),
                }
                pause(Duration::from_millis(400)).await;
            };
            under_way.push(async move {
                delivery
                    .await
                    .unwrap_or_else(|error| panic!("{entry:?} is given up: {error}"));
                book.acknowledge(key, number);
            });
            while under_way.next().now_or_never().flatten().is_some() {}
            if number % 8 == 7 {
                pause(Duration::from_millis(200)).await;
            }
        }
        while under_way.next().await.is_some() {}
        tell("is done");
    }
}

/// A topic whose segments are soon full, or old, and compacted soon after.
async fn create(client: &Client) {
    let topic = NewTopic::new(TOPIC)
        .partitions(1)
        .config("cleanup.policy", "compact")
        .config("segment.ms", 400)
        .config("min.cleanable.dirty.ratio", 0.1)
        .config("delete.retention.ms", [0, 2_000][machine::random::<u32>() as usize % 2]);
    loop {
        match client.admin().create_topic(topic.clone()).await {
            Ok(_) => return,
            // Perhaps by this call, tried again.
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => return,
            Err(error) => tell(&format!("the topic is not created: {error}")),
        }
        pause(Duration::from_secs(1)).await;
    }
}

impl Book {
    fn acknowledge(&self, key: u32, number: u32) {
        let mut acknowledged = self.acknowledged.borrow_mut();
        let last = acknowledged.entry(key).or_default();
        *last = number.max(*last);
    }

    /// Records that compaction has taken out.
    pub(in crate::simulation) fn compacted(&self) -> usize {
        self.compacted.get()
    }

    /// Reads the topic and compares what is left of each key with what was acknowledged until now.
    pub(in crate::simulation) async fn compare(&self, brokers: &Brokers) -> io::Result<()> {
        let acknowledged = self.acknowledged.borrow().clone();
        let mut found: Vec<(u32, Entry)> = Vec::new();
        let extent = read_all(brokers, TOPIC, 0, |record| found.push(entry_of(record))).await?;
        assert!(
            found.is_sorted_by_key(|(_, entry)| entry.number),
            "the records of the one who keeps the topic are out of order, or twice"
        );
        let left: BTreeMap<u32, Entry> = found.iter().copied().collect();
        let written = self.written.borrow();
        for (key, entry) in &found {
            assert!(
                written[key].contains(entry),
                "nobody has written {entry:?} of key {key}"
            );
        }
        for (key, last) in acknowledged {
            let newest = left.get(&key).map(|entry| entry.number);
            let since = written[&key].iter().filter(|entry| entry.number >= last);
            let is_deleted = since.clone().any(|entry| entry.is_tombstone);
            if is_deleted && newest.is_some_and(|newest| newest < last) {
                // A compaction between two fetches takes out what was read, and the tombstone that was not. It is read again.
                let reason = format!("of key {key} {newest:?} was read, and not that {last} has deleted it");
                return Err(io::Error::other(reason));
            }
            assert!(
                newest.is_some_and(|newest| newest >= last) || (newest.is_none() && is_deleted),
                "of key {key} {newest:?} is left; {last} was acknowledged"
            );
        }
        self.compacted.set((extent.end - extent.start) as usize - found.len());
        Ok(())
    }
}

fn entry_of(record: &RecordView<'_>) -> (u32, Entry) {
    let word = |bytes: Option<&[u8]>| {
        let bytes = bytes.and_then(|bytes| bytes.first_chunk::<4>());
        u32::from_le_bytes(*bytes.expect("every record has a key and a number"))
    };
    let number = record.headers.clone().find(|header| header.key == NUMBER);
    let entry = Entry {
        number: word(number.and_then(|header| header.value)),
        is_tombstone: record.value.is_none(),
    };
    (word(record.key), entry)
}
