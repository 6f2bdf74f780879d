//! What is written by hand is the same, byte for byte, as what is generated.

use proptest::prelude::*;

use super::random::{Random, Source};
use crate::messages::fetch_response::SnapshotId;
use crate::messages::produce_request::TopicProduceData;
use crate::messages::{ApiVersionsResponse, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};
use crate::value::{Message, Str, TOPIC_NAME_LEN_MAX, TopicRef, Version};
use crate::{ApiKey, Fault, Reader, api_versions, fetch, header, produce};

fn random<'a, M: Message<'a> + Random>(source: &[u8], version: i16) -> M {
    let flexible = version >= M::FLEXIBLE_FROM;
    let number = version;
    M::random(&mut Source::new(source), Version { number, flexible })
}

fn written<'a>(message: &impl Message<'a>, version: i16) -> Vec<u8> {
    let mut out = Vec::new();
    message.write(&mut out, version).unwrap();
    out
}

fn topic<'t>(name: &'t str, id: &[u8; 16], by_id: bool) -> TopicRef<'t> {
    if by_id { TopicRef::Id(*id) } else { TopicRef::Name(name) }
}

/// A name of a topic is no longer than one may be: others are refused.
fn cut(name: &mut Str<'_>) {
    let end = name.floor_char_boundary(TOPIC_NAME_LEN_MAX.min(name.len()));
    name.to_mut().truncate(end);
}

fn read(bytes: &[u8]) -> Result<header::Request<'_>, header::HeaderError> {
    header::read_request(&mut Reader::new(bytes))
}

fn produce_request(source: &[u8], version: i16) {
    let mut message: ProduceRequest<'_> = random(source, version);
    message.topic_data.iter_mut().for_each(|data| cut(&mut data.name));
    // The records are found in the frame, behind the header.
    let mut frame = vec![0; 9];
    frame.extend(written(&message, version));
    let mut reader = Reader::new(&frame);
    reader.take(9).unwrap();
    let request = produce::Request::read(&mut reader, version).unwrap();
    assert_eq!(reader.left(), 0);
    assert_eq!(request.transactional_id, message.transactional_id.as_deref());
    assert_eq!((request.acks, request.timeout_ms), (message.acks, message.timeout_ms));
    let mut parts = request.partitions.iter();
    for data in &message.topic_data {
        for partition in &data.partition_data {
            let part = parts.next().unwrap();
            assert_eq!(part.topic, topic(&data.name, &data.topic_id, version >= 13));
            assert_eq!(part.partition, partition.index);
            let records = partition.records.as_deref().unwrap_or_default();
            assert_eq!(&frame[part.records.clone()], records);
        }
    }
    assert_eq!(parts.next(), None);
    for len in 9..frame.len() {
        let mut reader = Reader::new(&frame[..len]);
        reader.take(9).unwrap();
        assert!(
            produce::Request::read(&mut reader, version).is_err(),
            "{version}: {len}"
        );
    }
}

fn produce_response(source: &[u8], version: i16) {
    let mut message: ProduceResponse<'_> = random(source, version);
    // One list of partitions has no topics without any, nor the same one twice in a row.
    message.responses.retain(|topic| !topic.partition_responses.is_empty());
    message
        .responses
        .dedup_by(|one, other| one.name == other.name && one.topic_id == other.topic_id);
    let answers = message.responses.iter().flat_map(|data| {
        let partitions = data.partition_responses.iter();
        partitions.map(move |partition| produce::Answer {
            topic: topic(&data.name, &data.topic_id, version >= 13),
            partition: partition.index,
            error_code: partition.error_code,
            base_offset: partition.base_offset,
            log_append_time_ms: partition.log_append_time_ms,
            log_start_offset: partition.log_start_offset,
            record_errors: partition.record_errors.clone(),
            error_message: partition.error_message.clone(),
            current_leader: partition.current_leader.clone(),
        })
    });
    let response = produce::Response {
        answers: answers.collect(),
        throttle_time_ms: message.throttle_time_ms,
        node_endpoints: message.node_endpoints.clone(),
    };
    let mut out = Vec::new();
    response.write(&mut out, version).unwrap();
    assert_eq!(out, written(&message, version), "{version}");
}

