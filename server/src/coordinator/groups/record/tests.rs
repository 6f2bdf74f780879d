use headwater_protocol::id::TopicId;
use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
};
use uuid::Uuid;

use super::{
    consumer::{Epoch, Told},
    *,
};
use crate::{
    coordinator::groups::consumers::state::{Classic, Current, State, Subscriber},
    model::{
        consumer::{ServerAssignor, Share},
        group::Protocol,
    },
};

fn text() -> impl Strategy<Value = String> {
    "[a-zä.-]{0,12}"
}

fn members() -> impl Strategy<Value = StoredMember> {
    let ids = (text(), option::of(text()), text(), text());
    let rest = (1..i32::MAX, 1..i32::MAX, any::<Vec<u8>>(), any::<Vec<u8>>());
    (ids, rest).prop_map(
        |((id, instance, client, host), (session, rebalance, subscription, assignment))| StoredMember {
            id: MemberId::new(id),
            instance: instance.map(InstanceId::new),
            client: Client { id: client, host },
            timeouts: Timeouts {
                session: duration(session),
                rebalance: duration(rebalance),
            },
            subscription: subscription.into(),
            assignment: assignment.into(),
        },
    )
}

fn records() -> impl Strategy<Value = Record> {
    let committed =
        (any::<i64>(), any::<i32>(), text(), any::<i64>()).prop_map(|(offset, epoch, metadata, at)| Committed {
            offset,
            leader_epoch: LeaderEpoch::new(epoch),
            metadata,
            at: Since::from(at),
        });
    let offset = (text(), text(), any::<i32>(), option::of(committed)).prop_map(|(group, topic, partition, value)| {
        Record::Offset {
            group: GroupId::new(group),
            topic,
            partition,
            value,
        }
    });
    let parts = (
        text(),
        any::<i32>(),
        option::of(text()),
        option::of(text()),
        any::<i64>(),
        vec(members(), 0..4),
    );
    let stored = parts.prop_map(
        |(protocol_type, generation, protocol, leader, since, members)| StoredGroup {
            protocol_type,
            generation: Generation::new(generation),
            protocol,
            leader: leader.map(MemberId::new),
            since: Since::from(since),
            members,
        },
    );
    let group = (text(), option::of(stored)).prop_map(|(group, value)| Record::Group {
        group: GroupId::new(group),
        value,
    });
    let consumer = (text(), told()).prop_map(|(group, told)| Record::Consumer {
        group: GroupId::new(group),
        told,
    });
    prop_oneof![offset, group, consumer]
}

fn shares() -> impl Strategy<Value = Share> {
    let spot = (0..4_u128, 0..9).prop_map(|(topic, partition)| (TopicId::new(Uuid::from_u128(topic)), partition));
    btree_set(spot, 0..8)
}

fn subscribers() -> impl Strategy<Value = Subscriber> {
    let protocol = (text(), any::<Vec<u8>>()).prop_map(|(name, metadata)| Protocol {
        name,
        metadata: metadata.into(),
    });
    let classic = (1..i32::MAX, vec(protocol, 0..3)).prop_map(|(session, protocols)| Classic {
        session_timeout: duration(session),
        protocols,
    });
    let ids = (option::of(text()), option::of(text()), text(), text());
    let assignor = option::of(prop::sample::select(&ServerAssignor::ALL));
    let wishes = (btree_set(text(), 0..4), option::of("[a-z]{1,9}"), assignor);
    (ids, wishes, 1..i32::MAX, option::of(classic)).prop_map(
        |((instance, rack, id, host), (topics, pattern, assignor), timeout, classic)| Subscriber {
            instance: instance.map(InstanceId::new),
            rack,
            client: Client { id, host },
            rebalance_timeout: duration(timeout),
            assignor,
            topics,
            pattern,
            classic,
        },
    )
}

fn told() -> impl Strategy<Value = Told> {
    let epoch = (any::<i32>(), any::<i64>()).prop_map(|(epoch, hash)| Epoch { epoch, hash });
    let current = (any::<(i32, i32)>(), 1..4_i8, shares(), shares()).prop_map(
        |((epoch, previous_epoch), state, assigned, revoking)| Current {
            epoch,
            previous_epoch,
            state: State::numbered(state),
            assigned,
            revoking,
        },
    );
    let member = || text().prop_map(MemberId::new);
    prop_oneof![
        option::of(epoch).prop_map(Told::Epoch),
        option::of(any::<i32>()).prop_map(Told::TargetEpoch),
        (member(), option::of(subscribers())).prop_map(|(member, told)| Told::Member(member, told)),
        (member(), option::of(shares())).prop_map(|(member, told)| Told::Target(member, told)),
        (member(), option::of(current)).prop_map(|(member, told)| Told::Current(member, told)),
    ]
}

