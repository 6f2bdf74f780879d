//! The partitions of one core: opened, served, kept up, opened again when they have failed, and closed.

mod acknowledge;
pub(crate) mod backoff;
mod beginnings;
mod closing;
mod compaction;
mod filing;
pub(crate) mod lend;
mod partitions;
mod reopen;
pub(crate) mod replicated;
pub(crate) mod replication;
mod served;
mod upkeep;

use std::rc::Rc;

pub(crate) use self::{closing::close_partitions, partitions::Partitions, served::Partition};
use crate::machine::Daemons;

/// Starts what is done to partitions beside requests. `opened` is called when one is back that had failed.
pub(crate) fn start(partitions: &Rc<Partitions>, daemons: &Daemons, opened: impl Fn() + 'static) {
    upkeep::start(partitions, daemons);
    filing::start(partitions, daemons);
    daemons.spawn_background(compaction::run(Rc::clone(partitions)));
    daemons.spawn_background(reopen::run(Rc::clone(partitions), opened));
}
