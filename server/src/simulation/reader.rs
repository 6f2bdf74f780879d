//! A reader: follows a partition from its start, and tells the ledger what it is handed.

use std::{cell::Cell, io, net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use headwater_protocol::{
    batch::RecordSet,
    error::ErrorCode,
    schema::{FetchPartitionT, FetchRequestT, FetchResponse, UuidT},
};

use super::{
    ledger::{Ledger, Sent},
    producer::{find, pause},
    wire::{Wire, check, patiently},
};
use crate::machine;

pub(super) struct Reader {
    pub(super) number: u32,
    pub(super) partition: i32,
    pub(super) address: SocketAddr,
    pub(super) ledger: Rc<Ledger>,
    /// The run is over.
    pub(super) is_over: Rc<Cell<bool>>,
}

/// What a fetch has found.
pub(super) struct Found {
    pub(super) records: Vec<(u64, Sent)>,
    pub(super) high_watermark: i64,
    pub(super) log_start_offset: i64,
}

impl Reader {
    pub(super) async fn run(self) {
        let mut position = 0;
        while !self.is_over.get() {
            // Whatever went wrong, it begins again where it was.
            let _ = self.follow(&mut position).await;
            pause(Duration::from_millis(400)).await;
        }
    }

    async fn follow(&self, position: &mut u64) -> io::Result<()> {
        let place = find(self.address, self.partition).await?;
        let mut wire = patiently(Wire::open(place.address)).await?;
        while !self.is_over.get() {
            let most = 1 << (10 + machine::random::<u32>() % 8);
            let topic = UuidT::from(place.topic);
            let found = fetch(&mut wire, topic, self.partition, *position, most).await?;
            self.ledger.watermark(self.number, self.partition, found.high_watermark);
            for (offset, record) in found.records {
                assert!(
                    offset.cast_signed() < found.high_watermark,
                    "offset {offset} is beyond the high watermark"
                );
                self.ledger.see(self.partition, offset, record);
                *position = offset + 1;
            }
            if machine::random::<u32>().is_multiple_of(4) {
                pause(Duration::from_millis(300)).await;
            }
        }
        Ok(())
    }
}

/// Fetches once from a partition.
pub(super) async fn fetch(
    wire: &mut Wire,
    topic: UuidT,
    partition: i32,
    position: u64,
    bytes: u32,
) -> io::Result<Found> {
    let head = FetchRequestT {
        max_wait_ms: 200,
        min_bytes: 1,
        max_bytes: bytes,
        partitions: Some(vec![FetchPartitionT {
            topic_id: topic,
            partition,
            max_bytes: bytes,
            offset: position.cast_signed(),
        }]),
    };
    let reply = wire.ask(&head).await?;
    let response = reply.read::<FetchResponse<'_>>()?.unpack();
    check(response.error)?;
    let fetched = response.partitions.unwrap_or_default().into_iter().next();
    let fetched = fetched.ok_or_else(|| io::Error::other("the answer has no partition"))?;
    assert_ne!(
        ErrorCode::from_i16(fetched.error),
        ErrorCode::OffsetOutOfRange,
        "offset {position} of partition {partition} was there before"
    );
    check(fetched.error)?;
    let mut records = Vec::new();
    let mut payload = Bytes::from(reply.payload);
    while !payload.is_empty() {
        let set = RecordSet::decode(&payload, 1 << 20).expect("a batch that was stored is whole");
        for record in &set {
            let record = record.expect("a record that was stored is whole");
            if record.offset.get() >= position {
                let value = record.value.expect("no record was sent without a value");
                records.push((record.offset.get(), Sent::of(value)));
            }
        }
        payload = payload.split_off(set.header().size());
    }
    Ok(Found {
        records,
        high_watermark: fetched.high_watermark,
        log_start_offset: fetched.log_start_offset,
    })
}

/// Reads a partition from its start to its end.
pub(super) async fn read_all(address: SocketAddr, partition: i32) -> io::Result<Vec<(u64, Sent)>> {
    let place = find(address, partition).await?;
    let mut wire = patiently(Wire::open(place.address)).await?;
    let mut records = Vec::new();
    let mut position = 0;
    loop {
        let topic = UuidT::from(place.topic);
        let found = fetch(&mut wire, topic, partition, position, 1 << 20).await?;
        if let Some((last, _)) = found.records.last() {
            position = last + 1;
        }
        records.extend(found.records);
        if position.cast_signed() >= found.high_watermark {
            assert!(found.log_start_offset <= found.high_watermark);
            return Ok(records);
        }
    }
}
