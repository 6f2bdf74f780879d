//! Settings of topics are described and altered; those of brokers are described. What there is, and what it means, say the tables in
//! `topic` and `broker`.

mod alter;
mod broker;
mod describe;
mod kinds;
mod topic;

pub(super) use self::{
    alter::{alter, alter_incrementally, of_new_topic},
    describe::{describe, of_created_topic},
};
