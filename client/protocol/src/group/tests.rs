use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicName, consumer_protocol_assignment,
        consumer_protocol_subscription,
    },
    protocol::{Decodable as _, Encodable as _, StrBytes},
};
use proptest::{collection::vec, option, prelude::*};

use super::*;

fn owned() -> impl Strategy<Value = Vec<TopicPartitions>> {
    vec(
        ("[a-z.]{0,9}", vec(any::<i32>(), 0..5)).prop_map(|(topic, partitions)| TopicPartitions { topic, partitions }),
        0..4,
    )
}

fn subscriptions() -> impl Strategy<Value = Subscription> {
    let parts = (
        vec("[a-z.]{0,9}", 0..4),
        option::of(any::<Vec<u8>>()),
        owned(),
        any::<i32>(),
        option::of("[a-z]{0,5}"),
    );
    parts.prop_map(|(topics, user_data, owned_partitions, generation, rack)| Subscription {
        topics,
        user_data,
        owned_partitions,
        generation,
        rack,
    })
}

fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

/// The oracle's bytes, with the version before them that it leaves to its user.
fn by_kafka(subscription: &Subscription, version: i16) -> Vec<u8> {
    let owned = subscription.owned_partitions.iter().map(|owned| {
        consumer_protocol_subscription::TopicPartition::default()
            .with_topic(name(&owned.topic))
            .with_partitions(owned.partitions.clone())
    });
    let mut message = ConsumerProtocolSubscription::default()
        .with_topics(subscription.topics.iter().cloned().map(StrBytes::from_string).collect())
        .with_user_data(subscription.user_data.clone().map(Bytes::from));
    if version >= 1 {
        message = message.with_owned_partitions(owned.collect());
    }
    if version >= 2 {
        message = message.with_generation_id(subscription.generation);
    }
    if version >= 3 {
        message = message.with_rack_id(subscription.rack.clone().map(StrBytes::from_string));
    }
    let mut bytes = BytesMut::from(&version.to_be_bytes()[..]);
    message.encode(&mut bytes, version).unwrap();
    bytes.to_vec()
}

proptest! {
    #[test]
    fn a_subscription_of_every_version_is_read_as_kafka_wrote_it(subscription in subscriptions(), version in 0..=3_i16) {
        let mut expected = subscription.clone();
        if version < 1 { expected.owned_partitions = Vec::new(); }
        if version < 2 { expected.generation = -1; }
        if version < 3 { expected.rack = None; }
        prop_assert_eq!(Subscription::decode(&by_kafka(&subscription, version)), Ok(expected));
    }

    #[test]
    fn a_subscription_is_written_as_kafka_writes_it(subscription in subscriptions()) {
        prop_assert_eq!(subscription.encode(), by_kafka(&subscription, 3));
    }

    #[test]
    fn an_assignment_is_what_kafka_makes_of_it(partitions in owned(), user_data: Option<Vec<u8>>, version in 0..=3_i16) {
        let assigned = partitions.iter().map(|assigned| {
            consumer_protocol_assignment::TopicPartition::default()
                .with_topic(name(&assigned.topic))
                .with_partitions(assigned.partitions.clone())
        });
        let message = ConsumerProtocolAssignment::default()
            .with_assigned_partitions(assigned.collect())
            .with_user_data(user_data.clone().map(Bytes::from));
        let mut bytes = BytesMut::from(&version.to_be_bytes()[..]);
        message.encode(&mut bytes, version).unwrap();
        let assignment = Assignment { partitions, user_data };
        prop_assert_eq!(Assignment::decode(&bytes), Ok(assignment.clone()));
        let mut own = Bytes::from(assignment.encode()).slice(2..);
        prop_assert_eq!(ConsumerProtocolAssignment::decode(&mut own, 1).unwrap(), message);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = Subscription::decode(&bytes);
        let _ = Assignment::decode(&bytes);
    }

    #[test]
    fn a_subscription_that_was_cut_off_is_refused(subscription in subscriptions(), cut in 1..20_usize) {
        let bytes = subscription.encode();
        prop_assert!(Subscription::decode(&bytes[..bytes.len().saturating_sub(cut)]).is_err());
    }
}

#[test]
fn a_later_version_is_read_as_the_last_known_and_a_negative_one_is_refused() {
    let subscription = Subscription {
        topics: vec!["t".to_owned()],
        ..Subscription::default()
    };
    let mut bytes = subscription.encode();
    bytes[1] = 9;
    bytes.extend_from_slice(b"of a later version");
    assert_eq!(Subscription::decode(&bytes), Ok(subscription));
    let error = ClassicError::Version {
        what: "an assignment",
        version: -1,
    };
    assert_eq!(Assignment::decode(&[0xff, 0xff, 0, 0, 0, 0]), Err(error));
}
