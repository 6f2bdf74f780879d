use proptest::prelude::*;

use super::*;
use crate::id::TopicId;
use crate::schema::{FetchPartition, FetchPartitionT, FetchRequest, FetchRequestT, MetadataRequest, MetadataRequestT};
use crate::schema::{MetadataResponse, MetadataResponseT, ProduceRequest, ProduceRequestT, TopicMetadataT, UuidT};

#[test]
fn a_head_reads_back_from_any_address() {
    let id = TopicId::random();
    let head = encode(&ProduceRequestT {
        topic_id: Some(id.into()),
        partition: 7,
        acks: 1,
        ..ProduceRequestT::default()
    });
    assert_eq!(head.len() % ALIGNMENT, 0);
    for shift in 0..8 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(&head);
        let request = decode::<ProduceRequest>(&shifted[shift..]).unwrap();
        assert_eq!(request.topic_id().map(TopicId::from), Some(id));
        assert_eq!(
            (request.partition(), request.acks(), request.timeout_ms()),
            (7, 1, 30_000)
        );
    }
}

#[test]
fn no_topics_and_all_topics_are_told_apart() {
    let all = encode(&MetadataRequestT { topics: None });
    assert!(decode::<MetadataRequest>(&all).unwrap().topics().is_none());
    let none = encode(&MetadataRequestT {
        topics: Some(Vec::new()),
    });
    assert_eq!(
        decode::<MetadataRequest>(&none)
            .unwrap()
            .topics()
            .map(|topics| topics.len()),
        Some(0)
    );
}

#[test]
fn every_truncation_of_a_head_is_refused_or_reads_safely() {
    let partition = FetchPartitionT {
        max_bytes: 10,
        offset: 3,
        ..FetchPartitionT::default()
    };
    let head = encode(&FetchRequestT {
        partitions: Some(vec![partition; 4]),
        ..FetchRequestT::default()
    });
    for len in 0..head.len() {
        if let Ok(request) = decode::<FetchRequest>(&head[..len]) {
            let offsets = request
                .partitions()
                .iter()
                .flat_map(|p| p.iter().map(FetchPartition::offset))
                .count();
            assert!(offsets <= 4);
        }
    }
}

#[test]
fn metadata_of_ten_thousand_topics_fits_a_response() {
    let topic = |n: usize| TopicMetadataT {
        name: Some(format!("topic-{n}")),
        ..TopicMetadataT::default()
    };
    let head = encode(&MetadataResponseT {
        topics: Some((0..10_000).map(topic).collect()),
        ..MetadataResponseT::default()
    });
    let response = decode_response::<MetadataResponse>(&head).unwrap();
    assert_eq!(response.topics().map(|topics| topics.len()), Some(10_000));
}

proptest! {
    #[test]
    fn any_list_of_names_reads_back(names in prop::option::of(prop::collection::vec(".{0,300}", 0..20))) {
        let request = MetadataRequestT { topics: names };
        let head = encode(&request);
        prop_assert_eq!(decode::<MetadataRequest>(&head).unwrap().unpack(), request);
    }

    #[test]
    fn any_fetch_reads_back(
        partitions in prop::collection::vec((any::<(u64, u64)>(), any::<i32>(), any::<u32>(), any::<i64>()), 0..50),
        max_wait_ms: u32, min_bytes: u32, max_bytes: u32,
        rack in prop::option::of(".{0,100}"), reads in prop::option::of(prop::collection::vec(any::<u8>(), 0..50)), isolation in any::<u8>(),
    ) {
        let partition = |((high, low), partition, max_bytes, offset)| {
            FetchPartitionT { topic_id: UuidT { high, low }, partition, max_bytes, offset }
        };
        let partitions = Some(partitions.into_iter().map(partition).collect());
        let request = FetchRequestT { max_wait_ms, min_bytes, max_bytes, partitions, rack, reads, isolation };
        let head = encode(&request);
        prop_assert_eq!(decode::<FetchRequest>(&head).unwrap().unpack(), request);
    }
}
