//! What goes wrong between brokers, and what an operator does meanwhile.

use std::{net::IpAddr, time::Duration};

use futures::future::{join, join_all};
use headwater_client::BrokerId;

use super::{
    super::{trouble::bring_up, wire::pause},
    APART_MAX, Cluster,
};
use crate::{
    cluster::{
        Order,
        replicas::{Election, ReplicaCommand},
    },
    image::Replicas,
    machine::{self, simulated::net::Net},
    model::id::PartitionId,
};

/// Between two pieces of trouble, at most.
const QUIET_MAX: Duration = Duration::from_secs(3);

/// So long an operator waits for partitions to move.
const MOVE_MAX: Duration = Duration::from_secs(3);

/// Whoever leads wishes for a broker that is back within this time, or not at all.
const WISH_MAX: Duration = Duration::from_secs(3);

/// How often an operator looks where they are.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Where partitions are to be, or to stay.
type Moves = Vec<(PartitionId, Option<Vec<BrokerId>>)>;

/// Makes so much trouble, one piece after the other. What is apart then stays so until it is healed.
pub(super) async fn make(cluster: &Cluster, pieces: usize) {
    for _ in 0..pieces {
        pause(QUIET_MAX).await;
        one(cluster).await;
    }
}

async fn one(cluster: &Cluster) {
    let world = &cluster.world;
    let hosts: Vec<IpAddr> = cluster.houses.iter().map(|house| house.host).collect();
    let at = world.draw(0..hosts.len());
    let (one, house) = (hosts[at], &cluster.houses[at]);
    let other = hosts[(at + world.draw(1..hosts.len())) % hosts.len()];
    let others = || hosts.iter().copied().filter(|host| *host != one);
    let a_while = APART_MAX.mul_f64(machine::random());
    let tell = |line: String| world.tell(None, line);
    match world.draw(0..14) {
        0 | 1 => {
            tell(format!("{one} and {other} are apart for {a_while:?}"));
            Net::part(world, one, other, a_while);
        }
        2 => {
            tell(format!("nothing comes from {one} to {other} for {a_while:?}"));
            Net::cut(world, one, other, a_while);
        }
        3 | 4 => {
            tell(format!("{one} is apart from all others for {a_while:?}"));
            others().for_each(|other| Net::part(world, one, other, a_while));
        }
        5 => {
            tell(format!("nothing comes from {one} to any other for {a_while:?}"));
            others().for_each(|other| Net::cut(world, one, other, a_while));
        }
        6 => {
            tell(format!("nothing comes to {one} from any other for {a_while:?}"));
            others().for_each(|other| Net::cut(world, other, one, a_while));
        }
        7 => {
            for _ in 0..world.draw(1..=6) {
                let is_silent = world.chance(0.4);
                let done = Net::break_one(world, is_silent);
                tell(format!("a connection breaks (silently: {is_silent}): {done}"));
            }
        }
        8 | 9 => {
            let Some(process) = house.process() else { return };
            tell(format!("{one} stands still for {a_while:?}"));
            world.freeze(process, a_while);
        }
        10 | 11 => {
            let map = cluster.agreement.replicas();
            let partitions = map.partitions().map(|(id, _)| id).collect();
            tell("an operator wants the preferred leaders".to_owned());
            cluster.agreement.ask(Order::Replicas(ReplicaCommand::Elect {
                partitions,
                how: Election::Preferred,
            }));
        }
        _ => reassign(cluster).await,
    }
}

/// Somebody who was away is to come into sync; before that is agreed on, it dies, with its disk perhaps, or whoever leads does.
pub(super) async fn come_late(cluster: &Cluster) {
    let (world, agreement) = (&cluster.world, &cluster.agreement);
    let house = &cluster.houses[world.draw(0..cluster.houses.len())];
    house.lose_power();
    let wished = async {
        let ((), joins) = join(bring_up(house), agreement.hold_a_wish()).await;
        joins
    };
    if let Some(joins) = machine::until(machine::now() + WISH_MAX, wished).await {
        world.tell(None, format!("broker {joins} is to come into sync, a little later"));
        let joining = &cluster.houses[joins.get() as usize];
        let disks = &joining.disks_to_lose;
        match world.draw(0..4) {
            0 => cluster.lose_leaders().await,
            1 => joining.lose_power(),
            _ if disks.get() > 0 => {
                disks.set(disks.get() - 1);
                joining.lose_disk();
            }
            _ => joining.lose_power(),
        }
        let there = machine::until(machine::now() + WISH_MAX, bring_up(joining)).await;
        world.tell(None, format!("it is there again: {}", there.is_some()));
    }
    agreement.release();
    bring_up_all(cluster).await;
}

/// All brokers run.
pub(super) async fn bring_up_all(cluster: &Cluster) {
    join_all(cluster.houses.iter().map(bring_up)).await;
}

/// Moves partitions, and perhaps back as soon as they are there.
pub(super) async fn reassign(cluster: &Cluster) {
    let (world, agreement) = (&cluster.world, &cluster.agreement);
    let ask = |partitions| agreement.ask(Order::Replicas(ReplicaCommand::Reassign { partitions }));
    let (mut there, mut back) = (Moves::new(), Moves::new());
    for (id, replicas) in agreement.replicas().partitions() {
        if world.chance(0.5) {
            there.push((id, Some(any_three(cluster))));
            back.push((id, Some(replicas.target().collect())));
        }
    }
    world.tell(None, "an operator moves partitions");
    ask(there);
    if world.chance(0.5) {
        let is_moving = |replicas: &Replicas| !replicas.adding.is_empty() || !replicas.removing.is_empty();
        let deadline = machine::now() + MOVE_MAX;
        loop {
            machine::sleep(LOOK_EVERY).await;
            let map = agreement.replicas();
            let are_moving = map.partitions().any(|(_, replicas)| is_moving(replicas));
            if !are_moving || machine::now() >= deadline {
                break;
            }
        }
        world.tell(None, "an operator moves them back");
        ask(back);
    }
}

fn any_three(cluster: &Cluster) -> Vec<BrokerId> {
    let mut all: Vec<BrokerId> = (0..cluster.houses.len() as i32).map(BrokerId::new).collect();
    let mut drawn = || all.swap_remove(cluster.world.draw(0..all.len()));
    vec![drawn(), drawn(), drawn()]
}
