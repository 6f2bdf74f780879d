//! Asking a transaction's coordinator.

use headwater_protocol::error::ErrorCode;

use crate::{
    model::{
        access::{Operation, ResourceKind},
        op::{Op, Outcome},
        refusal::Refusal,
        transaction::{Answer, Request},
    },
    session::kafka::asking::Asking,
};

/// From this version on clients know of producers that are fenced; before they are told of an epoch that is not valid.
pub(super) const FENCED_FROM: i16 = 2;

/// In the terms of clients that know of fencing from a version on.
pub(super) fn fenced(asking: &Asking, code: ErrorCode, from: i16) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced if asking.version < from => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}

/// Asks the coordinator.
pub(super) async fn ask(asking: &Asking, id: &str, request: Request) -> Result<Answer, ErrorCode> {
    match asking.perform(Op::Transaction(id.to_owned(), request)).await {
        Ok(Outcome::Transaction(answer)) => Ok(answer),
        Ok(_) => Err(ErrorCode::UnknownServerError),
        Err(refusal) => Err(refusal.code),
    }
}

/// Why nothing is done, if it may not be.
pub(super) fn denied(asking: &Asking, operation: Operation, kind: ResourceKind, name: &str) -> Option<ErrorCode> {
    let may: Result<(), Refusal> = asking.need(operation, (kind, name));
    may.err().map(|refusal| refusal.code)
}
