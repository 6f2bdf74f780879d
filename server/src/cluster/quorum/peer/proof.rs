//! Before the first words: both prove that they know `cluster.secret`, where it is set.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    frame::{self, FrameError},
    handshake::Refused,
};
use crate::{
    machine,
    tls::{Bound, ClusterSecret, PROOF_MESSAGE_LEN_MAX, Purpose, Unproved, is_of_proof, no_proof},
};

/// A connection between members; over TLS with what tells it from all others.
const fn bound(channel: Option<[u8; 32]>) -> Bound {
    Bound {
        purpose: Purpose::Quorum,
        channel,
    }
}

/// The side that is called.
pub(super) async fn called(
    secret: &ClusterSecret,
    channel: Option<[u8; 32]>,
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Result<(), Unproved>, FrameError> {
    let (called, challenge) = secret.challenge(bound(channel), machine::random());
    frame::send(connection, &challenge).await?;
    let judged = match hear(connection).await? {
        Some(answer) => called.judge(&answer),
        None => Err(Unproved::Absent),
    };
    let verdict = judged.as_ref().map_or_else(|_unproved| no_proof(), Clone::clone);
    frame::send(connection, &verdict).await?;
    Ok(judged.map(drop))
}

/// The side that calls.
pub(super) async fn calling(
    secret: &ClusterSecret,
    channel: Option<[u8; 32]>,
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Result<(), Refused>, FrameError> {
    let Some(challenge) = hear(connection).await? else {
        return Ok(Err(Refused::NoSecret));
    };
    let answer = secret.answer(bound(channel), machine::random(), &challenge);
    let Ok((calling, answer)) = answer else {
        return Ok(Err(Refused::NotAPeer));
    };
    frame::send(connection, &answer).await?;
    let verdict = hear(connection).await?.unwrap_or_default();
    Ok(calling.judge(&verdict).map_err(|_unproved| Refused::OtherSecret))
}

/// A message of a proof; none if something else is said.
async fn hear(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>, FrameError> {
    match frame::receive(from, PROOF_MESSAGE_LEN_MAX).await {
        Ok(message) => Ok(Some(message).filter(|message| is_of_proof(message))),
        Err(FrameError::TooLong { .. } | FrameError::Checksum { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
