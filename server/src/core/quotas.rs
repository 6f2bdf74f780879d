//! How much is used of what somebody may use: one account for each who has a quota, of all cores of a broker.
//!
//! What is used is paid for with time to come: an account says until when all of it is paid, and whoever is beyond now waits until then.
//! So nothing is lost between two looks, cores need not tell each other anything, and in the long run the rate is the quota's whatever
//! is used at once. Who has used nothing for a while may use a little at once, of [`SAVED`].
//!
//! A core looks here for who has a quota only: without quotas there is a branch for each request ([`Quotas::are_set`]).

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    image::QuotaRules,
    metrics::QuotaFigures,
    model::quota::{QuotaKey, Rate},
};

/// Time in which nothing was used counts for so long.
const SAVED: Duration = Duration::from_millis(200);

/// The same of what comes in lumps: connections, and changes of topics.
const SAVED_OF_FEW: Duration = Duration::from_secs(1);

/// Whoever reads records is given as much at once as the quota allows in this time, or one batch.
pub(crate) const FETCH_TIME: Duration = Duration::from_millis(100);

/// Accounts; who comes then shares one with all who come after.
const ACCOUNTS_MAX: usize = 20_000;

/// Who shares an account: a user, a client id, or an address, each if the quota is by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Holder {
    key: QuotaKey,
    user: Option<String>,
    client: Option<String>,
    ip: Option<IpAddr>,
}

/// What somebody has used.
#[derive(Debug)]
pub(crate) struct Account {
    rate: Rate,
    saved: u64,
    /// When all that was used is paid for, in nanoseconds since the broker began.
    paid: AtomicU64,
    throttles: AtomicU64,
    throttled_ns: AtomicU64,
}

impl Account {
    fn new(key: QuotaKey, rate: Rate) -> Account {
        let saved = match key {
            QuotaKey::ControllerMutationRate | QuotaKey::ConnectionCreationRate => SAVED_OF_FEW,
            _ => SAVED,
        };
        Account {
            rate,
            saved: saved.as_nanos() as u64,
            paid: AtomicU64::new(0),
            throttles: AtomicU64::new(0),
            throttled_ns: AtomicU64::new(0),
        }
    }

    /// So much is used. Says for how long whoever has used it should use no more.
    pub(crate) fn charge(&self, units: f64, now: u64) -> Duration {
        let cost = (units / self.rate.get() * 1e9) as u64;
        let least = now.saturating_sub(self.saved);
        let after = |paid: u64| paid.max(least).saturating_add(cost);
        let charged = self
            .paid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| Some(after(paid)));
        // It never refuses.
        let paid = after(charged.unwrap_or_else(|paid| paid));
        Duration::from_nanos(paid.saturating_sub(now))
    }

    /// For how long nobody should use any more.
    pub(crate) fn wait(&self, now: u64) -> Duration {
        Duration::from_nanos(self.paid.load(Ordering::Relaxed).saturating_sub(now))
    }

    /// What may be used in a time.
    pub(crate) fn units_in(&self, time: Duration) -> f64 {
        self.rate.get() * time.as_secs_f64()
    }

    /// Somebody is held up for so much longer.
    pub(crate) fn throttles(&self, time: Duration) {
        self.throttles.fetch_add(1, Ordering::Relaxed);
        self.throttled_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// The accounts of a broker.
#[derive(Debug)]
pub(crate) struct Accounts {
    began: Instant,
    open: Mutex<HashMap<Holder, Arc<Account>>>,
}

impl Accounts {
    /// None yet.
    pub(crate) fn new(now: Instant) -> Accounts {
        Accounts {
            began: now,
            open: Mutex::default(),
        }
    }

    /// As accounts have it.
    pub(crate) fn time(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_nanos() as u64
    }

    /// The account of a holder. It is another one when the quota is: what was used by the old one is forgotten.
    fn of(&self, mut holder: Holder, rate: Rate, now: Instant) -> Arc<Account> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= ACCOUNTS_MAX && !open.contains_key(&holder) {
            let time = self.time(now);
            // Those that nobody has and that owe nothing are as new.
            open.retain(|_, account| Arc::strong_count(account) > 1 || !account.wait(time).is_zero());
            if open.len() >= ACCOUNTS_MAX {
                holder = Holder {
                    user: None,
                    client: None,
                    ip: None,
                    ..holder
                };
            }
        }
        let key = holder.key;
        let account = open.entry(holder).or_insert_with(|| Arc::new(Account::new(key, rate)));
        if account.rate != rate {
            *account = Arc::new(Account::new(key, rate));
        }
        Arc::clone(account)
    }

    /// Those that were ever held up, the first by name, and how many more there are.
    pub(crate) fn figures(&self, most: usize) -> (Vec<QuotaFigures>, u64) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let throttled = open
            .iter()
            .filter(|(_, account)| account.throttles.load(Ordering::Relaxed) > 0);
        let mut throttled: Vec<_> = throttled.collect();
        throttled.sort_unstable_by_key(|(holder, _)| *holder);
        let left_out = throttled.len().saturating_sub(most) as u64;
        let figures = throttled.into_iter().take(most).map(|(holder, account)| QuotaFigures {
            quota: holder.key.name(),
            user: holder.user.clone().unwrap_or_default(),
            client: holder.client.clone().unwrap_or_default(),
            ip: holder.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            throttles: account.throttles.load(Ordering::Relaxed),
            throttled: Duration::from_nanos(account.throttled_ns.load(Ordering::Relaxed)),
        });
        (figures.collect(), left_out)
    }
}

