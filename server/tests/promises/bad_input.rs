//! Whatever comes over a socket gets its named error or a closed connection, costs no memory, and disturbs nobody else.

use headwater_protocol::{
    error::ErrorCode,
    frame::{Api, FrameHeader},
    id::{CorrelationId, TopicId},
    schema::{CreateTopicRequestT, MetadataRequestT},
};
use rand::RngExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::support::{Broker, Raw, Seed, Site, batch, fetch, list_offsets, produce, run};

/// The budgets of the site's two cores, and slack for the allocator.
const RESIDENT_BYTES_MAX: u64 = (2 * (8 + 16 + 16) + 128) << 20;

/// Sends bytes as they are, and ends the sending side. Returns the code of the refusal, if there was one.
async fn refusal_of(site: &Site, bytes: &[u8]) -> Option<ErrorCode> {
    let mut raw = Raw::connect(site.core_address(0)).await;
    // The broker may have closed the connection before everything was sent.
    let _ = raw.stream.write_all(bytes).await;
    let _ = raw.stream.shutdown().await;
    let mut refusal = None;
    while let Some(reply) = raw.receive().await {
        refusal = Some(reply.refusal());
    }
    refusal
}

fn header(api: u16, version: u16, head_size: usize, payload: usize) -> Vec<u8> {
    let header = FrameHeader::new(api, version, CorrelationId::new(7), head_size, payload);
    header.expect("it is small").encode().to_vec()
}

fn is_well(broker: &Broker) {
    assert!(
        broker.resident_bytes() < RESIDENT_BYTES_MAX,
        "{} bytes are resident",
        broker.resident_bytes()
    );
}

#[test]
fn frames_that_are_none_are_refused_or_end_the_connection() {
    let seed = Seed::of("frames_that_are_none_are_refused_or_end_the_connection");
    run(async {
        let site = Site::new();
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let mut neighbour = Raw::connect(site.core_address(0)).await;
        let fetch_api = Api::Fetch.as_u16();

        assert_eq!(
            refusal_of(&site, &header(999, 0, 0, 0)).await,
            Some(ErrorCode::UnsupportedVersion)
        );
        assert_eq!(
            refusal_of(&site, &header(fetch_api, 99, 0, 0)).await,
            Some(ErrorCode::UnsupportedVersion)
        );
        assert_eq!(
            refusal_of(&site, &header(Api::Error.as_u16(), 0, 0, 0)).await,
            Some(ErrorCode::UnsupportedVersion)
        );
        assert_eq!(
            refusal_of(&site, &header(fetch_api, 0, 0, 0)).await,
            Some(ErrorCode::InvalidRequest)
        );
        let mut malformed = header(fetch_api, 0, 64, 0);
        malformed.extend_from_slice(&[0xff; 64]);
        assert_eq!(refusal_of(&site, &malformed).await, Some(ErrorCode::InvalidRequest));
        // 4 GiB are announced: refused by the header alone.
        let mut oversized = header(fetch_api, 0, 0, 0);
        oversized[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(refusal_of(&site, &oversized).await, Some(ErrorCode::InvalidRequest));
        let mut head_beyond = header(fetch_api, 0, 64, 0);
        head_beyond[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(refusal_of(&site, &head_beyond).await, Some(ErrorCode::InvalidRequest));
        // Cut off in the middle: there is nobody to answer.
        assert_eq!(refusal_of(&site, &header(fetch_api, 0, 64, 0)).await, None);
        assert_eq!(refusal_of(&site, &[1, 2, 3]).await, None);

        let mut random = seed.random();
        for _ in 0..200 {
            let bytes: Vec<u8> = (0..random.random_range(1..2_000)).map(|_| random.random()).collect();
            refusal_of(&site, &bytes).await;
            let reply = neighbour.call(&MetadataRequestT { topics: None }, &[]).await;
            assert_eq!(reply.metadata().topics.map(|topics| topics.len()), Some(1));
        }
        is_well(&broker);
        assert_eq!(client.admin().topics().await.unwrap().len(), 1);
        broker.stop();
    });
}

#[test]
fn requests_that_cannot_be_met_get_their_named_error() {
    run(async {
        let site = Site::new().cores(1);
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let mut raw = Raw::connect(site.core_address(0)).await;
        let good = batch(&[b"one", b"two"]);

        let flip = |at: usize, bits: u8| {
            let mut damaged = good.clone();
            damaged[at] ^= bits;
            damaged
        };
        let cut = good[..good.len() - 1].to_vec();
        let payloads = [
            (flip(good.len() - 1, 1), ErrorCode::CorruptMessage),
            // The magic byte, the length, and a batch that ends early.
            (flip(16, 1), ErrorCode::UnsupportedForMessageFormat),
            (flip(8, 0x40), ErrorCode::MessageTooLarge),
            (cut, ErrorCode::CorruptMessage),
            (Vec::new(), ErrorCode::InvalidRecord),
        ];
        for (payload, expected) in payloads {
            let error = ErrorCode::from_i16(raw.call(&produce(topic, 0), &payload).await.produce().error);
            assert!(
                error == expected || error == ErrorCode::CorruptMessage,
                "{error:?} instead of {expected:?}"
            );
            assert!(!error.is_none());
        }
        let unknown = raw.call(&produce(TopicId::random(), 0), &good).await.produce();
        assert_eq!(ErrorCode::from_i16(unknown.error), ErrorCode::UnknownTopicId);
        for partition in [1, -1, i32::MAX] {
            let unknown = raw.call(&produce(topic, partition), &good).await.produce();
            assert_eq!(ErrorCode::from_i16(unknown.error), ErrorCode::UnknownTopicOrPartition);
        }
        let mut acks = produce(topic, 0);
        acks.acks = 5;
        assert_eq!(
            ErrorCode::from_i16(raw.call(&acks, &good).await.produce().error),
            ErrorCode::InvalidRequiredAcks
        );

        for offset in [-1, 1, i64::MAX] {
            let fetched = raw.call(&fetch(topic, &[(0, offset)], 0, 1), &[]).await.fetch();
            let error = fetched.partitions.unwrap()[0].error;
            assert_eq!(
                ErrorCode::from_i16(error),
                ErrorCode::OffsetOutOfRange,
                "offset {offset}"
            );
        }
        let listed = raw.call(&list_offsets(topic, &[(0, -9)]), &[]).await.list_offsets();
        assert!(listed.partitions.unwrap()[0].error != 0);

        for name in ["", ".", "..", "no/slash", "no space", &"x".repeat(250), "ümlaut"] {
            let new = CreateTopicRequestT {
                name: Some(name.to_owned()),
                ..CreateTopicRequestT::default()
            };
            let created = raw.call(&new, &[]).await.create_topic();
            assert_eq!(
                ErrorCode::from_i16(created.error),
                ErrorCode::InvalidTopicException,
                "{name:?}"
            );
        }
        let names = MetadataRequestT {
            topics: Some(vec!["absent".to_owned(), "no/slash".to_owned()]),
        };
        let metadata = raw.call(&names, &[]).await.metadata();
        let errors: Vec<_> = metadata
            .topics
            .unwrap()
            .iter()
            .map(|topic| ErrorCode::from_i16(topic.error))
            .collect();
        assert_eq!(
            errors,
            [ErrorCode::UnknownTopicOrPartition, ErrorCode::InvalidTopicException]
        );

        // Nothing of all this was stored, and the next good batch gets offset 0.
        assert_eq!(raw.call(&produce(topic, 0), &good).await.produce().base_offset, 0);
        is_well(&broker);
        broker.stop();
    });
}
