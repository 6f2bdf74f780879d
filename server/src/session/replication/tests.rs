//! What is written is read; what is not right is refused, and has no effect.

use futures::FutureExt as _;
use headwater_engine::EpochEnd;
use headwater_protocol::{
    error::ErrorCode,
    frame::{FrameHeader, HEADER_LEN},
    id::{BrokerId, CoreId, LeaderEpoch, Offset, PartitionIndex, TopicId},
};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    admission::{Admission, Here},
    codec::{Asked, PARTITIONS_MAX, Told, read_answers, read_fetches, write_answers, write_fetches},
    error::PeerError,
    frame::{Kind, begin, kind_of},
    hello::{Hello, Welcome, read_welcome, write_welcome},
    links::Links,
};
use crate::{
    image::{Address, Broker, Incarnation, Member},
    model::id::PartitionId,
    partition::replication::{Answer, Fetch, Held, News, Place, Progress},
};

const FRAME_MAX: u32 = 4 << 20;

/// Head and records of a frame.
fn parts(frame: &[u8]) -> (&[u8], &[u8]) {
    let header = FrameHeader::parse(frame, FRAME_MAX).unwrap().unwrap();
    assert_eq!(kind_of(&header, true).unwrap(), Kind::Fetch);
    frame[HEADER_LEN..].split_at(header.head_len())
}

fn offsets() -> impl Strategy<Value = Offset> {
    prop_oneof![
        Just(Offset::ZERO),
        Just(Offset::MAX),
        any::<u32>().prop_map(|offset| Offset::new(offset.into()))
    ]
}

fn ids() -> impl Strategy<Value = PartitionId> {
    (any::<u128>(), 0..=i32::MAX).prop_map(|(topic, index)| PartitionId {
        topic: TopicId::new(Uuid::from_u128(topic)),
        index: PartitionIndex::new(index),
    })
}