#[test]
fn a_topic_whose_name_no_topic_can_have_is_refused() {
    let request = |len: usize| {
        let topic = TopicProduceData {
            name: "t".repeat(len).into(),
            ..TopicProduceData::default()
        };
        let message = ProduceRequest {
            topic_data: vec![topic],
            ..ProduceRequest::default()
        };
        let bytes = written(&message, 9);
        produce::Request::read(&mut Reader::new(&bytes), 9).map(drop)
    };
    assert_eq!(request(TOPIC_NAME_LEN_MAX), Ok(()));
    let fault = request(TOPIC_NAME_LEN_MAX + 1).unwrap_err().fault;
    assert_eq!(
        fault,
        Fault::LongTopicName {
            len: TOPIC_NAME_LEN_MAX + 1
        }
    );
}

fn fetch_request(source: &[u8], version: i16) {
    let mut message: FetchRequest<'_> = random(source, version);
    message.topics.iter_mut().for_each(|data| cut(&mut data.topic));
    let forgotten = message.forgotten_topics_data.iter_mut();
    forgotten.for_each(|data| cut(&mut data.topic));
    let bytes = written(&message, version);
    let mut reader = Reader::new(&bytes);
    let request = fetch::Request::read(&mut reader, version).unwrap();
    assert_eq!(reader.left(), 0);
    let mut replica = message.replica_state.clone();
    if version < 15 {
        replica.replica_id = message.replica_id;
    }
    let by_id = version >= 13;
    let partitions = message.topics.iter().flat_map(|data| {
        let topic = topic(&data.topic, &data.topic_id, by_id);
        let partitions = data.partitions.iter().cloned();
        partitions.map(move |partition| fetch::Part { topic, partition })
    });
    let forgotten = message.forgotten_topics_data.iter().flat_map(|data| {
        let topic = topic(&data.topic, &data.topic_id, by_id);
        data.partitions.iter().map(move |partition| (topic, *partition))
    });
    let expected = fetch::Request {
        replica,
        max_wait_ms: message.max_wait_ms,
        min_bytes: message.min_bytes,
        max_bytes: message.max_bytes,
        isolation_level: message.isolation_level,
        session_id: message.session_id,
        session_epoch: message.session_epoch,
        cluster_id: message.cluster_id.as_deref(),
        rack: &message.rack_id,
        partitions: partitions.collect(),
        forgotten: forgotten.collect(),
    };
    assert_eq!(request, expected, "{version}");
    for len in 0..bytes.len() {
        let result = fetch::Request::read(&mut Reader::new(&bytes[..len]), version);
        assert!(result.is_err(), "{version}: {len}");
    }
}

