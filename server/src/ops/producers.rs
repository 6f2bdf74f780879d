//! Identities of idempotent producers.

use headwater_protocol::id::{ProducerEpoch, ProducerId};

use crate::{
    cluster::ControlHandle,
    model::{op::Outcome, refusal::Refusal},
};

/// A producer id that nobody has had, or the next epoch of one.
pub(super) async fn init(control: &ControlHandle, id: ProducerId, epoch: ProducerEpoch) -> Result<Outcome, Refusal> {
    if id.is_some()
        && let Some(next) = next_epoch(epoch)
    {
        return Ok(Outcome::Producer(id, next));
    }
    let id = control.new_producer_id().await?;
    Ok(Outcome::Producer(id, ProducerEpoch::new(0)))
}

/// `None` when the epochs are used up: the producer then gets a new id.
fn next_epoch(epoch: ProducerEpoch) -> Option<ProducerEpoch> {
    let next = epoch.get().checked_add(1);
    next.filter(|next| *next > 0 && *next < i16::MAX)
        .map(ProducerEpoch::new)
}
