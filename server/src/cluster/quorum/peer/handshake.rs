//! The first words on a connection. Their beginning is the same in every version of the protocol, so that members of different
//! versions can tell each other so: [`MAGIC`], the oldest and the newest protocol that one speaks. What follows is in the form of
//! [`codec`](crate::cluster::quorum::codec).

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};

use super::frame::{self, FrameError};
use crate::{
    cluster::quorum::{
        codec::{decode, encode},
        id::{Cluster, Incarnation, NodeId, StoreId},
        types::LogId,
    },
    tls::is_of_proof,
};

/// What a connection between members begins with.
const MAGIC: [u8; 4] = *b"HWQ\x01";

/// The protocols that this broker speaks.
pub(super) const PROTOCOLS: Protocols = Protocols { oldest: 1, newest: 1 };

/// The largest of the first frames.
pub(super) const WORDS_LEN_MAX: usize = 1024;

/// A range of protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Protocols {
    pub(super) oldest: u16,
    pub(super) newest: u16,
}

impl Protocols {
    fn common(self, other: Protocols) -> bool {
        self.oldest <= other.newest && other.oldest <= self.newest
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to {}", self.oldest, self.newest)
    }
}

/// The first word of the one that is called.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// To be repeated: it was never used before, so a hello that was recorded elsewhere does not have it.
    pub(super) nonce: u64,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Caller {
    pub(crate) cluster: Cluster,
    pub(crate) node: NodeId,
    pub(crate) store: StoreId,
    pub(crate) incarnation: Incarnation,
    /// The entry that says that it is a member, as far as it knows.
    pub(crate) member_since: Option<LogId>,
}

/// The answer of the one that calls.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) nonce: u64,
    pub(super) caller: Caller,
    /// Whom it wants.
    pub(super) node: NodeId,
    /// What that one must have on disk. None: it is not a member yet, and is only asked how far it is.
    pub(super) store: Option<StoreId>,
}

/// The last word.
pub(super) type Welcome = Result<(), Refused>;

/// Why a caller is not welcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum Refused {
    /// What it says is no hello.
    #[error("what calls does not speak as a member of a quorum does: look what connects to this address")]
    NotAPeer,
    /// No protocol is known to both.
    #[error("one member speaks the protocols {theirs}, the other {ours}: upgrade the older one")]
    Protocol {
        /// Of who calls.
        theirs: Protocols,
        /// Of who is called.
        ours: Protocols,
    },
    /// It repeats what was said on another connection.
    #[error("the hello was made for another connection")]
    Replayed,
    /// It is another cluster's.
    #[error("{theirs} is another cluster than {ours}: correct the address, or the cluster's id")]
    Cluster {
        /// Of who calls.
        theirs: Cluster,
        /// Of who is called.
        ours: Cluster,
    },
    /// It wants somebody else.
    #[error("member {wanted} was called, and this is member {ours}: correct the addresses of the members")]
    OtherNode {
        /// Who was wanted.
        wanted: NodeId,
        /// Who answers.
        ours: NodeId,
    },
    /// The member has lost its disk.
    #[error(
        "member {node} does not have the store {wanted} any more, but {ours}: what it has promised is lost. Remove it from the \
         quorum, then add it again"
    )]
    OtherStore {
        /// The member.
        node: NodeId,
        /// What it had when it became one.
        wanted: StoreId,
        /// What it has.
        ours: StoreId,
    },
    /// The quorum does not know it, or not any more.
    #[error("{node} is no member of this quorum: add it, or stop it")]
    Stranger {
        /// Who calls.
        node: NodeId,
    },
    /// The one who calls has lost its disk.
    #[error(
        "member {node} has come back with the store {found} in place of {known}: what it has promised is lost, and it must not vote. \
         Remove it from the quorum, then add it again"
    )]
    Emptied {
        /// Who calls.
        node: NodeId,
        /// What it has.
        found: StoreId,
        /// What it had when it became a member.
        known: StoreId,
    },
    /// Another process has taken its place.
    #[error("member {node} was started again since: stop the process that was started before")]
    Outdated {
        /// Who calls.
        node: NodeId,
    },
    /// It is not a member yet, and may only be asked how far it is.
    #[error("this was called without saying which store it has to have, and may only be asked how far it is")]
    Unchecked,
    /// Who is called wants a proof of a secret, and this one has none to show. Nobody sends it: it is found by who calls.
    #[error("it wants a proof of cluster.secret, and there is none here: set the same secret on every broker")]
    SecretWanted,
    /// Who is called wants no proof, and gives none. Found by who calls, as the next.
    #[error(
        "it has no cluster.secret, and this one has: set the same secret on every broker, or look what listens there"
    )]
    NoSecret,
    /// Who is called has refused the proof, or gives a wrong one itself.
    #[error(
        "it knows another cluster.secret than this one: set the same on every broker, and cluster.secret_previous while it is changed"
    )]
    OtherSecret,
}

/// Says one of the first words.
pub(super) async fn say(to: &mut (impl AsyncWrite + Unpin), words: &impl Serialize) -> Result<(), FrameError> {
    let mut content = MAGIC.to_vec();
    content.extend_from_slice(&PROTOCOLS.oldest.to_be_bytes());
    content.extend_from_slice(&PROTOCOLS.newest.to_be_bytes());
    content.extend_from_slice(&encode(words));
    frame::send(to, &content).await
}

/// Hears one, of somebody who may be anybody.
pub(super) async fn hear<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Result<T, Refused>, FrameError> {
    let content = match frame::receive(from, WORDS_LEN_MAX).await {
        Err(FrameError::TooLong { .. } | FrameError::Checksum { .. }) => return Ok(Err(Refused::NotAPeer)),
        received => received?,
    };
    Ok(read(&content))
}

pub(super) fn read<T: DeserializeOwned>(content: &[u8]) -> Result<T, Refused> {
    if is_of_proof(content) {
        return Err(Refused::SecretWanted);
    }
    let Some((&[m, a, g, i, oldest_high, oldest_low, newest_high, newest_low], words)) = content.split_first_chunk()
    else {
        return Err(Refused::NotAPeer);
    };
    if [m, a, g, i] != MAGIC {
        return Err(Refused::NotAPeer);
    }
    let theirs = Protocols {
        oldest: u16::from_be_bytes([oldest_high, oldest_low]),
        newest: u16::from_be_bytes([newest_high, newest_low]),
    };
    if !PROTOCOLS.common(theirs) {
        let ours = PROTOCOLS;
        return Err(Refused::Protocol { theirs, ours });
    }
    decode(words).map_err(|_unreadable| Refused::NotAPeer)
}
