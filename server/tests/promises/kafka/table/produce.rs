//! B: records are judged.

use headwater_kafka::{
    ApiKey, Uuid,
    messages::{ProduceRequest, ProduceResponse, produce_request, produce_response::PartitionProduceResponse},
};
use headwater_protocol::batch::Compression;

use super::{
    Look,
    made::{Batch, HOUR_MS, Record, changed, compressed, now_ms, numbered},
};
use crate::kafka::{
    records::{fetch, produce},
    wire::Wire,
};

/// What is told of a partition: code, base offset if it was refused, where the log begins.
type Told = (i16, i64, i64);

/// What was taken in, wherever.
const TAKEN: Told = (0, 0, 0);
/// Refused by the log.
const fn refused(code: i16) -> Told {
    (code, -1, 0)
}
/// Refused before a log was asked.
const fn turned_away(code: i16) -> Told {
    (code, -1, -1)
}

/// Probe, what it is, records, what Kafka tells; and, where it is another, what we tell.
type Row = (&'static str, &'static str, fn() -> Vec<u8>, Told, Option<Told>);

const fn row(probe: &'static str, what: &'static str, records: fn() -> Vec<u8>, told: Told) -> Row {
    (probe, what, records, told, None)
}

const fn other(probe: &'static str, what: &'static str, records: fn() -> Vec<u8>, (kafkas, ours): (Told, Told)) -> Row {
    (probe, what, records, kafkas, Some(ours))
}

fn with(change: impl FnOnce(&mut Batch)) -> Vec<u8> {
    let mut batch = Batch::plain(3);
    change(&mut batch);
    batch.bytes()
}

fn timed(times: &[i64]) -> Vec<u8> {
    let records: Vec<Record> = (0..).zip(times).map(|(delta, time)| Record::at(delta, *time)).collect();
    Batch::of(now_ms(), &records).bytes()
}