fn places() -> impl Strategy<Value = Place> {
    (0..=i32::MAX, offsets(), any::<prop::sample::Index>()).prop_map(|(epoch, offset, last)| Place {
        leader_epoch: LeaderEpoch::new(epoch),
        offset,
        last_epoch: LeaderEpoch::new(last.index(epoch as usize + 2) as i32 - 1),
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let shares = (any::<prop::sample::Index>(), any::<prop::sample::Index>());
    (ids(), places(), shares, any::<u32>()).prop_map(|(id, place, (received, durable), max_bytes)| {
        let received = received.index(place.offset.get() as usize + 1);
        let durable = durable.index(received + 1);
        let held = Held {
            received: Offset::new(received as u64),
            durable: Offset::new(durable as u64),
        };
        Asked {
            id,
            fetch: Fetch { place, held },
            max_bytes,
        }
    })
}

fn answers() -> impl Strategy<Value = (Result<Answer, ErrorCode>, Vec<u8>)> {
    let records = (
        offsets(),
        offsets(),
        offsets(),
        prop::collection::vec(any::<u8>(), 0..50),
    );
    let without = |answer: Result<Answer, ErrorCode>| (answer, Vec::new());
    prop_oneof![
        records.prop_map(|(high_watermark, log_start, holes_below, records)| {
            let progress = Progress {
                high_watermark,
                log_start,
                holes_below,
            };
            (Ok(Answer::Records(progress)), records)
        }),
        (0..=i32::MAX, offsets()).prop_map(move |(epoch, end)| {
            let epoch = LeaderEpoch::new(epoch);
            without(Ok(Answer::Diverging(EpochEnd { epoch, end })))
        }),
        offsets().prop_map(move |at| without(Ok(Answer::BeginAgain { at }))),
        prop::sample::select(ErrorCode::ALL).prop_map(move |code| without(Err(code))),
    ]
}

proptest! {
    #[test]
    fn fetches_are_read_as_they_were_written(asked in prop::collection::vec(asked(), 0..40)) {
        let frame = write_fetches(&asked);
        let (head, records) = parts(&frame);
        prop_assert_eq!(read_fetches(head, records.len()).unwrap(), asked);
    }

    #[test]
    fn answers_are_read_as_they_were_written_each_with_its_records(
        told in prop::collection::vec((ids(), places(), answers()), 0..40),
    ) {
        let sizes = told.iter().map(|(id, place, (answer, records))| Told {
            id: *id,
            place: *place,
            answer: *answer,
            records: records.len(),
        });
        let mut frame = write_answers(&sizes.collect::<Vec<_>>());
        for (_, _, (_, records)) in &told {
            frame.extend_from_slice(records);
        }
        let (head, records) = parts(&frame);
        let read = read_answers(head, records).unwrap();
        prop_assert_eq!(read.len(), told.len());
        for (read, (id, place, (answer, records))) in read.iter().zip(&told) {
            prop_assert_eq!((read.id, read.place, &read.answer, read.records), (*id, *place, answer, &records[..]));
        }
    }

    /// No panic, and what is read all the same keeps to the limits.
    #[test]
    fn bytes_that_were_changed_are_refused_or_keep_to_the_limits(
        asked in prop::collection::vec(asked(), 1..10),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut frame = write_fetches(&asked);
        for (place, byte) in changes {
            let place = place.index(frame.len());
            frame[place] = byte;
        }
        if let Ok(Some(header)) = FrameHeader::parse(&frame, FRAME_MAX)
            && let Some(head) = frame.get(HEADER_LEN..HEADER_LEN + header.head_len())
        {
            for asked in read_fetches(head, header.payload_len()).into_iter().flatten() {
                let Fetch { place, held } = asked.fetch;
                prop_assert!(held.durable <= held.received && held.received <= place.offset);
                prop_assert!(place.last_epoch <= place.leader_epoch);
            }
            let _ = read_answers(head, &frame);
            let _ = Hello::read(head);
            let _ = read_welcome(head);
        }
    }

    #[test]
    fn any_bytes_are_refused_as_heads_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_fetches(&bytes, 0);
        let _ = read_answers(&bytes, &[]);
        let _ = Hello::read(&bytes);
        let _ = read_welcome(&bytes);
    }
}

fn some_fetch() -> Asked {
    let at = |offset| Offset::new(offset);
    Asked {
        id: PartitionId {
            topic: TopicId::new(Uuid::from_u128(7)),
            index: PartitionIndex::new(3),
        },
        fetch: Fetch {
            place: Place {
                leader_epoch: LeaderEpoch::new(5),
                offset: at(90),
                last_epoch: LeaderEpoch::new(5),
            },
            held: Held {
                received: at(80),
                durable: at(70),
            },
        },
        max_bytes: 1,
    }
}

fn refused(change: impl FnOnce(&mut Asked)) -> String {
    let mut asked = some_fetch();
    change(&mut asked);
    let frame = write_fetches(&[asked]);
    let (head, _) = parts(&frame);
    read_fetches(head, 0).unwrap_err().to_string()
}

#[test]
fn numbers_that_contradict_each_other_are_refused() {
    assert!(refused(|asked| asked.fetch.held.durable = Offset::new(81)).contains("more durable than received"));
    assert!(refused(|asked| asked.fetch.held.received = Offset::new(91)).contains("more than it goes on from"));
    assert!(refused(|asked| asked.fetch.place.last_epoch = LeaderEpoch::new(6)).contains("later epoch"));
    assert!(refused(|asked| asked.fetch.place.leader_epoch = LeaderEpoch::NONE).contains("negative"));
    assert!(refused(|asked| asked.fetch.place.last_epoch = LeaderEpoch::new(-2)).contains("negative"));
}

#[test]
fn a_frame_of_more_partitions_than_allowed_is_refused_and_one_of_as_many_is_not() {
    for (count, is_read) in [(PARTITIONS_MAX, true), (PARTITIONS_MAX + 1, false)] {
        let frame = write_fetches(&vec![some_fetch(); count]);
        let (head, _) = parts(&frame);
        assert_eq!(read_fetches(head, 0).is_ok(), is_read);
    }
}

#[test]
fn records_that_are_more_or_fewer_than_the_answers_say_are_refused() {
    let told = Told {
        id: some_fetch().id,
        place: some_fetch().fetch.place,
        answer: Ok(Answer::BeginAgain { at: Offset::ZERO }),
        records: 0,
    };
    let records = Answer::Records(Progress {
        high_watermark: Offset::ZERO,
        log_start: Offset::ZERO,
        holes_below: Offset::ZERO,
    });
    let with = Told {
        answer: Ok(records),
        records: 10,
        ..told
    };
    let frame = write_answers(&[told, with]);
    let head = &frame[HEADER_LEN..];
    assert_eq!(read_answers(head, &[1; 10]).unwrap()[1].records, [1; 10]);
    for wrong in [9, 11] {
        let refused = read_answers(head, &vec![1; wrong]).unwrap_err();
        assert!(matches!(refused, PeerError::Records { said: 10, .. }), "{refused}");
    }
    let frame = write_answers(&[Told { records: 10, ..told }]);
    let refused = read_answers(&frame[HEADER_LEN..], &[1; 10]).unwrap_err();
    assert!(matches!(refused, PeerError::Contradiction(_)), "{refused}");
    let frame = write_fetches(&[some_fetch()]);
    assert!(matches!(
        read_fetches(&frame[HEADER_LEN..], 1),
        Err(PeerError::Records { .. })
    ));
}

#[test]
fn the_first_frame_is_a_hello_and_no_other_is() {
    let header = |kind: u16, version, records| {
        let id = headwater_protocol::id::CorrelationId::new(0);
        FrameHeader::new(kind, version, id, 8, records).unwrap()
    };
    assert_eq!(kind_of(&header(1000, 0, 0), false).unwrap(), Kind::Hello);
    assert_eq!(kind_of(&header(1001, 0, 9), true).unwrap(), Kind::Fetch);
    for (header, greeted) in [
        (header(1000, 0, 0), true),
        (header(1001, 0, 0), false),
        (header(8, 0, 0), false),
        (header(8, 0, 0), true),
    ] {
        assert!(matches!(kind_of(&header, greeted), Err(PeerError::Kind(_))));
    }
    assert!(matches!(
        kind_of(&header(1001, 1, 0), true),
        Err(PeerError::Version { .. })
    ));
    assert!(matches!(
        kind_of(&header(1000, 0, 1), false),
        Err(PeerError::Contradiction(_))
    ));
}

fn hello() -> Hello {
    Hello {
        cluster_id: "cluster".to_owned(),
        from: Member {
            broker: BrokerId::new(2),
            incarnation: Incarnation::new(8),
        },
        core: CoreId::new(1),
        connection: 3,
        to: BrokerId::new(1),
        to_core: CoreId::new(0),
    }
}

/// The broker of the [`hello`], as the cluster knows it. Also one that is fenced may follow, to catch up.
fn known() -> Broker {
    Broker {
        id: BrokerId::new(2),
        process: Uuid::nil(),
        store: Uuid::nil(),
        incarnation: Incarnation::new(8),
        address: Address {
            host: "localhost".to_owned(),
            port: 1,
            core_ports: vec![2, 3],
        },
        rack: None,
        is_fenced: true,
        is_cordoned: false,
        kafka: None,
    }
}

/// Where it connects to.
fn here() -> Here {
    Here {
        cluster_id: "cluster".to_owned(),
        broker: Member {
            broker: BrokerId::new(1),
            incarnation: Incarnation::new(1),
        },
        core: CoreId::new(0),
    }
}

type Change<'a> = &'a dyn Fn(&mut Hello);

#[test]
fn whoever_connects_is_admitted_as_the_process_that_is_registered_and_once() {
    use ErrorCode::{
        BrokerIdNotRegistered, InconsistentClusterId, InvalidRequest, ReplicaNotAvailable, StaleBrokerEpoch,
    };

    let (known, here) = (known(), here());
    let frame = begin(Kind::Hello, &hello().head(), 0);
    let header = FrameHeader::parse(&frame, FRAME_MAX).unwrap().unwrap();
    assert_eq!(
        (kind_of(&header, false).unwrap(), header.frame_len()),
        (Kind::Hello, frame.len())
    );
    assert_eq!(Hello::read(&frame[HEADER_LEN..]).unwrap(), hello());
    let mut admission = Admission::default();
    let mut try_as = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello();
        change(&mut hello);
        admission.admit(&hello, &here, Some(&known)).map_err(|why| why.code())
    };
    let wrong: [(Change, ErrorCode); 8] = [
        (&|hello| hello.cluster_id.clear(), InconsistentClusterId),
        (&|hello| hello.to = BrokerId::new(3), ReplicaNotAvailable),
        (&|hello| hello.to_core = CoreId::new(1), ReplicaNotAvailable),
        (&|hello| hello.from.broker = BrokerId::new(3), BrokerIdNotRegistered),
        (&|hello| hello.from.broker = BrokerId::new(1), BrokerIdNotRegistered),
        (&|hello| hello.from.incarnation = Incarnation::new(7), StaleBrokerEpoch),
        (&|hello| hello.from.incarnation = Incarnation::new(9), StaleBrokerEpoch),
        (&|hello| hello.core = CoreId::new(2), InvalidRequest),
    ];
    for (change, expected) in wrong {
        assert_eq!(try_as(change), Err(expected));
    }
    let peer = try_as(&|_| {}).unwrap();
    assert_eq!((peer.member, peer.connection), (hello().from, 3));
    assert_eq!(try_as(&|_| {}), Err(StaleBrokerEpoch), "the same again");
    assert_eq!(try_as(&|hello| hello.connection = 2), Err(StaleBrokerEpoch));
    assert!(try_as(&|hello| hello.core = CoreId::new(0)).is_ok());
    assert!(try_as(&|hello| hello.connection = 4).is_ok());
    assert!(matches!(
        admission.admit(&hello(), &here, None),
        Err(PeerError::Stranger(_))
    ));
}

