//! Any order of asking, giving up and giving back.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
};

use futures::FutureExt;
use proptest::prelude::*;

use super::*;

const LIMIT: u64 = 100;

#[test]
fn who_finds_the_budget_spent_waits_until_enough_is_given_back() {
    let budget = Budget::new(LIMIT);
    let first = budget.lease(60).now_or_never().unwrap();
    let mut second = pin!(budget.lease(50));
    assert!(second.as_mut().now_or_never().is_none());
    drop(first);
    let second = second.now_or_never().unwrap();
    assert_eq!(budget.used.get(), 50);
    drop(second);
    let oversized = budget.lease(1_000).now_or_never();
    assert!(
        oversized.is_some(),
        "a request larger than the limit must still pass, alone"
    );
}

#[test]
fn a_large_lease_near_the_limit_is_not_overtaken_by_small_ones() {
    let budget = Budget::new(LIMIT);
    let held = budget.lease(20).now_or_never().unwrap();
    let mut large = pin!(budget.lease(90));
    assert!(large.as_mut().now_or_never().is_none());
    let mut small = pin!(budget.lease(1));
    assert!(
        small.as_mut().now_or_never().is_none(),
        "there is room, but not before the large one"
    );
    drop(held);
    assert!(small.as_mut().now_or_never().is_none());
    let large = large.now_or_never();
    assert!(large.is_some());
    assert!(small.now_or_never().is_some());
}

#[test]
fn whoever_wants_to_know_hears_of_the_first_who_waits() {
    let budget = Budget::new(LIMIT);
    let mut contended = pin!(budget.contended());
    let held = budget.lease(LIMIT).now_or_never().unwrap();
    assert!(contended.as_mut().now_or_never().is_none());
    let mut waiting = pin!(budget.lease(1));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert!(contended.now_or_never().is_some());
    assert!(budget.contended().now_or_never().is_some(), "as long as it waits");
    drop(held);
    drop(waiting.now_or_never().unwrap());
    assert!(budget.contended().now_or_never().is_none());
}

/// One who asked: polled only when it was woken, as an executor does.
struct Asker {
    number: usize,
    turn: Pin<Box<Turn>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Ask(u64),
    GiveUp(prop::sample::Index),
    GiveBack(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => prop_oneof![1..20_u64, 60..140_u64].prop_map(Step::Ask),
        1 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
        2 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
    ];
    prop::collection::vec(step, 1..60)
}

/// Polls whoever was woken until nobody is, and returns who got a lease, in order.
fn run(askers: &mut Vec<Asker>) -> Vec<(usize, Lease)> {
    let mut granted = Vec::new();
    while let Some(at) = askers
        .iter()
        .position(|asker| asker.woken.0.swap(false, Ordering::Relaxed))
    {
        let waker = Waker::from(Arc::clone(&askers[at].woken));
        if let Poll::Ready(lease) = askers[at].turn.as_mut().poll(&mut Context::from_waker(&waker)) {
            granted.push((askers.remove(at).number, lease));
        }
    }
    granted
}

proptest! {
    #[test]
    fn leases_are_granted_in_the_order_of_asking_as_soon_as_they_fit_whoever_gives_up(steps in steps()) {
        let budget = Budget::new(LIMIT);
        let (mut askers, mut leases): (Vec<Asker>, Vec<Lease>) = Default::default();
        let mut last_granted = None;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Ask(bytes) => askers.push(Asker {
                    number,
                    turn: Box::pin(budget.lease(bytes)),
                    woken: Arc::new(Woken(AtomicBool::new(true))),
                }),
                Step::GiveUp(which) if !askers.is_empty() => drop(askers.remove(which.index(askers.len()))),
                Step::GiveBack(which) if !leases.is_empty() => drop(leases.remove(which.index(leases.len()))),
                Step::GiveUp(_) | Step::GiveBack(_) => {}
            }
            for (number, lease) in run(&mut askers) {
                prop_assert!(last_granted < Some(number), "{number} came before {last_granted:?}");
                last_granted = Some(number);
                leases.push(lease);
            }
            let used: u64 = leases.iter().map(|lease| lease.bytes).sum();
            prop_assert_eq!(budget.used(), used);
            prop_assert!(used <= LIMIT || leases.len() == 1, "{} bytes in {} leases", used, leases.len());
            if let Some(first) = askers.first() {
                prop_assert!(!budget.fits(first.turn.bytes), "{} bytes fit, and wait", first.turn.bytes);
            }
            prop_assert_eq!(budget.waiting.borrow().len(), askers.len());
        }
        drop((askers, leases));
        prop_assert_eq!(budget.used(), 0);
    }
}
