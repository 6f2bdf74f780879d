//! What tells the protocols of clients apart, for a connection that treats them alike.

use std::rc::Rc;

use super::{
    frame::{FrameHead, ReadError},
    in_flight::RequestLease,
    peer::Connection,
    sessions::Sessions,
};

/// What became of a frame.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is answered, or will be.
    Done,
    /// It cannot be answered, for this reason, and the client must learn that something is wrong.
    Close(String),
    /// Nothing more is heard of whoever has not come in: of those there may be many, and a log is no place for each.
    Forget,
}

/// Why no further frame of a protocol can be read.
pub(super) type Unread<P> = ReadError<<<P as Protocol>::Head as FrameHead>::Error>;

/// A protocol of clients.
pub(super) trait Protocol {
    type Head: FrameHead;

    /// For those who have the wrong port.
    const NAME: &str;

    /// The first frame of a connection is another broker's, which is not taken in here.
    fn is_peer(_head: &Self::Head) -> bool {
        false
    }

    /// Takes a request in: its head, and all of its bytes, the head among them. Only the append of a produce request happens before this
    /// returns. Of a client that cannot be answered any more only that is done which needs no answer.
    async fn take(
        sessions: &Rc<Sessions>,
        connection: &Rc<Connection>,
        frame: (Self::Head, &[u8]),
        lease: RequestLease,
    ) -> Taken;

    /// Says why the connection is about to be closed, if the protocol has words for it.
    fn refuse(
        _sessions: &Rc<Sessions>,
        _connection: &Rc<Connection>,
        _error: &<Self::Head as FrameHead>::Error,
        _lease: RequestLease,
    ) {
    }
}
