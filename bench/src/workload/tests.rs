//! Every kind of damage is put in on purpose and must be told, and counted, as what it is.

use std::sync::LazyLock;

use super::*;

const COUNT: u64 = 100;

fn stream(producer: u16, partition: i32) -> StreamId {
    let producer = ProducerIndex::new(producer).unwrap();
    StreamId::new(RunId::new(0xfeed), producer, PartitionIndex::new(partition)).unwrap()
}

fn payload() -> Arc<Payload> {
    static PAYLOAD: LazyLock<Arc<Payload>> = LazyLock::new(|| Arc::new(Payload::generated(100)));
    Arc::clone(&PAYLOAD)
}

/// A record as it is consumed.
#[derive(Clone)]
struct Consumed {
    partition: PartitionIndex,
    stamp: Vec<u8>,
    value: Vec<u8>,
}

fn stamp(stream: StreamId, sequence: Sequence) -> Stamp {
    Stamp {
        stream,
        sequence,
        due: Moment::from_nanos(7),
    }
}

fn consumed(stream: StreamId, number: u64) -> Consumed {
    let sequence = Sequence::new(number);
    Consumed {
        partition: stream.partition(),
        stamp: stamp(stream, sequence).to_bytes().to_vec(),
        value: payload().value(stream, sequence).to_vec(),
    }
}

/// Two producers by turns in partition 0, one of them in partition 1 as well.
fn sent() -> (Vec<Consumed>, HashMap<StreamId, u64>) {
    let streams = [stream(0, 0), stream(1, 0), stream(1, 1)];
    let records = (0..COUNT).flat_map(|i| streams.map(|stream| consumed(stream, i)));
    (records.collect(), streams.map(|stream| (stream, COUNT)).into())
}

fn verify_with(expectation: Expectation, records: &[Consumed]) -> Damage {
    findings(expectation, records).damage
}

fn findings(expectation: Expectation, records: &[Consumed]) -> Findings {
    let mut verifier = Verifier::new(payload(), expectation);
    for record in records {
        verifier.check(record.partition, Stamp::parse(&record.stamp), Some(&record.value));
    }
    verifier.finish()
}

/// The damage that is found when `damage` has been done to the records.
fn found(damage: impl FnOnce(&mut Vec<Consumed>)) -> Damage {
    let (mut records, counts) = sent();
    damage(&mut records);
    verify_with(Expectation::exactly(counts), &records)
}

fn damage(lost: u64, duplicated: u64, reordered: u64, corrupt: u64) -> Damage {
    Damage {
        lost,
        duplicated,
        reordered,
        corrupt,
    }
}

#[test]
fn what_came_back_as_it_was_sent_is_no_damage() {
    assert!(found(|_| {}).is_none());
}

#[test]
fn lost_records_are_counted_wherever_they_were() {
    assert_eq!(found(|records| drop(records.remove(0))), damage(1, 0, 0, 0));
    assert_eq!(found(|records| drop(records.drain(90..120))), damage(30, 0, 0, 0));
    assert_eq!(found(|records| drop(records.pop())), damage(1, 0, 0, 0));
    assert_eq!(found(Vec::clear), damage(3 * COUNT, 0, 0, 0));
}

#[test]
fn a_partition_that_lost_everything_is_missed() {
    let of_partition_1 = |record: &Consumed| record.partition.get() == 1;
    assert_eq!(
        found(|records| records.retain(|record| !of_partition_1(record))),
        damage(COUNT, 0, 0, 0)
    );
}

#[test]
fn duplicated_records_are_counted_at_once_and_much_later() {
    assert_eq!(
        found(|records| records.insert(1, records[0].clone())),
        damage(0, 1, 0, 0)
    );
    assert_eq!(found(|records| records.extend_from_within(30..45)), damage(0, 15, 0, 0));
}

#[test]
fn reordered_records_are_not_taken_for_lost_or_duplicated() {
    assert_eq!(found(|records| records.swap(30, 33)), damage(0, 0, 1, 0));
    // One from the middle comes last.
    assert_eq!(
        found(|records| {
            let late = records.remove(150);
            records.push(late);
        }),
        damage(0, 0, 1, 0)
    );
    // Two producers have no order between them.
    assert!(found(|records| records.swap(30, 31)).is_none());
}

#[test]
fn a_whole_stretch_that_comes_late_is_reordered() {
    assert_eq!(found(|records| records.rotate_left(90)), damage(0, 0, 90, 0));
}

#[test]
fn an_altered_value_is_corrupt_and_nothing_else() {
    assert_eq!(found(|records| records[7].value[99] ^= 1), damage(0, 0, 0, 1));
    assert_eq!(found(|records| records[7].value.truncate(99)), damage(0, 0, 0, 1));
    assert_eq!(found(|records| records[7].value.push(0)), damage(0, 0, 0, 1));
    let swap = |records: &mut Vec<Consumed>| {
        let other = records[10].value.clone();
        records[7].value = other;
    };
    assert_eq!(found(swap), damage(0, 0, 0, 1));
}

#[test]
fn an_altered_key_is_corrupt_and_its_record_is_not_also_lost() {
    assert_eq!(found(|records| records[7].stamp[0] ^= 1), damage(0, 0, 0, 1));
    assert_eq!(found(|records| records[7].stamp.clear()), damage(0, 0, 0, 1));
    // A record that another partition was meant to get.
    assert_eq!(
        found(|records| records[7].partition = PartitionIndex::new(2)),
        damage(1, 0, 0, 1)
    );
}

