//! A member of a group: joins, reads what it is assigned, commits what it has read, and joins again when it must.

use std::{cell::Cell, collections::BTreeMap, io, net::SocketAddr, rc::Rc, time::Duration};

use headwater_protocol::{
    error::ErrorCode,
    group::{Assignment, CONSUMER, SERVER_RANGE, Subscription},
    schema::{
        CommittedOffsetT, FindGroupRequestT, FindGroupResponse, GroupProtocolT, HeartbeatRequestT, HeartbeatResponse,
        JoinGroupRequestT, JoinGroupResponse, JoinGroupResponseT, LeaveGroupRequestT, LeavingMemberT,
        OffsetCommitRequestT, OffsetCommitResponse, OffsetFetchRequestT, OffsetFetchResponse, SyncGroupRequestT,
        SyncGroupResponse, TopicPartitionsT, UuidT,
    },
};

use super::{
    ledger::Ledger,
    producer::{find, pause},
    reader::fetch,
    scenario::TOPIC,
    wire::{PATIENCE, Wire, check, patiently},
};
use crate::machine;

const GROUP: &str = "readers";

/// A member that is silent for so long is taken for dead.
const SESSION: Duration = Duration::from_secs(6);

/// So long a generation waits for its members.
const REBALANCE: Duration = Duration::from_secs(8);

pub(super) struct Member {
    pub(super) address: SocketAddr,
    pub(super) ledger: Rc<Ledger>,
    /// The run is over.
    pub(super) is_over: Rc<Cell<bool>>,
}

/// A member's place in a generation.
struct Stay {
    wire: Wire,
    member: String,
    generation: i32,
    /// What it owns, and how far it has read.
    positions: BTreeMap<i32, u64>,
}

impl Member {
    pub(super) async fn run(self) {
        let mut id = String::new();
        while !self.is_over.get() {
            // Whatever went wrong, it joins again.
            let _ = self.attend(&mut id).await;
            pause(Duration::from_millis(400)).await;
        }
    }

