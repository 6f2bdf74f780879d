//! What one broker asks a core of another on behalf of transactions: from those who ask, on this core, to whoever speaks to brokers.

use std::{cell::RefCell, rc::Rc};

use futures::channel::{mpsc, oneshot};
use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, CoreId},
};

use crate::model::transaction::Errand;

/// One code for each partition that is named, or why there are none.
pub(crate) type Done = Result<Vec<ErrorCode>, ErrorCode>;

/// An errand on its way.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) to: (BrokerId, CoreId),
    pub(crate) errand: Errand,
    pub(crate) reply: oneshot::Sender<Done>,
}

/// Those of a core. What waits is bounded by those who wait for it: requests of clients, and transactions that end.
#[derive(Debug)]
pub(crate) struct Errands {
    queue: mpsc::UnboundedSender<Sent>,
    inbox: RefCell<Option<mpsc::UnboundedReceiver<Sent>>>,
}

impl Errands {
    pub(crate) fn new() -> Rc<Errands> {
        let (queue, inbox) = mpsc::unbounded();
        Rc::new(Errands {
            queue,
            inbox: RefCell::new(Some(inbox)),
        })
    }

    /// Where they come out, for the one who runs them.
    pub(crate) fn inbox(&self) -> Option<mpsc::UnboundedReceiver<Sent>> {
        self.inbox.borrow_mut().take()
    }

    /// Asks a core of another broker. An error also if it is not reached, which says nothing of what it has done.
    pub(crate) async fn run(&self, to: (BrokerId, CoreId), errand: Errand) -> Done {
        let (reply, done) = oneshot::channel();
        let sent = Sent { to, errand, reply };
        if self.queue.unbounded_send(sent).is_err() {
            return Err(ErrorCode::NetworkException);
        }
        done.await.unwrap_or(Err(ErrorCode::NetworkException))
    }
}
