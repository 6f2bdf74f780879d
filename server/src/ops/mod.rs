//! What clients ask of the broker, done: on the core that took the request, or by asking the cores that own the partitions. Free of any
//! protocol: a session reads what is asked, and writes down what has become of it.
//!
//! There are three ways in: [`produce::take`] and [`fetch::fetch`] for records, before which a session asks [`Ops::may_partition`], and
//! [`perform`] for everything else. Who may do what decides [`access`].

pub(crate) mod access;
pub(crate) mod audit;
mod broker;
pub(crate) mod fetch;
pub(crate) mod figures;
pub(crate) mod forwarded;
mod groups;
pub(crate) mod logs;
pub(crate) mod nodes;
pub(crate) mod offsets;
pub(crate) mod produce;
mod producers;
mod replicas;
mod security;
pub(crate) mod topics;
pub(crate) mod transactions;

use std::{rc::Rc, sync::Arc};

use self::{
    access::{Access, Judge},
    forwarded::Forwarded,
};
use crate::{
    cluster::ControlHandle,
    coordinator::{Service, transactions::Transactions},
    core::Core,
    image::KafkaAddress,
    model::{
        access::Asker,
        group::Client,
        op::{Op, Outcome},
        refusal::Refusal,
    },
    partition::Partitions,
};

/// The broker as clients see it.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) cluster_id: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) core_ports: Vec<u16>,
    /// Where Kafka's clients find it, if they do.
    pub(crate) kafka: Option<KafkaAddress>,
}

/// What requests are done with, on one core.
pub(crate) struct Ops {
    pub(crate) core: Rc<Core>,
    pub(crate) partitions: Rc<Partitions>,
    pub(crate) groups: Rc<Service>,
    pub(crate) transactions: Rc<Transactions>,
    control: ControlHandle,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) access: Access,
    forwarded: Forwarded,
}

impl Ops {
    pub(crate) fn new(transactions: &Rc<Transactions>, control: ControlHandle, addresses: Arc<Addresses>) -> Rc<Ops> {
        let groups = &transactions.marks.groups;
        let partitions = &groups.partitions;
        Rc::new(Ops {
            core: Rc::clone(&partitions.core),
            partitions: Rc::clone(partitions),
            groups: Rc::clone(groups),
            transactions: Rc::clone(transactions),
            control,
            addresses,
            access: Access::new(&partitions.core.config),
            forwarded: Forwarded::default(),
        })
    }

    /// Who may do what now.
    pub(crate) fn judge<'a>(&'a self, asker: &'a Asker) -> Judge<'a> {
        Judge {
            access: &self.access,
            partitions: &self.partitions,
            asker,
        }
    }
}

/// Does what a client asks, if it may.
pub(crate) async fn perform(ops: &Ops, client: &Client, asker: &Asker, op: Op) -> Result<Outcome, Refusal> {
    if !ops.access.is_on() {
        return carry_out(ops, client, op).await;
    }
    ops.judge(asker).admit(&op)?;
    let of_all = access::is_of_all(&op);
    let mut outcome = carry_out(ops, client, op).await?;
    ops.judge(asker).cut(of_all, &mut outcome);
    Ok(outcome)
}

/// Partitions that are made or deleted by this.
pub(crate) fn mutations(ops: &Ops, op: &Op) -> u32 {
    let image = ops.partitions.image();
    let has = |name: &str| image.topic(name).map_or(1, |topic| topic.partition_count);
    match op {
        Op::CreateTopic(new, false) => match &new.assignments {
            Some(assignments) => assignments.len() as u32,
            None => new.partitions.max(1).cast_unsigned(),
        },
        Op::AlterTopic(alteration, false) => {
            let wanted = u32::try_from(alteration.partitions).unwrap_or(0);
            wanted.saturating_sub(has(&alteration.name))
        }
        Op::DeleteTopic(name, _) => has(name),
        _ => 0,
    }
}

