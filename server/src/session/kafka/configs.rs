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

/// What has settings.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;

/// Where a value comes from: the topic, the broker's configuration, or nobody has set it.
const FROM_TOPIC: i8 = 1;
const FROM_BROKER: i8 = 4;
const FROM_DEFAULT: i8 = 5;
