//! The streams that have come to a core from followers: who is admitted, and which of them is the latest of each.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use headwater_protocol::id::{BrokerId, CoreId};

use super::{
    admission::{Admission, Here},
    error::PeerError,
    hello::Hello,
};
use crate::{
    image::Broker,
    partition::replication::{News, Peer},
};

/// Those of one core.
#[derive(Debug, Default)]
pub(crate) struct Links {
    admission: RefCell<Admission>,
    streams: RefCell<BTreeMap<(BrokerId, CoreId), Rc<News>>>,
}

impl Links {
    /// Who has connected, if it may, and what it is to be told of. An older stream of the same core ends.
    pub(super) fn admit(
        &self,
        hello: &Hello,
        here: &Here,
        known: Option<&Broker>,
    ) -> Result<(Peer, Rc<News>), PeerError> {
        let peer = self.admission.borrow_mut().admit(hello, here, known)?;
        let news = Rc::new(News::default());
        let former = self
            .streams
            .borrow_mut()
            .insert((hello.from.broker, hello.core), Rc::clone(&news));
        if let Some(former) = former {
            former.end();
        }
        Ok((peer, news))
    }

    /// A stream has ended.
    pub(super) fn ended(&self, from: (BrokerId, CoreId), news: &Rc<News>) {
        let mut streams = self.streams.borrow_mut();
        if streams.get(&from).is_some_and(|latest| Rc::ptr_eq(latest, news)) {
            streams.remove(&from);
        }
    }
}