/// For a topic without settings.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("B3", "magic 0", || with(|batch| batch.magic = 0), turned_away(87)),
    row("B3", "magic 1", || with(|batch| batch.magic = 1), turned_away(87)),
    row("B3", "magic 3", || with(|batch| batch.magic = 3), turned_away(2)),
    other("B4", "two batches", || [Batch::plain(1).bytes(), Batch::plain(1).bytes()].concat(), (turned_away(87), TAKEN)),
    other("B4", "5 bytes behind it", || [Batch::plain(1).bytes(), vec![1; 5]].concat(), (TAKEN, turned_away(87))),
    row("B4", "20 zeros behind it", || [Batch::plain(1).bytes(), vec![0; 20]].concat(), turned_away(2)),
    row("B4", "cut short", || { let mut batch = Batch::plain(1).bytes(); batch.truncate(batch.len() - 3); batch }, turned_away(87)),
    row("B4", "30 bytes", || Batch::plain(1).bytes()[..30].to_vec(), turned_away(87)),
    row("B4", "nothing", Vec::new, turned_away(87)),
    row("B5", "no records", || with(|batch| (batch.count, batch.last_delta, batch.records) = (0, 0, Vec::new())), refused(87)),
    row("B5", "none and no offsets", || with(|batch| (batch.count, batch.last_delta, batch.records) = (0, -1, Vec::new())), refused(87)),
    row("B5", "fewer than none", || with(|batch| batch.count = -1), refused(87)),
    row("B6", "a bad checksum", || { let mut batch = Batch::plain(1).bytes(); batch[17] ^= 1; batch }, turned_away(2)),
    row("B7", "more offsets than records", || with(|batch| batch.last_delta = 5), refused(87)),
    row("B7", "fewer offsets than records", || with(|batch| batch.last_delta = 1), refused(87)),
    other("B7", "offsets with gaps", || Batch::of(now_ms(), &[0, 2, 4].map(Record::numbered)).bytes(), (TAKEN, refused(87))),
    row("B7", "a record too few", || with(|batch| (batch.count, batch.last_delta) = (4, 3)), refused(87)),
    row("B7", "a record too many", || with(|batch| (batch.count, batch.last_delta) = (2, 1)), refused(87)),
    other("B8", "base offset 77", || with(|batch| batch.base_offset = 77), (refused(87), TAKEN)),
    row("B8", "base offset -1", || with(|batch| batch.base_offset = -1), refused(87)),
    row("B9", "a latest time before the first", || with(|batch| batch.max_time -= 5000), TAKEN),
    row("B9", "no latest time", || with(|batch| batch.max_time = -1), TAKEN),
    row("B9", "a latest time that no record has", || with(|batch| batch.max_time += 2 * HOUR_MS), TAKEN),
    row("B10", "30 minutes ahead", || timed(&[HOUR_MS / 2]), TAKEN),
    row("B10", "59 minutes ahead", || timed(&[59 * 60_000]), TAKEN),
    row("B10", "61 minutes ahead", || timed(&[61 * 60_000]), refused(32)),
    row("B10", "two days ahead", || timed(&[0, 48 * HOUR_MS]), refused(32)),
    row("B11", "a year ago", || Batch::of(now_ms() - 365 * 24 * HOUR_MS, &[Record::numbered(0)]).bytes(), TAKEN),
    row("B11", "fifty years before the batch", || timed(&[-50 * 365 * 24 * HOUR_MS]), TAKEN),
    row("B14", "a control batch", || with(|batch| batch.attributes = 0x20), refused(87)),
    row("B14", "a control batch of a transaction", || with(|batch| (batch.attributes, batch.producer) = (0x30, (5, 0, 0))), turned_away(53)),
    row("B15", "of a transaction", || with(|batch| (batch.attributes, batch.producer) = (0x10, (5, 0, 0))), turned_away(53)),
    row("B15", "of a transaction of nobody", || with(|batch| batch.attributes = 0x10), turned_away(53)),
    row("B16", "an unknown producer with sequence 5", || numbered((777_777, 0), 5, 1), TAKEN),
    row("B16", "sequence -1", || numbered((5, 0), -1, 1), refused(87)),
    other("B16", "epoch -1", || numbered((6, -1), 0, 1), (TAKEN, refused(87))),
    row("B16", "producer -1 with a sequence", || numbered((-1, -1), 0, 1), TAKEN),
    other("B21", "LogAppendTime from a client", || with(|batch| batch.attributes = 8), (TAKEN, refused(32))),
    other("B24", "codec 7", || with(|batch| batch.attributes = 7), (refused(-1), refused(76))),
    other("B24", "codec 5", || with(|batch| batch.attributes = 5), (refused(-1), refused(76))),
    row("B26", "lz4, a record too few", || changed(compressed(Compression::Lz4, &[None]), |batch| (batch[60], batch[26]) = (2, 1)), refused(87)),
    row("B26", "lz4, a record too many", || changed(compressed(Compression::Lz4, &[None, None]), |batch| (batch[60], batch[26]) = (1, 0)), refused(87)),
    other("B26", "no lz4 at all", || with(|batch| batch.attributes = 3), (refused(-1), refused(87))),
    row("B26", "malformed", || with(|batch| batch.records[0] ^= 0x40), refused(87)),
    row("B27", "no time", || Batch::of(-1, &[Record::numbered(0)]).bytes(), TAKEN),
    other("B27", "a time before 1970", || Batch::of(-1000, &[Record::numbered(0)]).bytes(), (TAKEN, refused(32))),
    row("B29", "a header twice, and one without value", || Batch::of(now_ms(), &[Record::with_headers(&[4, 2, b'k', 2, b'1', 2, b'k', 1])]).bytes(), TAKEN),
    row("B29", "an empty header key", || Batch::of(now_ms(), &[Record::with_headers(&[2, 0, 2, b'1'])]).bytes(), TAKEN),
    row("B29", "no header key", || Batch::of(now_ms(), &[Record::with_headers(&[2, 1, 2, b'1'])]).bytes(), refused(87)),
    row("B29", "attributes of a record", || Batch::of(now_ms(), &[Record { attributes: 5, ..Record::numbered(0) }]).bytes(), TAKEN),
];

/// Which topic is asked for, at which partition, acks and version, and the code.
const PLACES: &[(&str, &str, &str, i32, i16, i16, i16)] = &[
    ("B1", "acks=2", "b", 0, 2, 12, 21),
    ("B1", "acks=-2", "b", 0, -2, 3, 21),
    ("B2", "an unknown topic", "nope", 0, -1, 12, 3),
    ("B2", "no such partition", "b", 7, -1, 12, 3),
    ("B2", "a negative partition", "b", -1, -1, 12, 3),
    ("B2", "an empty name", "", 0, -1, 12, 3),
    ("B25", "no such partition of an id", "b", 5, -1, 13, 3),
];

fn told(partition: &PartitionProduceResponse<'_>) -> Told {
    let base = if partition.error_code == 0 {
        0
    } else {
        partition.base_offset
    };
    (partition.error_code, base, partition.log_start_offset)
}

