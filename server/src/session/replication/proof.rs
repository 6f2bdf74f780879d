//! Before the hellos: both prove that they know `cluster.secret`, where it is set. The follower, who connects, asks for the challenge, as
//! nobody else on the port of clients is spoken to unasked.

use headwater_protocol::frame::FrameHeader;

use super::{
    error::{LinkError, PeerError},
    frame::{Kind, begin, kind_of},
    hello::{read_welcome, write_welcome},
};
use crate::{
    machine,
    session::{channel::Writing, frame::FrameReader, transfer::Sender},
    tls::{Bound, ClusterSecret, Purpose, Unproved, no_proof},
};

fn bound(socket: &Writing) -> Result<Bound, LinkError> {
    Ok(Bound {
        purpose: Purpose::Replication,
        channel: socket.binding()?,
    })
}

/// The leader's side. The header is that of the first frame, which the reader still has; the header of the one that comes behind the
/// proof is returned.
pub(in crate::session) async fn called(
    secret: &ClusterSecret,
    (reader, socket, sender): (&mut FrameReader, &Writing, &Sender<'_>),
    first: FrameHeader,
) -> Result<FrameHeader, LinkError> {
    let is_asked = is_proof(&first);
    reader.consume(first);
    if !is_asked {
        let unproved = PeerError::from(Unproved::Absent);
        sender
            .send_bytes(&begin(Kind::Hello, &write_welcome(Err(&unproved)), 0), false)
            .await?;
        return Err(unproved.into());
    }
    let (called, challenge) = secret.challenge(bound(socket)?, machine::random());
    sender.send_bytes(&begin(Kind::Proof, &challenge, 0), false).await?;
    let answer = reader.next().await?.ok_or(LinkError::Closed)?.0;
    let judged = if is_proof(&answer) {
        called.judge(reader.frame(answer).head)
    } else {
        Err(Unproved::Absent)
    };
    reader.consume(answer);
    let verdict = judged.as_ref().map_or_else(|_unproved| no_proof(), Clone::clone);
    sender.send_bytes(&begin(Kind::Proof, &verdict, 0), false).await?;
    judged.map_err(PeerError::from)?;
    Ok(reader.next().await?.ok_or(LinkError::Closed)?.0)
}

/// The follower's side.
pub(super) async fn calling(
    secret: &ClusterSecret,
    reader: &mut FrameReader,
    socket: &Writing,
    sender: &Sender<'_>,
) -> Result<(), LinkError> {
    sender.send_bytes(&begin(Kind::Proof, &no_proof(), 0), false).await?;
    let challenge = hear(reader).await?;
    let (calling, answer) = secret
        .answer(bound(socket)?, machine::random(), &challenge)
        .map_err(PeerError::from)?;
    sender.send_bytes(&begin(Kind::Proof, &answer, 0), false).await?;
    let verdict = hear(reader).await?;
    Ok(calling.judge(&verdict).map_err(PeerError::from)?)
}

fn is_proof(header: &FrameHeader) -> bool {
    header.api == Kind::Proof as u16
}

/// What the leader says of a proof; or why it has nothing to say of it.
async fn hear(reader: &mut FrameReader) -> Result<Vec<u8>, LinkError> {
    let header = reader.next().await?.ok_or(LinkError::Closed)?.0;
    let head = reader.frame(header).head;
    let said = if is_proof(&header) {
        Ok(head.to_vec())
    } else {
        kind_of(&header, false)?;
        match read_welcome(head)? {
            Ok(_) => Err(PeerError::from(Unproved::Absent).into()),
            Err((code, why)) => Err(LinkError::Refused { code, why }),
        }
    };
    reader.consume(header);
    said
}
