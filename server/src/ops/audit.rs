//! The audit log: who was allowed or denied what, and from where.
//!
//! What [`Judge`](super::access::Judge) decides is noted on the core that asked it, and waits in a queue of that core until a task writes it
//! down: as a line of the log with the target `audit`, and, where that is wanted, as a record of the topic `__audit`. Nobody waits for it.
//! A full queue drops what comes, and counts it. Of what is decided again the first is written at once, and then, once an interval, how
//! often it was, so that a consumer which fetches a thousand times a second is one line.

pub(crate) mod write;

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
};

use serde::Serialize;

use crate::{
    config::{AuditLevel, Config},
    core::warn_seldom,
    machine,
    model::access::{Asker, Operation, ResourceKind},
};

/// Decisions that wait on a core to be written down.
const QUEUE_MAX: usize = 4096;

/// Different decisions of an interval that a core knows again.
const KNOWN_MAX: usize = 10_000;

/// More of a name is not written down, in bytes.
const NAME_LEN_MAX: usize = 256;

/// Records that are written before others have a turn.
const AT_ONCE: usize = 256;

/// One line: that, or how often since the last one, something was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Decision {
    /// Milliseconds since 1970.
    time: i64,
    principal: String,
    host: String,
    operation: &'static str,
    resource: &'static str,
    name: String,
    #[serde(rename = "decision")]
    verdict: &'static str,
    count: u64,
}

/// What is done to which kind, and whether that is allowed.
type Kind = (Operation, ResourceKind, bool);

/// Of one who asks: by kind, by name, how often it was decided since that was written down.
type OfAsker = HashMap<Kind, HashMap<String, u64>>;

/// The audit log of one core.
#[derive(Debug)]
pub(crate) struct Audit {
    level: AuditLevel,
    queue: RefCell<VecDeque<Decision>>,
    known: RefCell<HashMap<String, OfAsker>>,
    known_count: Cell<usize>,
    pub(crate) written: Cell<u64>,
    pub(crate) dropped: Cell<u64>,
}

impl Audit {
    pub(super) fn new(config: &Config) -> Audit {
        Audit {
            level: config.security.audit,
            queue: RefCell::default(),
            known: RefCell::default(),
            known_count: Cell::new(0),
            written: Cell::new(0),
            dropped: Cell::new(0),
        }
    }

    /// Something was decided.
    pub(super) fn note(
        &self,
        asker: &Asker,
        operation: Operation,
        (kind, name): (ResourceKind, &str),
        is_allowed: bool,
    ) {
        if self.level == AuditLevel::Off || (is_allowed && self.level != AuditLevel::All) {
            return;
        }
        let name = &name[..name.floor_char_boundary(NAME_LEN_MAX.min(name.len()))];
        let kind = (operation, kind, is_allowed);
        let mut known = self.known.borrow_mut();
        let again = known
            .get_mut(&asker.key)
            .and_then(|of_asker| of_asker.get_mut(&kind)?.get_mut(name));
        if let Some(again) = again {
            *again += 1;
            return;
        }
        if self.known_count.get() < KNOWN_MAX {
            self.known_count.set(self.known_count.get() + 1);
            let of_asker = known.entry(asker.key.clone()).or_default();
            of_asker.entry(kind).or_default().insert(name.to_owned(), 0);
        }
        drop(known);
        self.push((asker.principal.as_str(), &asker.host), kind, name, 1);
    }

    fn push(&self, (principal, host): (&str, &str), (operation, kind, is_allowed): Kind, name: &str, count: u64) {
        let mut queue = self.queue.borrow_mut();
        if queue.len() >= QUEUE_MAX {
            self.drops(count);
            return;
        }
        queue.push_back(Decision {
            time: machine::wall().get(),
            principal: principal.to_owned(),
            host: host.to_owned(),
            operation: operation.name(),
            resource: kind.name(),
            name: name.to_owned(),
            verdict: if is_allowed { "allowed" } else { "denied" },
            count,
        });
    }

    fn drops(&self, count: u64) {
        self.dropped.set(self.dropped.get() + count);
        let dropped = self.dropped.get();
        warn_seldom!(
            dropped,
            "decisions are missing in the audit log: they come faster than they are written"
        );
    }

