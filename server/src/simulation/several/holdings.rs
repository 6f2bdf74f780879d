//! What an acknowledgement promises, seen from outside: whoever is in sync, or eligible to lead, has on its disk all that was
//! acknowledged. Looked at whenever a host loses power, whenever a broker has stopped in order, and whenever somebody comes into sync:
//! whether what is missing comes to be missed depends on who dies next, which is seldom the right one.

use std::{
    path::PathBuf,
    rc::{Rc, Weak},
};

use futures::executor::block_on;
use headwater_engine::disk::SimDisk;
use headwater_protocol::id::BrokerId;

use super::{
    super::{house::House, ledger::Ledger, scenario::TOPIC},
    Cluster, replicas,
};
use crate::cluster::Agreement;

/// Has it looked at from now on.
pub(super) fn watch(cluster: &Cluster, ledger: &Rc<Ledger>, partitions: i32) {
    for (id, house) in (0..).map(BrokerId::new).zip(&cluster.houses) {
        let (agreement, ledger) = (Rc::clone(&cluster.agreement), Rc::clone(ledger));
        house.when_it_has_ended(move |house, disk| {
            for partition in 0..partitions {
                check(&agreement, &ledger, (id, house, disk), partition);
            }
        });
    }
    let houses: Vec<Weak<House>> = cluster.houses.iter().map(Rc::downgrade).collect();
    let (agreement, ledger) = (Rc::downgrade(&cluster.agreement), Rc::clone(ledger));
    cluster.agreement.when_in_sync(move |id, broker| {
        let Some(agreement) = agreement.upgrade() else { return };
        if agreement.image().topic(TOPIC).is_some_and(|topic| topic.id == id.topic) {
            let Some(house) = houses[broker.get() as usize].upgrade() else {
                return;
            };
            let disk = house.disk().certain_image(0);
            check(&agreement, &ledger, (broker, &house, &disk), id.index.get());
        }
    });
}

/// The disk is one that no process uses.
fn check(agreement: &Agreement, ledger: &Ledger, (id, house, disk): (BrokerId, &House, &SimDisk), partition: i32) {
    let image = agreement.image();
    let Some(topic) = image.topic(TOPIC) else {
        return;
    };
    let map = agreement.replicas();
    let replicas = map.replicas_of(topic.id).get(partition as usize);
    let Some(replicas) = replicas.filter(|replicas| replicas.counts_on(id)) else {
        return;
    };
    let Some(last) = ledger.last_promised(partition) else {
        return;
    };
    let directory = PathBuf::from(format!("/data/{TOPIC}-{partition}"));
    let Some(log) = block_on(replicas::read(disk, &directory)) else {
        // That it is gone is not known yet.
        assert!(
            house.has_lost.get(),
            "{} has no partition {partition}, and is counted on: {replicas:?}",
            house.host
        );
        return;
    };
    assert!(
        log.contains(last),
        "{} does not have {last} of partition {partition} on its disk, which is acknowledged: {replicas:?}",
        house.host
    );
}