#[test]
fn of_two_streams_of_one_core_the_older_one_ends_whichever_is_gone_first() {
    let (known, here) = (known(), here());
    let links = Links::default();
    let admit = |connection| {
        let hello = Hello { connection, ..hello() };
        links.admit(&hello, &here, Some(&known)).unwrap().1
    };
    let (first, second) = (admit(3), admit(4));
    let is_over = |news: &News| news.over().now_or_never().is_some();
    assert!(is_over(&first) && !is_over(&second));
    links.ended((BrokerId::new(2), CoreId::new(1)), &first);
    let _third = admit(5);
    assert!(is_over(&second), "that the first has ended says nothing of the second");
}

#[test]
fn an_answer_to_a_hello_says_who_was_reached_or_why_it_refuses() {
    let incarnation = Incarnation::new(5);
    let welcome = write_welcome(Ok(&Welcome { incarnation }));
    assert_eq!(read_welcome(&welcome).unwrap(), Ok(Welcome { incarnation }));
    let refused = write_welcome(Err(&PeerError::Stranger(BrokerId::new(9))));
    let (code, why) = read_welcome(&refused).unwrap().unwrap_err();
    assert_eq!(code, ErrorCode::BrokerIdNotRegistered);
    assert!(why.contains("broker 9 is not known"), "{why}");
}
