//! What a command may say, whatever the state is.

use std::collections::HashSet;

use headwater_protocol::id::BrokerId;

use super::{command::Registration, error::ReplicaError};
use crate::{
    config::KAFKA_NODES_OF_A_BROKER,
    image::{Broker, KafkaAddress, Terms},
};

/// Cores of one broker, as many as a [`CoreId`](headwater_protocol::id::CoreId) may sensibly number.
const CORES_MAX: usize = 4096;
/// Bytes in the name of a host or a rack.
const NAME_LEN_MAX: usize = 255;

pub(super) fn are_distinct(brokers: &[BrokerId]) -> bool {
    let mut seen = HashSet::new();
    brokers.iter().all(|broker| seen.insert(*broker))
}

pub(super) fn check_terms(terms: Terms) -> Result<(), ReplicaError> {
    if terms.min_isr == 0 {
        Err(ReplicaError::MinIsr)
    } else {
        Ok(())
    }
}

fn is_host(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
}

/// A broker that speaks Kafka's protocol is one node, or each of its cores is.
pub(super) fn check_kafka(broker: &Broker, at: &KafkaAddress) -> Result<(), ReplicaError> {
    let refuse = |what| {
        Err(ReplicaError::Registration {
            broker: broker.id,
            what,
        })
    };
    if !is_host(&at.host) {
        return refuse("the name of its host is empty, or longer than 255 bytes");
    }
    let cores = at.core_ports.len();
    if cores != 0 && (cores != broker.address.core_ports.len() || cores > KAFKA_NODES_OF_A_BROKER as usize) {
        return refuse("its cores are not those that speak Kafka's protocol");
    }
    Ok(())
}

pub(super) fn check_registration(new: &Registration) -> Result<(), ReplicaError> {
    let refuse = |what| Err(ReplicaError::Registration { broker: new.id, what });
    let cores = new.address.core_ports.len();
    if new.id.get() < 0 {
        return refuse("its id is negative");
    }
    if cores == 0 || cores > CORES_MAX {
        return refuse("it has no core, or more than 4096");
    }
    if !is_host(&new.address.host) {
        return refuse("the name of its host is empty, or longer than 255 bytes");
    }
    if new
        .rack
        .as_ref()
        .is_some_and(|rack| rack.is_empty() || rack.len() > NAME_LEN_MAX)
    {
        return refuse("its rack is empty, or longer than 255 bytes");
    }
    Ok(())
}
