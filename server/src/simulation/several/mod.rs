//! Several brokers that are one cluster: one run of them, their clients, trouble for each and between them, and the calm after it.
//!
//! What they agree on is not openraft's, which a simulation of its own runs by seed, but a log of the world's
//! ([`Agreement`]) that each applies by the same state. Everything else is the broker as it is.

mod holdings;
mod replicas;
mod tests;
mod trouble;

use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use futures::{
    channel::oneshot,
    future::{join, join_all},
};
use headwater_client::{BrokerId, NewTopic};

use super::{
    cast::{Cast, Crowd},
    client::{Brokers, PATIENCE, connect},
    compare::{compare, compare_topics, create_topic, insist, processed},
    guests::{Topics, commit_late},
    house::{CORES_MAX, House},
    ledger::Ledger,
    scenario::{CALM_MAX, Outcome, RUN_MAX, TOPIC, config, host},
    trouble::{bring_up, make as make_trouble_for},
    wire::pause,
};
use crate::{
    cluster::{Agreement, PEER_PORT},
    config::{ByteSize, Config, Millis, Value as _},
    machine::{
        self,
        simulated::{Stuck, World, clock::Clock, here, net::Net},
    },
};

/// What may be on its way on each connection, in bytes: a frame of records comes within the time that it may take.
const WINDOW_MIN: usize = 20_000;

/// How likely somebody commits for a group without members.
const COMMITS: f64 = 0.3;

/// Replicas of a partition.
const REPLICAS: i16 = 3;

/// Runs a seed in a world of its own.
///
/// # Panics
/// When a promise is broken.
fn run(world: &Rc<World>) -> Result<Outcome, Stuck> {
    let process = world.process("world", host(254), Clock::default());
    let outcome = world.run(process, RUN_MAX, play(Rc::clone(world)));
    world.end_all();
    outcome
}

async fn play(world: Rc<World>) -> Outcome {
    let size = Size::draw(&world);
    let cluster = Cluster::start(&world, size).await;
    let brokers = Brokers::new(cluster.houses.iter().map(|house| house.address()));
    let client = connect(&brokers).await;
    let partitions = world.draw(1..=size.partitions_max);
    let topic = NewTopic::new(TOPIC).partitions(partitions);
    create_topic(&client, &world, topic.replication_factor(REPLICAS)).await;

    let ledger = Ledger::new(&world, None, true);
    let mut cast = Cast::new(&brokers, partitions, ledger, size.crowd);
    cast.topics = Rc::new(Topics::of_several(&cluster.agreement));
    holdings::watch(&cluster, &cast.ledger, partitions);
    cast.producers();
    cast.readers();
    let has_members = world.chance(size.extras) && cast.members();
    if world.chance(size.extras) {
        cast.administrator();
    }
    let has_commits = world.chance(COMMITS);
    if has_commits {
        cast.committer();
    }
    cluster.trouble(&cast, size).await;
    if has_commits && world.chance(0.5) {
        trouble::cut_off_coordinator(&cluster).await;
    }
    cast.is_calm.set(true);
    world.tell(None, "the trouble is over");
    let all = machine::until(machine::now() + CALM_MAX, cast.working.are_done()).await;
    assert!(
        all.is_some(),
        "producers do not come to their end, though nothing is wrong any more"
    );
    // Nothing new is to be read.
    cast.is_written.set(true);
    if has_members {
        let all = machine::until(machine::now() + CALM_MAX, processed(&cast.ledger)).await;
        assert!(
            all.is_some(),
            "members do not come to the end of the log, though nothing is wrong any more"
        );
    }
    replicas::all_in_sync(&cluster.agreement).await;
    cast.ends().await;
    compare_topics(&world, &cast.topics, &client).await;
    compare(&brokers, &cast.ledger, partitions).await;
    if has_members || world.chance(size.extras) {
        let late = async || commit_late(&brokers).await;
        insist(&world, "a straggler does not come to commit", late).await;
    }
    cast.leave();
    for house in &cluster.houses {
        house.check_budgets().await;
        house.check_at_rest(PATIENCE).await;
    }
    replicas::all_in_sync(&cluster.agreement).await;
    cluster.stop().await;
    replicas::compare_logs(&cluster, partitions).await;
    if world.chance(0.3) {
        cluster.begin().await;
        compare(&brokers, &cast.ledger, partitions).await;
    }
    Outcome {
        promised: cast.ledger.promised(),
        compacted: 0,
    }
}

