//! Whether a broker is there, as the active coordinator sees it: it asks over the port of its peers. Who is not reached is not let in:
//! it would be fenced again after each session, and its partitions would change their leaders with it.

use std::time::{Duration, Instant};

use headwater_protocol::error::ErrorCode;

use super::{Line, Request};
use crate::{
    cluster::{
        quorum::{id::NodeId, order::Order},
        replicas::ReplicaCommand,
    },
    core::lease::Lease,
    machine,
    model::refusal::Refusal,
};

/// An answer has come within this time, or none is waited for: it takes no disk.
pub(crate) const ANSWER_MAX: Duration = Duration::from_millis(500);

/// Why a broker was not heard.
pub(crate) enum Unheard {
    /// Its host says that nobody listens there.
    Ended,
    /// Anything else may pass.
    Silent(String),
}

/// When somebody was last answered on a connection that he was there.
#[derive(Default)]
pub(crate) struct Answered(Option<Instant>);

impl Answered {
    /// He asks again, and is answered: so he has got the answer of before, whose time is certain here, while this one may be lost.
    pub(crate) fn again(&mut self, lease: &Lease) {
        if let Some(answered) = self.0.replace(machine::now()) {
            lease.heard(answered);
        }
    }
}

impl Line {
    /// Asks whether it is there.
    pub(crate) async fn reach(&mut self) -> Result<(), Unheard> {
        match self.call(&Request::Progress, ANSWER_MAX).await {
            Ok(_) => Ok(()),
            Err(error) if error.says_it_ended() => Err(Unheard::Ended),
            Err(error) => Err(Unheard::Silent(error.to_string())),
        }
    }
}

/// The broker that an order lets in.
pub(crate) fn lets_in(order: &Order) -> Option<NodeId> {
    match order {
        Order::Replicas(ReplicaCommand::Unfence { id, .. }) => Some(NodeId::from(*id)),
        _ => None,
    }
}

/// What a broker hears that asks to be let in and is not reached.
pub(crate) fn kept_out(active: NodeId, broker: NodeId, why: Unheard) -> Refusal {
    let why = match why {
        Unheard::Ended => "nobody listens there".to_owned(),
        Unheard::Silent(why) => why,
    };
    let message = format!(
        "the active coordinator, broker {active}, does not reach broker {broker}, which stays fenced until it does; look at \
         cluster.members and at the network from the one to the other: {why}"
    );
    Refusal::new(ErrorCode::BrokerNotAvailable, message)
}
