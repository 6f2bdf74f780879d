//! Several brokers that are one cluster: one run of them, their clients, trouble for each and between them, and the calm after it.
//!
//! What they agree on is not openraft's, which a simulation of its own runs by seed, but a log of the world's
//! ([`Agreement`]) that each applies by the same state. Everything else is the broker as it is.

mod holdings;
mod replicas;
mod tests;
mod trouble;

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use futures::{
    channel::oneshot,
    future::{join, join_all},
};
use headwater_client::{BrokerId, NewTopic};

use super::{
    cast::Cast,
    client::{Brokers, PATIENCE, connect},
    compare::{compare, compare_topics, create_topic, insist, processed},
    guests::commit_late,
    house::House,
    ledger::Ledger,
    scenario::{CALM_MAX, Outcome, RUN_MAX, TOPIC, config, host},
    trouble::{CORES_MAX, bring_up, make as make_trouble_for},
    wire::pause,
};
use crate::{
    cluster::{Agreement, PEER_PORT},
    config::{ByteSize, Config, Value as _},
    machine::{
        self,
        simulated::{Stuck, World, clock::Clock, here, net::Net},
    },
};

/// What may be on its way on each connection, in bytes: a frame of records comes within the time that it may take.
const WINDOW_MIN: usize = 20_000;

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
    let cluster = Cluster::start(&world).await;
    let brokers = Brokers::new(cluster.houses.iter().map(|house| house.address()));
    let client = connect(&brokers).await;
    let partitions = world.draw(1..=3);
    let topic = NewTopic::new(TOPIC).partitions(partitions);
    create_topic(&client, &world, topic.replication_factor(REPLICAS)).await;

    let mut cast = Cast::new(&brokers, partitions, Ledger::new(&world, None, true));
    holdings::watch(&cluster, &cast.ledger, partitions);
    cast.producers();
    cast.readers();
    let has_members = cast.members();
    let has_administrator = cast.administrator();
    cluster.trouble(&cast).await;
    cast.is_calm.set(true);
    world.tell(None, "the trouble is over");
    let all = machine::until(machine::now() + CALM_MAX, cast.working.are_done()).await;
    assert!(
        all.is_some(),
        "producers do not come to their end, though nothing is wrong any more"
    );
    if has_members {
        let all = machine::until(machine::now() + CALM_MAX, processed(&cast.ledger)).await;
        assert!(
            all.is_some(),
            "members do not come to the end of the log, though nothing is wrong any more"
        );
    }
    replicas::all_in_sync(&cluster.agreement).await;
    cast.is_over.set(true);
    if has_administrator {
        // Who may be at work.
        machine::sleep(PATIENCE * 5).await;
    }
    compare_topics(&world, &cast.topics, &client).await;
    compare(&brokers, &cast.ledger, partitions).await;
    let late = async || commit_late(&brokers).await;
    insist(&world, "a straggler does not come to commit", late).await;
    cast.leave();
    machine::sleep(PATIENCE).await;
    for house in &cluster.houses {
        house.check_budgets().await;
        house.check_at_rest().await;
    }
    replicas::all_in_sync(&cluster.agreement).await;
    cluster.stop().await;
    replicas::compare_logs(&cluster, partitions).await;
    if world.chance(0.3) {
        cluster.begin().await;
        compare(&brokers, &cast.ledger, partitions).await;
    }
    Outcome {
        history: world.history(),
        promised: cast.ledger.promised(),
        compacted: 0,
    }
}

/// The brokers, and what they agree on.
struct Cluster {
    world: Rc<World>,
    agreement: Rc<Agreement>,
    houses: Vec<Rc<House>>,
}

impl Cluster {
    async fn start(world: &Rc<World>) -> Cluster {
        let process = here().expect("a run has a world").process;
        let count = if world.chance(0.8) { 3 } else { 5 };
        let ids = (0..count).map(BrokerId::new);
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
            house.begin(self.world.draw(1..=CORES_MAX));
        }
        join_all(self.houses.iter().map(bring_up)).await;
    }

    /// Trouble, until everybody is there and nothing is wrong any more.
    async fn trouble(&self, cast: &Cast) {
        let process = here().expect("a run has a world").process;
        // Tasks of their own, so that one does not have all of them looked at.
        let of_each = self.houses.iter().map(|house| {
            let pieces = self.world.draw(0..=3);
            let (house, guests) = (Rc::clone(house), cast.guests.clone());
            let (tell, told) = oneshot::channel();
            self.world.spawn(process, async move {
                make_trouble_for(&house, pieces, &guests).await;
                let _ = tell.send(());
            });
            told
        });
        let between = trouble::make(self, self.world.draw(0..=4));
        join(join_all(of_each), between).await;
        for _ in 0..self.world.draw(0..=2) {
            pause(QUIET_MAX).await;
            match self.world.draw(0..5) {
                0..3 => self.black_out().await,
                3 => self.lose_leaders().await,
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
        join_all(self.houses.iter().map(bring_up)).await;
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
        join_all(self.houses.iter().map(bring_up)).await;
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