pub async fn look(wire: &mut Wire, look: &mut Look) {
    wire.create_topic("b", 2, &[]).await;
    let topic = ("b", wire.topic("b").await.topic_id);
    for (probe, what, name, partition, acks, version, code) in PLACES {
        let request = produce((name, topic.1), *partition, *acks, Batch::plain(1).bytes());
        let seen = wire.produced(*version, &request).await;
        let expected = (*code, -1, if *version < 5 { -1 } else { turned_away(0).2 });
        look.same(probe, what, told(&seen), expected);
    }
    for (probe, what, records, kafkas, ours) in ROWS {
        let seen = wire.produced(12, &produce(topic, 0, -1, records())).await;
        match ours {
            None => look.same(probe, what, told(&seen), *kafkas),
            Some(ours) => look.other(probe, what, told(&seen), (*kafkas, *ours)),
        }
    }
    let zstd = || compressed(Compression::Zstd, &[None]);
    for (version, code) in [(6, 76), (7, 0)] {
        let seen = wire.produced(version, &produce(topic, 0, -1, zstd())).await;
        look.same("B24", "zstd by version", seen.error_code, code);
    }
    for id in [[0; 16], [7; 16]] {
        let mut response: ProduceResponse<'_> = wire
            .ask(ApiKey::Produce, 13, &produce(("", id), 0, -1, Batch::plain(1).bytes()))
            .await;
        let seen = response.responses.remove(0);
        look.same(
            "B25",
            "an unknown id",
            (seen.topic_id, told(&seen.partition_responses[0])),
            (id, turned_away(100)),
        );
    }
    let mut of_transaction = produce(topic, 0, -1, Batch::plain(1).bytes());
    of_transaction.transactional_id = Some("t".into());
    let seen = wire.produced(12, &of_transaction).await;
    look.same("B15", "a transactional id", seen.error_code, 0);
    times(wire, look, topic).await;
    keys(wire, look).await;
    sizes(wire, look).await;
    producers(wire, look).await;
    append_times(wire, look).await;
    twice(wire, look, topic).await;
}

/// What is said of records whose time is wrong, and what is stored of batches that say it wrongly.
async fn times(wire: &mut Wire, look: &mut Look, topic: (&str, Uuid)) {
    let seen = wire
        .produced(12, &produce(topic, 0, -1, timed(&[0, 2 * HOUR_MS])))
        .await;
    look.same(
        "B10",
        "the message",
        seen.error_message.as_deref().unwrap_or_default().to_owned(),
        "One or more records have been rejected due to invalid timestamp".to_owned(),
    );
    let errors: Vec<i32> = seen.record_errors.iter().map(|error| error.batch_index).collect();
    look.same("B10", "the record", errors, vec![1]);
    let words = seen.record_errors[0]
        .batch_index_error_message
        .as_deref()
        .unwrap_or_default()
        .to_owned();
    let is_kafkas = words.starts_with("Timestamp ")
        && words.contains(
            " of message with offset 1 is out of range. The timestamp should be within [-9223372036854775808, ",
        );
    look.other(
        "B10",
        "its message, but for the first bound",
        (is_kafkas, 1),
        ((true, 2), (true, 1)),
    );
    // A search by time, and retention, go by the latest time.
    let base = now_ms() - HOUR_MS;
    let records = [0, 5000].map(|time| Record::at(time / 5000, time));
    let mut batch = Batch::of(base, &records);
    batch.max_time = base;
    let seen = wire.produced(12, &produce(topic, 1, -1, batch.bytes())).await;
    let stored = stored(wire, topic, 1, seen.base_offset).await;
    look.same(
        "B9",
        "what is stored",
        i64::from_be_bytes(stored[35..43].try_into().unwrap()),
        base + 5000,
    );
    look.same("B10", "a message on success", seen.error_message, None);
}

/// The batch at an offset.
async fn stored(wire: &mut Wire, topic: (&str, Uuid), partition: i32, offset: i64) -> Vec<u8> {
    let found = wire.fetched(13, &fetch(topic, &[(partition, offset)])).await.remove(0);
    found.records.unwrap().to_vec()
}

