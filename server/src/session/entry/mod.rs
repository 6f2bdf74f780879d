//! Who is at the other end of a connection, and whether it may ask for anything yet.
//!
//! Where clients have to say who they are (`security.sasl`), a connection is outside at first: it may ask for nothing but what it takes to
//! come in, in small frames and within [`ENTRY_MAX`]. A user that is removed is out at once, one whose time is over until it has proved
//! again who it is.

mod bearer;
pub(super) mod meter;
pub(super) mod sasl;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use self::sasl::Exchange;
use super::channel::Shown;
use crate::{
    config::Config,
    image::AccessRules,
    machine,
    model::access::{Asker, Principal},
    ops::Ops,
};

/// So long a client has to say who it is.
pub(super) const ENTRY_MAX: Duration = Duration::from_secs(10);

/// The largest frame of somebody who has not come in yet, in bytes.
pub(super) const OUTSIDE_LEN_MAX: u32 = 16 * 1024;

/// A user that has proved who it is.
#[derive(Debug)]
struct Proved {
    user: String,
    /// By which it was there when that was looked at last; none of one that need not be there, as an issuer of tokens answers for it.
    rules: Option<Arc<AccessRules>>,
    until: Option<Instant>,
}

/// See above.
#[derive(Debug)]
pub(crate) struct Entry {
    asker: RefCell<Rc<Asker>>,
    is_outside: Cell<bool>,
    proved: RefCell<Option<Proved>>,
    /// What is sent is encrypted.
    pub(super) secure: bool,
    /// While it proves who it is.
    pub(super) exchange: RefCell<Option<Exchange>>,
    /// When it has to be in.
    pub(super) deadline: Instant,
}

impl Entry {
    /// Of a client at this host, of which the channel tells this.
    pub(super) fn new(config: &Config, host: &str, shown: Shown) -> Entry {
        let Shown { secure, principal, .. } = shown;
        let is_known = principal.is_some();
        let principal = principal.map_or_else(Principal::anonymous, |name| Principal::user(&name));
        Entry {
            asker: RefCell::new(Rc::new(Asker::new(principal, host))),
            is_outside: Cell::new(!config.security.sasl.is_empty() && !is_known),
            proved: RefCell::default(),
            secure,
            exchange: RefCell::default(),
            deadline: machine::now() + ENTRY_MAX,
        }
    }

    /// Who asks.
    pub(crate) fn asker(&self) -> Rc<Asker> {
        Rc::clone(&self.asker.borrow())
    }

    /// It has never been in.
    pub(super) fn is_outside(&self) -> bool {
        self.is_outside.get()
    }

    /// Whether it may ask for anything now.
    pub(super) fn is_in(&self, ops: &Ops) -> bool {
        if self.is_outside.get() {
            return false;
        }
        let mut proved = self.proved.borrow_mut();
        let Some(proved) = &mut *proved else { return true };
        if proved.until.is_some_and(|until| machine::now() >= until) {
            return false;
        }
        let Some(rules) = &mut proved.rules else {
            return true;
        };
        let image = ops.partitions.image();
        if Arc::ptr_eq(rules, image.access()) {
            return true;
        }
        if !ops.access.has_user(image.access(), &proved.user) {
            return false;
        }
        *rules = Arc::clone(image.access());
        true
    }

    /// It has proved that it is this user, by a password or by a token that is good for so many milliseconds. For how long that counts, in
    /// milliseconds; 0: for as long as it likes. `None`: it was another before, which nobody becomes.
    pub(super) fn enter(&self, ops: &Ops, user: &str, of_token: Option<u64>) -> Option<u64> {
        let mut proved = self.proved.borrow_mut();
        if proved.as_ref().is_some_and(|before| before.user != user) {
            return None;
        }
        let of_all = ops.core.config.security.reauthenticate_ms.get();
        let limits = [Some(of_all).filter(|limit| *limit > 0), of_token];
        let lifetime = limits.into_iter().flatten().min().unwrap_or(0);
        *proved = Some(Proved {
            user: user.to_owned(),
            rules: of_token.is_none().then(|| Arc::clone(ops.partitions.image().access())),
            until: (lifetime > 0).then(|| machine::now() + Duration::from_millis(lifetime)),
        });
        let host = self.asker.borrow().host.clone();
        self.asker.replace(Rc::new(Asker::new(Principal::user(user), &host)));
        self.is_outside.set(false);
        Some(lifetime)
    }
}
