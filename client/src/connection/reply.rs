//! What becomes of a request: a callback that is called exactly once, also when the connection or its task goes away.

use tokio::sync::oneshot;

use super::frames::Frame;
use crate::address::Address;
use crate::error::Error;

/// The good end of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The broker's response; not an error frame.
    Response(Frame),
    /// A request without response has been written to the socket.
    Written,
}

type Callback = Box<dyn FnOnce(Result<Outcome, Error>) + Send>;

/// Takes the end of one request. It must not block. Dropping it unused counts as a lost connection.
pub(crate) struct Reply {
    address: Address,
    callback: Option<Callback>,
}

impl Reply {
    pub(crate) fn new(address: &Address, callback: impl FnOnce(Result<Outcome, Error>) + Send + 'static) -> Self {
        Self {
            address: address.clone(),
            callback: Some(Box::new(callback)),
        }
    }

    /// A reply that can be awaited.
    pub(crate) fn channel(address: &Address) -> (Self, oneshot::Receiver<Result<Outcome, Error>>) {
        let (sender, receiver) = oneshot::channel();
        // The caller may have stopped waiting: then nobody wants to know.
        let reply = Self::new(address, move |result| drop(sender.send(result)));
        (reply, receiver)
    }

    pub(crate) fn done(mut self, result: Result<Outcome, Error>) {
        if let Some(callback) = self.callback.take() {
            callback(result);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.take() {
            callback(Err(Error::Disconnected {
                address: self.address.clone(),
                source: None,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reply_that_is_dropped_unused_ends_the_wait_with_an_error() {
        let (reply, receiver) = Reply::channel(&Address::new("h", 1));
        drop(reply);
        assert!(matches!(receiver.await.unwrap(), Err(Error::Disconnected { .. })));
    }

    #[tokio::test]
    async fn a_reply_is_given_once() {
        let (reply, receiver) = Reply::channel(&Address::new("h", 1));
        reply.done(Ok(Outcome::Written));
        assert!(matches!(receiver.await.unwrap(), Ok(Outcome::Written)));
    }
}
