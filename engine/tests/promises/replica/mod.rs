//! What replication needs of a log: reading by limits, leader epochs, batches as another log has them, truncation.

mod crash;
mod limits;
mod model;
mod naive;
mod owner;
mod parting;
