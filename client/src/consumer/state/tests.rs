//! The state of a consumer against a log in memory: whatever comes early, late, twice asked for or not at all, the consumer gets
//! every record once and in order.

use std::collections::HashMap;
use std::time::Duration;

use headwater_protocol::batch::{BatchBuilder, Compression, stamp};
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{BrokerId, CoreId, LeaderEpoch, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::consumer::builder::OffsetReset;
use crate::requests::{Fetched, Reads};

/// Batches of one partition, each with the offset after it.
struct Log {
    batches: Vec<(Bytes, Offset)>,
}

impl Log {
    fn new(records_per_batch: &[u8]) -> Self {
        let mut next = Offset::ZERO;
        let batches = records_per_batch.iter().map(|&count| {
            let mut builder = BatchBuilder::new(Compression::None, 0);
            for _ in 0..count {
                builder.append(Timestamp::new(1), None, Some(b"v"), &[]).unwrap();
            }
            let mut bytes = builder.build().bytes().to_vec();
            stamp(&mut bytes, next, LeaderEpoch::new(0));
            next = next + u64::from(count);
            (Bytes::from(bytes), next)
        });
        Self {
            batches: batches.collect(),
        }
    }

    fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, |(_, next)| *next)
    }

    /// A response of up to `count` batches.
    fn fetch(&self, from: Offset, count: usize) -> (Fetched, Bytes) {
        let wanted: Vec<_> = self
            .batches
            .iter()
            .filter(|(_, next)| *next > from)
            .take(count)
            .collect();
        let records: Vec<u8> = wanted.iter().flat_map(|(batch, _)| batch.to_vec()).collect();
        let fetched = Fetched {
            aborted: Arc::from([]),
            topic: TopicId::NIL,
            partition: PartitionIndex::new(0),
            result: Ok(()),
            records_size: records.len(),
            log_start_offset: Some(Offset::ZERO),
            high_watermark: Some(self.end()),
            next_offset: wanted.last().map(|(_, next)| *next),
            preferred: None,
        };
        (fetched, Bytes::from(records))
    }
}

fn shared() -> Shared {
    shared_in(None)
}

/// Of a consumer in this rack.
fn shared_in(rack: Option<&str>) -> Shared {
    let settings = FetchSettings {
        isolation: crate::Isolation::default(),
        fetch_bytes_max: 1 << 20,
        partition_bytes_max: 300,
        fetch_bytes_min: 1,
        wait_max: Duration::ZERO,
        prefetch_bytes: 1 << 20,
        reset: OffsetReset::Error,
        check_crcs: true,
        decompressed_bytes_max: 1 << 20,
        rack: rack.map(Into::into),
        preferred_max: Duration::from_secs(30),
        unknown_patience: Duration::from_hours(1),
        failing_patience: Duration::from_hours(1),
    };
    let backoff = BackoffLimits {
        min: Duration::from_millis(1),
        max: Duration::from_millis(4),
        seed: Some(7),
    };
    let assignment = Assignment {
        topic: TopicName::new("t").unwrap(),
        partition: PartitionIndex::new(0),
        topic_id: TopicId::NIL,
        offset: Offset::ZERO,
    };
    let shared = Shared::new(vec![assignment], Vec::new(), settings.into(), backoff);
    shared.state.lock().partitions[0].leader = Some(Address::new("h", 1));
    shared
}

/// A request that was sent, with what the broker will answer.
struct Sent {
    ticket: Ticket,
    fetched: Fetched,
    records: Bytes,
    begun: bool,
}

fn lost() -> Error {
    Error::Disconnected {
        address: Address::new("h", 1),
        source: None,
    }
}

#[test]
fn the_next_fetch_is_sent_while_the_records_of_the_last_are_still_coming() {
    let (log, shared, now) = (Log::new(&[1, 2, 3]), shared(), Instant::now());
    let mut state = shared.state.lock();
    let first = state.plan(now, &HashMap::new()).fetches.remove(0);
    assert!(state.plan(now, &HashMap::new()).fetches.is_empty());
    let (fetched, records) = log.fetch(first.slots[0].offset, 2);
    state.on_begun(first.tickets[0], &fetched);
    let second = state.plan(now, &HashMap::new()).fetches.remove(0);
    assert_eq!(second.slots[0].offset, Offset::new(3));
    assert_eq!(state.queued_bytes(), records.len(), "what is arriving takes room");
    assert!(matches!(state.take(), Taken::Nothing));
    state.on_fetched(first.tickets[0], &fetched, records, now);
    assert!(matches!(state.take(), Taken::Batch { position, .. } if position == Offset::ZERO));
}

fn replica() -> Address {
    Address::new("near", 2)
}

/// What is asked for now, and of whom.
fn asked(state: &mut State, now: Instant) -> (Ticket, Address, Reads) {
    let fetch = state.plan(now, &HashMap::new()).fetches.remove(0);
    (fetch.tickets[0], fetch.address, fetch.slots[0].reads)
}

