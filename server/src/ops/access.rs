//! Whether somebody may do what it asks for: the one place that decides it, for every protocol alike.
//!
//! [`Judge::may`] decides about one resource. [`Judge::admit`] is before [`perform`](super::perform) and knows which resources an [`Op`] is about;
//! what its outcome tells is then cut down to what may be told ([`Judge::cut`]). Records have a way of their own, and their sessions ask
//! [`Judge::may_partition`]. What was decided is remembered on each core until the rules are others.
//!
//! Without `security.authorizer` everything is allowed, and nothing is looked up.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
};

use headwater_engine::Seldom;
use headwater_protocol::{
    error::ErrorCode,
    scram::{self, Keys, Mechanism},
};

use super::audit::Audit;
use crate::{
    config::Config,
    image::{AccessRules, ClusterImage},
    machine,
    model::{
        access::{Asker, CLUSTER, Operation, Principal, ResourceKind},
        group::{Answer, Request},
        id::PartitionId,
        internal::is_internal,
        nodes::TopicRef,
        op::{Op, Outcome, TopicPartitions},
        refusal::Refusal,
        transaction,
    },
    partition::Partitions,
};

/// The user that the configuration lets in.
pub(crate) const ADMIN: &str = "admin";

/// Decisions that a core remembers; then it begins anew.
const DECISIONS_MAX: usize = 50_000;

/// A resource of a kind.
pub(crate) type Resource<'a> = (ResourceKind, &'a str);

/// The cluster as a resource.
pub(crate) const THE_CLUSTER: Resource<'static> = (ResourceKind::Cluster, CLUSTER);

/// Of one who asks: by what is done to which kind, by name.
type OfAsker = HashMap<(Operation, ResourceKind), HashMap<String, bool>>;

/// What was decided by the same rules: by who asks, by what is done to which kind, by name.
#[derive(Default)]
struct Decisions {
    rules: Arc<AccessRules>,
    known: HashMap<String, OfAsker>,
    count: usize,
}

/// Who may do what on this core.
pub(crate) struct Access {
    is_on: bool,
    super_users: Vec<Principal>,
    /// Of the user that the configuration lets in.
    admin: Vec<Keys>,
    /// In the place of the one that the quorum has, while there are no users. It is nothing that follows from a password: whoever asks is told
    /// what is made of it.
    secret: Vec<u8>,
    decisions: RefCell<Decisions>,
    pub(crate) denied: Cell<u64>,
    pub(super) audit: Audit,
    denials: RefCell<Seldom>,
}

impl Access {
    /// As it is configured.
    pub(super) fn new(config: &Config) -> Access {
        let security = &config.security;
        let password = security.admin_password.fetch().unwrap_or_else(|why| {
            // The start was refused for it; it is gone since.
            tracing::error!(
                why,
                "the user {ADMIN} cannot come in: security.admin_password cannot be read"
            );
            None
        });
        let secret = machine::random::<[u8; 32]>().to_vec();
        let mut super_users: Vec<Principal> = security.super_users.iter().map(Principal::user).collect();
        if password.is_some() {
            super_users.push(Principal::user(ADMIN));
        }
        let admin = password.map(|password| {
            let keys = |mechanism| {
                let salt = Keys::of_nobody(mechanism, ADMIN, &secret, 1).salt;
                Keys::of_password(mechanism, &password, salt, scram::ITERATIONS_MIN)
            };
            Mechanism::ALL.map(keys).to_vec()
        });
        Access {
            is_on: security.authorizer,
            super_users,
            admin: admin.unwrap_or_default(),
            secret,
            decisions: RefCell::default(),
            denied: Cell::default(),
            audit: Audit::new(config),
            denials: RefCell::default(),
        }
    }

