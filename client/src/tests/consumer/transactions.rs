//! What a consumer hands out of transactions.

use bytes::Bytes;
use headwater_protocol::batch::{BatchBuilder, EndMarker, Outcome, stamp};
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{LeaderEpoch, ProducerEpoch, ProducerId, Sequence};

use super::super::{Broker, one_broker};
use crate::{Compression, Error, Isolation, Offset, SkipCause, Start, Timestamp};

const PRODUCER: ProducerId = ProducerId::new(7);
const EPOCH: ProducerEpoch = ProducerEpoch::new(0);
const NOW: Timestamp = Timestamp::new(1000);

fn append(broker: &Broker, mut bytes: Vec<u8>, records: u64) {
    let mut state = broker.state.lock();
    let log = &mut state.topics.get_mut("t").unwrap().partitions[0];
    stamp(&mut bytes, Offset::new(log.next_offset), LeaderEpoch::new(0));
    log.batches.push(Bytes::from(bytes));
    log.next_offset += records;
}

fn data(records: u64, is_transactional: bool) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None, 0);
    for _ in 0..records {
        builder.append(NOW, None, Some(b"v"), &[]).unwrap();
    }
    if is_transactional {
        builder.set_transactional();
    }
    builder.set_producer(PRODUCER, EPOCH, Sequence::ZERO);
    builder.build().into_bytes()
}

fn marker(outcome: Outcome) -> Vec<u8> {
    let marker = EndMarker {
        producer_id: PRODUCER,
        producer_epoch: EPOCH,
        outcome,
        coordinator_epoch: 0,
    };
    marker.encode(NOW)
}

#[tokio::test(start_paused = true)]
async fn markers_are_never_handed_out_and_aborted_records_only_to_readers_of_the_uncommitted() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    // 0-1 aborted by 2, 3-4 committed by 5, 6 of no transaction though of the same producer, 7 aborted by 8.
    append(&broker, data(2, true), 2);
    append(&broker, marker(Outcome::Abort), 1);
    append(&broker, data(2, true), 2);
    append(&broker, marker(Outcome::Commit), 1);
    append(&broker, data(1, false), 1);
    append(&broker, data(1, true), 1);
    append(&broker, marker(Outcome::Abort), 1);
    append(&broker, data(1, false), 1);
    broker.state.lock().aborted = vec![(7, 0, 2), (7, 7, 8)];
    for (isolation, expected) in [
        (Isolation::ReadUncommitted, &[0, 1, 3, 4, 6, 7, 9][..]),
        (Isolation::ReadCommitted, &[3, 4, 6, 9]),
    ] {
        let builder = client.consumer().topics(["t"]).start(Start::Earliest);
        let mut consumer = builder.isolation(isolation).build().await.unwrap();
        let got = super::offsets(&mut consumer, expected.len()).await;
        assert_eq!(got, expected, "{isolation:?}");
        let skipped = consumer.skipped();
        assert_eq!(
            skipped[0].no_record,
            10 - expected.len() as u64,
            "all others were passed"
        );
    }
    // In the middle of what was aborted, and counted as what is not there.
    let builder = client.consumer().topics(["t"]).start(Offset::new(1));
    let mut consumer = builder.isolation(Isolation::ReadCommitted).build().await.unwrap();
    let crate::Advance::Skip(skip) = consumer.advance().await.unwrap() else {
        panic!("an aborted record was handed out");
    };
    assert_eq!(
        (skip.from.get(), skip.to.get(), skip.cause),
        (1, 2, SkipCause::NoRecord)
    );
    // One that would give whatever there is, as it knows of no transactions.
    broker.state.lock().knows_no_isolation = true;
    let builder = client.consumer().topics(["t"]).start(Start::Earliest);
    let mut consumer = builder.isolation(Isolation::ReadCommitted).build().await.unwrap();
    let refused = consumer.recv().await.unwrap_err();
    let code = ErrorCode::UnsupportedVersion;
    assert!(
        matches!(&refused, Error::Broker { code: got, .. } if *got == code),
        "{refused}"
    );
}
