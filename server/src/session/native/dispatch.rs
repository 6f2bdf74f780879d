//! From a frame to whoever does what it asks: checks api and version, has the head read, and starts it.

use std::{pin::pin, rc::Rc, time::Duration};

use futures::{
    FutureExt as _,
    future::{Either, select},
};
use headwater_protocol::{
    error::ErrorCode,
    frame::{Api, FrameError, FrameHeader},
};

use super::{
    codec::{self, Row, Way, When},
    entering, hello,
    reply::Reply,
};
use crate::{
    machine,
    model::{
        access::Operation,
        op::{Op, Outcome},
        records::{FetchCall, FetchedItem},
        refusal::Refusal,
    },
    ops::{self, fetch::Records},
    session::{
        frame::Frame,
        in_flight::RequestLease,
        peer::Connection,
        protocol::{Protocol, Taken},
        replication,
        sessions::Sessions,
    },
};

/// Headwater's own protocol.
pub(crate) struct Native;

impl Protocol for Native {
    type Head = FrameHeader;

    const NAME: &str = "Headwater's own protocol";

    fn is_peer(header: &FrameHeader) -> bool {
        let kinds = [
            replication::Kind::Hello,
            replication::Kind::Proof,
            replication::Kind::Errand,
        ];
        kinds.into_iter().any(|kind| header.api == kind as u16)
    }

    async fn take(
        sessions: &Rc<Sessions>,
        connection: &Rc<Connection>,
        (header, bytes): (FrameHeader, &[u8]),
        lease: RequestLease,
    ) -> Taken {
        take(sessions, connection, &Frame::of(header, bytes), lease).await
    }

    fn refuse(sessions: &Rc<Sessions>, connection: &Rc<Connection>, error: &FrameError, lease: RequestLease) {
        let refusal = Refusal::because(ErrorCode::InvalidRequest, error);
        let reply = Reply::new(sessions, connection, error.correlation_id(), lease);
        codec::refuse_unread(reply, refusal);
    }
}

/// Takes a request in. Only the append of a produce request happens before this returns.
async fn take(sessions: &Rc<Sessions>, connection: &Rc<Connection>, frame: &Frame<'_>, lease: RequestLease) -> Taken {
    let reply = Reply::new(sessions, connection, frame.header.correlation_id, lease);
    let (api, way) = match way_of(&frame.header) {
        Ok(known) => known,
        Err(refusal) => return refused(reply, refusal),
    };
    sessions.core.metrics.received(api, frame.header.frame_len() as u64);
    if !matches!(way, Way::Hello | Way::Enter) && !connection.entry.is_in(&sessions.ops) {
        return not_in(reply, api);
    }
    if matches!(way, Way::Produce) {
        return produce(reply, frame).await;
    }
    if connection.outbox.is_closed() {
        return Taken::Done;
    }
    if !frame.payload.is_empty() {
        let message = format!(
            "{api:?} has no payload, but {} bytes follow its head",
            frame.payload.len()
        );
        return refused(reply, Refusal::new(ErrorCode::InvalidRequest, message));
    }
    match way {
        Way::Hello => match hello::meet(connection, frame.head) {
            Ok(()) => hello::answer(reply),
            Err(refusal) => return refused(reply, refusal),
        },
        Way::Enter => return Box::pin(entering::take(reply, frame.head)).await,
        Way::Fetch => return fetch(reply, frame.head),
        Way::Op(row) => return op(reply, row, frame.head),
        Way::Produce => unreachable!("dealt with above"),
    }
    Taken::Done
}

/// Answers somebody who has not said who it is. One who has been in may come again: on another connection.
fn not_in(reply: Reply, api: Api) -> Taken {
    if !reply.connection.entry.is_outside() {
        tracing::debug!(?api, "it is asked for by somebody who must say again who it is");
        return Taken::Forget;
    }
    let message = "the broker asks who its clients are (security.sasl): give the client a user and a password";
    refused(reply, Refusal::new(ErrorCode::SaslAuthenticationFailed, message))
}

fn way_of(header: &FrameHeader) -> Result<(Api, Way), Refusal> {
    let known = Api::from_u16(header.api).and_then(|api| Some((api, codec::api(api)?)));
    let (api, way) = known.ok_or_else(|| {
        let message = format!("api {} is not known", header.api);
        Refusal::new(ErrorCode::UnsupportedVersion, message)
    })?;
    let (oldest, newest) = api.versions();
    let version = header.version;
    if version < oldest || version > newest {
        let message = format!("version {version} of {api:?} is not supported; supported are {oldest} to {newest}");
        return Err(Refusal::new(ErrorCode::UnsupportedVersion, message));
    }
    Ok((api, way))
}

/// Answers a request that was not understood.
fn refused(reply: Reply, refusal: Refusal) -> Taken {
    codec::refuse_unread(reply, refusal);
    Taken::Done
}

