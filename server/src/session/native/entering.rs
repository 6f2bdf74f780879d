//! A client proves who it is. It is answered before anything else is taken in.

use headwater_protocol::{
    head::ResponseHead as _,
    schema::{AuthenticateRequest, AuthenticateResponseT},
};

use super::{codec, reply::Reply};
use crate::{
    config::SaslMechanism,
    session::{
        entry::sasl::{self, Answer, Exchange},
        protocol::Taken,
    },
};

/// Takes the next message of the exchange.
pub(super) async fn take(reply: Reply, head: &[u8]) -> Taken {
    let request = match codec::read::<AuthenticateRequest>(head) {
        Ok(request) => request,
        Err(refusal) => {
            codec::refuse_unread(reply, refusal);
            return Taken::Done;
        }
    };
    let (ops, entry) = (&reply.sessions.ops, &reply.connection.entry);
    if ops.core.config.security.sasl.is_empty() {
        // Nobody is asked who it is: whatever it says, it is in.
        reply.head(&AuthenticateResponseT {
            is_done: true,
            ..AuthenticateResponseT::default()
        });
        return Taken::Done;
    }
    if let Some(name) = request.mechanism() {
        let offered = sasl::offered(ops, entry);
        let chosen = SaslMechanism::named(name).filter(|chosen| offered.contains(chosen));
        *entry.exchange.borrow_mut() = chosen.map(Exchange::Chosen);
    }
    let message = request.message().map_or(&[][..], |message| message.bytes());
    match sasl::step(&reply.sessions, entry, message).await {
        Ok(Answer::Challenge(challenge)) => reply.head(&AuthenticateResponseT {
            challenge: Some(challenge),
            ..AuthenticateResponseT::default()
        }),
        Ok(Answer::Entered(challenge, lifetime_ms)) => reply.head(&AuthenticateResponseT {
            challenge: Some(challenge),
            is_done: true,
            lifetime_ms,
            ..AuthenticateResponseT::default()
        }),
        Err(refusal) => {
            reply.head(&AuthenticateResponseT::failed(refusal.code, refusal.message));
            return Taken::Forget;
        }
    }
    Taken::Done
}
