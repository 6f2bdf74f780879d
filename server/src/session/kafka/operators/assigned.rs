//! Replicas that somebody has chosen, as nodes.

use headwater_protocol::{error::ErrorCode, id::BrokerId};

use crate::{model::refusal::Refusal, ops::nodes::Places};

/// The brokers of nodes that are to have a partition, or why they cannot have it. Which of a broker's cores has it nobody chooses: any of
/// its nodes stands for it. `factor`: so many there must be.
pub(in crate::session::kafka) fn assigned(
    places: &Places<'_>,
    nodes: &[i32],
    factor: Option<usize>,
) -> Result<Vec<BrokerId>, Refusal> {
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    if nodes.is_empty() {
        return refuse("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut brokers: Vec<BrokerId> = Vec::new();
    for node in nodes {
        let Some(broker) = places.broker_of(*node) else {
            return refuse(format!(
                "The manual partition assignment includes broker {node}, but no such broker is registered."
            ));
        };
        if brokers.contains(&broker) {
            return refuse(format!(
                "The manual partition assignment includes the broker {node} more than once."
            ));
        }
        brokers.push(broker);
    }
    let count = brokers.len();
    match factor {
        Some(factor) if factor != count => refuse(format!(
            "The manual partition assignment includes a partition with {count} replica(s), but this is not consistent with previous partitions, which have {factor} replica(s)."
        )),
        _ => Ok(brokers),
    }
}
