//! Frames that claim or hold as much as a frame can.

use headwater_protocol::{
    frame::{self, Api, FrameHeader},
    schema::{FetchPartitionT, FetchRequestT, ListOffsetsPartitionT, ListOffsetsRequestT, MetadataRequestT},
};
use tokio::io::AsyncWriteExt as _;

use super::{FRAME_SIZE_MAX, Setting};
use crate::support::{Raw, Site, run};

#[test]
fn a_length_that_is_only_claimed_costs_no_memory_and_keeps_nobody_waiting() {
    run(async {
        let setting = Setting::new().await;
        let mut claims = Vec::new();
        // The largest frames first, then small ones: together they would take all the memory there is for reading.
        for (number, size) in (0..200_u16).map(|number| (number, if number < 40 { FRAME_SIZE_MAX } else { 2_000 })) {
            let mut raw = Raw::connect(setting.site.core_address(number % 2)).await;
            let payload = size as usize - (frame::HEADER_LEN - 4) - 64;
            let header = FrameHeader::new(Api::Produce as u16, 0, raw.next_id(), 64, payload).unwrap();
            let mut claim = header.encode().to_vec();
            // From nothing at all to more than a connection's first buffer holds.
            claim.resize(claim.len() + usize::from(number) * 4, 0);
            raw.stream.write_all(&claim).await.unwrap();
            claims.push(raw);
        }
        setting.others_go_on().await;
        setting.check_memory();
        drop(claims);
        setting.end().await;
    });
}

#[test]
fn a_request_of_very_many_parts_is_answered_or_refused_before_long() {
    /// In 16 bytes or more each they nearly fill the frame.
    const PARTS: i32 = 1_000_000;
    run(async {
        let site = Site::new()
            .set("limits.frame_size_bytes_max", "32MiB")
            .set("limits.requests_in_flight_bytes_max", "32MiB")
            .set("cores.connection_bytes_max", "128MiB")
            .set("cores.in_flight_bytes_max", "128MiB");
        let setting = Setting::at(site).await;
        let mut raw = setting.connect().await;
        let fetched = |partition| FetchPartitionT {
            topic_id: setting.topic.into(),
            partition,
            max_bytes: 1,
            offset: 0,
        };
        let fetch = FetchRequestT {
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 1,
            partitions: Some((0..PARTS).map(fetched).collect()),
            rack: None,
            reads: None,
            isolation: 0,
        };
        let listed = |partition| ListOffsetsPartitionT {
            topic_id: setting.topic.into(),
            partition,
            timestamp: 0,
        };
        let list = ListOffsetsRequestT {
            partitions: Some((0..PARTS).map(listed).collect()),
            isolation: 0,
        };
        let metadata = MetadataRequestT {
            topics: Some(vec!["no-such-topic".to_owned(); PARTS as usize]),
        };
        raw.call(&fetch, &[]).await;
        raw.call(&list, &[]).await;
        raw.call(&metadata, &[]).await;
        setting.others_go_on().await;
        drop(raw);
        setting.load.finish().await;
        setting.broker.stop();
    });
}
