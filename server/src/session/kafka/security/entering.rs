//! `SaslHandshake` and `SaslAuthenticate`: a client chooses a mechanism, and proves by it who it is; also again, on a connection that is in
//! use (KIP-368). They are answered before anything else is taken in.

use headwater_kafka::{
    ApiKey, Message as _, Reader,
    messages::{SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse},
};
use headwater_protocol::error::ErrorCode;

use super::super::reply::Reply;
use crate::{
    config::SaslMechanism,
    model::refusal::Refusal,
    session::{
        entry::sasl::{self, Answer, Exchange},
        protocol::Taken,
    },
};

/// From this version on what follows is in messages of its own. Before, it had no form that could be told from anything else; clients have not
/// asked for that in many years.
const MESSAGES_FROM: i16 = 1;

/// From this version on a client is told for how long it is let in.
const LIFETIME_FROM: i16 = 1;

/// Answers one of the two.
pub(in crate::session::kafka) async fn take(reply: Reply, key: ApiKey, body: &[u8]) -> Taken {
    if key == ApiKey::SaslHandshake {
        return handshake(reply, body).await;
    }
    authenticate(reply, body).await
}

async fn handshake(reply: Reply, body: &[u8]) -> Taken {
    let version = reply.version;
    let request = match SaslHandshakeRequest::read(&mut Reader::new(body), version) {
        Ok(request) => request,
        Err(error) => return Taken::Close(error.to_string()),
    };
    let (ops, entry) = (&reply.sessions.ops, &reply.connection.entry);
    let offered = sasl::offered(ops, entry);
    let chosen = SaslMechanism::named(&request.mechanism).filter(|chosen| offered.contains(chosen));
    let code = match chosen {
        Some(_) if version < MESSAGES_FROM => ErrorCode::UnsupportedVersion,
        Some(chosen) => {
            *entry.exchange.borrow_mut() = Some(Exchange::Chosen(chosen));
            ErrorCode::None
        }
        // Nobody is asked.
        None if offered.is_empty() => ErrorCode::IllegalSaslState,
        None => {
            sasl::refuse(ops, entry, "a mechanism is asked for that is not offered").await;
            ErrorCode::UnsupportedSaslMechanism
        }
    };
    let response = SaslHandshakeResponse {
        error_code: code.as_i16(),
        mechanisms: offered.into_iter().map(|mechanism| mechanism.name().into()).collect(),
    };
    reply.send(code, |frame| response.write(frame, version));
    if matches!(
        code,
        ErrorCode::UnsupportedSaslMechanism | ErrorCode::UnsupportedVersion
    ) {
        return Taken::Forget;
    }
    Taken::Done
}

async fn authenticate(reply: Reply, body: &[u8]) -> Taken {
    let version = reply.version;
    let request = match SaslAuthenticateRequest::read(&mut Reader::new(body), version) {
        Ok(request) => request,
        Err(error) => return Taken::Close(error.to_string()),
    };
    let (ops, entry) = (&reply.sessions.ops, &reply.connection.entry);
    if ops.core.config.security.sasl.is_empty() {
        let message = "SaslAuthenticate request received after successful authentication";
        tell(reply, Err(Refusal::new(ErrorCode::IllegalSaslState, message)));
        return Taken::Done;
    }
    match sasl::step(&reply.sessions, entry, &request.auth_bytes).await {
        Ok(answer) => {
            tell(reply, Ok(answer));
            Taken::Done
        }
        Err(refusal) => {
            tell(reply, Err(refusal));
            Taken::Forget
        }
    }
}

fn tell(reply: Reply, done: Result<Answer, Refusal>) {
    let version = reply.version;
    let (code, response) = match done {
        Ok(Answer::Challenge(bytes)) => (
            ErrorCode::None,
            SaslAuthenticateResponse {
                auth_bytes: bytes.into(),
                ..SaslAuthenticateResponse::default()
            },
        ),
        Ok(Answer::Entered(bytes, lifetime)) => (
            ErrorCode::None,
            SaslAuthenticateResponse {
                auth_bytes: bytes.into(),
                session_lifetime_ms: if version >= LIFETIME_FROM {
                    lifetime.cast_signed()
                } else {
                    0
                },
                ..SaslAuthenticateResponse::default()
            },
        ),
        Err(refusal) => (
            refusal.code,
            SaslAuthenticateResponse {
                error_code: refusal.code.as_i16(),
                error_message: Some(refusal.message.into()),
                ..SaslAuthenticateResponse::default()
            },
        ),
    };
    reply.send(code, |frame| response.write(frame, version));
}