#[test]
fn a_replica_that_the_leader_has_named_is_read_from_and_whatever_is_wrong_there_only_leads_back_to_the_leader() {
    let (log, shared, mut now) = (Log::new(&[1, 2]), shared_in(Some("b")), Instant::now());
    let leader = Address::new("h", 1);
    let mut state = shared.state.lock();
    let nothing = || log.fetch(log.end(), 1);
    let out_of_range = Error::Broker {
        code: ErrorCode::OffsetOutOfRange,
        message: "".into(),
    };
    for wrong in [lost(), out_of_range] {
        let (ticket, address, reads) = asked(&mut state, now);
        assert_eq!((&address, reads), (&leader, Reads::Near), "it is asked who is nearer");
        let (fetched, records) = nothing();
        state.on_fetched(ticket, &fetched, records, now);
        state.on_preferred(ticket, Some(replica()), now);
        let (ticket, address, reads) = asked(&mut state, now);
        assert_eq!((address, reads), (replica(), Reads::Follower));
        let (mut fetched, records) = nothing();
        fetched.result = Err(wrong);
        state.on_fetched(ticket, &fetched, records, now);
        assert!(matches!(state.take(), Taken::Nothing) && state.retrying_after().is_none());
        let (ticket, address, reads) = asked(&mut state, now);
        assert_eq!(
            (&address, reads),
            (&leader, Reads::Leader),
            "at once, and it names nobody for a while"
        );
        let (fetched, records) = nothing();
        state.on_fetched(ticket, &fetched, records, now);
        now += Duration::from_secs(2);
    }
    let (ticket, ..) = asked(&mut state, now);
    state.on_fetched(ticket, &nothing().0, Bytes::new(), now);
    state.on_preferred(ticket, None, now);
    let (ticket, _, reads) = asked(&mut state, now);
    assert_eq!(reads, Reads::Leader, "a replica that nobody knows");
    state.on_fetched(ticket, &nothing().0, Bytes::new(), now);
    state.on_preferred(ticket, Some(replica()), now);
    state.partitions[0].leader = None;
    let (ticket, address, _) = asked(&mut state, now);
    assert_eq!(address, replica(), "also while nobody leads");
    state.on_fetched(ticket, &nothing().0, Bytes::new(), now);
    state.partitions[0].leader = Some(leader);
    now += Duration::from_secs(30);
    assert_eq!(
        asked(&mut state, now).2,
        Reads::Near,
        "now and then the leader is asked again"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_taken_once_and_in_order_whatever_overtakes_or_fails(
        batches in prop::collection::vec(1_u8..4, 1..30),
        steps in prop::collection::vec((0_u8..6, any::<u16>()), 0..300),
        rack in prop::option::of(Just("b")),
    ) {
        let (log, shared, mut now) = (Log::new(&batches), shared_in(rack), Instant::now());
        let mut state = shared.state.lock();
        let mut sent: Vec<Sent> = Vec::new();
        let mut taken = Offset::ZERO;
        // In the end nothing fails any more, and responses come in order.
        let settled = (0..1000_u16).map(|step| ((step % 4) as u8, 0));
        for (step, which) in steps.into_iter().chain(settled) {
            match step {
                0 => {
                    now += Duration::from_millis(5);
                    // A failure makes the state ask for the leader anew.
                    state.partitions[0].leader = Some(Address::new("h", 1));
                    for fetch in state.plan(now, &HashMap::new()).fetches {
                        let (ticket, slot) = (fetch.tickets[0], &fetch.slots[0]);
                        prop_assert!(slot.offset <= log.end());
                        let (mut fetched, mut records) = log.fetch(slot.offset, 3);
                        // Now and then the leader names a replica, and that is not as far or has ended.
                        if slot.reads != Reads::Leader && which % 4 == 1 {
                            (fetched, records) = log.fetch(log.end(), 0);
                            let out_of_range = ErrorCode::OffsetOutOfRange as i16;
                            if slot.reads == Reads::Near {
                                fetched.preferred = Some((BrokerId::new(2), CoreId::new(0)));
                            } else if which % 8 == 1 {
                                fetched.result = Error::check(out_of_range, None);
                            }
                        }
                        sent.push(Sent { ticket, fetched, records, begun: false });
                    }
                }
                1 => {
                    if let Some(next) = sent.iter_mut().find(|sent| !sent.begun) {
                        next.begun = true;
                        state.on_begun(next.ticket, &next.fetched);
                    }
                }
                2 if !sent.is_empty() => {
                    let sent = sent.remove(0);
                    state.on_fetched(sent.ticket, &sent.fetched, sent.records, now);
                    if sent.fetched.preferred.is_some() {
                        state.on_preferred(sent.ticket, Some(replica()), now);
                    }
                }
                3 => {
                    while let Taken::Batch { batch, position, .. } = state.take() {
                        prop_assert_eq!(position, taken);
                        taken = BatchHeader::read(&batch).unwrap().next_offset();
                    }
                }
                4 if !sent.is_empty() => {
                    let sent = sent.remove(usize::from(which) % sent.len());
                    state.on_fetched(sent.ticket, &sent.fetched, sent.records, now);
                    if sent.fetched.preferred.is_some() {
                        state.on_preferred(sent.ticket, Some(replica()), now);
                    }
                }
                5 if !sent.is_empty() => {
                    let sent = sent.remove(usize::from(which) % sent.len());
                    state.on_failure(sent.ticket, &lost(), now);
                }
                _ => {}
            }
        }
        prop_assert_eq!(taken, log.end());
        prop_assert_eq!(state.queued_bytes(), 0);
    }
}
