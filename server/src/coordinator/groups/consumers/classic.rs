//! Members of a group of type consumer that speak the classic protocol: their epoch is their generation, and they join again for each step
//! that they would otherwise take in a heartbeat.

use std::time::Duration;

use headwater_protocol::{
    error::ErrorCode,
    group::{CONSUMER, Subscription},
};

use super::{
    Classic, Consumers, Member, State, Subscriber,
    beat::Standing,
    describe::{encode, spots},
};
use crate::{
    coordinator::groups::{group::Group, step::Step},
    model::group::{Answer, CallId, Identity, InstanceId, Join, Joined, MemberId, Protocol, Sync, Synced, refusal},
};

impl Group {
    pub(crate) fn join_consumers(&mut self, call: CallId, join: &Join, step: &mut Step<'_>) {
        let Some(consumers) = &self.consumers else { return };
        if consumers.members.is_empty() {
            if self.consumers_are_settled() {
                return self.turn_classic(Some((call, join.clone())), step);
            }
            // What could not be written may be written now.
            self.store(None, step);
            return step.refuse(call, refusal(ErrorCode::CoordinatorLoadInProgress));
        }
        let judged = consumers.judge(join, self.roster.promised.len(), step);
        let (standing, subscription) = match judged {
            Ok(judged) => judged,
            Err(code) => return step.refuse(call, refusal(code)),
        };
        let id = join.member.as_ref().unwrap_or(&join.fresh).clone();
        if join.member.is_none() && join.instance.is_none() && join.in_two_steps {
            let until = step.now.monotonic + join.timeouts.session;
            self.roster.promised.insert(id.clone(), until);
            return step.answer(call, Answer::MemberIdRequired(id));
        }
        // Whoever was taken out may still think that it owns something.
        if standing == Standing::New && join.member.is_some() && !self.roster.promised.contains_key(&id) {
            return step.refuse(call, refusal(ErrorCode::UnknownMemberId));
        }
        let subscriber = Subscriber {
            instance: join.instance.clone(),
            rack: subscription.rack.clone(),
            client: join.client.clone(),
            rebalance_timeout: join.timeouts.rebalance.max(Duration::from_millis(1)),
            assignor: None,
            topics: subscription.topics.iter().cloned().collect(),
            pattern: None,
            classic: Some(Classic {
                session_timeout: join.timeouts.session,
                protocols: join.protocols.clone(),
            }),
        };
        if let Err(refusal) = self.check_consumer_size(consumers, &id, &subscriber, step) {
            return step.refuse(call, refusal);
        }
        self.roster.promised.remove(&id);
        self.admit_consumer(&standing, &id, join.instance.as_ref(), step);
        let owned = spots(&subscription.owned_partitions, step.topics);
        self.subscribe(&id, |_| subscriber, step);
        self.retarget(step);
        let epoch = self.consumers.as_mut().and_then(|consumers| {
            let member = consumers.members.get_mut(&id)?;
            member.revoke_until = None;
            Some(member.current.epoch)
        });
        self.reconcile(&id, epoch.unwrap_or_default(), Some(&owned), step);
        let Some(member) = self
            .consumers
            .as_mut()
            .and_then(|consumers| consumers.members.get_mut(&id))
        else {
            return step.refuse(call, refusal(ErrorCode::UnknownMemberId));
        };
        member.touch(step);
        let joined = Joined {
            generation: crate::model::group::Generation::new(member.current.epoch),
            protocol_type: CONSUMER.to_owned(),
            protocol: join
                .protocols
                .first()
                .map(|offer| offer.name.clone())
                .unwrap_or_default(),
            // Nobody: it is the broker who assigns.
            leader: MemberId::new(""),
            member: id,
            skip_assignment: false,
            members: Vec::new(),
        };
        self.store(Some((call, Ok(Answer::Joined(joined)))), step);
    }

    pub(crate) fn sync_consumers(&mut self, call: CallId, sync: &Sync, step: &mut Step<'_>) {
        let checked = self.check_classic(&sync.who, step);
        let Some(member) = self
            .consumers
            .as_ref()
            .and_then(|all| all.members.get(&sync.who.member))
        else {
            return step.refuse(call, refusal(ErrorCode::UnknownMemberId));
        };
        if let Err(code) = checked {
            return step.refuse(call, refusal(code));
        }
        let protocols = member.subscriber.classic.as_ref().map(|classic| &classic.protocols);
        let protocol = protocols
            .and_then(|protocols| protocols.first())
            .map(|offer| offer.name.clone());
        let differs = |told: &Option<String>, own: Option<&str>| told.is_some() && told.as_deref() != own;
        if differs(&sync.protocol_type, Some(CONSUMER)) || differs(&sync.protocol, protocol.as_deref()) {
            return step.refuse(call, refusal(ErrorCode::InconsistentGroupProtocol));
        }
        let is_behind = self
            .consumers
            .as_ref()
            .is_some_and(|all| all.target_epoch > member.current.epoch && member.current.state != State::Revoking);
        if is_behind {
            return step.refuse(call, refusal(ErrorCode::RebalanceInProgress));
        }
        let synced = Synced {
            protocol_type: CONSUMER.to_owned(),
            protocol: protocol.unwrap_or_default(),
            assignment: encode(&member.current.assigned, step.topics),
        };
        self.store(Some((call, Ok(Answer::Synced(synced)))), step);
    }

