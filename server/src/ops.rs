//! What clients ask of the broker, done: on the core that took the request, or by asking the cores that own the partitions. Free of any
//! protocol: a session reads what is asked, and writes down what has become of it.
//!
//! There are three ways in, and whoever wants to know who asks for what stands before them: [`produce::take`] and [`fetch::fetch`]
//! for records, [`perform`] for everything else.

mod broker;
pub(crate) mod fetch;
pub(crate) mod forwarded;
mod groups;
pub(crate) mod offsets;
pub(crate) mod produce;
mod producers;
pub(crate) mod topics;

use std::rc::Rc;

use crate::{
    core::Core,
    model::{
        group::Client,
        op::{Op, Outcome},
        refusal::Refusal,
    },
};

/// Does what a client asks.
pub(crate) async fn perform(core: &Rc<Core>, client: &Client, op: Op) -> Result<Outcome, Refusal> {
    match op {
        Op::Metadata(names) => Ok(Outcome::Metadata(topics::metadata(core, names))),
        Op::CreateTopic(new) => topics::create(core, new).await,
        Op::AlterTopic(change) => topics::alter(core, change).await,
        Op::DeleteTopic(name) => topics::delete(core, name).await,
        Op::DescribeTopic(name) => topics::describe(core, &name).await,
        Op::DescribeBroker => Ok(Outcome::Broker(broker::describe(core).await)),
        Op::InitProducerId(id, epoch) => producers::init(core, id, epoch).await,
        Op::ListOffsets(items) => Ok(Outcome::Offsets(offsets::list(core, items).await)),
        Op::DeleteRecords(id, before) => offsets::delete(core, id, before).await.map(Outcome::RecordsDeleted),
        Op::FindGroup(group) => groups::find(core, group).await,
        Op::JoinGroup(group, joining) => Ok(groups::join(core, client, group, joining).await),
        Op::CommitOffsets(group, who, offsets) => groups::commit(core, group, who, offsets).await,
        Op::FetchOffsets(group, topics) => groups::fetch(core, group, topics).await,
        Op::ForgetOffsets(group, topics) => groups::forget(core, group, topics).await,
        Op::ListGroups(states) => groups::list(core, states).await,
        Op::Group(group, request) => groups::ask(core, group, request).await,
    }
}
