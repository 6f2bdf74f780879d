//! What the tasks of one connection share: what it may hold, what waits to be sent, and who is at its other end.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    time::Instant,
};

use futures::{FutureExt as _, future::select};
use headwater_engine::Signal;

use super::{
    channel::Shown,
    entry::{Entry, meter::Meter},
    frame::FrameHead,
    in_flight::{InFlight, RequestLease},
    order::InOrder,
    outbox::Outbox,
};
use crate::{
    core::{
        Core,
        budget::{Budget, Lease},
    },
    machine,
    model::group::Client,
    ops::fetch::Waits,
};

/// A request's share of the budgets beyond its bytes: its task and its response.
const REQUEST_OVERHEAD_BYTES: u64 = 512;

/// Bytes that a fetch takes while it waits for each byte of its frame, where a partition is 32: what is asked of it, what was
/// seen of it, and a place among those who wait for it.
const FETCH_BYTES_PER_BYTE: u64 = 8;

/// More of a client's name is not remembered, in bytes.
const CLIENT_NAME_LEN_MAX: usize = 128;

/// What belongs to one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) outbox: Outbox,
    /// For a protocol that answers in the order of the requests.
    pub(super) in_order: InOrder,
    pub(super) in_flight: Rc<InFlight>,
    budget: Rc<Budget>,
    /// That of the core, which all connections share.
    shared_budget: Rc<Budget>,
    /// One turn.
    turns: Rc<Budget>,
    /// The client has closed its side, or the whole connection.
    pub(super) ending: Flag,
    /// When the wait for the next request began.
    pub(super) quiet_since: Cell<Instant>,
    /// The socket is not read because there is no room for further requests. The client may have closed it: that is not even
    /// seen while what it has sent before fills the socket.
    pub(super) held_up: Flag,
    /// A request is being answered whose protocol wants no further ones taken in before it is.
    pub(super) held: Flag,
    /// Who it comes from, as far as it has said.
    client: RefCell<Rc<Client>>,
    /// Who it comes from, as far as it has proved, and whether it may ask for anything.
    pub(crate) entry: Entry,
    /// What it uses of what it may.
    pub(super) meter: Meter,
    /// It has shown that it is a broker of this cluster.
    is_peer: bool,
}

impl Connection {
    /// Of a client at this host, which has shown this.
    pub(super) fn new(core: &Rc<Core>, host: String, shown: Shown) -> Rc<Connection> {
        Rc::new(Connection {
            meter: Meter::new(core),
            is_peer: shown.is_peer,
            entry: Entry::new(&core.config, &host, shown),
            outbox: Outbox::default(),
            in_order: InOrder::default(),
            in_flight: Rc::default(),
            budget: Budget::new(core.config.limits.requests_in_flight_bytes_max.bytes()),
            shared_budget: Rc::clone(&core.in_flight),
            turns: Budget::new(1),
            ending: Flag::default(),
            quiet_since: Cell::new(machine::now()),
            held_up: Flag::default(),
            held: Flag::default(),
            client: RefCell::new(Rc::new(Client {
                id: String::new(),
                host,
            })),
        })
    }

    /// Whether it has shown that it is a broker of this cluster.
    pub(super) fn is_peer(&self) -> bool {
        self.is_peer
    }

    /// Waits for what a request needs of the budgets, that of a frame with this header if it is one.
    pub(super) async fn lease(&self, header: Option<impl FrameHead>) -> RequestLease {
        let mut bytes = header.map_or(0, |header| header.frame_len() as u64);
        if header.is_some_and(|header| header.is_fetch()) {
            bytes *= FETCH_BYTES_PER_BYTE;
        }
        bytes += REQUEST_OVERHEAD_BYTES;
        let own = self.budget.lease(bytes).await;
        self.in_flight.begin([self.shared_budget.lease(bytes).await, own])
    }

    /// Waits for what a fetch takes that waits, if that is more than what was lent for a body of this length: such a body may name what it
    /// has named before. Who waits holds nothing, or all might wait for one another.
    pub(super) async fn lease_for_fetch(&self, lease: &mut RequestLease, bytes: u64, body_len: usize) {
        if bytes <= body_len as u64 * FETCH_BYTES_PER_BYTE + REQUEST_OVERHEAD_BYTES {
            return;
        }
        lease.give_bytes_back();
        let mut room = pin!(async {
            let own = self.budget.lease(bytes).await;
            [self.shared_budget.lease(bytes).await, own]
        });
        let room = if let Some(room) = room.as_mut().now_or_never() {
            room
        } else {
            // Those that only wait for records, and hold what this one needs, are answered.
            self.held_up.set(true);
            let room = room.await;
            self.held_up.set(false);
            room
        };
        lease.holds(room);
    }

    /// Waits until the client has read most of its responses and no other request that waits for its turn is being answered,
    /// so that the responses of requests that cost little to ask cannot pile up. The turn ends with the lease.
    pub(crate) async fn turn(&self) -> Lease {
        let turn = self.turns.lease(1).await;
        self.outbox.room().await;
        turn
    }

    /// Resolves when the client sends nothing more.
    pub(crate) async fn ending(&self) {
        self.ending.is_up().await;
    }

    /// The client has said what it is called.
    pub(crate) fn is_named(&self, name: &str) {
        let end = name.floor_char_boundary(CLIENT_NAME_LEN_MAX.min(name.len()));
        let mut client = self.client.borrow_mut();
        if client.id == name[..end] {
            return;
        }
        name[..end].clone_into(&mut Rc::make_mut(&mut client).id);
    }

    /// Who it comes from, as far as it has said.
    pub(crate) fn client(&self) -> Rc<Client> {
        Rc::clone(&self.client.borrow())
    }
}

impl Waits for Connection {
    /// The client sends nothing more.
    async fn ended(&self) {
        self.ending().await;
    }

    /// A request of this connection or of another waits for memory.
    async fn in_the_way(&self) {
        select(pin!(self.shared_budget.contended()), pin!(self.held_up.is_up())).await;
    }
}

/// Something that is so or not, and can be waited for.
#[derive(Debug, Default)]
pub(super) struct Flag {
    up: Cell<bool>,
    changed: Signal,
}

impl Flag {
    pub(super) fn set(&self, up: bool) {
        if self.up.replace(up) != up {
            self.changed.notify();
        }
    }

    async fn is_up(&self) {
        self.changed.until(|| self.up.get()).await;
    }

    pub(super) async fn is_down(&self) {
        self.changed.until(|| !self.up.get()).await;
    }
}
