use headwater_protocol::batch::{BatchBuilder, BatchHeader, Compression};
use headwater_protocol::id::{Offset, PartitionIndex, Timestamp};
use headwater_protocol::topic::TopicName;

use super::super::delivery::Completer;
use super::super::memory::Memory;
use super::*;

const ID: ProducerId = ProducerId::new(7);

fn window(epoch: i16) -> Window {
    let limits = WindowLimits {
        batches_max: 5,
        bytes_max: 1 << 20,
        delivery_timeout: Duration::from_mins(2),
    };
    let identity = Identity::new((ID, ProducerEpoch::new(epoch)));
    let mut window = Window::new(limits, Some(identity), Arc::default());
    for number in 0..5 {
        window.push(batch(number + 1));
    }
    window
}

/// A batch of so many records.
fn batch(records: u32) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, 1024);
    for number in 0..records {
        builder
            .append(Timestamp::new(number.into()), None, Some(b"value"), &[])
            .unwrap();
    }
    Batch {
        builder,
        completer: Completer::new(&TopicName::new("t").unwrap(), PartitionIndex::new(0)),
        reserved: Memory::new(1 << 20).try_reserve(1024).unwrap(),
        opened_at: Instant::now(),
    }
}

fn refused(code: ErrorCode) -> Result<Delivered, Error> {
    Err(Error::Broker {
        code,
        message: "no".into(),
    })
}

const APPENDED: Delivered = Delivered {
    base_offset: Some(Offset::ZERO),
    append_time: None,
};

/// What a batch says of itself: producer id, epoch, sequence.
fn number_of(bytes: &Bytes) -> (ProducerId, i16, Sequence) {
    let header = BatchHeader::read(bytes).unwrap();
    (
        header.producer_id(),
        header.producer_epoch().get(),
        header.base_sequence(),
    )
}

/// Sends everything that may be sent now.
fn send_all(window: &mut Window) -> Vec<(Attempt, (ProducerId, i16, Sequence))> {
    let mut sent = Vec::new();
    while window.action() == Action::Send {
        let (attempt, bytes) = window.take_next(Instant::now(), usize::MAX).expect("it fits");
        sent.push((attempt, number_of(&bytes)));
    }
    sent
}

fn end(window: &mut Window, attempt: Attempt, result: Result<Delivered, Error>) {
    window.on_result(attempt, result, Instant::now());
}

/// A window whose first batch has been appended and whose others are in flight.
fn in_flight(epoch: i16) -> (Window, Vec<Attempt>) {
    let mut window = window(epoch);
    let first = send_all(&mut window);
    assert_eq!(first.len(), 1, "the first batch of an identity goes alone");
    end(&mut window, first[0].0, Ok(APPENDED));
    let sent = send_all(&mut window);
    let numbers: Vec<_> = sent.iter().map(|(_, (.., sequence))| *sequence).collect();
    assert_eq!(numbers, [1, 3, 6, 10].map(|n| Sequence::ZERO.plus(n)));
    (window, sent.into_iter().map(|(attempt, _)| attempt).collect())
}

