//! C and D: records are fetched, offsets are looked up, and records deleted.

use headwater_kafka::{
    ApiKey, Uuid,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse, FetchRequest, FetchResponse, ListOffsetsRequest,
        ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, delete_records_request,
        fetch_request, list_offsets_request, offset_for_leader_epoch_request,
    },
};

use super::{
    Look,
    made::{Batch, Record, now_ms},
};
use crate::kafka::{
    records::{fetch, produce},
    wire::Wire,
};

/// What is told of a partition: code, high watermark, where the log begins, bytes of records, aborted transactions if there is a list.
type Told = (i16, i64, i64, usize, Option<usize>);

/// What an error tells.
const fn refused(code: i16, aborted: Option<usize>) -> Told {
    (code, -1, -1, 0, aborted)
}

/// At the end of ten records of which the first three are deleted.
const AT_END: Told = (0, 10, 3, 0, Some(0));

/// Probe, what it is, version, partition and offset, what else is asked, and what is told.
type Row = (
    &'static str,
    &'static str,
    i16,
    (i32, i64),
    fn(&mut FetchRequest<'_>),
    Told,
);

fn partition<'r>(request: &'r mut FetchRequest<'_>) -> &'r mut fetch_request::FetchPartition {
    &mut request.topics[0].partitions[0]
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("C1", "beyond the end", 18, (0, 100), |_| {}, refused(1, None)),
    ("C1", "a record beyond the end", 18, (0, 11), |_| {}, refused(1, None)),
    ("C1", "offset -1", 18, (0, -1), |_| {}, refused(1, None)),
    ("C1", "at the end", 18, (0, 10), |_| {}, AT_END),
    ("C2", "below the start", 18, (0, 2), |_| {}, refused(1, None)),
    ("C9", "an unknown id", 18, (0, 3), |request| request.topics[0].topic_id = [7; 16], refused(100, Some(0))),
    ("C9", "no id", 18, (0, 3), |request| request.topics[0].topic_id = [0; 16], refused(100, Some(0))),
    ("C9", "an unknown name", 12, (0, 3), |request| request.topics[0].topic = "nope".into(), refused(3, Some(0))),
    ("C9", "no such partition", 18, (9, 3), |_| {}, refused(3, Some(0))),
    ("C10", "an epoch to come", 18, (0, 10), |request| partition(request).current_leader_epoch = 5, refused(75, None)),
    ("C10", "the right epoch", 18, (0, 10), |request| partition(request).current_leader_epoch = 0, AT_END),
    ("C10", "epoch -2", 18, (0, 10), |request| partition(request).current_leader_epoch = -2, AT_END),
    ("C11", "committed", 18, (0, 10), |request| request.isolation_level = 1, AT_END),
    ("C12", "no data", 4, (0, 10), |_| {}, (0, 10, -1, 0, Some(0))),
    ("C13", "replica 99", 12, (0, 10), |request| request.replica_id = 99, refused(6, None)),
    ("C13", "replica -2", 12, (0, 10), |request| request.replica_id = -2, AT_END),
    ("C14", "waits for -1", 18, (0, 10), |request| (request.max_wait_ms, request.min_bytes) = (-1, 1), AT_END),
    ("C14", "for no bytes", 18, (0, 10), |request| (request.max_wait_ms, request.min_bytes) = (5000, 0), AT_END),
    ("C14", "beyond the end", 18, (0, 100), |request| (request.max_wait_ms, request.min_bytes) = (5000, 1), refused(1, None)),
];

pub async fn look(wire: &mut Wire, look: &mut Look) {
    wire.create_topic("d", 2, &[]).await;
    wire.create_topic("dc", 1, &[("cleanup.policy", "compact")]).await;
    wire.create_topic("dcd", 1, &[("cleanup.policy", "compact,delete")])
        .await;
    let topic = ("d", wire.topic("d").await.topic_id);
    let base = now_ms() - 10_000;
    for batch in 0..5 {
        let records = [0, 1].map(|delta| Record::at(delta, 0));
        let records = Batch::of(base + batch * 1000, &records).bytes();
        wire.produced(13, &produce(topic, 0, 1, records)).await;
    }
    offsets(wire, look, base).await;
    epochs(wire, look).await;
    deletions(wire, look).await;
    fetches(wire, look, topic).await;
}

async fn fetches(wire: &mut Wire, look: &mut Look, topic: (&str, Uuid)) {
    for (probe, what, version, place, change, told) in ROWS {
        let mut request = fetch(topic, &[*place]);
        change(&mut request);
        let mut seen: FetchResponse<'_> = wire.ask(ApiKey::Fetch, *version, &request).await;
        let seen = seen.responses.remove(0).partitions.remove(0);
        let aborted = seen.aborted_transactions.as_ref().map(Vec::len);
        let records = seen.records.as_ref().map_or(usize::MAX, |records| records.len());
        // Whether a refused partition has a list of none, or none, nobody looks at.
        let aborted = if seen.error_code == 0 { aborted } else { told.4 };
        let seen = (
            seen.error_code,
            seen.high_watermark,
            seen.log_start_offset,
            records,
            aborted,
        );
        look.same(probe, what, seen, *told);
    }
    let mut uncommitted = fetch(topic, &[(0, 10)]);
    uncommitted.isolation_level = 0;
    let seen = wire.fetched(18, &uncommitted).await.remove(0);
    look.same("C11", "uncommitted", seen.aborted_transactions, None);
    // The epoch that a consumer has read last.
    for (epoch, offset, told) in [(5, 5, (1, -1)), (0, 5, (0, -1)), (0, 20, (0, 10))] {
        let mut request = fetch(topic, &[(0, offset)]);
        partition(&mut request).last_fetched_epoch = epoch;
        let seen = wire.fetched(18, &request).await.remove(0);
        let seen = (seen.error_code, seen.diverging_epoch.end_offset);
        look.same("C15", &format!("epoch {epoch} at {offset}"), seen, told);
    }
}

async fn listed(wire: &mut Wire, name: &str, partitions: &[(i32, i64)]) -> Vec<(i16, i64, i64, i32)> {
    let partitions = partitions.iter().map(
        |(partition_index, timestamp)| list_offsets_request::ListOffsetsPartition {
            partition_index: *partition_index,
            timestamp: *timestamp,
            current_leader_epoch: -1,
        },
    );
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![list_offsets_request::ListOffsetsTopic {
            name: name.to_owned().into(),
            partitions: partitions.collect(),
        }],
        ..ListOffsetsRequest::default()
    };
    let mut response: ListOffsetsResponse<'_> = wire.ask(ApiKey::ListOffsets, 11, &request).await;
    let told = response.topics.remove(0).partitions.into_iter();
    told.map(|told| (told.error_code, told.timestamp, told.offset, told.leader_epoch))
        .collect()
}