    /// Whether anything is ever denied.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    fn may(&self, rules: &Arc<AccessRules>, asker: &Asker, operation: Operation, (kind, name): Resource<'_>) -> bool {
        if !self.is_on || self.super_users.contains(&asker.principal) {
            return true;
        }
        let mut decisions = self.decisions.borrow_mut();
        if !Arc::ptr_eq(&decisions.rules, rules) || decisions.count >= DECISIONS_MAX {
            *decisions = Decisions {
                rules: Arc::clone(rules),
                ..Decisions::default()
            };
        }
        let known = decisions.known.get(&asker.key);
        let known = known
            .and_then(|known| known.get(&(operation, kind))?.get(name))
            .copied();
        if let Some(known) = known {
            return known;
        }
        let is_allowed = rules.allow((asker.principal.as_str(), &asker.host), operation, (kind, name));
        let of_asker = decisions.known.entry(asker.key.clone()).or_default();
        let of_kind = of_asker.entry((operation, kind)).or_default();
        of_kind.insert(name.to_owned(), is_allowed);
        decisions.count += 1;
        is_allowed
    }

    /// What is kept of a user's password; for a name that nobody has, what no password fits.
    pub(crate) fn keys(&self, rules: &AccessRules, user: &str, mechanism: Mechanism) -> Keys {
        let of_admin = self.admin.iter().filter(|_| user == ADMIN);
        let mut of_admin = of_admin.filter(|keys| keys.mechanism == mechanism);
        let keys = of_admin.next().cloned().or_else(|| rules.keys(user, mechanism));
        let secret = if rules.users().is_empty() {
            &self.secret
        } else {
            &rules.secret().0
        };
        keys.unwrap_or_else(|| Keys::of_nobody(mechanism, user, secret, scram::ITERATIONS_MIN))
    }

    /// Whether somebody who has come in would be let in again, as far as that is known without its password.
    pub(crate) fn has_user(&self, rules: &AccessRules, user: &str) -> bool {
        (user == ADMIN && !self.admin.is_empty()) || rules.users().contains_key(user)
    }

    /// Whether this is the user that the configuration lets in, whom the quorum must not have as well.
    pub(crate) fn is_admin(&self, user: &str) -> bool {
        user == ADMIN && !self.admin.is_empty()
    }

    /// Says what was denied, now and then: whoever is denied something may ask for it often.
    fn deny(&self, asker: &Asker, operation: Operation, (kind, name): Resource<'_>) {
        self.denied.set(self.denied.get() + 1);
        let Some(unsaid) = self.denials.borrow_mut().may_speak(machine::now()) else {
            return;
        };
        tracing::info!(
            principal = %asker.principal,
            host = asker.host,
            operation = operation.name(),
            resource = kind.name(),
            name = %name.escape_debug(),
            unsaid,
            "somebody asked for what it may not do"
        );
    }
}

/// The code with which something is denied.
fn code_of(kind: ResourceKind) -> ErrorCode {
    match kind {
        ResourceKind::Topic => ErrorCode::TopicAuthorizationFailed,
        ResourceKind::Group => ErrorCode::GroupAuthorizationFailed,
        ResourceKind::TransactionalId => ErrorCode::TransactionalIdAuthorizationFailed,
        ResourceKind::Cluster | ResourceKind::User => ErrorCode::ClusterAuthorizationFailed,
    }
}

/// Who may do what by the rules of now.
pub(crate) struct Judge<'a> {
    pub(super) access: &'a Access,
    pub(super) partitions: &'a Partitions,
    pub(super) asker: &'a Asker,
}

