//! How much the client of one connection uses of what it may, and until when the connection is not read because that was too much.
//!
//! Each request of a client with a quota is charged to accounts that all connections of its user or client id have in common, on all
//! cores ([`Quotas`](crate::core::quotas::Quotas)). Nothing is kept back of what was taken in: it is answered as ever, with the time for
//! which the client should wait, and then the socket is not read for that long.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    core::{
        Core,
        quotas::{Account, FETCH_TIME},
    },
    image::QuotaRules,
    machine,
    model::{access::Asker, group::Client, quota::QuotaKey},
};

/// What a connection can be charged for, in the order of [`Known::accounts`].
const KEYS: [QuotaKey; 4] = [
    QuotaKey::ProducerByteRate,
    QuotaKey::ConsumerByteRate,
    QuotaKey::RequestPercentage,
    QuotaKey::ControllerMutationRate,
];

const PRODUCER: usize = 0;
const CONSUMER: usize = 1;
const REQUESTS: usize = 2;
const MUTATIONS: usize = 3;

/// Who the client is, and what it is charged to by the quotas that counted when that was looked up.
#[derive(Debug, Default)]
struct Known {
    rules: Arc<QuotaRules>,
    who: Option<(Rc<Asker>, Rc<Client>)>,
    accounts: [Option<Arc<Account>>; KEYS.len()],
}

/// See above.
#[derive(Debug)]
pub(crate) struct Meter {
    core: Rc<Core>,
    /// Until then it is not read.
    until: Cell<Option<Instant>>,
    known: RefCell<Known>,
}

impl Meter {
    pub(in crate::session) fn new(core: &Rc<Core>) -> Meter {
        Meter {
            core: Rc::clone(core),
            until: Cell::new(None),
            known: RefCell::default(),
        }
    }

    /// Whether anybody has a quota: nothing else here is asked otherwise.
    fn is_needed(&self) -> bool {
        self.core.quotas.are_set()
    }

    /// Whether the connection is not read now because its client has used too much.
    pub(in crate::session) fn is_held(&self) -> bool {
        self.until.get().is_some_and(|until| until > machine::now())
    }

    /// Looks up what counts for the client, if that may be something else than before. Whoever was held up by other quotas is not any more.
    pub(in crate::session) fn look(&self, asker: Rc<Asker>, client: Rc<Client>) {
        let mut known = self.known.borrow_mut();
        let quotas = &self.core.quotas;
        let rules = quotas.rules();
        let is_same = |known: &(Rc<Asker>, Rc<Client>)| Rc::ptr_eq(&known.0, &asker) && Rc::ptr_eq(&known.1, &client);
        let is_same_rules = Arc::ptr_eq(&known.rules, &rules);
        if is_same_rules && known.who.as_ref().is_some_and(is_same) {
            return;
        }
        if !is_same_rules {
            self.until.set(None);
        }
        let now = machine::now();
        let user = asker.principal.as_str();
        let user = user.strip_prefix("User:").unwrap_or(user);
        known.accounts = KEYS.map(|key| quotas.account(key, (user, &client.id), now));
        known.rules = rules;
        known.who = Some((asker, client));
    }

    fn charge(&self, place: usize, units: f64) {
        let known = self.known.borrow();
        let Some(account) = &known.accounts[place] else { return };
        let now = machine::now();
        let wait = account.charge(units, self.core.quotas.accounts().time(now));
        if wait.is_zero() {
            return;
        }
        let before = self.until.get().filter(|until| *until > now).unwrap_or(now);
        let until = now + wait;
        if until > before {
            account.throttles(until - before);
            self.until.set(Some(until));
        }
    }

    /// A request with records is taken in.
    pub(in crate::session) fn produces(&self, bytes: usize) {
        self.charge(PRODUCER, bytes as f64);
    }

    /// Records are sent.
    pub(in crate::session) fn fetches(&self, bytes: u64) {
        if self.is_needed() {
            self.charge(CONSUMER, bytes as f64);
        }
    }

    /// Partitions are made or deleted.
    pub(in crate::session) fn mutates(&self, count: impl FnOnce() -> u32) {
        if self.is_needed() {
            self.charge(MUTATIONS, count().into());
        }
    }

    /// Bytes of records that one fetch is given at most, but for one batch.
    pub(in crate::session) fn fetch_max(&self) -> u64 {
        if !self.is_needed() {
            return u64::MAX;
        }
        let known = self.known.borrow();
        let account = known.accounts[CONSUMER].as_ref();
        account.map_or(u64::MAX, |account| (account.units_in(FETCH_TIME) as u64).max(1))
    }

    /// Charges for the time in which a task does something.
    pub(in crate::session) async fn time<F: Future + Unpin>(&self, mut future: F) -> F::Output {
        poll_fn(|context| {
            if !self.is_needed() || self.known.borrow().accounts[REQUESTS].is_none() {
                return Pin::new(&mut future).poll(context);
            }
            let began = machine::now();
            let polled = Pin::new(&mut future).poll(context);
            self.charge(REQUESTS, machine::since(began).as_secs_f64() * 100.0);
            polled
        })
        .await
    }

    /// Until when nothing more is read, or taken in, if a request like this comes: others may have used up what they have in common.
    pub(in crate::session) fn held_until(&self, is_produce: bool, is_fetch: bool) -> Option<Instant> {
        let now = machine::now();
        let time = self.core.quotas.accounts().time(now);
        let known = self.known.borrow();
        let asked = [
            (PRODUCER, is_produce),
            (CONSUMER, is_fetch),
            (REQUESTS, is_produce || is_fetch),
        ];
        let debts = asked
            .iter()
            .filter(|(_, is_asked)| *is_asked)
            .filter_map(|(place, _)| Some(now + known.accounts[*place].as_ref()?.wait(time)));
        debts.chain(self.until.get()).max().filter(|until| *until > now)
    }

    /// What the client is told to wait, in milliseconds.
    pub(in crate::session) fn throttle_ms(&self) -> i32 {
        if !self.is_needed() {
            return 0;
        }
        let wait = self
            .until
            .get()
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(machine::now()));
        i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    }
}