/// How much there is of a world. Most are small, so that there are many of them: what goes wrong in a large one does so in a small one
/// too, if it is no matter of several cores or partitions.
#[derive(Clone, Copy)]
struct Size {
    brokers: i32,
    cores_max: usize,
    partitions_max: i32,
    /// What befalls each host, and what befalls the cluster, at most.
    pieces_max: (usize, usize),
    /// Of what befalls all brokers in the end, at most.
    last_pieces_max: usize,
    crowd: Crowd,
    /// How likely what not all worlds have is.
    extras: f64,
}

impl Size {
    fn draw(world: &World) -> Size {
        if world.chance(0.88) {
            return Size {
                brokers: 3,
                cores_max: 1,
                partitions_max: 1,
                pieces_max: (1, 2),
                last_pieces_max: 1,
                crowd: Crowd {
                    producers_max: 2,
                    records_max: (40, 40),
                    pauses_ms: [50, 300, 1200],
                    readers_max: 1,
                },
                extras: 0.15,
            };
        }
        Size {
            brokers: if world.chance(0.7) { 3 } else { 5 },
            cores_max: CORES_MAX,
            partitions_max: 3,
            pieces_max: (3, 4),
            last_pieces_max: 2,
            crowd: Crowd {
                producers_max: 3,
                records_max: (80, 80),
                pauses_ms: [20, 100, 500],
                readers_max: 2,
            },
            extras: 1.0,
        }
    }
}

/// The brokers, and what they agree on.
struct Cluster {
    world: Rc<World>,
    agreement: Rc<Agreement>,
    houses: Vec<Rc<House>>,
}

impl Cluster {
    async fn start(world: &Rc<World>, size: Size) -> Cluster {
        let process = here().expect("a run has a world").process;
        let ids = (0..size.brokers).map(BrokerId::new);
        let hosts = ids.map(|id| (id, host(1 + id.get() as u8)));
        let agreement = Agreement::new(world, process, hosts.clone());
        world.spawn(process, {
            let agreement = Rc::clone(&agreement);
            async move { match agreement.coordinate().await {} }
        });
        let members = hosts.clone().map(|(id, host)| format!("{id}@{host}:{PEER_PORT}"));
        let members: Vec<String> = members.collect();
        let mut shared = config(world, host(1));
        // The least that can be configured: what replicas send each other must fit, and come in time.
        shared.cores.connection_bytes_max = ByteSize::new(2 << 20);
        shared.cores.in_flight_bytes_max = ByteSize::new(2 << 20);
        shared.cores.tail_buffer_bytes_max = ByteSize::new(4 << 20);
        // So little that whoever was away has to wait for its turn.
        shared.cluster.catch_up_bytes_per_second_max = ByteSize::new(64 << 10);
        // Nothing is deleted or compacted, and every look has a price.
        shared.log.checkpoint_interval_ms = Millis::new(shared.log.checkpoint_interval_ms.get().max(1_000));
        shared.compaction.check_interval_ms = Millis::new(5_000);
        shared.log.retention_check_interval_ms = Millis::new(30_000);
        shared.groups.offsets_partitions = size.partitions_max.unsigned_abs();
        Net::widen(world, WINDOW_MIN);
        let disks_to_lose = Rc::new(Cell::new(u32::from(world.chance(0.4))));
        let houses = hosts.map(|(id, host)| {
            let config = member(
                &shared,
                id,
                SocketAddr::new(host, super::house::PORT),
                &members.join(","),
            );
            let mut house = House::new(world, host, config, Some(Rc::clone(&agreement)));
            house.disks_to_lose = Rc::clone(&disks_to_lose);
            house.cores_max = size.cores_max;
            Rc::new(house)
        });
        let houses = houses.collect();
        let cluster = Cluster {
            world: Rc::clone(world),
            agreement,
            houses,
        };
        cluster.begin().await;
        cluster
    }

    async fn begin(&self) {
        for house in &self.houses {
            house.begin();
        }
        trouble::bring_up_all(self).await;
    }