async fn produce(reply: Reply, frame: &Frame<'_>) -> Taken {
    let asked = match codec::read_produce(frame.head, frame.payload) {
        Ok(asked) => asked,
        Err(refusal) => return refused(reply, refusal),
    };
    if asked.is_answered && reply.connection.outbox.is_closed() {
        return Taken::Done;
    }
    let (ops, who) = (&reply.sessions.ops, reply.connection.entry.asker());
    let may = asked.produce.and_then(|produce| {
        let may = ops.judge(&who).may_partition(Operation::Write, produce.id);
        may.map(|()| produce)
            .map_err(|code| Refusal::new(code, code.description()))
    });
    let pending = match may {
        Ok(produce) => ops::produce::take(&reply.sessions.ops.partitions, produce).await,
        Err(refusal) => Err(refusal),
    };
    match pending {
        Ok(pending) if asked.is_answered => {
            let core = Rc::clone(&reply.sessions.core);
            pending.tell(&core, move |produced| codec::produced(reply, produced));
        }
        Ok(pending) => pending.tell_if_refused(move |refusal| {
            tracing::info!(
                refusal.message,
                "a connection is closed: its request cannot be answered"
            );
            reply.connection.outbox.hang_up();
        }),
        Err(refusal) if asked.is_answered => codec::produced(reply, Err(refusal)),
        Err(refusal) => return Taken::Close(refusal.message),
    }
    Taken::Done
}

/// A fetch may wait for long, and its response is not much larger than itself: it waits for no turn.
fn fetch(reply: Reply, head: &[u8]) -> Taken {
    let mut call = match codec::read_fetch(head) {
        Ok(call) => call,
        Err(refusal) => return refused(reply, refusal),
    };
    call.at_most(reply.connection.meter.fetch_max());
    let isolation = call.items.first().map(|item| item.isolation).unwrap_or_default();
    let working = reply.sessions.core.working();
    machine::spawn(async move {
        let found = {
            let found = pin!(permitted_fetch(&reply, call));
            reply.connection.meter.time(found).await
        };
        let size = found.iter().map(|item| item.size).sum();
        reply.connection.meter.fetches(size);
        codec::fetched(reply, isolation, found);
        drop(working);
    });
    Taken::Done
}

/// Of partitions that may not be read that is told; also if it is so only when their records have come.
async fn permitted_fetch(reply: &Reply, mut call: FetchCall) -> Vec<FetchedItem<Records>> {
    let (ops, asker) = (&reply.sessions.ops, reply.connection.entry.asker());
    let may_read = |id| ops.judge(&asker).may_partition(Operation::Read, id);
    if !ops.access.is_on() {
        return ops::fetch::fetch(&ops.partitions, &*reply.connection, call).await;
    }
    let mut refused = Vec::new();
    call.items.retain(|item| match may_read(item.id) {
        Ok(()) => true,
        Err(error) => {
            refused.push(ops::fetch::nothing_of(item.place, item.id, error));
            false
        }
    });
    if !refused.is_empty() {
        call.wait = Duration::ZERO;
    }
    let mut found = ops::fetch::fetch(&ops.partitions, &*reply.connection, call).await;
    for item in &mut found {
        if let Err(error) = may_read(item.id) {
            *item = ops::fetch::nothing_of(item.place, item.id, error);
        }
    }
    found.extend(refused);
    found.sort_by_key(|item| item.place);
    found
}

fn op(reply: Reply, row: Row, head: &[u8]) -> Taken {
    let op = match (row.read)(head) {
        Ok(op) => op,
        Err(refusal) => return refused(reply, refusal),
    };
    if row.when == When::AtOnce {
        let done = perform(&reply, op).now_or_never();
        answer(reply, row, done.expect("what is done at once asks nobody else"));
        return Taken::Done;
    }
    let working = reply.sessions.core.working();
    machine::spawn(async move {
        match row.when {
            When::Beside => beside(reply, row, op).await,
            When::AtOnce | When::InTurn => in_turn(reply, row, op).await,
        }
        drop(working);
    });
    Taken::Done
}

async fn perform(reply: &Reply, op: Op) -> Result<Outcome, Refusal> {
    let (client, asker) = (reply.connection.client(), reply.connection.entry.asker());
    let ops = &reply.sessions.ops;
    reply.connection.meter.mutates(|| ops::mutations(ops, &op));
    ops::perform(ops, &client, &asker, op).await
}

fn answer(reply: Reply, row: Row, done: Result<Outcome, Refusal>) {
    match done {
        Ok(outcome) => codec::tell(reply, outcome),
        Err(refusal) => (row.refuse)(reply, refusal),
    }
}

async fn in_turn(reply: Reply, row: Row, op: Op) {
    let connection = Rc::clone(&reply.connection);
    let turn = connection.turn().await;
    if !connection.outbox.is_closed() || row.changes {
        let done = {
            let done = pin!(perform(&reply, op));
            connection.meter.time(done).await
        };
        answer(reply, row, done);
    }
    drop(turn);
}

/// Until it is done, or the client sends nothing more.
async fn beside(mut reply: Reply, row: Row, op: Op) {
    reply.give_bytes_back();
    let done = {
        let performed = pin!(perform(&reply, op));
        let performed = pin!(reply.connection.meter.time(performed));
        match select(performed, pin!(reply.connection.ending())).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => return,
        }
    };
    answer(reply, row, done);
}