fn fetch_response(source: &[u8], version: i16) {
    let mut message: FetchResponse<'_> = random(source, version);
    message.responses.retain(|topic| !topic.partitions.is_empty());
    message
        .responses
        .dedup_by(|one, other| one.topic == other.topic && one.topic_id == other.topic_id);
    let mut answers = Vec::new();
    let mut records = Vec::new();
    for data in &mut message.responses {
        for partition in &mut data.partitions {
            // Snapshots are of Kafka's own quorum.
            partition.snapshot_id = SnapshotId::default();
            let bytes = partition.records.get_or_insert_default().to_vec();
            answers.push(fetch::Answer {
                topic: topic(&data.topic, &data.topic_id, version >= 13),
                partition: partition.partition_index,
                error_code: partition.error_code,
                high_watermark: partition.high_watermark,
                last_stable_offset: partition.last_stable_offset,
                log_start_offset: partition.log_start_offset,
                diverging_epoch: partition.diverging_epoch.clone(),
                current_leader: partition.current_leader.clone(),
                aborted_transactions: partition.aborted_transactions.clone(),
                preferred_read_replica: partition.preferred_read_replica,
                records_len: bytes.len(),
            });
            records.push(bytes);
        }
    }
    let response = fetch::Response {
        throttle_time_ms: message.throttle_time_ms,
        error_code: message.error_code,
        session_id: message.session_id,
        answers,
        node_endpoints: message.node_endpoints.clone(),
    };
    // Behind what the buffer has already.
    let mut out = vec![1, 2, 3];
    let gaps = response.write(&mut out, version).unwrap();
    let mut sent: Vec<u8> = Vec::new();
    let mut from = 3;
    for gap in gaps {
        sent.extend(&out[from..gap.at]);
        sent.extend(&records[gap.answer]);
        from = gap.at;
    }
    sent.extend(&out[from..]);
    assert_eq!(sent, written(&message, version), "{version}");
    assert_eq!(sent.len(), out.len() - 3 + records.iter().map(Vec::len).sum::<usize>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn hot_messages_are_the_same_by_hand(source in proptest::collection::vec(any::<u8>(), 0..500)) {
        for version in ProduceRequest::VERSIONS {
            produce_request(&source, version);
            produce_response(&source, version);
        }
        for version in FetchRequest::VERSIONS {
            fetch_request(&source, version);
            fetch_response(&source, version);
        }
    }
}

#[test]
fn hints_are_left_out_where_a_version_lacks_them_and_what_would_mislead_is_an_error() {
    let topic = TopicRef::Name("t");
    let mut answer = produce::Answer::new(topic, 0, 6);
    answer.current_leader.leader_id = 5;
    let mut response = produce::Response {
        answers: vec![answer],
        ..Default::default()
    };
    response.write(&mut Vec::new(), 9).unwrap();
    response.answers[0].topic = TopicRef::Id([1; 16]);
    let mut out = Vec::new();
    assert!(response.write(&mut out, 12).is_err() && out.is_empty());
    response.write(&mut out, 13).unwrap();
    let mut answer = fetch::Answer::new(topic, 0, 0);
    answer.preferred_read_replica = 2;
    let response = fetch::Response {
        answers: vec![answer],
        ..Default::default()
    };
    out.clear();
    assert!(response.write(&mut out, 10).is_err() && out.is_empty());
    response.write(&mut out, 11).unwrap();
}

#[test]
fn headers_are_read_as_they_are_written() {
    let request = |key, version| header::Request {
        key,
        version,
        correlation_id: 7,
        client_id: Some("me"),
    };
    for key in ApiKey::ALL {
        for version in key.api().version_min..=key.api().version_max {
            let mut out = Vec::new();
            header::write_request(&mut out, &request(*key, version)).unwrap();
            let flexible = version >= key.api().flexible_from;
            assert_eq!(out.len(), 8 + 4 + usize::from(flexible));
            let mut reader = Reader::new(&out);
            assert_eq!(header::read_request(&mut reader).unwrap(), request(*key, version));
            assert_eq!(reader.left(), 0);
            out.clear();
            header::write_response(&mut out, *key, version, 9);
            assert_eq!(out.len(), 4 + usize::from(flexible && *key != ApiKey::ApiVersions));
            assert_eq!(header::read_response(&mut Reader::new(&out), *key, version), Ok(9));
        }
    }
    let later = read(&[0, 18, 0, 99, 0, 0, 0, 1, 0xff, 0xff, 0]).unwrap();
    assert_eq!((later.version, later.client_id), (99, None));
    assert!(!later.key.serves(later.version));
    assert!(matches!(
        read(&[0x27, 0x0f, 0, 0, 0, 0, 0, 1]),
        Err(header::HeaderError::Unknown { number: 9999, .. })
    ));
    let old = read(&[0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff]).unwrap_err();
    assert_eq!(old.to_string(), "version 2 of Produce; 3 to 13 are served");
    assert!(matches!(
        read(&[0, 18, 0, 0, 0, 0, 0, 1]),
        Err(header::HeaderError::Malformed(_))
    ));
}

#[test]
fn a_version_that_is_not_known_is_answered_as_kafka_does() {
    let bytes = written(&api_versions::unsupported_version(), 0);
    assert_eq!(bytes, [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 5]);
    let bytes = written(&api_versions::response(&[ApiKey::Produce, ApiKey::Fetch]), 3);
    let read = ApiVersionsResponse::read(&mut Reader::new(&bytes), 3).unwrap();
    let ranges: Vec<_> = read
        .api_keys
        .iter()
        .map(|it| (it.min_version, it.max_version))
        .collect();
    assert_eq!(ranges, [(0, 13), (4, 18)]);
}