/// The quotas of now, on one core.
#[derive(Debug)]
pub(crate) struct Quotas {
    accounts: Arc<Accounts>,
    rules: RefCell<Arc<QuotaRules>>,
    are_set: Cell<bool>,
}

impl Quotas {
    /// None until the image tells of some.
    pub(crate) fn new(accounts: Arc<Accounts>) -> Quotas {
        Quotas {
            accounts,
            rules: RefCell::default(),
            are_set: Cell::new(false),
        }
    }

    /// Whether anybody has one.
    pub(crate) fn are_set(&self) -> bool {
        self.are_set.get()
    }

    /// These count from now on.
    pub(crate) fn apply(&self, rules: &Arc<QuotaRules>) {
        self.are_set.set(!rules.is_empty());
        self.rules.replace(Arc::clone(rules));
    }

    pub(crate) fn rules(&self) -> Arc<QuotaRules> {
        Arc::clone(&self.rules.borrow())
    }

    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The account on which a user with a client id uses something, if that is limited.
    pub(crate) fn account(&self, key: QuotaKey, (user, client): (&str, &str), now: Instant) -> Option<Arc<Account>> {
        let limit = self.rules.borrow().limit(key, user, client)?;
        let holder = Holder {
            key,
            user: limit.by_user.then(|| user.to_owned()),
            client: limit.by_client.then(|| client.to_owned()),
            ip: None,
        };
        Some(self.accounts.of(holder, limit.rate, now))
    }

    /// A connection comes from this address. Says, if there were too many, when it may come again.
    pub(crate) fn connects(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let rate = self.rules.borrow().of_address(address)?;
        let holder = Holder {
            key: QuotaKey::ConnectionCreationRate,
            user: None,
            client: None,
            ip: Some(address.to_canonical()),
        };
        let account = self.accounts.of(holder, rate, now);
        let time = self.accounts.time(now);
        let wait = account.wait(time);
        if wait.is_zero() {
            account.charge(1.0, time);
            return None;
        }
        account.throttles(wait);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine,
        model::quota::{Entity, Name},
    };

    fn second() -> u64 {
        Duration::from_secs(1).as_nanos() as u64
    }

    fn account(rate: f64) -> Account {
        Account::new(
            QuotaKey::ProducerByteRate,
            Rate::new(QuotaKey::ProducerByteRate, rate).unwrap(),
        )
    }

    #[test]
    fn in_ten_seconds_no_more_is_used_than_the_quota_of_ten_seconds_however_many_use_it_and_no_less() {
        for users in [1, 2, 7] {
            let account = account(1_000_000.0);
            // Each waits for what it was told, and uses again.
            let mut waiting = vec![100 * second(); users];
            let mut used = 0_u64;
            loop {
                waiting.sort_unstable();
                let now = waiting[0];
                if now >= 110 * second() {
                    break;
                }
                waiting[0] = now + account.charge(10_000.0, now).as_nanos() as u64;
                used += 10_000;
            }
            let quota = 10_000_000 + 200_000;
            assert!(
                (10_000_000..=quota + 10_000 * users as u64).contains(&used),
                "{used} bytes by {users}"
            );
        }
    }

    #[test]
    fn a_rest_is_worth_no_more_than_a_little() {
        let account = account(1000.0);
        assert_eq!(account.charge(200.0, 100 * second()), Duration::ZERO);
        assert_eq!(account.charge(1000.0, 100 * second()), Duration::from_secs(1));
        assert_eq!(account.wait(100 * second()), Duration::from_secs(1));
        assert_eq!(account.charge(200.0, 200 * second()), Duration::ZERO);
        assert_eq!(account.charge(100.0, 200 * second()), Duration::from_millis(100));
    }

    #[test]
    fn who_shares_a_quota_shares_an_account_and_another_quota_is_another_account() {
        let now = machine::now();
        let quotas = Quotas::new(Arc::new(Accounts::new(now)));
        let rules = |user: Option<Name>, client: Option<Name>, rate| {
            let entity = Entity { user, client, ip: None };
            let rate = Rate::new(QuotaKey::ProducerByteRate, rate).unwrap();
            Arc::new(QuotaRules::new([(entity, vec![(QuotaKey::ProducerByteRate, rate)])]))
        };
        let of = |user: &str, client: &str| quotas.account(QuotaKey::ProducerByteRate, (user, client), now);
        assert!(of("alice", "a").is_none() && !quotas.are_set());
        quotas.apply(&rules(Some(Name::Default), None, 10.0));
        assert!(quotas.are_set());
        let alice = of("alice", "a").unwrap();
        assert!(
            Arc::ptr_eq(&alice, &of("alice", "b").unwrap()),
            "all of a user's clients"
        );
        assert!(!Arc::ptr_eq(&alice, &of("bob", "a").unwrap()), "each user for itself");
        quotas.apply(&rules(Some(Name::Default), None, 20.0));
        assert!(!Arc::ptr_eq(&alice, &of("alice", "a").unwrap()));
        quotas.apply(&rules(None, Some(Name::Default), 20.0));
        assert!(Arc::ptr_eq(&of("alice", "a").unwrap(), &of("bob", "a").unwrap()));
        // Very many names make no more accounts than there may be.
        for name in 0..ACCOUNTS_MAX + 100 {
            let name = name.to_string();
            of("alice", &name).unwrap();
        }
        assert!(quotas.accounts.open.lock().unwrap().len() <= ACCOUNTS_MAX);
    }
}
