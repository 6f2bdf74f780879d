//! Bytes that are no frames, frames that are no requests, and requests that were damaged on the way.

use headwater_client::{ErrorCode, TopicId};
use headwater_protocol::{
    frame::{self, Api, FrameHeader},
    head::{self, Head},
    id::CorrelationId,
    schema::{
        CreateTopicRequestT, DeleteRecordsRequestT, DeleteTopicRequestT, DescribeTopicRequestT, InitProducerIdRequestT,
        MetadataRequestT,
    },
};
use rand::{RngExt as _, rngs::SmallRng};
use tokio::io::AsyncWriteExt as _;

use super::{FRAME_SIZE_MAX, Setting};
use crate::support::{Raw, Reply, Seed, Site, batch, fetch, list_offsets, numbered_batch, produce, run};

/// A connection that has answered a bad request must go on to answer a good one.
async fn assert_alive(raw: &mut Raw) {
    let reply = raw.call(&MetadataRequestT { topics: None }, &[]).await;
    assert_eq!(reply.metadata().error, 0);
}

/// Sends a frame of these parts.
async fn call(raw: &mut Raw, api: u16, version: u16, head: &[u8], payload: &[u8]) -> Reply {
    let id = raw.next_id();
    let header = FrameHeader::new(api, version, id, head.len(), payload.len()).unwrap();
    raw.stream
        .write_all(&[&header.encode()[..], head, payload].concat())
        .await
        .unwrap();
    let reply = raw.receive().await.expect("the broker answers");
    assert_eq!(reply.header.correlation_id, id);
    reply
}

#[test]
fn a_request_that_is_not_understood_is_refused_and_the_connection_goes_on() {
    run(async {
        let setting = Setting::new().await;
        let mut raw = setting.connect().await;
        for api in [Api::Error as u16, Api::REQUESTS.len() as u16 + 1, 999, u16::MAX] {
            assert_eq!(
                call(&mut raw, api, 0, &[], &[]).await.refusal(),
                ErrorCode::UnsupportedVersion
            );
        }
        let garbage: Vec<u8> = (0..=255).collect();
        for api in Api::REQUESTS {
            let api = api.as_u16();
            for version in [1, u16::MAX] {
                assert_eq!(
                    call(&mut raw, api, version, &[], &[]).await.refusal(),
                    ErrorCode::UnsupportedVersion
                );
            }
            for head in [&[][..], &[0], &[0xff; 64], &garbage] {
                let refusal = call(&mut raw, api, 0, head, &[]).await.refusal();
                assert_eq!(refusal, ErrorCode::InvalidRequest, "api {api}, head {head:?}");
            }
        }
        let head = head::encode(&MetadataRequestT { topics: None });
        let refusal = call(&mut raw, Api::Metadata as u16, 0, &head, b"payload")
            .await
            .refusal();
        assert_eq!(refusal, ErrorCode::InvalidRequest);
        assert_alive(&mut raw).await;
        setting.end().await;
    });
}

#[test]
fn a_frame_of_impossible_size_is_refused_and_the_connection_closed() {
    run(async {
        let setting = Setting::new().await;
        let sizes = [
            (0, 0),
            (11, 0),
            (12, 1),
            (100, 89),
            (FRAME_SIZE_MAX + 1, 0),
            (u32::MAX, 0),
            (u32::MAX, u32::MAX),
        ];
        for (size, head_size) in sizes {
            let mut raw = setting.connect().await;
            let mut header = [0; frame::HEADER_LEN];
            header[..4].copy_from_slice(&size.to_le_bytes());
            header[8..12].copy_from_slice(&7_u32.to_le_bytes());
            header[12..].copy_from_slice(&head_size.to_le_bytes());
            raw.stream.write_all(&header).await.unwrap();
            let reply = raw.receive().await.expect("the broker says why");
            assert_eq!(
                (reply.refusal(), reply.header.correlation_id.get()),
                (ErrorCode::InvalidRequest, 7)
            );
            assert!(
                raw.receive().await.is_none(),
                "where the next frame would begin is not known"
            );
        }
        setting.end().await;
    });
}