    pub(crate) fn classic_heartbeat(&mut self, call: CallId, who: &Identity, step: &mut Step<'_>) {
        if let Err(code) = self.check_classic(who, step) {
            return step.refuse(call, refusal(code));
        }
        self.retarget(step);
        let Some(consumers) = self.consumers.as_mut() else {
            return;
        };
        let is_to_join = consumers.is_to_join(&who.member);
        if let Some(member) = consumers.members.get_mut(&who.member) {
            let until = step.now.monotonic + member.subscriber.rebalance_timeout;
            member.revoke_until = is_to_join.then(|| member.revoke_until.unwrap_or(until));
        }
        let reply = if is_to_join {
            Err(refusal(ErrorCode::RebalanceInProgress))
        } else {
            Ok(Answer::Alive)
        };
        self.store(Some((call, reply)), step);
    }

    /// Whether it is a member of the classic protocol, in its epoch; it is heard of then.
    fn check_classic(&mut self, who: &Identity, step: &Step<'_>) -> Result<(), ErrorCode> {
        let consumers = self.consumers.as_mut().ok_or(ErrorCode::UnknownMemberId)?;
        consumers
            .check_instance(&who.member, who.instance.as_ref())
            .map_err(|refusal| refusal.code)?;
        let member = consumers.members.get(&who.member);
        if member.is_none_or(|member| member.subscriber.classic.is_none()) {
            return Err(ErrorCode::UnknownMemberId);
        }
        consumers.check(who)?;
        if let Some(member) = consumers.members.get_mut(&who.member) {
            member.touch(step);
        }
        Ok(())
    }

    pub(crate) fn leave_consumers(
        &mut self,
        call: CallId,
        members: &[(MemberId, Option<InstanceId>)],
        step: &mut Step<'_>,
    ) {
        let mut codes = Vec::new();
        for (id, instance) in members {
            let Some(consumers) = &self.consumers else { break };
            match consumers.find_classic(id, instance.as_ref()) {
                Ok(id) => {
                    self.remove_consumers(std::slice::from_ref(&id), step);
                    codes.push(ErrorCode::None);
                }
                Err(code) => codes.push(code),
            }
        }
        self.store(Some((call, Ok(Answer::Left(codes)))), step);
    }
}

impl Consumers {
    /// Who joins, and what it subscribes to.
    fn judge(&self, join: &Join, promised: usize, step: &Step<'_>) -> Result<(Standing, Subscription), ErrorCode> {
        let offers = join.protocols.first().filter(|_| join.protocol_type == CONSUMER);
        let subscription = offers.and_then(|offer| Subscription::decode(&offer.metadata).ok());
        let subscription = subscription.ok_or(ErrorCode::InconsistentGroupProtocol)?;
        let others = self.members.iter().filter(|(id, _)| Some(*id) != join.member.as_ref());
        let others: Vec<&Classic> = others
            .filter_map(|(_, member)| member.subscriber.classic.as_ref())
            .collect();
        let speaks = |classic: &&Classic, name: &str| classic.protocols.iter().any(|offer| offer.name == name);
        let is_common = |offer: &Protocol| others.iter().all(|classic| speaks(classic, &offer.name));
        if !join.protocols.iter().any(is_common) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let holder = join.instance.as_ref().and_then(|instance| self.instances.get(instance));
        let standing = match (holder, &join.member) {
            (Some(holder), Some(id)) if holder != id => return Err(ErrorCode::FencedInstanceId),
            (Some(holder), None) => Standing::Replaces(holder.clone()),
            (_, Some(id)) if self.members.contains_key(id) => Standing::Known,
            _ => Standing::New,
        };
        let is_promised = join.member.is_some();
        let count = self.members.len() + if is_promised { 0 } else { promised };
        if standing == Standing::New && count >= step.config.members_max as usize {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        Ok((standing, subscription))
    }

    /// Whether there is something for a member that it must join again for.
    fn is_to_join(&self, id: &MemberId) -> bool {
        let Some(member) = self.members.get(id) else {
            return true;
        };
        let next = self.next(id, member.current.epoch, None);
        member.current.state == State::Revoking || next.is_some_and(|next| next != member.current)
    }

    fn find_classic(&self, id: &MemberId, instance: Option<&InstanceId>) -> Result<MemberId, ErrorCode> {
        let found = match instance {
            Some(instance) if id.as_str().is_empty() => self.instances.get(instance),
            _ => {
                self.check_instance(id, instance).map_err(|refusal| refusal.code)?;
                Some(id)
            }
        };
        let is_classic = |id: &&MemberId| {
            let member: Option<&Member> = self.members.get(*id);
            member.is_some_and(|member| member.subscriber.classic.is_some())
        };
        found.filter(is_classic).cloned().ok_or(ErrorCode::UnknownMemberId)
    }
}
