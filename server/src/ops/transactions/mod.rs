//! Requests about transactions, before their coordinator sees them; and whether records may be taken in as part of one.

use std::rc::Rc;

use futures::future::join_all;
use headwater_protocol::{error::ErrorCode, id::CoreId};

use super::{Ops, groups};
use crate::{
    coordinator::{
        internal,
        transactions::{Transactions, service},
    },
    core::mesh::CoreMessage,
    image::ClusterImage,
    model::{
        bounds::AnswerSize,
        id::PartitionId,
        internal::OFFSETS_TOPIC,
        op::Outcome,
        refusal::Refusal,
        transaction::{Adding, Answer, Described, Marker, Place, Producer, Request, TransactionalId},
    },
};

/// Bytes of a transactional id, as many as a string of the protocol can have within bounds.
const ID_LEN_MAX: usize = 4096;

/// In which transaction a producer sends records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Within {
    pub(crate) id: String,
    pub(crate) producer: Producer,
    /// Newer producers leave it to the broker to make a partition part of their transaction (KIP-890).
    pub(crate) adding: Adding,
}

/// Reads a transactional id.
fn transactional_id(id: String) -> Result<TransactionalId, Refusal> {
    if id.is_empty() || id.len() > ID_LEN_MAX {
        let message = format!("a transactional id has 1 to {ID_LEN_MAX} bytes");
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    Ok(TransactionalId::new(id))
}

/// Which core coordinates the transactions of an id. Makes the internal topic if there is none yet.
pub(super) async fn find(ops: &Ops, id: String) -> Result<Outcome, Refusal> {
    let id = transactional_id(id)?;
    let place = || service::place_of(&ops.partitions.image(), &id);
    if place().is_err() {
        groups::make_topic(ops, internal::new_transactions_topic(&ops.core.config)).await?;
    }
    let place = place().map_err(|refusal| Refusal::new(ErrorCode::CoordinatorNotAvailable, refusal.message))?;
    groups::found(ops, place)
}

/// Asks the coordinator, with a producer id that nobody has if it needs one.
pub(super) async fn ask(ops: &Ops, id: String, mut request: Request) -> Result<Outcome, Refusal> {
    let id = transactional_id(id)?;
    let mut answer = service::call(&ops.transactions, id.clone(), request.clone()).await?;
    if answer == Answer::NeedsId {
        let new = ops.control.new_producer_id().await?;
        if let Request::Init { fresh, .. } | Request::End { fresh, .. } = &mut request {
            *fresh = Some(new);
        }
        answer = service::call(&ops.transactions, id, request).await?;
    }
    Ok(Outcome::Transaction(answer))
}

/// The transactional ids of all cores, or of this one alone.
pub(super) async fn list(ops: &Ops, is_own: bool) -> Result<Outcome, Refusal> {
    let (transactions, core) = (&ops.transactions, &ops.core);
    let asked = core.mesh.ids().filter(|id| !is_own || *id == core.id);
    let lists = join_all(asked.map(|owner| list_on(transactions, owner))).await;
    let (mut found, mut size) = (Vec::new(), AnswerSize::default());
    for list in lists {
        for known in list? {
            size.add(known.id.as_str().len(), "ask for those of one state")?;
            found.push(known);
        }
    }
    found.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(Outcome::Transactions(found))
}

async fn list_on(transactions: &Transactions, owner: CoreId) -> Result<Vec<Described>, Refusal> {
    if owner == transactions.core.id {
        return transactions.list();
    }
    let asked = transactions
        .core
        .mesh
        .ask(owner, |reply| CoreMessage::ListTransactions { reply });
    asked.await.unwrap_or_else(|| Err(Refusal::stopping()))
}

/// Writes a marker into partitions that this broker leads, for an operator who ends a transaction that nobody else does.
pub(super) async fn mark(ops: &Ops, marker: Marker, ids: Vec<PartitionId>) -> Outcome {
    let transactions = &ops.transactions;
    let cores = ops.core.mesh.len();
    let mut outcomes = Vec::with_capacity(ids.len());
    for id in ids {
        let owner = id.owner(cores);
        let done = if owner == ops.core.id {
            transactions.marks.mark_here(marker, &[id]).await
        } else {
            let ids = vec![id];
            let asked = ops
                .core
                .mesh
                .ask(owner, |reply| CoreMessage::Mark { marker, ids, reply });
            asked.await.unwrap_or_default()
        };
        outcomes.push(done.first().copied().unwrap_or(ErrorCode::NotLeaderOrFollower));
    }
    Outcome::Marked(outcomes)
}

/// Makes a partition part of the transaction that its records say they are in, or sees that it is. What is open here already was let in
/// before.
pub(crate) async fn admit(ops: &Ops, partition: PartitionId, within: &Within) -> Result<(), ErrorCode> {
    let image = ops.partitions.image();
    let topic = image
        .topic_by_id(partition.topic)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let place = (topic.name.to_string(), partition.index.get());
    admit_place(&ops.transactions, partition, (place, within)).await
}

async fn admit_place(
    transactions: &Rc<Transactions>,
    partition: PartitionId,
    (place, within): (Place, &Within),
) -> Result<(), ErrorCode> {
    let open = |id| transactions.marks.partitions.get(partition).ok()?.log.open_epoch(id);
    let producer = within.producer;
    if open(producer.id) == Some(producer.epoch) {
        return Ok(());
    }
    let id = transactional_id(within.id.clone()).map_err(|refusal| refusal.code)?;
    let added = service::add_anywhere(transactions, id, (producer, vec![place], within.adding)).await?;
    match added.first() {
        Some(ErrorCode::None) => Ok(()),
        Some(code) => Err(*code),
        None => Err(ErrorCode::UnknownServerError),
    }
}

/// The same of the partition that a group has its offsets in.
pub(crate) async fn admit_group(ops: &Ops, group: &str, within: &Within) -> Result<(), ErrorCode> {
    let (place, partition) = place_of_group(&ops.partitions.image(), group)?;
    admit_place(&ops.transactions, partition, (place, within)).await
}

/// The partition that a group has its offsets in, as the log of transactions names it.
pub(crate) fn place_of_group(image: &ClusterImage, group: &str) -> Result<(Place, PartitionId), ErrorCode> {
    let topic = image.topic(OFFSETS_TOPIC).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let index = internal::partition_of(group, topic.partition_count);
    let partition = PartitionId { topic: topic.id, index };
    Ok(((OFFSETS_TOPIC.to_owned(), index.get()), partition))
}
