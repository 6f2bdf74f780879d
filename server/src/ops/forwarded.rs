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

use crate::{
    coordinator,
    core::{
        Core,
        mesh::{self, Forward},
    },
    machine,
    ops::produce,
};

#[derive(Default)]
pub(crate) struct Forwarded {
    waiting: RefCell<VecDeque<Forward>>,
    is_draining: Cell<bool>,
}

impl Forwarded {
    /// Begins with a request, at once if it need not wait.
    pub(crate) fn take(&self, core: &Rc<Core>, request: Forward) {
        if !self.is_draining.get() && !core.memory.is_spent() {
            return begin(core, request);
        }
        self.waiting.borrow_mut().push_back(request);
        if !self.is_draining.replace(true) {
            machine::spawn(drain(Rc::clone(core)));
        }
    }

    fn next(&self) -> Option<Forward> {
        self.waiting.borrow_mut().pop_front()
    }
}

async fn drain(core: Rc<Core>) {
    loop {
        core.memory.room().await;
        let Some(request) = core.forwarded.next() else { break };
        begin(&core, request);
    }
    core.forwarded.is_draining.set(false);
}

fn begin(core: &Rc<Core>, request: Forward) {
    match request {
        Forward::Produce { id, records, reply } => produce::answer_other_core(core, id, &records, reply),
        Forward::Group { call, reply } => {
            let core = Rc::clone(core);
            let answer = async move { coordinator::service::call_here(&core, *call).await };
            machine::spawn(mesh::answer(reply, answer));
        }
    }
}