#[test]
fn who_speaks_another_protocol_is_hung_up_on_at_once_named_in_the_log_and_counted() {
    run(async {
        // Whoever is not hung up on at once waits longer than the test may take.
        let site = Site::new()
            .cores(1)
            .with_metrics()
            .set("limits.frame_wait_ms_max", "1h");
        let setting = Setting::at(site).await;
        let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0xa5; 506]].concat();
        let versions = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
        for (speech, name) in [
            (&b"GET /metrics HTTP/1.1\r\nHost: broker\r\n\r\n"[..], "http"),
            // Less than a frame's header.
            (b"HEAD /\r\n", "http"),
            (&hello, "tls"),
            (&versions, "kafka"),
        ] {
            let counter = format!("headwater_strangers_total{{core=\"0\",protocol=\"{name}\"}}");
            let before = setting.site.scrape().await[&counter];
            let mut raw = setting.connect().await;
            raw.stream.write_all(speech).await.unwrap();
            while raw.receive().await.is_some() {}
            assert_eq!(setting.site.scrape().await[&counter], before + 1, "{name}");
        }
        setting
            .broker
            .await_line("it speaks HTTP, and this port Headwater's own protocol");
        setting.end().await;
    });
}

#[test]
fn a_frame_that_ends_early_ends_its_connection() {
    run(async {
        let setting = Setting::new().await;
        let whole = frame::encode_head(&MetadataRequestT { topics: None }, 0, CorrelationId::new(7), 0);
        for len in 1..whole.len() {
            let mut raw = setting.connect().await;
            raw.stream.write_all(&whole[..len]).await.unwrap();
            raw.stream.shutdown().await.unwrap();
            assert!(
                raw.receive().await.is_none(),
                "answered after {len} bytes of {}",
                whole.len()
            );
        }
        setting.end().await;
    });
}

#[test]
fn random_bytes_and_damaged_requests_leave_the_broker_as_it_was() {
    let seed = Seed::of("random_bytes_and_damaged_requests_leave_the_broker_as_it_was");
    run(async {
        let setting = Setting::new().await;
        let mut random = seed.random();
        let valid = valid_requests(setting.topic);
        for number in 0..600 {
            let mut raw = setting.connect().await;
            let bytes = if number % 4 == 0 {
                (0..random.random_range(1..3_000)).map(|_| random.random()).collect()
            } else {
                damage(valid[random.random_range(0..valid.len())].clone(), &mut random)
            };
            // It may be closed at the first byte.
            let _ = raw.stream.write_all(&bytes).await;
            if random.random_ratio(1, 2) {
                // The rest of a frame that is cut off never comes.
                let _ = raw.stream.shutdown().await;
                drop(raw.receive().await);
            }
        }
        setting.end().await;
    });
}

/// One of each kind; nothing that would hurt the well-behaved.
fn valid_requests(topic: TopicId) -> Vec<Vec<u8>> {
    fn framed<H: Head>(head: &H, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame::encode_head(head, 0, CorrelationId::new(1), payload.len());
        bytes.extend_from_slice(payload);
        bytes
    }
    let name = || Some("victim-2".to_owned());
    let create = CreateTopicRequestT {
        name: name(),
        partitions: 1,
        ..CreateTopicRequestT::default()
    };
    let deletion = DeleteRecordsRequestT {
        topic_id: Some(topic.into()),
        partition: 0,
        offset: 0,
    };
    let metadata = MetadataRequestT {
        topics: Some(vec!["a".to_owned(), "b".to_owned()]),
    };
    vec![
        framed(&metadata, &[]),
        framed(&create, &[]),
        framed(&DeleteTopicRequestT { name: name() }, &[]),
        framed(&DescribeTopicRequestT { name: name() }, &[]),
        framed(&InitProducerIdRequestT::default(), &[]),
        framed(&produce(topic, 0), &batch(&[b"value", b"another"])),
        framed(&produce(topic, 0), &numbered_batch(&[b"value"], 1, 0, 0)),
        framed(&fetch(topic, &[(0, 0), (0, 1)], 0, 1), &[]),
        framed(&list_offsets(topic, &[(0, 0), (0, -1)]), &[]),
        framed(&deletion, &[]),
    ]
}

/// Flips bits, cuts, repeats or inserts; in the frame's header less often than elsewhere, where it would end everything.
fn damage(mut bytes: Vec<u8>, random: &mut SmallRng) -> Vec<u8> {
    for _ in 0..random.random_range(1..4) {
        let from = if random.random_ratio(1, 3) {
            0
        } else {
            frame::HEADER_LEN
        };
        let at = random.random_range(from.min(bytes.len() - 1)..bytes.len());
        match random.random_range(0..4) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => bytes.truncate(at.max(1)),
            _ => {
                let copy = bytes[at..].to_vec();
                bytes.extend(copy);
            }
        }
    }
    bytes
}
