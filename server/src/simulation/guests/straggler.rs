//! A member by the wire protocol that commits in a generation which is over: what no client of ours does, and a broker must refuse, as
//! somebody else may have the partition by now.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use headwater_protocol::{
    error::ErrorCode,
    group::CONSUMER,
    schema::{
        CommittedOffsetT, FindGroupRequestT, FindGroupResponse, GroupProtocolT, JoinGroupRequestT, JoinGroupResponse,
        OffsetCommitRequestT, OffsetCommitResponse, SyncGroupRequestT, SyncGroupResponse,
    },
};

use super::{
    client::Brokers,
    scenario::TOPIC,
    wire::{Wire, check, patiently},
};
use crate::machine;

const SESSION_MS: i32 = 6_000;

/// A member of a group of its own.
struct Member {
    wire: Wire,
    group: Option<String>,
    id: Option<String>,
}

/// Goes through two generations, commits in the first of them, and then in the second.
pub(in crate::simulation) async fn commit_late(brokers: &Brokers) -> io::Result<()> {
    // That of an attempt before may wait for its members.
    let group = Some(format!("straggler-{}", machine::random::<u32>()));
    let mut wire = patiently(Wire::open(brokers.any())).await?;
    let find = FindGroupRequestT {
        group_id: group.clone(),
    };
    let reply = wire.ask(&find).await?;
    let found = reply.read::<FindGroupResponse<'_>>()?;
    check(found.error())?;
    let host: IpAddr = found.host().unwrap_or_default().parse().map_err(io::Error::other)?;
    let runs_it = SocketAddr::new(host, found.core_port());
    let mut member = Member {
        wire: patiently(Wire::open(runs_it)).await?,
        group,
        id: None,
    };
    member.join().await?;
    let former = member.take_part().await?;
    let now = member.take_part().await?;
    assert!(former < now, "a group went from generation {former} to {now}");
    let late = member.commit(former).await?;
    assert!(
        !late.is_none(),
        "a commit in generation {former} is taken, though it is {now}"
    );
    check(member.commit(now).await?.as_i16())
}

impl Member {
    /// Gets an id, or joins by it. Returns the generation, if it is in one.
    async fn join(&mut self) -> io::Result<i32> {
        let head = JoinGroupRequestT {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            protocol_type: Some(CONSUMER.to_owned()),
            protocols: Some(vec![GroupProtocolT {
                name: Some("its own".to_owned()),
                metadata: Some(Vec::new()),
            }]),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: SESSION_MS,
            ..JoinGroupRequestT::default()
        };
        let reply = self.wire.ask(&head).await?;
        let joined = reply.read::<JoinGroupResponse<'_>>()?;
        let is_named = ErrorCode::from_i16(joined.error()) == ErrorCode::MemberIdRequired;
        if !(is_named && self.id.is_none()) {
            check(joined.error())?;
        }
        self.id = joined.member_id().map(str::to_owned);
        Ok(joined.generation())
    }

    /// Becomes part of the next generation, which is returned.
    async fn take_part(&mut self) -> io::Result<i32> {
        let generation = self.join().await?;
        let head = SyncGroupRequestT {
            group_id: self.group.clone(),
            generation,
            member_id: self.id.clone(),
            ..SyncGroupRequestT::default()
        };
        let reply = self.wire.ask(&head).await?;
        check(reply.read::<SyncGroupResponse<'_>>()?.error())?;
        Ok(generation)
    }

    async fn commit(&mut self, generation: i32) -> io::Result<ErrorCode> {
        let head = OffsetCommitRequestT {
            group_id: self.group.clone(),
            generation,
            member_id: self.id.clone(),
            offsets: Some(vec![CommittedOffsetT {
                topic: Some(TOPIC.to_owned()),
                offset: 1,
                ..CommittedOffsetT::default()
            }]),
            ..OffsetCommitRequestT::default()
        };
        let reply = self.wire.ask(&head).await?;
        let committed = reply.read::<OffsetCommitResponse<'_>>()?;
        let of_offset = committed.errors().into_iter().flatten().next();
        let code = match committed.error() {
            0 => of_offset.unwrap_or_default(),
            refused => refused,
        };
        Ok(ErrorCode::from_i16(code))
    }
}