    async fn attend(&self, id: &mut String) -> io::Result<()> {
        let mut stay = self.enter(id).await?;
        while !self.is_over.get() {
            self.read(&mut stay).await?;
            if machine::random::<u32>().is_multiple_of(2) {
                self.commit(&mut stay).await?;
            }
            let beat = HeartbeatRequestT {
                group_id: Some(GROUP.to_owned()),
                generation: stay.generation,
                member_id: Some(stay.member.clone()),
                instance_id: None,
            };
            let reply = stay.wire.ask(&beat).await?;
            check(reply.read::<HeartbeatResponse<'_>>()?.error())?;
            if machine::random::<u32>().is_multiple_of(25) {
                leave(&mut stay, id).await?;
                return Ok(());
            }
            pause(Duration::from_millis(600)).await;
        }
        Ok(())
    }

    /// Joins, and learns what is assigned to it and how far that was read.
    async fn enter(&self, id: &mut String) -> io::Result<Stay> {
        let mut wire = patiently(Wire::open(self.address)).await?;
        let finding = FindGroupRequestT {
            group_id: Some(GROUP.to_owned()),
        };
        let reply = wire.ask(&finding).await?;
        let found = reply.read::<FindGroupResponse<'_>>()?;
        check(found.error())?;
        let mut wire = patiently(Wire::open(SocketAddr::new(self.address.ip(), found.core_port()))).await?;
        let joined = join(&mut wire, id).await?;
        let partitions = sync(&mut wire, id, &joined).await?;
        let mut stay = Stay {
            wire,
            member: id.clone(),
            generation: joined.generation,
            positions: BTreeMap::new(),
        };
        let asking = OffsetFetchRequestT {
            group_id: Some(GROUP.to_owned()),
            topics: Some(vec![TopicPartitionsT {
                topic: Some(TOPIC.to_owned()),
                partitions: Some(partitions.clone()),
            }]),
        };
        let reply = stay.wire.ask(&asking).await?;
        let committed = reply.read::<OffsetFetchResponse<'_>>()?.unpack();
        check(committed.error)?;
        for offset in committed.offsets.unwrap_or_default() {
            check(offset.error)?;
            let position = offset.offset.max(0).cast_unsigned();
            self.ledger.found_commit(offset.partition, position);
            stay.positions.insert(offset.partition, position);
        }
        assert_eq!(
            stay.positions.len(),
            partitions.len(),
            "an offset is missing in the answer"
        );
        Ok(stay)
    }

    async fn read(&self, stay: &mut Stay) -> io::Result<()> {
        for (partition, position) in &mut stay.positions {
            let place = find(self.address, *partition).await?;
            let mut wire = patiently(Wire::open(place.address)).await?;
            let found = fetch(&mut wire, UuidT::from(place.topic), *partition, *position, 1 << 15).await?;
            for (offset, record) in found.records {
                self.ledger.see(*partition, offset, record);
                self.ledger.process(*partition, offset);
                *position = offset + 1;
            }
        }
        Ok(())
    }

    async fn commit(&self, stay: &mut Stay) -> io::Result<()> {
        let offset = |(partition, position): (&i32, &u64)| CommittedOffsetT {
            topic: Some(TOPIC.to_owned()),
            partition: *partition,
            offset: position.cast_signed(),
            leader_epoch: -1,
            metadata: None,
            error: 0,
        };
        for (partition, position) in &stay.positions {
            self.ledger.begin_commit(*partition, *position);
        }
        let head = OffsetCommitRequestT {
            group_id: Some(GROUP.to_owned()),
            generation: stay.generation,
            member_id: Some(stay.member.clone()),
            instance_id: None,
            offsets: Some(stay.positions.iter().map(offset).collect()),
        };
        let reply = stay.wire.ask(&head).await?;
        let committed = reply.read::<OffsetCommitResponse<'_>>()?.unpack();
        check(committed.error)?;
        let errors = committed.errors.unwrap_or_default();
        for ((partition, position), error) in stay.positions.iter().zip(errors) {
            check(error)?;
            self.ledger.end_commit(*partition, *position);
        }
        Ok(())
    }
}

async fn join(wire: &mut Wire, id: &mut String) -> io::Result<JoinGroupResponseT> {
    loop {
        let subscription = Subscription {
            topics: vec![TOPIC.to_owned()],
            ..Subscription::default()
        };
        let head = JoinGroupRequestT {
            group_id: Some(GROUP.to_owned()),
            member_id: Some(id.clone()),
            instance_id: None,
            session_timeout_ms: SESSION.as_millis() as i32,
            rebalance_timeout_ms: REBALANCE.as_millis() as i32,
            protocol_type: Some(CONSUMER.to_owned()),
            protocols: Some(vec![GroupProtocolT {
                name: Some(SERVER_RANGE.to_owned()),
                metadata: Some(subscription.encode()),
            }]),
            reason: None,
        };
        let reply = wire.ask_for(&head, REBALANCE + PATIENCE).await?;
        let joined = reply.read::<JoinGroupResponse<'_>>()?.unpack();
        match ErrorCode::from_i16(joined.error) {
            ErrorCode::MemberIdRequired => *id = joined.member_id.unwrap_or_default(),
            ErrorCode::None => {
                *id = joined.member_id.clone().unwrap_or_default();
                return Ok(joined);
            }
            _ => {
                id.clear();
                check(joined.error)?;
            }
        }
    }
}

async fn sync(wire: &mut Wire, id: &str, joined: &JoinGroupResponseT) -> io::Result<Vec<i32>> {
    let head = SyncGroupRequestT {
        group_id: Some(GROUP.to_owned()),
        generation: joined.generation,
        member_id: Some(id.to_owned()),
        instance_id: None,
        protocol_type: joined.protocol_type.clone(),
        protocol_name: joined.protocol_name.clone(),
        assignments: None,
    };
    let reply = wire.ask_for(&head, REBALANCE + PATIENCE).await?;
    let synced = reply.read::<SyncGroupResponse<'_>>()?.unpack();
    check(synced.error)?;
    let assignment = Assignment::decode(&synced.assignment.unwrap_or_default()).map_err(io::Error::other)?;
    let mine = assignment.partitions.into_iter().flat_map(|topic| topic.partitions);
    Ok(mine.collect())
}

async fn leave(stay: &mut Stay, id: &mut String) -> io::Result<()> {
    let head = LeaveGroupRequestT {
        group_id: Some(GROUP.to_owned()),
        members: Some(vec![LeavingMemberT {
            member_id: Some(std::mem::take(id)),
            instance_id: None,
            reason: None,
        }]),
    };
    stay.wire.ask(&head).await.map(drop)
}