    /// Trouble, until everybody is there and nothing is wrong any more.
    async fn trouble(&self, cast: &Cast, size: Size) {
        let process = here().expect("a run has a world").process;
        // Tasks of their own, so that one does not have all of them looked at.
        let of_each = self.houses.iter().map(|house| {
            let pieces = self.world.draw(0..=size.pieces_max.0);
            let (house, guests) = (Rc::clone(house), cast.guests.clone());
            let (tell, told) = oneshot::channel();
            self.world.spawn(process, async move {
                make_trouble_for(&house, pieces, &guests).await;
                let _ = tell.send(());
            });
            told
        });
        let between = trouble::make(self, self.world.draw(0..=size.pieces_max.1));
        join(join_all(of_each), between).await;
        for _ in 0..self.world.draw(0..=size.last_pieces_max) {
            pause(QUIET_MAX).await;
            match self.world.draw(0..9) {
                0..3 => self.black_out().await,
                3 => self.lose_leaders().await,
                4 | 5 => trouble::come_late(self).await,
                6 | 7 => trouble::stop(self).await,
                _ => trouble::reassign(self).await,
            }
        }
        self.agreement.calms_down();
        Net::heal(&self.world);
    }

    /// All brokers lose power at once, and go on by themselves when it is back. Perhaps nothing was flushed for a while, and one of
    /// them has lost its disk, or some of what was on it.
    async fn black_out(&self) {
        if self.world.chance(0.5) {
            self.world.tell(None, "all disks stand still");
            for house in &self.houses {
                self.world.stall_disk(house.drive(), STALL_MAX);
            }
            pause(STALL_MAX).await;
        }
        self.houses.iter().for_each(|house| house.lose_power());
        let disks = &self.houses[0].disks_to_lose;
        if disks.get() > 0 && self.world.chance(0.5) {
            disks.set(disks.get() - 1);
            let house = &self.houses[self.world.draw(0..self.houses.len())];
            if self.world.chance(0.5) {
                house.lose_disk();
            } else {
                house.lose_directories(0.7).await;
            }
        }
        trouble::bring_up_all(self).await;
    }

    /// Whoever leads loses power, and whoever leads then, soon after that.
    async fn lose_leaders(&self) {
        for _ in 0..self.world.draw(1..=3) {
            let Some(leader) = self.leader() else { break };
            let house = &self.houses[leader.get() as usize];
            house.lose_power();
            for _ in 0..100 {
                pause(LOOK_EVERY).await;
                if self.leader().is_some_and(|other| other != leader) {
                    break;
                }
            }
            if self.world.chance(0.7) {
                bring_up(house).await;
            }
        }
        trouble::bring_up_all(self).await;
    }

    /// The host of whoever leads a partition of this topic.
    fn leader_of(&self, topic: &str) -> Option<IpAddr> {
        let (image, map) = (self.agreement.image(), self.agreement.replicas());
        let leader = map.replicas_of(image.topic(topic)?.id).first()?.leader?;
        Some(self.houses[leader.get() as usize].host)
    }

    /// Whoever leads the first partition that somebody leads.
    fn leader(&self) -> Option<BrokerId> {
        let map = self.agreement.replicas();
        let mut leaders = map.partitions().filter_map(|(_, replicas)| replicas.leader);
        leaders.next()
    }

    /// Stops all brokers in order, at the same time.
    async fn stop(&self) {
        let stopped = join_all(self.houses.iter().map(|house| house.stop())).await;
        assert!(stopped.into_iter().all(|stopped| stopped), "a broker does not stop");
    }
}

/// The configuration of one of several.
fn member(shared: &Config, id: BrokerId, listen: SocketAddr, members: &str) -> Config {
    let mut config = shared.clone();
    config.broker.id = id;
    config.broker.listen = listen;
    config.broker.cluster_id = Some("simulated".parse().expect("it is a name"));
    let mut peers = crate::config::PeerListen::default();
    let read = peers.read(&format!("{}:{PEER_PORT}", listen.ip()));
    read.expect("it is an address");
    config.cluster.listen = Some(peers);
    config.cluster.members.read(members).expect("they are members");
    config
}

/// Between one power cut and the next, at most.
const QUIET_MAX: Duration = Duration::from_secs(3);

/// So long all disks stand still, at most, before a power cut.
const STALL_MAX: Duration = Duration::from_secs(1);

/// How often it is looked whether somebody leads, at least.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is off between brokers for a while is off for so long at most: longer than a session.
const APART_MAX: Duration = Duration::from_secs(12);
