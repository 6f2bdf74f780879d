//! The judge's own eyes: reads a whole partition by the wire protocol, through any core, without the library that is judged as well.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use headwater_protocol::{
    batch::{RecordSet, RecordView},
    id::TopicId,
    schema::{
        DescribeBrokerRequestT, DescribeBrokerResponse, FetchPartitionT, FetchRequestT, FetchResponse,
        ListOffsetsPartitionT, ListOffsetsRequestT, ListOffsetsResponse, MetadataRequestT, MetadataResponse, UuidT,
    },
};

use super::{
    client::Brokers,
    wire::{Wire, check, patiently},
};
use crate::machine::simulated::here;

/// The timestamp that asks for the log start offset.
const EARLIEST: i64 = -2;

/// What a fetch takes: as much as comes over the slowest connection before somebody loses patience.
const FETCH_BYTES: u32 = 128 << 10;

/// What a batch may hold when it is decompressed, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Where a partition begins and ends, and the size of its batches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) bytes: u64,
}

/// Reads a partition from its start to its end; hands on each record.
pub(super) async fn read_all(
    brokers: &Brokers,
    topic: &str,
    partition: i32,
    mut see: impl FnMut(&RecordView<'_>),
) -> io::Result<Extent> {
    let (topic, address) = find(brokers, topic, partition).await?;
    let mut wire = patiently(Wire::open(address)).await?;
    let start = first_offset(&mut wire, topic, partition).await?;
    let (mut position, mut bytes) = (start, 0);
    loop {
        let (next, end, size) = fetch(&mut wire, topic, partition, position, &mut see).await?;
        bytes += size as u64;
        if next >= end {
            return Ok(Extent { start, end, bytes });
        }
        assert!(
            next > position,
            "there is nothing at {position} of partition {partition}, which ends at {end}"
        );
        position = next;
    }
}

/// Where a partition begins.
pub(super) async fn start_of(brokers: &Brokers, topic: &str, partition: i32) -> io::Result<u64> {
    let (topic, address) = find(brokers, topic, partition).await?;
    let mut wire = patiently(Wire::open(address)).await?;
    first_offset(&mut wire, topic, partition).await
}

/// A connection whose client reads is answered whatever it asks, and however often.
pub(super) async fn ask_on_one_connection(address: SocketAddr) -> io::Result<()> {
    let mut wire = patiently(Wire::open(address)).await?;
    let mut read = 0;
    // More than a connection may leave unread, and than all its requests may hold.
    while read < 512 << 10 {
        let reply = wire.ask(&DescribeBrokerRequestT {}).await?;
        check(reply.read::<DescribeBrokerResponse<'_>>()?.error())?;
        read += reply.size();
    }
    Ok(())
}

/// Asks a broker where a partition is; now and then answers with another core, which passes on what comes to it.
async fn find(brokers: &Brokers, topic: &str, partition: i32) -> io::Result<(TopicId, SocketAddr)> {
    let mut wire = patiently(Wire::open(brokers.any())).await?;
    let topics = Some(vec![topic.to_owned()]);
    let reply = wire.ask(&MetadataRequestT { topics }).await?;
    let metadata = reply.read::<MetadataResponse<'_>>()?.unpack();
    check(metadata.error)?;
    let topic = metadata.topics.unwrap_or_default().into_iter().next();
    let topic = topic.ok_or_else(|| io::Error::other("the metadata has no topic"))?;
    check(topic.error)?;
    let partitions = topic.partitions.unwrap_or_default();
    let found = partitions.iter().find(|found| found.partition == partition);
    let found = found.ok_or_else(|| io::Error::other("the topic has no such partition"))?;
    check(found.error)?;
    let mut there = metadata.brokers.unwrap_or_default().into_iter();
    let leader = there.find(|broker| broker.id == found.leader);
    let leader = leader.ok_or_else(|| io::Error::other("nobody leads the partition"))?;
    let host: IpAddr = leader.host.unwrap_or_default().parse().map_err(io::Error::other)?;
    let ports = leader.core_ports.unwrap_or_default();
    let mut core = usize::from(found.core);
    if let Some(here) = here()
        && here.world.chance(0.3)
        && !ports.is_empty()
    {
        core = here.world.draw(0..ports.len());
    }
    let port = ports.get(core).ok_or_else(|| io::Error::other("no such core"))?;
    let id = TopicId::from(&topic.id.unwrap_or_default());
    Ok((id, SocketAddr::new(host, *port)))
}

async fn first_offset(wire: &mut Wire, topic: TopicId, partition: i32) -> io::Result<u64> {
    let head = ListOffsetsRequestT {
        partitions: Some(vec![ListOffsetsPartitionT {
            topic_id: UuidT::from(topic),
            partition,
            timestamp: EARLIEST,
        }]),
        isolation: 0,
    };
    let reply = wire.ask(&head).await?;
    let response = reply.read::<ListOffsetsResponse<'_>>()?.unpack();
    check(response.error)?;
    let listed = response.partitions.unwrap_or_default().into_iter().next();
    let listed = listed.ok_or_else(|| io::Error::other("the answer has no partition"))?;
    check(listed.error)?;
    Ok(listed.offset.cast_unsigned())
}

/// Fetches once. Returns the next position, the high watermark, and how many bytes came.
async fn fetch(
    wire: &mut Wire,
    topic: TopicId,
    partition: i32,
    position: u64,
    see: &mut impl FnMut(&RecordView<'_>),
) -> io::Result<(u64, u64, usize)> {
    let head = FetchRequestT {
        max_wait_ms: 200,
        min_bytes: 1,
        max_bytes: FETCH_BYTES,
        partitions: Some(vec![FetchPartitionT {
            topic_id: UuidT::from(topic),
            partition,
            max_bytes: FETCH_BYTES,
            offset: position.cast_signed(),
        }]),
        rack: None,
        reads: None,
        isolation: 0,
    };
    let reply = wire.ask(&head).await?;
    let response = reply.read::<FetchResponse<'_>>()?.unpack();
    check(response.error)?;
    let fetched = response.partitions.unwrap_or_default().into_iter().next();
    let fetched = fetched.ok_or_else(|| io::Error::other("the answer has no partition"))?;
    check(fetched.error)?;
    let end = fetched.high_watermark.cast_unsigned();
    let mut next = position;
    let mut payload = Bytes::from(reply.payload);
    let size = payload.len();
    while !payload.is_empty() {
        let set = RecordSet::decode(&payload, BATCH_BYTES).expect("a batch that was stored is whole");
        for record in &set {
            let record = record.expect("a record that was stored is whole");
            let offset = record.offset.get();
            assert!(offset < end, "offset {offset} is beyond the high watermark, {end}");
            if offset >= position {
                see(&record);
            }
        }
        next = set.header().next_offset().get();
        payload = payload.split_off(set.header().size());
    }
    Ok((next, end, size))
}
