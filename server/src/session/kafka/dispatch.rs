//! From a request's bytes to whoever answers it.

use std::{pin::pin, rc::Rc};

use futures::future::{Either, select};
use headwater_kafka::{Reader, header};

use super::{
    apis::{self, Answer, Way},
    asking::Asking,
    fetch,
    head::Head,
    hello, produce,
    reply::Reply,
    security::entering,
};
use crate::{
    core::warn_seldom,
    machine,
    session::{
        in_flight::RequestLease,
        peer::Connection,
        protocol::{Protocol, Taken},
        sessions::Sessions,
    },
};

/// The longest request that waits for other members of a group, in bytes.
const WAITING_LEN_MAX: usize = 1024 * 1024;

/// One that is no longer holds nothing of the budgets while it waits, in bytes.
const WAITING_LEN_UNPAID: usize = 4 * 1024;

/// Kafka's protocol.
pub(crate) struct Kafka;

impl Protocol for Kafka {
    type Head = Head;

    const NAME: &str = "Kafka's protocol";

    async fn take(
        sessions: &Rc<Sessions>,
        connection: &Rc<Connection>,
        (_, bytes): (Head, &[u8]),
        lease: RequestLease,
    ) -> Taken {
        let request = Head::request(bytes);
        let mut reader = Reader::new(request);
        let header = match header::read_request(&mut reader) {
            Ok(header) => header,
            Err(error) => return Taken::Close(error.to_string()),
        };
        let Some(way) = apis::way_of(header.key, header.version) else {
            let name = header.key.api().name;
            return Taken::Close(format!("version {} of {name} is not offered", header.version));
        };
        sessions
            .core
            .metrics
            .received_kafka(header.key.api().name, bytes.len() as u64);
        connection.is_named(header.client_id.unwrap_or_default());
        if connection.outbox.is_closed() && !matches!(way, Way::Produce) {
            return Taken::Done;
        }
        if !matches!(way, Way::Hello | Way::Enter) && !connection.entry.is_in(&sessions.ops) {
            let api = header.key.api().name;
            let host = &connection.entry.asker().host;
            warn_seldom!(
                api,
                host,
                "it is asked for by somebody who has not said who it is; the connection is closed"
            );
            return Taken::Forget;
        }
        let reply = Reply::new(sessions, connection, &header, lease);
        let body = &request[reader.at()..];
        match way {
            Way::Hello => hello::answer(reply, body),
            Way::Enter => Box::pin(entering::take(reply, header.key, body)).await,
            Way::Produce => produce::take(reply, body).await,
            Way::Fetch => fetch::take(reply, body).await,
            Way::InTurn(answer) => in_turn(reply, answer, body),
            Way::Waits(len, answer) => match len(body, header.version) {
                Ok(len) => alone(reply, answer, &body[..len]),
                Err(error) => Taken::Close(error.to_string()),
            },
        }
    }
}

fn in_turn(reply: Reply, answer: Answer, body: &[u8]) -> Taken {
    let (body, working) = (body.to_vec(), reply.sessions.core.working());
    machine::spawn(async move {
        let turn = reply.turn().await;
        if !reply.connection.outbox.is_closed() || !reply.is_question() {
            perform(reply, answer, &body).await;
        }
        drop((turn, working));
    });
    Taken::Done
}

/// Until it is answered, or the client sends nothing more, nothing else is taken in.
fn alone(mut reply: Reply, answer: Answer, body: &[u8]) -> Taken {
    if body.len() > WAITING_LEN_MAX {
        let len = body.len();
        return Taken::Close(format!(
            "{len} bytes of a member of a group; {WAITING_LEN_MAX} are allowed"
        ));
    }
    let (body, working) = (body.to_vec(), reply.sessions.core.working());
    let connection = Rc::clone(&reply.connection);
    connection.held.set(true);
    machine::spawn(async move {
        let turn = reply.turn().await;
        if body.len() <= WAITING_LEN_UNPAID {
            reply.give_bytes_back();
        }
        let answered = pin!(perform(reply, answer, &body));
        let ending = pin!(connection.ending());
        if let Either::Right(_) = select(answered, ending).await {
            tracing::debug!("a client has left while it waited for its group");
        }
        connection.held.set(false);
        drop((turn, working));
    });
    Taken::Done
}

async fn perform(reply: Reply, answer: Answer, body: &[u8]) {
    let asking = Asking::new(&reply.sessions, &reply.connection, reply.version);
    match reply.connection.meter.time(answer(&asking, body)).await {
        Ok(mut body) => {
            reply.throttle(&mut body);
            reply.send(asking.told(), |frame| {
                frame.extend_from_slice(&body);
                Ok(())
            });
        }
        Err(why) => {
            let client = reply.connection.client();
            tracing::info!(%why, client = ?client.id, host = %client.host, "a connection is closed: its request cannot be answered");
        }
    }
}