async fn carry_out(ops: &Ops, client: &Client, op: Op) -> Result<Outcome, Refusal> {
    let Ops {
        partitions, control, ..
    } = ops;
    match op {
        Op::Metadata(names) => Ok(Outcome::Metadata(topics::metadata(ops, names))),
        Op::Layout(topics) => Ok(Outcome::Layout(nodes::layout(ops, topics))),
        Op::CreateTopic(new, validate_only) => topics::create(control, new, validate_only).await,
        Op::AlterTopic(alteration, validate_only) => topics::alter(control, alteration, validate_only).await,
        Op::DeleteTopic(name, only) => topics::delete(control, name, only).await,
        Op::DescribeTopic(name) => topics::describe(partitions, &name).await,
        Op::DescribeBroker => Ok(Outcome::Broker(broker::describe(ops).await)),
        Op::DescribeLogs(ids, is_own) => Ok(Outcome::Logs(logs::describe(ops, ids, is_own).await)),
        Op::DescribeProducers(id) => logs::producers(partitions, id).await.map(Outcome::Producers),
        Op::DescribeQuorum => control.quorum().describe().await.map(Outcome::Quorum),
        Op::AddQuorumMembers(members) => {
            let added = control.quorum().add(members).await;
            added.map(|()| Outcome::MembersAdded)
        }
        Op::RemoveQuorumMember(member) => {
            let removed = control.quorum().remove(member).await;
            removed.map(|()| Outcome::MemberRemoved)
        }
        Op::ListBrokers => Ok(Outcome::Brokers(replicas::list(ops, control.quorum()))),
        Op::CordonBroker(broker, is_cordoned) => replicas::cordon(control.quorum(), broker, is_cordoned).await,
        Op::ForgetBroker(broker) => replicas::forget(control.quorum(), broker).await,
        Op::FinaliseFeatures(level) => replicas::finalise(control.quorum(), level).await,
        Op::DrainBroker(broker) => replicas::drain(control.quorum(), broker).await,
        Op::ElectLeaders(topics, unclean) => replicas::elect(control.quorum(), topics, unclean).await,
        Op::ReassignPartitions(moves) => replicas::reassign(control.quorum(), moves).await,
        Op::InitProducerId(id, epoch) => producers::init(control, id, epoch).await,
        Op::ListOffsets(items) => Ok(Outcome::Offsets(offsets::list(partitions, items).await)),
        Op::DeleteRecords(id, before) => offsets::delete(partitions, id, before)
            .await
            .map(Outcome::RecordsDeleted),
        Op::FindGroup(group) => groups::find(ops, group).await,
        Op::JoinGroup(group, joining) => Ok(groups::join(&ops.groups, client, group, joining).await),
        Op::FetchOffsets(group, who, topics) => groups::fetch(&ops.groups, group, who, topics).await,
        Op::ForgetOffsets(group, topics) => groups::forget(&ops.groups, group, topics).await,
        Op::ListGroups(states, is_own) => groups::list(&ops.groups, states, is_own).await,
        Op::Group(group, request) => groups::ask(&ops.groups, group, request).await,
        Op::FindTransaction(id) => transactions::find(ops, id).await,
        Op::Transaction(id, request) => transactions::ask(ops, id, request).await,
        Op::ListTransactions(is_own) => transactions::list(ops, is_own).await,
        Op::Mark(marker, ids) => Ok(transactions::mark(ops, marker, ids).await),
        Op::DescribeAcls(filter) => security::describe_acls(ops, &filter),
        Op::CreateAcls(acls) => security::create_acls(ops, acls).await,
        Op::DeleteAcls(filters) => security::delete_acls(ops, filters).await,
        Op::DescribeUsers(names) => Ok(security::describe_users(ops, names)),
        Op::SetUser(user, keys) => security::set_user(ops, user, keys).await,
        Op::RemoveUser(user, mechanism) => security::remove_user(ops, user, mechanism).await,
        Op::DescribeQuotas => Ok(security::describe_quotas(ops)),
        Op::AlterQuotas(alterations) => security::alter_quotas(ops, alterations).await,
    }
}