#[test]
fn null_keys_and_values_are_corrupt() {
    let mut verifier = Verifier::new(payload(), Expectation::yet_to_come());
    let record = consumed(stream(0, 0), 0);
    verifier.check(record.partition, Stamp::parse(&record.stamp), None);
    verifier.check(record.partition, None, Some(&record.value));
    assert_eq!(verifier.finish().damage, damage(0, 0, 0, 2));
}

#[test]
fn records_that_cannot_be_read_are_corrupt_and_not_also_lost() {
    let (mut records, counts) = sent();
    records.drain(30..60);
    let mut verifier = Verifier::new(payload(), Expectation::exactly(counts));
    for record in &records {
        verifier.check(record.partition, Stamp::parse(&record.stamp), Some(&record.value));
    }
    // 20 of the 30 were in partition 0, of which 5 are lost all the same.
    (0..15).for_each(|_| verifier.unreadable(PartitionIndex::new(0)));
    (0..10).for_each(|_| verifier.unreadable(PartitionIndex::new(1)));
    assert_eq!(verifier.finish().damage, damage(5, 0, 0, 25));
}

#[test]
fn without_totals_a_lost_beginning_counts_unless_it_may_have_been_deleted() {
    let (mut records, _) = sent();
    records.drain(..30);
    assert_eq!(verify_with(Expectation::yet_to_come(), &records), damage(30, 0, 0, 0));
    assert!(verify_with(Expectation::stored(false), &records).is_none());
    records.remove(100);
    assert_eq!(verify_with(Expectation::stored(false), &records), damage(1, 0, 0, 0));
}

#[test]
fn records_of_others_are_counted_apart_where_others_write_and_are_damage_where_nobody_does() {
    let (mut records, counts) = sent();
    let stranger = Consumed {
        partition: PartitionIndex::new(0),
        stamp: b"customer-3".to_vec(),
        value: b"an order".to_vec(),
    };
    for place in [0, 30, 200] {
        records.insert(place, stranger.clone());
    }
    let among_others = Expectation {
        is_alone: false,
        ..Expectation::exactly(counts.clone())
    };
    let unharmed = Findings {
        verified: 3 * COUNT,
        foreign: 3,
        ..Findings::default()
    };
    assert_eq!(findings(Expectation::stored(true), &records), unharmed);
    assert_eq!(findings(among_others.clone(), &records), unharmed);
    assert_eq!(verify_with(Expectation::exactly(counts), &records), damage(0, 0, 0, 3));
    // Another run's are others' as well, once it is known whose are meant.
    let other = StreamId::new(
        RunId::new(0xbeef),
        ProducerIndex::new(0).unwrap(),
        PartitionIndex::new(0),
    )
    .unwrap();
    records.push(consumed(other, 0));
    assert_eq!(findings(among_others, &records).foreign, 4);
    // What is missing of ours is lost, whatever else is there.
    records.remove(1);
    assert_eq!(verify_with(Expectation::stored(true), &records), damage(1, 0, 0, 0));
}

#[test]
fn what_retention_has_deleted_is_not_lost_but_what_is_missing_behind_it_is() {
    let (mut records, counts) = sent();
    let kept = Expectation {
        is_whole: false,
        ..Expectation::exactly(counts)
    };
    records.drain(..90);
    assert_eq!(findings(kept.clone(), &records).verified, 3 * COUNT - 90);
    assert!(verify_with(kept.clone(), &records).is_none());
    assert!(verify_with(kept.clone(), &[]).is_none());
    records.pop();
    assert_eq!(verify_with(kept, &records), damage(1, 0, 0, 0));
}

#[test]
fn memory_stays_bounded_when_nothing_is_in_order() {
    let mut stream = Stream {
        id: stream(0, 0),
        next: 0,
        gaps: BTreeMap::new(),
        given_up: 0,
    };
    let mut damage = Damage::default();
    let odd = (0..3 * GAPS_MAX as u64).map(|i| 2 * i + 1);
    odd.for_each(|number| _ = stream.take(Sequence::new(number), &mut damage));
    assert_eq!(stream.gaps.len(), GAPS_MAX);
    assert_eq!(stream.missing(), 3 * GAPS_MAX as u64);
}

#[test]
fn stamps_survive_the_way_and_others_are_told_from_them() {
    let stamp = Stamp {
        stream: stream(PRODUCERS_MAX - 1, (PARTITIONS_MAX - 1).cast_signed()),
        sequence: Sequence::new((1 << 48) - 1),
        due: Moment::from_nanos(u64::MAX),
    };
    assert_eq!(Stamp::parse(&stamp.to_bytes()), Some(stamp));
    assert_eq!(stamp.stream.partition().get(), (PARTITIONS_MAX - 1).cast_signed());
    // Keys of others: of another length, a number of 24 bytes, text of 24 bytes.
    assert_eq!(Stamp::parse(b"customer-3"), None);
    assert_eq!(Stamp::parse(&[0; Stamp::LEN]), None);
    assert_eq!(Stamp::parse(b"507f1f77bcf86cd799439011"), None);
    assert_eq!(ProducerIndex::new(PRODUCERS_MAX), None);
}
