//! Requests that other cores pass on and that append: as those of the core's own connections, they wait while the tail buffers are
//! spent.
//!
//! They wait together, in the order in which they came, so the order of appends is the order in the inbox. What waits is bounded
//! by the budget of the core that passed it on, which holds a request's bytes until it is answered.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use super::{Ops, produce};
use crate::{
    coordinator::{service, transactions},
    core::mesh::{self, Forward},
    machine,
};

#[derive(Default)]
pub(crate) struct Forwarded {
    waiting: RefCell<VecDeque<Forward>>,
    is_draining: Cell<bool>,
}

impl Forwarded {
    fn next(&self) -> Option<Forward> {
        self.waiting.borrow_mut().pop_front()
    }
}

/// Begins with a request of another core, at once if it need not wait.
pub(crate) fn take(ops: &Rc<Ops>, request: Forward) {
    let forwarded = &ops.forwarded;
    if !forwarded.is_draining.get() && !ops.core.memory.is_spent() {
        return begin(ops, request);
    }
    forwarded.waiting.borrow_mut().push_back(request);
    if !forwarded.is_draining.replace(true) {
        machine::spawn(drain(Rc::clone(ops)));
    }
}

async fn drain(ops: Rc<Ops>) {
    loop {
        ops.core.memory.room().await;
        let Some(request) = ops.forwarded.next() else { break };
        begin(&ops, request);
    }
    ops.forwarded.is_draining.set(false);
}

fn begin(ops: &Rc<Ops>, request: Forward) {
    match request {
        Forward::Produce {
            id,
            acks,
            records,
            reply,
        } => produce::answer_other_core(&ops.partitions, (id, acks), &records, reply),
        Forward::Group { call, reply } => {
            let groups = Rc::clone(&ops.groups);
            let answer = async move { service::call_here(&groups, *call).await };
            machine::spawn(mesh::answer(reply, answer));
        }
        Forward::Transaction { call, reply } => {
            let transactions = Rc::clone(&ops.transactions);
            let answer = async move { transactions::service::call_here(&transactions, *call).await };
            machine::spawn(mesh::answer(reply, answer));
        }
    }
}
