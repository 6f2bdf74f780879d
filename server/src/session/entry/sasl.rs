//! How a client proves who it is, for both protocols: the messages of one exchange, whatever carries them.
//!
//! A failure has one text whatever its cause, comes late, and takes as much work for a user that is not there as for one that is.

use headwater_protocol::{
    error::ErrorCode,
    scram::{self, ClientFirst, Keys, Mechanism, Salting, ServerExchange},
};

use super::{Entry, bearer};
use crate::{
    config::SaslMechanism, core::warn_seldom, machine, model::refusal::Refusal, ops::Ops, session::sessions::Sessions,
    tokens::Verified,
};

/// What every failure is told as.
const FAILED: &str = "Authentication failed: the user, the password or the mechanism is not right.";

/// No message of a client is longer, in bytes.
const MESSAGE_LEN_MAX: usize = scram::MESSAGE_LEN_MAX;

/// A password that is longer is not tried, in bytes.
const PASSWORD_LEN_MAX: usize = 1024;

/// So many iterations are done before others have a turn: a fraction of a millisecond.
const ITERATIONS_AT_ONCE: u32 = 512;

/// Letters of a nonce.
const NONCE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// An exchange that has begun.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// The mechanism is chosen.
    Chosen(SaslMechanism),
    /// The client is to answer.
    Scram(String, Box<ServerExchange>),
}

/// What is answered.
#[derive(Debug)]
pub(in crate::session) enum Answer {
    /// The client has more to say.
    Challenge(Vec<u8>),
    /// It is in, for so many milliseconds; 0: for as long as it likes.
    Entered(Vec<u8>, u64),
}

/// The mechanisms that are offered to a client.
pub(in crate::session) fn offered(ops: &Ops, entry: &Entry) -> Vec<SaslMechanism> {
    let security = &ops.core.config.security;
    let is_safe =
        |mechanism: &SaslMechanism| *mechanism != SaslMechanism::Plain || entry.secure || security.plain_without_tls;
    security.sasl.iter().filter(is_safe).collect()
}

/// Takes the next message of the exchange that has begun. A refusal comes late, and is the end of the connection.
pub(in crate::session) async fn step(sessions: &Sessions, entry: &Entry, message: &[u8]) -> Result<Answer, Refusal> {
    let ops = &sessions.ops;
    let begun = entry.exchange.take();
    let done = match begun {
        Some(Exchange::Chosen(SaslMechanism::OauthBearer)) => return bearer(sessions, entry, message).await,
        _ if message.len() > MESSAGE_LEN_MAX => Err("a message is too long".to_owned()),
        None => Err("no mechanism was chosen".to_owned()),
        Some(Exchange::Chosen(SaslMechanism::Plain)) => plain(ops, entry, message).await,
        Some(Exchange::Chosen(SaslMechanism::ScramSha256)) => first(ops, entry, Mechanism::Sha256, message),
        Some(Exchange::Chosen(SaslMechanism::ScramSha512)) => first(ops, entry, Mechanism::Sha512, message),
        Some(Exchange::Scram(user, exchange)) => match exchange.finish(message) {
            Ok(answer) => enter(ops, entry, (&user, None), answer.into_bytes()),
            Err(error) => Err(error.to_string()),
        },
    };
    match done {
        Ok(answer) => Ok(answer),
        Err(why) => Err(refuse(ops, entry, &why).await),
    }
}

/// The only message of OAUTHBEARER: a token.
async fn bearer(sessions: &Sessions, entry: &Entry, message: &[u8]) -> Result<Answer, Refusal> {
    let ops = &sessions.ops;
    let done = match bearer::verify(sessions.tls.tokens.as_deref(), message).await {
        Ok(Verified { name, lifetime_ms }) => enter(ops, entry, (&name, Some(lifetime_ms)), Vec::new()),
        Err(why) => Err(why),
    };
    match done {
        Ok(answer) => Ok(answer),
        Err(why) => Err(Refusal {
            // As a broker of Kafka's says it (RFC 7628).
            message: r#"{"status":"invalid_token"}"#.to_owned(),
            ..refuse(ops, entry, &why).await
        }),
    }
}

/// Refuses somebody: late, and in one text.
pub(in crate::session) async fn refuse(ops: &Ops, entry: &Entry, why: &str) -> Refusal {
    let core = &ops.core;
    core.metrics.authentication_failed();
    let host = &entry.asker().host;
    warn_seldom!(host, why, "somebody could not come in");
    let wait = core.config.security.failure_wait_ms.get();
    machine::sleep(std::time::Duration::from_millis(wait)).await;
    Refusal::new(ErrorCode::SaslAuthenticationFailed, FAILED)
}

fn enter(ops: &Ops, entry: &Entry, (user, of_token): (&str, Option<u64>), answer: Vec<u8>) -> Result<Answer, String> {
    let lifetime = entry.enter(ops, user, of_token);
    let lifetime = lifetime.ok_or("somebody wanted to become another user")?;
    ops.core.metrics.authenticated();
    Ok(Answer::Entered(answer, lifetime))
}

/// The first message of SCRAM.
fn first(ops: &Ops, entry: &Entry, mechanism: Mechanism, message: &[u8]) -> Result<Answer, String> {
    let first = ClientFirst::read(message).map_err(|error| error.to_string())?;
    let keys = ops.access.keys(ops.partitions.image().access(), &first.user, mechanism);
    let (exchange, answer) = ServerExchange::begin(&first, keys, &nonce());
    *entry.exchange.borrow_mut() = Some(Exchange::Scram(first.user, Box::new(exchange)));
    Ok(Answer::Challenge(answer.into_bytes()))
}

fn nonce() -> String {
    let bytes: [u8; 24] = machine::random();
    bytes
        .iter()
        .map(|byte| char::from(NONCE[usize::from(byte % 64)]))
        .collect()
}

/// The only message of PLAIN (RFC 4616): on whose behalf, which user, its password.
async fn plain(ops: &Ops, entry: &Entry, message: &[u8]) -> Result<Answer, String> {
    let text = std::str::from_utf8(message).map_err(|_not_utf8| "the message is no UTF-8")?;
    let parts: Vec<&str> = text.split('\0').collect();
    let [behalf, user, password] = parts[..] else {
        return Err("the message has not three parts".to_owned());
    };
    if user.is_empty() || user.len() > scram::USER_LEN_MAX || password.len() > PASSWORD_LEN_MAX {
        return Err("the name or the password is empty or too long".to_owned());
    }
    if !behalf.is_empty() && behalf != user {
        return Err("nobody can come in on behalf of somebody else".to_owned());
    }
    let keys = any_keys(ops, user);
    let mut salting = Salting::new(keys.mechanism, password, &keys.salt, keys.iterations);
    loop {
        if let Some(salted) = salting.step(ITERATIONS_AT_ONCE) {
            if keys.are_of(salted) {
                break;
            }
            return Err("the password is not that of the user".to_owned());
        }
        machine::yield_now().await;
    }
    enter(ops, entry, (user, None), Vec::new())
}

/// The keys of a user of whichever mechanism there are.
fn any_keys(ops: &Ops, user: &str) -> Keys {
    let image = ops.partitions.image();
    let keys = |mechanism| ops.access.keys(image.access(), user, mechanism);
    let of_sha256 = keys(Mechanism::Sha256);
    // Of nobody there are none.
    if of_sha256.stored_key.is_empty() {
        let of_sha512 = keys(Mechanism::Sha512);
        if !of_sha512.stored_key.is_empty() {
            return of_sha512;
        }
    }
    of_sha256
}