impl Judge<'_> {
    /// Whether somebody may do this. Silent: for what is left out of an answer.
    pub(crate) fn may(&self, operation: Operation, resource: Resource<'_>) -> bool {
        !self.access.is_on
            || self
                .access
                .may(self.partitions.image().access(), self.asker, operation, resource)
    }

    /// Whether somebody may do this, which is written down.
    fn decide(&self, operation: Operation, resource: Resource<'_>) -> bool {
        let is_allowed = self.may(operation, resource);
        self.access.audit.note(self.asker, operation, resource, is_allowed);
        if !is_allowed {
            self.access.deny(self.asker, operation, resource);
        }
        is_allowed
    }

    /// Whether one of several ways in is open to somebody; only if it is, that is written down.
    fn is_open(&self, operation: Operation, resource: Resource<'_>) -> bool {
        let is_open = self.may(operation, resource);
        if is_open {
            self.access.audit.note(self.asker, operation, resource, true);
        }
        is_open
    }

    /// Refuses what somebody may not do.
    pub(crate) fn need(&self, operation: Operation, resource: Resource<'_>) -> Result<(), Refusal> {
        if !self.access.is_on || self.decide(operation, resource) {
            return Ok(());
        }
        let (kind, name) = resource;
        let (principal, what, kind_name) = (&self.asker.principal, operation.name(), kind.name());
        let message = match kind {
            ResourceKind::Cluster => format!("{principal} may not {what} the cluster"),
            _ => format!("{principal} may not {what} the {kind_name} {name}"),
        };
        Err(Refusal::new(code_of(kind), message))
    }

    /// The same of a partition's topic. One that is not there is for others to miss.
    pub(crate) fn may_partition(&self, operation: Operation, id: PartitionId) -> Result<(), ErrorCode> {
        if !self.access.is_on {
            return Ok(());
        }
        let image = self.partitions.image();
        let Some(topic) = image.topic_by_id(id.topic) else {
            return Ok(());
        };
        if self.decide(operation, (ResourceKind::Topic, topic.name.as_str())) {
            return Ok(());
        }
        Err(ErrorCode::TopicAuthorizationFailed)
    }

    /// Which operations somebody may do, a bit for each by Kafka's number.
    pub(crate) fn operations(&self, resource: Resource<'_>) -> i32 {
        let may = |operation: &&Operation| self.may(**operation, resource);
        let allowed = resource.0.operations().iter().filter(may);
        allowed.fold(0, |bits, operation| bits | (1 << operation.number()))
    }

    /// Refuses a request if whoever asks may not do all of what it asks for; what is only told of is cut out later.
    #[expect(clippy::too_many_lines, reason = "a line for each request, to be read as a table")]
    pub(super) fn admit(&self, op: &Op) -> Result<(), Refusal> {
        use Operation as May;
        let cluster = |operation| self.need(operation, THE_CLUSTER);
        let topic = |operation, name: &str| self.need(operation, (ResourceKind::Topic, name));
        let group = |operation, name: &str| self.need(operation, (ResourceKind::Group, name));
        let transaction = |operation, id: &str| self.need(operation, (ResourceKind::TransactionalId, id));
        let by_id = |operation, id: &PartitionId| {
            let refuse = |code: ErrorCode| Refusal::new(code, code.description());
            self.may_partition(operation, *id).map_err(refuse)
        };
        let topics = |operation, named: &[TopicPartitions]| {
            let mut named = named.iter();
            named.try_for_each(|named| topic(operation, &named.topic))
        };
        match op {
            // What may not be described is left out, or told of as denied.
            Op::Metadata(_) | Op::Layout(_) | Op::ListGroups(..) | Op::ListTransactions(_) => Ok(()),
            Op::CreateTopic(new, _) => {
                if self.is_open(May::Create, THE_CLUSTER) {
                    return Ok(());
                }
                topic(May::Create, &new.name)
            }
            Op::AlterTopic(alteration, _) => {
                if !alteration.configs.is_empty() {
                    topic(May::AlterConfigs, &alteration.name)?;
                }
                if alteration.configs.is_empty() || alteration.partitions != -1 {
                    topic(May::Alter, &alteration.name)?;
                }
                Ok(())
            }
            Op::DeleteTopic(name, _) => topic(May::Delete, name),
            Op::DescribeTopic(name) => topic(May::Describe, name),
            Op::DescribeBroker | Op::DescribeQuotas => cluster(May::DescribeConfigs),
            Op::AlterQuotas(_) => cluster(May::AlterConfigs),
            Op::DescribeProducers(id) => by_id(May::Read, id),
            Op::DescribeLogs(..)
            | Op::DescribeQuorum
            | Op::ListBrokers
            | Op::DescribeAcls(_)
            | Op::DescribeUsers(_) => cluster(May::Describe),
            Op::AddQuorumMembers(_)
            | Op::RemoveQuorumMember(_)
            | Op::CordonBroker(..)
            | Op::ForgetBroker(_)
            | Op::FinaliseFeatures(_)
            | Op::DrainBroker(_)
            | Op::ElectLeaders(..)
            | Op::ReassignPartitions(_)
            | Op::CreateAcls(_)
            | Op::DeleteAcls(_)
            | Op::SetUser(..)
            | Op::RemoveUser(..) => cluster(May::Alter),
            Op::InitProducerId(..) => {
                let rules = Arc::clone(self.partitions.image().access());
                let who = (self.asker.principal.as_str(), self.asker.host.as_str());
                if self.is_open(May::IdempotentWrite, THE_CLUSTER)
                    || rules.allow_any(who, May::Write, ResourceKind::Topic)
                {
                    return Ok(());
                }
                cluster(May::IdempotentWrite)
            }
            Op::FindTransaction(id) => transaction(May::Describe, id),
            Op::Transaction(id, request) => match request {
                transaction::Request::Describe => transaction(May::Describe, id),
                transaction::Request::Init { .. } | transaction::Request::End { .. } => transaction(May::Write, id),
                transaction::Request::Add { places, .. } => {
                    transaction(May::Write, id)?;
                    // Of groups it is asked whether they may be read.
                    let mut places = places.iter().filter(|(name, _)| !is_internal(name));
                    places.try_for_each(|(name, _)| topic(May::Write, name))
                }
            },
            Op::Mark(..) if self.may(May::Alter, THE_CLUSTER) => Ok(()),
            Op::Mark(..) => cluster(May::ClusterAction),
            Op::ListOffsets(items) => items.iter().try_for_each(|item| by_id(May::Describe, &item.id)),
            Op::DeleteRecords(id, _) => by_id(May::Delete, id),
            Op::FindGroup(name) => group(May::Describe, name),
            Op::JoinGroup(name, _) => group(May::Read, name),
            Op::FetchOffsets(name, _, named) => {
                group(May::Describe, name)?;
                topics(May::Describe, named.as_deref().unwrap_or_default())
            }
            Op::ForgetOffsets(name, named) => {
                group(May::Delete, name)?;
                topics(May::Read, named)
            }
            Op::Group(name, request) => match request {
                Request::Join(_) | Request::Sync(_) | Request::Heartbeat(_) | Request::Leave(_) => {
                    group(May::Read, name)
                }
                Request::Commit(_, items) | Request::CommitIn(_, _, items) => {
                    group(May::Read, name)?;
                    items.iter().try_for_each(|item| topic(May::Read, &item.topic))
                }
                Request::ConsumerHeartbeat(beat) => {
                    group(May::Read, name)?;
                    let mut names = beat.topics.iter().flatten();
                    names.try_for_each(|name| topic(May::Describe, name))
                }
                Request::Offsets(..) | Request::Unstable | Request::Describe | Request::DescribeConsumers => {
                    group(May::Describe, name)
                }
                Request::ForgetOffsets(_) | Request::Delete => group(May::Delete, name),
            },
        }
    }

    /// Cuts out of what has become of a request what whoever asked may not be told.
    pub(super) fn cut(&self, of_all: bool, outcome: &mut Outcome) {
        use Operation as May;
        let image = self.partitions.image();
        let may = |operation, kind, name: &str| self.may(operation, (kind, name));
        let may_describe = |name: &str| may(May::Describe, ResourceKind::Topic, name);
        match outcome {
            Outcome::Metadata(metadata) => {
                metadata.topics.retain(|topic| !of_all || may_describe(&topic.name));
                for topic in &mut metadata.topics {
                    if !may_describe(&topic.name) {
                        topic.topic = Err(ErrorCode::TopicAuthorizationFailed);
                    }
                }
            }
            Outcome::Layout(layout) => {
                let named = |asked: &TopicRef| name_of(&image, asked);
                layout
                    .topics
                    .retain(|(asked, _)| !of_all || named(asked).is_some_and(|name| may_describe(&name)));
                for (asked, found) in &mut layout.topics {
                    if named(asked).is_some_and(|name| !may_describe(&name)) {
                        *found = Err(ErrorCode::TopicAuthorizationFailed);
                    }
                }
            }
            Outcome::Topic(described) if !may(May::DescribeConfigs, ResourceKind::Topic, &described.name) => {
                described.configs.clear();
            }
            Outcome::Groups(listed) if !self.may(May::Describe, THE_CLUSTER) => {
                listed.retain(|listed| may(May::Describe, ResourceKind::Group, listed.group.as_str()));
            }
            Outcome::Transactions(listed) => {
                listed.retain(|listed| may(May::Describe, ResourceKind::TransactionalId, listed.id.as_str()));
            }
            Outcome::Transaction(transaction::Answer::Described(described)) => {
                described.places.retain(|(topic, _)| may_describe(topic));
            }
            Outcome::Group(Answer::Offsets(offsets)) if of_all => {
                offsets.retain(|(topic, ..)| may_describe(topic));
            }
            _ => {}
        }
    }
}

/// The name of a topic that is asked for; none of an id that no topic has.
fn name_of(image: &ClusterImage, asked: &TopicRef) -> Option<String> {
    match asked {
        TopicRef::Name(name) => Some(name.clone()),
        TopicRef::Id(id) => image.topic_by_id(*id).map(|topic| topic.name.to_string()),
    }
}

/// A request is about all that there is, not about what it names.
pub(super) fn is_of_all(op: &Op) -> bool {
    matches!(op, Op::Metadata(None) | Op::Layout(None) | Op::FetchOffsets(_, _, None))
}
