//! Records of either protocol are read by the other as they were written.

use bytes::Bytes;
use headwater_client::{ConsumerRecord, Record, Start};
use headwater_kafka::Uuid;
use headwater_protocol::{
    batch::{BatchBuilder, Compression, HeaderRef, RecordSet},
    id::{Timestamp, TopicId},
};

use super::{fetch, produce};
use crate::{
    kafka::wire::Wire,
    support::{Raw, Site, run},
};

/// Key, value and time of each record; all have the same header.
fn records() -> Vec<(Option<Vec<u8>>, Vec<u8>, i64)> {
    (0..50_i64)
        .map(|number| {
            let key = (number % 7 != 0).then(|| number.to_string().into_bytes());
            (
                key,
                format!("{number}, ").repeat(40).into_bytes(),
                1_700_000_000_000 + number,
            )
        })
        .collect()
}

fn header() -> HeaderRef<'static> {
    HeaderRef {
        key: "of",
        value: Some(b"both"),
    }
}

/// What is read of a record.
type Seen = (Option<Vec<u8>>, Vec<u8>, i64, usize);

fn expected() -> Vec<Seen> {
    let records = records().into_iter();
    records.map(|(key, value, time)| (key, value, time, 1)).collect()
}

/// As Kafka's clients read them.
fn opened(mut batches: Bytes) -> Vec<Seen> {
    let mut seen = Vec::new();
    while !batches.is_empty() {
        let set = RecordSet::decode(&batches, 1 << 20).unwrap();
        for record in &set {
            let record = record.unwrap();
            let header = record.headers.clone().next().unwrap();
            assert_eq!((header.key, header.value), ("of", Some(&b"both"[..])));
            let key = record.key.map(<[u8]>::to_vec);
            let value = record.value.unwrap().to_vec();
            seen.push((key, value, record.timestamp.get(), record.headers.len()));
        }
        batches = batches.slice(set.header().size()..);
    }
    seen
}

/// As our own client reads it.
fn read(record: &ConsumerRecord) -> Seen {
    let key = record.key.as_ref().map(|key| key.to_vec());
    let value = record.value.as_ref().unwrap().to_vec();
    (key, value, record.timestamp.get(), record.headers.len())
}

#[test]
fn records_of_either_protocol_are_read_by_the_other_byte_for_byte_with_every_codec() {
    run(async {
        let site = Site::new().cores(1);
        let broker = site.start();
        let client = site.client().await;
        let mut wire = Wire::of(&site).await;
        let mut raw = Raw::connect(site.address()).await;
        for compression in Compression::ALL {
            let name = format!("of-{compression}");
            wire.create_topic(&name, 1, &[]).await;
            let id: Uuid = wire.topic(&name).await.topic_id;
            let topic = (&*name, id);
            // Written by Kafka's protocol, then by ours.
            let mut builder = BatchBuilder::new(compression, 0);
            for (key, value, time) in records() {
                let time = Timestamp::new(time);
                builder.append(time, key.as_deref(), Some(&value), &[header()]).unwrap();
            }
            let written = builder.build().bytes().to_vec();
            let told = wire.produced(13, &produce(topic, 0, -1, written.clone())).await;
            assert_eq!(told.error_code, 0, "{compression}");
            let producer = client.producer().compression(compression).build().await.unwrap();
            for (key, value, time) in records() {
                let record = Record::to(&name)
                    .value(&value)
                    .timestamp(Timestamp::new(time))
                    .header("of", b"both");
                let record = match &key {
                    Some(key) => record.key(key),
                    None => record,
                };
                drop(producer.send(record).await.unwrap());
            }
            producer.close().await.unwrap();
            // Read by both.
            let by_kafka = wire.fetched(13, &fetch(topic, &[(0, 0)])).await.remove(0);
            let by_kafka = Bytes::from(by_kafka.records.unwrap().to_vec());
            let own = raw
                .call(
                    &crate::support::fetch(TopicId::new(uuid::Uuid::from_bytes(id)), &[(0, 0)], 0, 0),
                    &[],
                )
                .await;
            assert_eq!(own.fetched()[0].1, by_kafka, "{compression}: the same bytes");
            // But for where they are stamped: offset, length, epoch; magic; then the checksum and all that it covers.
            assert_eq!(
                by_kafka[16..written.len()],
                written[16..],
                "{compression}: as they were written"
            );
            assert_eq!(by_kafka[22] & 7, compression.number());
            let twice = [expected(), expected()].concat();
            assert_eq!(opened(by_kafka), twice, "{compression}: by Kafka's protocol");
            let consumer = client.consumer().topics([&*name]).start(Start::Earliest);
            let mut consumer = consumer.build().await.unwrap();
            let mut received = Vec::new();
            while received.len() < twice.len() {
                let more = consumer.recv_many(twice.len() - received.len()).await.unwrap();
                received.extend(more.iter().map(read));
            }
            assert_eq!(received, twice, "{compression}: by our own");
        }
        broker.stop();
    });
}