#[test]
fn numbers_are_kept_over_retries_and_the_oldest_goes_alone() {
    let (mut window, attempts) = in_flight(0);
    for attempt in attempts.into_iter().rev() {
        assert_ne!(window.action(), Action::Recover, "something is still in flight");
        end(&mut window, attempt, refused(ErrorCode::NotLeaderOrFollower));
    }
    assert_eq!(window.action(), Action::Recover);
    assert!(!window.needs_identity());
    window.resume(None);
    let probe = send_all(&mut window);
    assert_eq!(probe.len(), 1);
    assert_eq!(probe[0].1, (ID, 0, Sequence::ZERO.plus(1)));
    end(&mut window, probe[0].0, Ok(APPENDED));
    let rest = send_all(&mut window);
    let expected = [3, 6, 10].map(|n| (ID, 0, Sequence::ZERO.plus(n)));
    assert_eq!(rest.iter().map(|(_, number)| *number).collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_numbered_anew_has_the_next_epoch_so_that_late_frames_of_the_old_one_are_refused() {
    for code in [ErrorCode::OutOfOrderSequenceNumber, ErrorCode::UnknownProducerId] {
        let (mut window, attempts) = in_flight(0);
        for attempt in attempts {
            end(&mut window, attempt, refused(code));
        }
        assert!(!window.needs_identity(), "the next epoch needs no broker");
        window.resume(None);
        let probe = send_all(&mut window);
        assert_eq!(probe[0].1, (ID, 1, Sequence::ZERO));
        end(&mut window, probe[0].0, Ok(APPENDED));
        assert_eq!(send_all(&mut window)[0].1, (ID, 1, Sequence::ZERO.plus(2)));
    }
}

#[test]
fn after_the_last_epoch_or_behind_a_later_one_a_new_id_is_asked_for() {
    for (epoch, code) in [
        (i16::MAX, ErrorCode::OutOfOrderSequenceNumber),
        (0, ErrorCode::InvalidProducerEpoch),
    ] {
        let (mut window, attempts) = in_flight(epoch);
        for attempt in attempts {
            end(&mut window, attempt, refused(code));
        }
        assert!(window.needs_identity());
        let other = ProducerId::new(8);
        window.resume(Some(Identity::new((other, ProducerEpoch::new(0)))));
        assert_eq!(send_all(&mut window)[0].1, (other, 0, Sequence::ZERO));
    }
}

#[test]
fn nothing_is_numbered_anew_while_an_older_batch_is_unsettled() {
    let (mut window, attempts) = in_flight(0);
    let oldest = attempts[0];
    for attempt in &attempts[1..] {
        end(&mut window, *attempt, refused(ErrorCode::OutOfOrderSequenceNumber));
    }
    end(&mut window, oldest, refused(ErrorCode::KafkaStorageError));
    window.resume(None);
    assert_eq!(send_all(&mut window)[0].1, (ID, 0, Sequence::ZERO.plus(1)));
}

#[test]
fn a_batch_counts_with_all_the_memory_it_takes_until_it_has_ended() {
    let memory = Memory::new(1 << 20);
    let mut batch = batch(3);
    batch.reserved = memory.try_reserve(2000).unwrap();
    let capacity = batch.builder.capacity();
    assert!(batch.builder.len() < capacity / 2, "it is not full");
    let mut window = window(0);
    window.waiting.clear();
    window.push(batch);
    let (attempt, _) = window.take_next(Instant::now(), usize::MAX).unwrap();
    assert_eq!(memory.used(), capacity);
    end(&mut window, attempt, Ok(APPENDED));
    assert_eq!(memory.used(), 0);
}

fn offset_of(batch: u64) -> Delivered {
    Delivered {
        base_offset: Some(Offset::new(batch)),
        append_time: None,
    }
}

#[test]
fn the_parts_of_a_batch_that_was_refused_for_its_size_take_its_numbers_and_its_place() {
    let (mut window, attempts) = in_flight(0);
    // Batches of 2, 3, 4 and 5 records; what is behind the third is out of order without it.
    end(&mut window, attempts[0], Ok(APPENDED));
    end(&mut window, attempts[1], Ok(APPENDED));
    end(&mut window, attempts[2], refused(ErrorCode::MessageTooLarge));
    end(&mut window, attempts[3], refused(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(window.action(), Action::Recover);
    window.resume(None);
    assert_eq!(window.take_next(Instant::now(), usize::MAX), None, "it is split");
    let mut found = Vec::new();
    while !window.is_empty() {
        for (attempt, number) in send_all(&mut window) {
            found.push(number);
            end(&mut window, attempt, Ok(offset_of(0)));
        }
    }
    assert_eq!(found, [6, 8, 10].map(|n| (ID, 0, Sequence::ZERO.plus(n))));
}

#[test]
fn what_may_have_been_appended_is_not_split_though_it_is_refused_for_its_size() {
    let (mut window, attempts) = in_flight(0);
    let lost = || Error::Disconnected {
        address: crate::Address::new("h", 1),
        source: None,
    };
    for attempt in attempts {
        end(&mut window, attempt, Err(lost()));
    }
    window.resume(None);
    let again = send_all(&mut window);
    assert_eq!(again[0].1, (ID, 0, Sequence::ZERO.plus(1)));
    let count = window.len();
    end(&mut window, again[0].0, refused(ErrorCode::MessageTooLarge));
    assert_eq!(window.len(), count - 1, "it has failed as a whole");
}
