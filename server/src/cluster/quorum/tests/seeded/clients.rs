//! Who has orders, and notes what was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use headwater_protocol::id::TopicId;
use openraft::type_config::TypeConfigExt as _;

use super::{
    SimTypes,
    net::{SimMember, World},
};
use crate::cluster::{
    quorum::{
        order::{Order, Outcome, Proposal},
        types::LogId,
    },
    state::Command,
};

/// Orders that are given in one schedule.
const ORDERS: u64 = 60;

/// So long an attempt to give an order may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// What somebody was told is done.
#[derive(Default)]
pub(super) struct Acknowledged {
    pub(super) topics: Vec<TopicId>,
}

impl Acknowledged {
    /// Gives an order until it is carried out or time is up, to one member after the other.
    pub(super) async fn order(world: &World, order: Order, within: Duration) -> Option<(Outcome, LogId)> {
        let proposal = Proposal::new(order);
        let attempts = async {
            loop {
                let members: Vec<SimMember> = world.members().into_values().collect();
                let place = world.chance().below(members.len().max(1) as u64) as usize;
                if let Some(SimMember { raft, .. }) = members.get(place) {
                    let written = SimTypes::timeout(ATTEMPT, raft.client_write(proposal.clone())).await;
                    if let Ok(Ok(written)) = written {
                        return (written.data, written.log_id);
                    }
                }
                drop(members);
                SimTypes::sleep(Duration::from_millis(50)).await;
            }
        };
        SimTypes::timeout(within, attempts).await.ok()
    }
}

/// Gives orders, one after the other, and notes what was carried out. Whatever comes after an acknowledgement is later in the log too.
pub(super) async fn give_orders(world: World) -> Acknowledged {
    let mut acknowledged = Acknowledged::default();
    let (mut blocks, mut last) = (BTreeSet::new(), None);
    for number in 0..ORDERS {
        let topic = TopicId::new(uuid::Uuid::from_u128(1 + u128::from(number)));
        let order = if world.chance().below(2) == 0 {
            Order::ReserveProducerIds
        } else {
            Order::Topic(Command::Create {
                name: format!("topic-{number}").parse().unwrap(),
                id: topic,
                partition_count: 1,
                overrides: BTreeMap::new(),
            })
        };
        let Some((outcome, log_id)) = Acknowledged::order(&world, order, Duration::from_secs(5)).await else {
            world.say(format!("nobody knows what became of order {number}"));
            continue;
        };
        world.say(format!("order {number} is done by {log_id}"));
        assert!(
            last < Some(log_id),
            "order {number} is done by {log_id}, after {last:?}"
        );
        last = Some(log_id);
        match outcome {
            Outcome::Done => acknowledged.topics.push(topic),
            Outcome::ProducerIds { first } => {
                let is_later = blocks.last().is_none_or(|before| *before < first);
                assert!(is_later, "a block is {first}, and {blocks:?} were given before");
                blocks.insert(first);
            }
            // Proposed again under the same id it is known again, so that nothing is in its way.
            Outcome::Nothing | Outcome::Refused { .. } | Outcome::Partly(_) => panic!("order {number}: {outcome:?}"),
        }
    }
    acknowledged
}
