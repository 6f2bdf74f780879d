//! Real logs on simulated disks: whoever has led before, a follower's log becomes its leader's byte for byte.

use std::{cell::RefCell, net::Ipv4Addr, time::Duration};

use headwater_engine::{
    ColdMemory, FetchError, Log as EngineLog, LogConfig, Memory, ReadLimit, TailMemory, disk::SimDisk,
};
use headwater_protocol::{
    batch::{BatchBuilder, Compression},
    id::{BrokerId, LeaderEpoch, Offset, Timestamp},
};

use super::{node::LAG_MAX, *};
use crate::{
    image::{Incarnation, PartitionEpoch, Replicas, Terms},
    machine::{
        Disk,
        simulated::{World, clock::Clock},
    },
};

struct Node {
    log: EngineLog<Disk>,
    replica: RefCell<Replica>,
}

impl Node {
    async fn new(world: &World, id: i32) -> Node {
        let disk = SimDisk::new(world.random());
        world.add_disk([127, 0, 0, 1].into(), &disk);
        let memory = Memory::new(TailMemory::new(1 << 20), ColdMemory::new(0));
        let config = LogConfig {
            segment_size_bytes: 1000,
            ..LogConfig::default()
        };
        let opened = EngineLog::open(Disk::Simulated(disk), format!("log-{id}").into(), config, memory).await;
        let (log, _) = opened.unwrap();
        log.hold_high_watermark(Offset::ZERO);
        let replica = RefCell::new(Replica::new(BrokerId::new(id), LAG_MAX));
        Node { log, replica }
    }

    fn learn(&self, replicas: &Replicas) {
        let now = crate::machine::now();
        self.replica.borrow_mut().learn(replicas, state_of(&self.log), now);
        if let Role::Leads(leader) = self.replica.borrow_mut().role() {
            self.log.set_leader_epoch(leader.epoch());
        }
    }

    async fn append(&self, world: &World) {
        let mut builder = BatchBuilder::new(Compression::None, 64);
        for _ in 0..world.draw(1..4) {
            let value = vec![world.draw(0..=u8::MAX); world.draw(1..200)];
            builder.append(Timestamp::new(7), None, Some(&value), &[]).unwrap();
        }
        self.log
            .append(builder.build().bytes(), crate::machine::moment())
            .unwrap();
        if world.chance(0.5) {
            self.log.flush().await.unwrap();
        }
    }

    /// All records from an offset on.
    async fn records_from(&self, mut offset: Offset) -> Vec<u8> {
        let mut records = Vec::new();
        while let Some(range) = self.log.fetch(offset, 1 << 20, ReadLimit::LogEnd).await.unwrap().range {
            records.extend(self.log.read(&range).await.unwrap());
            offset = range.next_offset();
        }
        records
    }

    /// What is read for a follower: some whole batches.
    async fn read(&self, offset: Offset, max_bytes: u64) -> Result<Vec<u8>, FetchError> {
        let fetched = self
            .log
            .fetch(read_from(&self.log, offset), max_bytes, ReadLimit::LogEnd)
            .await?;
        match fetched.range {
            Some(range) => Ok(self.log.read(&range).await?),
            None => Ok(Vec::new()),
        }
    }
}

/// Fetches until the follower has everything; how often it had to cut its log.
async fn catch_up(world: &World, leader: &Node, follower: &Node, peer: Peer) -> u32 {
    let mut cuts = 0;
    for _ in 0..1000 {
        let fetch = match follower.replica.borrow_mut().role() {
            Role::Follows(role) => role.fetch(of_follower(&follower.log)).unwrap(),
            role => panic!("it follows: {role:?}"),
        };
        let answer = match leader.replica.borrow_mut().role() {
            Role::Leads(role) => {
                let log = of_leader(&leader.log, fetch.place);
                role.fetched(peer, &fetch, log, crate::machine::now()).unwrap()
            }
            role => panic!("it leads: {role:?}"),
        };
        let records = match answer {
            Answer::Records(_) => leader.read(fetch.place.offset, world.draw(1..2000)).await.unwrap(),
            _ => Vec::new(),
        };
        cuts += u32::from(!matches!(answer, Answer::Records(_)));
        let is_done = matches!(answer, Answer::Records(_)) && records.is_empty();
        let taken = take_answer(&follower.log, &follower.replica, fetch.place, answer, &records);
        if let Taken::Appended { log_start } = taken.await.unwrap() {
            follower.log.delete_records(log_start).await.unwrap();
        }
        if is_done && of_follower(&follower.log).end == leader.log.offsets().end {
            return cuts;
        }
        if world.chance(0.3) {
            follower.log.flush().await.unwrap();
        }
    }
    panic!("it never catches up");
}

async fn run(world: &World) -> u32 {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(Node::new(world, id).await);
    }
    let all: Vec<BrokerId> = (1..=3).map(BrokerId::new).collect();
    let terms = Terms {
        min_isr: 1,
        durability: Durability::Disk,
    };
    let mut cuts = 0;
    for epoch in 1..world.draw(3..9) {
        // Whoever it is: also one that lacks what others have, as when an operator orders it.
        let lead = world.draw(0..nodes.len());
        let replicas = Replicas {
            leader: Some(all[lead]),
            leader_epoch: LeaderEpoch::new(epoch),
            epoch: PartitionEpoch::new(epoch as u64),
            ..Replicas::new(all.clone(), vec![all[lead]], terms)
        };
        for node in &nodes {
            node.learn(&replicas);
        }
        for _ in 0..world.draw(0..6) {
            nodes[lead].append(world).await;
        }
        for place in 0..nodes.len() {
            if place == lead || world.chance(0.4) {
                continue;
            }
            let (leader, follower) = (&nodes[lead], &nodes[place]);
            let member = Member {
                broker: all[place],
                incarnation: Incarnation::new(1),
            };
            cuts += catch_up(world, leader, follower, Peer { member, connection: 1 }).await;
            let from = leader.log.offsets().start.max(follower.log.offsets().start);
            assert_eq!(
                follower.records_from(from).await,
                leader.records_from(from).await,
                "epoch {epoch}"
            );
            let latest = LeaderEpoch::new(epoch);
            let ends = [follower, leader].map(|node| node.log.end_of_epoch(latest).end);
            assert_eq!(ends[0], ends[1], "epoch {epoch}");
        }
        if world.chance(0.2) {
            let log = &nodes[lead].log;
            log.flush().await.unwrap();
            log.advance_high_watermark(log.offsets().end);
            let end = log.offsets().end.get();
            log.delete_records(Offset::new(world.draw(0..=end))).await.unwrap();
        }
    }
    cuts
}

#[test]
fn a_followers_log_becomes_its_leaders_byte_for_byte_whoever_has_led_before() {
    let mut cuts = 0;
    for seed in 0..150 {
        let world = World::new(seed);
        let process = world.process("logs", Ipv4Addr::LOCALHOST.into(), Clock::default());
        cuts += world
            .run(process, Duration::from_hours(1), run(&world))
            .unwrap_or_else(|stuck| panic!("seed {seed}: {stuck:?}"));
        world.end_all();
    }
    assert!(cuts > 50, "{cuts}");
}
