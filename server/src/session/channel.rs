//! The bytes of a connection, plain or encrypted: what lies between a socket and the frames.
//!
//! ```text
//! Stream ─► Reading ─► FrameReader        Sender ─► Writing ─► Socket
//!              └────────── Secure: TLS of both sides ──┘
//! ```
//! A plain connection passes through: no allocation, no call that is not known beforehand. An encrypted one holds what a socket did
//! not take, up to [`SECURE_PIECE_BYTES`], so whoever has said all that there is to say waits until it is [`flushed`](Writing::flushed).

mod ends;
mod handshake;
mod secure;

pub(crate) use self::{
    ends::{Channel, Reading, Shown, Writing},
    handshake::{HandshakeError, Handshakes, accept, connect},
    secure::SECURE_PIECE_BYTES,
};