async fn keys(wire: &mut Wire, look: &mut Look) {
    wire.create_topic("bc", 1, &[("cleanup.policy", "compact")]).await;
    let topic = ("bc", [0; 16]);
    let why = "Compacted topic cannot accept message without key in topic partition bc-0";
    let key = |delta, key| Record {
        key,
        ..Record::numbered(delta)
    };
    let some: Option<&[u8]> = Some(b"k");
    for (keys, bad) in [([some, None, some], &[1][..]), ([None, None, None], &[0, 1, 2])] {
        let records: Vec<Record> = (0..).zip(keys).map(|(delta, of)| key(delta, of)).collect();
        let plain = Batch::of(now_ms(), &records).bytes();
        for batch in [plain, compressed(Compression::Lz4, &keys)] {
            let seen = wire.produced(12, &produce(topic, 0, -1, batch)).await;
            look.same("B12", "the code", told(&seen), refused(87));
            let errors: Vec<_> = seen
                .record_errors
                .iter()
                .map(|error| (error.batch_index, &**error.batch_index_error_message.as_ref().unwrap()))
                .collect();
            let expected: Vec<_> = bad.iter().map(|index| (*index, why)).collect();
            look.same("B12", "the records", errors, expected);
            let shown: Vec<_> = bad
                .iter()
                .map(|index| format!("RecordError(batchIndex={index}, message='{why}')"))
                .collect();
            let message = format!(
                "One or more records have been rejected due to {} record errors in total, and only showing the first three errors at most: [{}]",
                bad.len(),
                shown.join(", ")
            );
            look.same(
                "B12",
                "the message",
                seen.error_message.as_deref().unwrap_or_default().to_owned(),
                message,
            );
        }
    }
    let empty = Batch::of(now_ms(), &[key(0, Some(b""))]).bytes();
    let seen = wire.produced(12, &produce(topic, 0, -1, empty)).await;
    look.same("B12", "an empty key", told(&seen), TAKEN);
    let none = Batch::plain(1).bytes();
    look.same(
        "B12",
        "at version 7",
        wire.produced(7, &produce(topic, 0, -1, none)).await.error_code,
        87,
    );
}

async fn sizes(wire: &mut Wire, look: &mut Look) {
    wire.create_topic("bs", 1, &[("max.message.bytes", "2000")]).await;
    let of = |len: usize| {
        let mut builder = headwater_protocol::batch::BatchBuilder::new(Compression::None, 0);
        let empty = headwater_protocol::batch::BatchBuilder::lone_size(None, Some(&vec![0; 1900]), &[]) - 1900;
        builder
            .append(
                headwater_protocol::id::Timestamp::now(),
                None,
                Some(&vec![0; len - empty]),
                &[],
            )
            .unwrap();
        let batch = builder.build().bytes().to_vec();
        assert_eq!(batch.len(), len);
        batch
    };
    let topic = ("bs", [0; 16]);
    look.same(
        "B13",
        "the largest",
        told(&wire.produced(12, &produce(topic, 0, -1, of(2000))).await),
        TAKEN,
    );
    look.same(
        "B13",
        "a byte more",
        told(&wire.produced(12, &produce(topic, 0, -1, of(2001))).await),
        turned_away(10),
    );
}

/// Idempotent producers: sequence numbers, epochs, and what is sent twice.
async fn producers(wire: &mut Wire, look: &mut Look) {
    wire.create_topic("bj", 1, &[]).await;
    let topic = ("bj", [0; 16]);
    // Probe, producer's epoch, sequence, records, code, base offset.
    let steps: &[(&str, &str, i16, i32, i64, i16, i64)] = &[
        ("B16", "the first", 0, 0, 1, 0, 0),
        ("B16", "the next", 0, 1, 1, 0, 1),
        ("B17", "the last again", 0, 1, 1, 0, 1),
        ("B17", "the one before", 0, 0, 1, 0, 0),
        ("B17", "an overlap", 0, 1, 2, 45, -1),
        ("B18", "a gap", 0, 3, 1, 45, -1),
        ("B18", "what was missing", 0, 2, 1, 0, 2),
        ("B20", "a new epoch that does not begin at 0", 1, 3, 1, 45, -1),
        ("B20", "a new epoch", 3, 0, 1, 0, 3),
        ("B20", "its first again", 3, 0, 1, 0, 3),
        ("B19", "a lower epoch", 0, 3, 1, 47, -1),
    ];
    for (probe, what, epoch, sequence, count, code, base) in steps {
        let seen = wire
            .produced(12, &produce(topic, 0, -1, numbered((9, *epoch), *sequence, *count)))
            .await;
        look.same(
            probe,
            what,
            (seen.error_code, seen.base_offset, seen.log_start_offset),
            (*code, *base, 0),
        );
    }
    for (sequence, count) in [(i32::MAX - 1, 4), (2, 1)] {
        let seen = wire
            .produced(12, &produce(topic, 0, -1, numbered((10, 0), sequence, count)))
            .await;
        look.same("B16", "sequence numbers begin anew", seen.error_code, 0);
    }
    // What is refused first is not overtaken by what comes behind it; Kafka takes that in.
    let bad = changed(numbered((11, 0), 5, 1), |batch| batch[26] = 9);
    look.same(
        "B16",
        "refused",
        wire.produced(12, &produce(topic, 0, -1, bad)).await.error_code,
        87,
    );
    let behind = wire.produced(12, &produce(topic, 0, -1, numbered((11, 0), 6, 1))).await;
    look.other("B16", "behind what was refused", behind.error_code, (0, 45));
    for sequence in [5, 6] {
        let seen = wire
            .produced(12, &produce(topic, 0, -1, numbered((11, 0), sequence, 1)))
            .await;
        look.same("B16", "in order", seen.error_code, 0);
    }
    // What lies before where it began was never stored, and must not be taken for a repetition.
    let before = wire.produced(12, &produce(topic, 0, -1, numbered((11, 0), 0, 1))).await;
    look.same("B17", "before where it began", before.error_code, 45);
    // The window is longer than Kafka's.
    for sequence in 0..7 {
        wire.produced(12, &produce(topic, 0, -1, numbered((12, 0), sequence, 1)))
            .await;
    }
    let seen = wire.produced(12, &produce(topic, 0, -1, numbered((12, 0), 0, 1))).await;
    look.other("B17", "the seventh before", seen.error_code, (45, 0));
}

