//! Produce: records are taken in while they lie in the read buffer, partition by partition, and answered once all of them are as safe
//! as was asked for.

mod judge;
mod told;

use std::rc::Rc;

use headwater_kafka::{
    Reader,
    produce::{Part, Request},
};
use headwater_protocol::error::ErrorCode;

use self::{
    judge::{ABORTABLE_FROM, ADDS_FROM, Judged, judge},
    told::Waiting,
};
use super::reply::Reply;
use crate::{
    machine,
    model::{bounds::ITEMS_MAX, records::Produce, refusal::Refusal},
    ops,
    session::protocol::Taken,
};

/// After so many partitions others have a turn.
const PARTS_AT_ONCE: usize = 64;

/// So few partitions may be named with any records; where there are more, each must have as many bytes as the head of a batch has, so
/// that what is held for them is in proportion to what the request pays for.
const FEW_PARTS: usize = 256;
const BATCH_LEN_MIN: usize = 61;

/// Takes the records in. When this returns they are in the logs of this core, or on their way to other cores.
pub(super) async fn take(reply: Reply, body: &[u8]) -> Taken {
    let mut reader = Reader::with_elements_max(body, ITEMS_MAX);
    let request = match Request::read(&mut reader, reply.version) {
        Ok(request) => request,
        Err(error) => return Taken::Close(error.to_string()),
    };
    let parts = request.partitions.len();
    if parts > FEW_PARTS.max(body.len() / BATCH_LEN_MIN) {
        return Taken::Close(format!(
            "{parts} partitions are named, and most of them have no records"
        ));
    }
    if request.acks == 0 {
        return take_unanswered(reply, &request, body).await;
    }
    if reply.connection.outbox.is_closed() {
        reply.send_nothing();
        return Taken::Done;
    }
    let (ops, core) = (Rc::clone(&reply.sessions.ops), Rc::clone(&reply.sessions.core));
    let (version, asker) = (reply.version, reply.connection.entry.asker());
    let waiting = Rc::new(Waiting::new(reply, &request.partitions));
    for (place, part) in request.partitions.iter().enumerate() {
        give_way(place).await;
        let judged = judge((&ops, &asker), &request, part, (version, records(body, part)));
        waiting.told.borrow_mut()[place].id = judged.as_ref().ok().map(|judged| judged.id);
        let taken = match &judged {
            Ok(judged) => match admit(&ops, judged, version).await {
                Ok(()) => ops::produce::take(&ops.partitions, produce(judged)).await,
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal.clone()),
        };
        let waiting = Rc::clone(&waiting);
        match taken {
            Ok(pending) => pending.tell(&core, move |produced| waiting.tell(place, produced)),
            Err(refusal) => waiting.tell(place, Err(refusal)),
        }
    }
    waiting.done();
    Taken::Done
}

/// Of a client that wants no answer: the end of the connection is all that it can be told.
async fn take_unanswered(reply: Reply, request: &Request<'_>, body: &[u8]) -> Taken {
    let (ops, connection) = (Rc::clone(&reply.sessions.ops), Rc::clone(&reply.connection));
    let (version, asker) = (reply.version, connection.entry.asker());
    let unanswered = Rc::new(Unanswered(Some(reply)));
    let mut first_refused = None;
    for (place, part) in request.partitions.iter().enumerate() {
        give_way(place).await;
        let judged = judge((&ops, &asker), request, part, (version, records(body, part)));
        let taken = match &judged {
            Ok(judged) => match admit(&ops, judged, version).await {
                Ok(()) => ops::produce::take(&ops.partitions, produce(judged)).await,
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal.clone()),
        };
        let (connection, unanswered) = (Rc::clone(&connection), Rc::clone(&unanswered));
        match taken {
            Ok(pending) => pending.tell_if_refused(move |refusal| {
                tracing::info!(
                    refusal.message,
                    "a connection is closed: its request cannot be answered"
                );
                connection.outbox.hang_up();
                drop(unanswered);
            }),
            // The others are taken in first.
            Err(refusal) => first_refused = first_refused.or(Some(refusal.message)),
        }
    }
    match first_refused {
        None => Taken::Done,
        Some(message) => {
            connection.outbox.hang_up();
            Taken::Close(message)
        }
    }
}

/// A request with very many partitions does not keep the core to itself.
async fn give_way(place: usize) {
    if place > 0 && place.is_multiple_of(PARTS_AT_ONCE) {
        machine::yield_now().await;
    }
}

fn records<'a>(body: &'a [u8], part: &Part<'_>) -> &'a [u8] {
    &body[part.records.clone()]
}

/// Sees to it that records which say that they are in a transaction are in one that is open, and that it will end here too.
async fn admit(ops: &ops::Ops, judged: &Judged<'_>, version: i16) -> Result<(), Refusal> {
    let Some(within) = &judged.within else { return Ok(()) };
    // A future of its own, as few connections need it.
    let admitted = Box::pin(ops::transactions::admit(ops, judged.id, within)).await;
    admitted.map_err(|code| {
        let code = transactional_code(code, version);
        Refusal::new(code, code.description())
    })
}

/// In the terms that producers of the version know.
fn transactional_code(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if version < ABORTABLE_FROM => ErrorCode::InvalidTxnState,
        ErrorCode::ConcurrentTransactions if version >= ADDS_FROM => ErrorCode::ConcurrentTransactions,
        // To be sent again.
        ErrorCode::ConcurrentTransactions
        | ErrorCode::NetworkException
        | ErrorCode::NotCoordinator
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable => ErrorCode::NotEnoughReplicas,
        code => code,
    }
}

fn produce<'a>(judged: &'a Judged<'_>) -> Produce<'a> {
    Produce {
        id: judged.id,
        acks: judged.acks,
        records: &judged.records,
        begins_anywhere: true,
        is_within: judged.within.is_some(),
    }
}

/// Of a request without an answer: holds what it was lent until its records are where they belong, on this core or another.
struct Unanswered(Option<Reply>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply.send_nothing();
        }
    }
}