    /// An interval is over: how often the same was decided in it is to be written down, and what was not is forgotten.
    fn sum_up(&self) {
        let mut known = std::mem::take(&mut *self.known.borrow_mut());
        let mut left = 0;
        for (asker, of_asker) in &mut known {
            let who = asker.split_once('\n').unwrap_or((asker, ""));
            for (kind, names) in of_asker.iter_mut() {
                names.retain(|name, again| {
                    let count = std::mem::take(again);
                    if count > 0 {
                        self.push(who, *kind, name, count);
                    }
                    count > 0
                });
                left += names.len();
            }
            of_asker.retain(|_, names| !names.is_empty());
        }
        known.retain(|_, of_asker| !of_asker.is_empty());
        *self.known.borrow_mut() = known;
        self.known_count.set(left);
    }

    /// The next that are to be written down.
    fn next(&self) -> Vec<Decision> {
        let mut queue = self.queue.borrow_mut();
        let count = queue.len().min(AT_ONCE);
        queue.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::access::Principal;

    fn audit(level: AuditLevel) -> Audit {
        let mut config = Config::default();
        config.security.audit = level;
        Audit::new(&config)
    }

    fn asker(name: &str) -> Asker {
        Asker::new(Principal::user(name), "10.0.0.1")
    }

    const TOPIC: (ResourceKind, &str) = (ResourceKind::Topic, "orders");

    #[test]
    fn what_is_decided_again_is_counted_and_written_down_once_an_interval() {
        let audit = audit(AuditLevel::All);
        let alice = asker("alice");
        for _ in 0..1000 {
            audit.note(&alice, Operation::Read, TOPIC, true);
        }
        audit.note(&alice, Operation::Write, TOPIC, false);
        let counts = || {
            let all = audit.next();
            let all = all.iter().map(|line| (line.operation, line.verdict, line.count));
            all.collect::<Vec<_>>()
        };
        assert_eq!(counts(), [("read", "allowed", 1), ("write", "denied", 1)]);
        audit.sum_up();
        assert_eq!(counts(), [("read", "allowed", 999)]);
        // It goes on in the next interval, and is forgotten in one in which nobody asks.
        audit.note(&alice, Operation::Read, TOPIC, true);
        assert_eq!(counts(), []);
        audit.sum_up();
        assert_eq!(counts(), [("read", "allowed", 1)]);
        audit.sum_up();
        assert_eq!((counts(), audit.known_count.get()), (vec![], 0));
        assert!(audit.known.borrow().is_empty());
        audit.note(&alice, Operation::Read, TOPIC, true);
        assert_eq!(counts(), [("read", "allowed", 1)]);
    }

    #[test]
    fn a_full_queue_drops_what_comes_and_counts_it_and_memory_is_bounded() {
        let audit = audit(AuditLevel::Denied);
        for number in 0..KNOWN_MAX + 500 {
            let name = format!("{number}{}", "x".repeat(1000));
            audit.note(&asker("mallory"), Operation::Read, (ResourceKind::Topic, &name), false);
        }
        assert_eq!(audit.queue.borrow().len(), QUEUE_MAX);
        assert_eq!(audit.dropped.get(), (KNOWN_MAX + 500 - QUEUE_MAX) as u64);
        assert_eq!(audit.known_count.get(), KNOWN_MAX);
        assert!(audit.next().iter().all(|line| line.name.len() == NAME_LEN_MAX));
        // As soon as there is room again, nothing is dropped.
        let dropped = audit.dropped.get();
        audit.note(&asker("bob"), Operation::Read, TOPIC, false);
        assert_eq!(audit.dropped.get(), dropped);
    }

    #[test]
    fn only_what_is_wanted_is_written_down() {
        for (level, lines) in [(AuditLevel::Off, 0), (AuditLevel::Denied, 1), (AuditLevel::All, 2)] {
            let audit = audit(level);
            audit.note(&asker("alice"), Operation::Read, TOPIC, true);
            audit.note(&asker("alice"), Operation::Write, TOPIC, false);
            assert_eq!(audit.next().len(), lines, "{level:?}");
        }
    }
}