async fn offsets(wire: &mut Wire, look: &mut Look, base: i64) {
    const NONE: (i16, i64, i64, i32) = (0, -1, -1, -1);
    for (probe, what, partition, timestamp, told) in [
        ("D2", "beyond the last", 0, base + 5000, NONE),
        ("D2", "between two", 0, base + 1500, (0, base + 2000, 4, 0)),
        ("D2", "the beginning", 0, 0, (0, base, 0, 0)),
        ("D3", "the latest time", 1, -3, NONE),
        ("D3", "tiered", 1, -5, NONE),
        ("D3", "a time", 1, 0, NONE),
        ("D2", "the latest time", 0, -3, (0, base + 4000, 8, 0)),
        ("D2", "no such partition", 9, -1, (3, -1, -1, -1)),
    ] {
        look.same(
            probe,
            what,
            listed(wire, "d", &[(partition, timestamp)]).await,
            vec![told],
        );
    }
    for (what, timestamp) in [("the end", -1), ("the beginning", -2), ("the beginning here", -4)] {
        let seen = listed(wire, "d", &[(1, timestamp)]).await;
        look.other("D3", what, seen, (vec![(0, -1, 0, 0)], vec![(0, -1, 0, -1)]));
    }
    let twice = listed(wire, "d", &[(0, -1), (0, -2)]).await;
    look.same("D5", "a partition twice", twice, vec![(42, -1, -1, -1)]);
}

async fn epochs(wire: &mut Wire, look: &mut Look) {
    for (what, index, known, epoch, told) in [
        ("the first", 0, -1, 0, (0, 0, 10)),
        ("one to come", 0, -1, 99, (0, -1, -1)),
        ("none", 0, -1, -1, (0, -1, -1)),
        ("of an empty partition", 1, -1, 0, (0, 0, 0)),
        ("a leader to come", 0, 5, 0, (75, -1, -1)),
        ("no such partition", 9, -1, 0, (3, -1, -1)),
    ] {
        let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition {
            partition: index,
            current_leader_epoch: known,
            leader_epoch: epoch,
        };
        let request = OffsetForLeaderEpochRequest {
            topics: vec![offset_for_leader_epoch_request::OffsetForLeaderTopic {
                topic: "d".into(),
                partitions: vec![partition],
            }],
            ..OffsetForLeaderEpochRequest::default()
        };
        let mut seen: OffsetForLeaderEpochResponse<'_> = wire.ask(ApiKey::OffsetForLeaderEpoch, 4, &request).await;
        let seen = seen.topics.remove(0).partitions.remove(0);
        look.same("D6", what, (seen.error_code, seen.leader_epoch, seen.end_offset), told);
    }
}

async fn deleted(wire: &mut Wire, name: &str, partition_index: i32, offset: i64) -> (i16, i64) {
    let request = DeleteRecordsRequest {
        topics: vec![delete_records_request::DeleteRecordsTopic {
            name: name.to_owned().into(),
            partitions: vec![delete_records_request::DeleteRecordsPartition {
                partition_index,
                offset,
            }],
        }],
        timeout_ms: 1000,
    };
    let mut response: DeleteRecordsResponse<'_> = wire.ask(ApiKey::DeleteRecords, 2, &request).await;
    let told = response.topics.remove(0).partitions.remove(0);
    (told.error_code, told.low_watermark)
}

async fn deletions(wire: &mut Wire, look: &mut Look) {
    for (what, name, partition, offset, told) in [
        ("into a batch", "d", 0, 3, (0, 3)),
        ("before what is gone", "d", 0, 2, (0, 3)),
        ("beyond the end", "d", 0, 11, (1, -1)),
        ("-2", "d", 0, -2, (1, -1)),
        ("all of nothing", "d", 1, -1, (0, 0)),
        ("no such partition", "d", 9, 0, (3, -1)),
        ("no such topic", "nope", 0, 0, (3, -1)),
        ("compacted and deleted from", "dcd", 0, -1, (0, 0)),
    ] {
        look.same("D7", what, deleted(wire, name, partition, offset).await, told);
    }
    look.other("D7", "compacted", deleted(wire, "dc", 0, -1).await, ((44, -1), (0, 0)));
}