async fn append_times(wire: &mut Wire, look: &mut Look) {
    wire.create_topic("bt", 1, &[("message.timestamp.type", "LogAppendTime")])
        .await;
    let id = wire.topic("bt").await.topic_id;
    let topic = ("bt", id);
    let began = now_ms();
    let ahead = Batch::of(began + 48 * HOUR_MS, &[Record::numbered(0)]).bytes();
    let seen = wire.produced(12, &produce(topic, 0, -1, ahead)).await;
    look.same("B21", "two days ahead", (seen.error_code, seen.base_offset), (0, 0));
    let time = seen.log_append_time_ms;
    look.same("B21", "the broker's time", (began..=now_ms()).contains(&time), true);
    let stored = stored(wire, topic, 0, 0).await;
    let base = i64::from_be_bytes(stored[27..35].try_into().unwrap());
    let max = i64::from_be_bytes(stored[35..43].try_into().unwrap());
    look.same(
        "B21",
        "what is stored",
        (stored[22], base, max),
        (8, began + 48 * HOUR_MS, time),
    );
    // As the producer compressed it.
    let seen = wire
        .produced(12, &produce(topic, 0, -1, compressed(Compression::Lz4, &[None, None])))
        .await;
    let found = wire
        .fetched(13, &fetch(topic, &[(0, seen.base_offset)]))
        .await
        .remove(0);
    look.same("B21", "compressed", found.records.unwrap()[22], 11);
}

/// The same partition twice in a request, and what stands in records beside it.
async fn twice(wire: &mut Wire, look: &mut Look, topic: (&str, Uuid)) {
    let data = |value: u8| produce_request::PartitionProduceData {
        index: 1,
        records: Some(
            changed(Batch::plain(1).bytes(), |batch| {
                let at = batch.len() - 2;
                batch[at] = value;
            })
            .into(),
        ),
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 1000,
        topic_data: vec![produce_request::TopicProduceData {
            name: topic.0.into(),
            topic_id: topic.1,
            partition_data: vec![data(b'1'), data(b'2')],
        }],
        ..ProduceRequest::default()
    };
    let response: ProduceResponse<'_> = wire.ask(ApiKey::Produce, 12, &request).await;
    let codes: Vec<i16> = response.responses[0]
        .partition_responses
        .iter()
        .map(|told| told.error_code)
        .collect();
    look.other("B28", "twice", codes, (vec![0], vec![0, 0]));
    // Who wants no answer gets none, and the end of the connection if something is refused: others go on.
    let mut unanswered = Wire::connect(wire.peer()).await;
    unanswered
        .send(ApiKey::Produce, 12, &produce(topic, 0, 0, Batch::plain(1).bytes()))
        .await;
    let seen = unanswered
        .produced(12, &produce(topic, 0, 1, Batch::plain(1).bytes()))
        .await;
    look.same("B22", "taken in", seen.error_code, 0);
    unanswered
        .send(ApiKey::Produce, 12, &produce(topic, 9, 0, Batch::plain(1).bytes()))
        .await;
    look.same("B22", "refused", unanswered.receive().await, None);
    // No recompression: `compression.type` is `producer`.
    let request = produce(topic, 0, -1, compressed(Compression::Lz4, &[None]));
    let base = wire.produced(12, &request).await.base_offset;
    let stored = stored(wire, topic, 0, base).await;
    look.same("B23", "compression.type=producer", stored[22] & 7, 3);
    let told = wire.try_create("bz", ("compression.type", "zstd")).await;
    look.other("B23", "compression.type=zstd", told, (0, 40));
}
