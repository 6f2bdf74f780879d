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
};
use crate::{
    machine,
    session::{
        in_flight::RequestLease,
        peer::Connection,
        protocol::{Protocol, Taken},
        sessions::Sessions,
    },
};

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
        let reply = Reply::new(sessions, connection, &header, lease);
        let body = &request[reader.at()..];
        match way {
            Way::Hello => hello::answer(reply, body),
            Way::Produce => produce::take(reply, body).await,
            Way::Fetch => fetch::take(reply, body),
            Way::InTurn(answer) => in_turn(reply, answer, body),
            Way::Waits(answer) => alone(reply, answer, body),
        }
    }
}

fn in_turn(reply: Reply, answer: Answer, body: &[u8]) -> Taken {
    let (body, working) = (body.to_vec(), reply.sessions.core.working());
    machine::spawn(async move {
        let connection = Rc::clone(&reply.connection);
        let turn = connection.turn().await;
        perform(reply, answer, &body).await;
        drop((turn, working));
    });
    Taken::Done
}

/// Until it is answered, or the client sends nothing more, nothing else is taken in.
fn alone(mut reply: Reply, answer: Answer, body: &[u8]) -> Taken {
    let (body, working) = (body.to_vec(), reply.sessions.core.working());
    let connection = Rc::clone(&reply.connection);
    connection.held.set(true);
    machine::spawn(async move {
        let turn = connection.turn().await;
        reply.give_bytes_back();
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
    match answer(&asking, body).await {
        Ok(body) => reply.send(asking.told(), |frame| {
            frame.extend_from_slice(&body);
            Ok(())
        }),
        Err(why) => {
            let client = reply.connection.client();
            tracing::info!(%why, client = ?client.id, host = %client.host, "a connection is closed: its request cannot be answered");
        }
    }
}