proptest! {
    #[test]
    fn any_record_reads_back(record in records()) {
        prop_assert_eq!(Record::decode(&record.key(), record.value().as_deref()), Ok(Some(record)));
    }

    #[test]
    fn no_mutation_of_a_record_panics_or_reads_as_what_it_is_not(
        record in records(),
        writes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        left in option::of(any::<prop::sample::Index>()),
    ) {
        let mut value = record.value().unwrap_or_default();
        for (at, byte) in writes.into_iter().filter(|_| !value.is_empty()).collect::<Vec<_>>() {
            let at = at.index(value.len());
            value[at] = byte;
        }
        if let Some(left) = left.filter(|_| !value.is_empty()) {
            value.truncate(left.index(value.len()));
        }
        if let Ok(Some(read)) = Record::decode(&record.key(), Some(&value)) {
            // Not byte for byte: versions and lengths that say the same may differ.
            prop_assert!(read.value().unwrap().len() <= value.len() + 64 * (1 + value.len() / MEMBER_LEN_MIN));
            prop_assert_eq!(Record::decode(&read.key(), read.value().as_deref()), Ok(Some(read)));
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_refused(key: Vec<u8>, value: Option<Vec<u8>>, version in 0..9_u8) {
        let _ = Record::decode(&key, value.as_deref());
        let _ = Record::decode(&[&[0, version][..], &key].concat(), value.as_deref());
    }
}

/// Bytes written by hand after `OffsetCommitKey.json` version 1 and `OffsetCommitValue.json` version 3.
#[test]
fn an_offset_has_kafkas_bytes() {
    let record = Record::Offset {
        group: GroupId::new("g"),
        topic: "ab".to_owned(),
        partition: 3,
        value: Some(Committed {
            offset: 0x0102,
            leader_epoch: LeaderEpoch::new(5),
            metadata: "m".to_owned(),
            at: Since::from(7),
        }),
    };
    assert_eq!(record.key(), b"\0\x01\0\x01g\0\x02ab\0\0\0\x03");
    let value = b"\0\x03\0\0\0\0\0\0\x01\x02\0\0\0\x05\0\x01m\0\0\0\0\0\0\0\x07";
    assert_eq!(record.value().unwrap(), value);
}

/// Bytes written by hand after `GroupMetadataKey.json` version 2 and `GroupMetadataValue.json` version 3.
#[test]
fn a_group_has_kafkas_bytes() {
    let member = StoredMember {
        id: MemberId::new("m"),
        instance: None,
        client: Client {
            id: "c".to_owned(),
            host: "/h".to_owned(),
        },
        timeouts: Timeouts {
            session: duration(16),
            rebalance: duration(32),
        },
        subscription: Bytes::from_static(b"s"),
        assignment: Bytes::from_static(b"as"),
    };
    let record = Record::Group {
        group: GroupId::new("g"),
        value: Some(StoredGroup {
            protocol_type: "consumer".to_owned(),
            generation: Generation::new(9),
            protocol: Some("range".to_owned()),
            leader: Some(MemberId::new("m")),
            since: Since::from(1),
            members: vec![member],
        }),
    };
    assert_eq!(record.key(), b"\0\x02\0\x01g");
    let expected = [
        &b"\0\x03\0\x08consumer\0\0\0\x09\0\x05range\0\x01m"[..],
        b"\0\0\0\0\0\0\0\x01\0\0\0\x01",
        b"\0\x01m\xff\xff\0\x01c\0\x02/h\0\0\0\x20\0\0\0\x10\0\0\0\x01s\0\0\0\x02as",
    ];
    assert_eq!(record.value().unwrap(), expected.concat());
}

#[test]
fn older_values_are_read_and_unknown_keys_left_alone() {
    let key = b"\0\0\0\x01g\0\x01t\0\0\0\0";
    let of_version_1 = b"\0\x01\0\0\0\0\0\0\0\x04\0\x00\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09";
    let Ok(Some(Record::Offset { value: Some(value), .. })) = Record::decode(key, Some(of_version_1)) else {
        panic!("version 1 is read");
    };
    assert_eq!(
        (value.offset, value.leader_epoch, value.at.clock().get()),
        (4, LeaderEpoch::NONE, 7)
    );
    assert_eq!(Record::decode(b"\0\x63\0\x01g", Some(b"x")), Ok(None));
    assert!(Record::decode(key, Some(b"\0\x09")).is_err());
}
