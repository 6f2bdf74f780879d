//! What goes wrong between brokers, and what an operator does meanwhile.

use std::{net::IpAddr, pin::pin, time::Duration};

use futures::future::{join, join_all, select};
use headwater_client::BrokerId;

use super::{
    super::{
        scenario::TOPIC,
        trouble::{bring_up, stop_or_kill},
        wire::pause,
    },
    APART_MAX, Cluster,
};
use crate::{
    cluster::{
        Order,
        replicas::{Election, ReplicaCommand},
    },
    image::Replicas,
    machine::{self, simulated::net::Net},
    model::{id::PartitionId, internal::OFFSETS_TOPIC},
};

/// Between two pieces of trouble, at most.
const QUIET_MAX: Duration = Duration::from_secs(3);

/// So long an operator waits for partitions to move.
const MOVE_MAX: Duration = Duration::from_secs(3);

/// Whoever leads wishes for a broker that is back within this time, or not at all.
const WISH_MAX: Duration = Duration::from_secs(3);

/// The disk of a broker that stops stands still for so long at most, again and again.
const SLOW_MAX: Duration = Duration::from_millis(300);

/// How often it is looked whether another runs the group.
const CUT_OFF_LOOK: Duration = Duration::from_millis(500);

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

/// A broker is stopped in order while clients write, perhaps all are, and some of them are killed before they have ended. It may be that
/// nobody hears that a broker leaves: then it is counted on, and takes in what the leader sends, while it closes its logs on a slow disk.
pub(super) async fn stop(cluster: &Cluster) {
    let (world, houses) = (&cluster.world, &cluster.houses);
    if world.chance(0.3) {
        world.tell(None, "all brokers are stopped in order");
        join_all(houses.iter().map(stop_or_kill)).await;
        return bring_up_all(cluster).await;
    }
    let leader = cluster.leader_of(TOPIC);
    let follows = |at: &usize| Some(houses[*at].host) != leader;
    let following: Vec<usize> = (0..houses.len()).filter(follows).collect();
    let at = following[world.draw(0..following.len())];
    let house = &houses[at];
    if world.chance(0.8) {
        world.tell(None, format!("nobody hears that {} leaves", house.host));
        cluster.agreement.ignore(Some(BrokerId::new(at as i32)));
    }
    let is_slow = async {
        loop {
            pause(SLOW_MAX).await;
            world.stall_disk(house.drive(), SLOW_MAX.mul_f64(machine::random()));
        }
    };
    select(pin!(stop_or_kill(house)), pin!(is_slow)).await;
    cluster.agreement.ignore(None);
    pause(QUIET_MAX).await;
    bring_up(house).await;
}

/// Whoever runs a group is cut off from the others, but not from clients, until another has run it for a while.
pub(super) async fn cut_off_coordinator(cluster: &Cluster) {
    let Some(one) = cluster.leader_of(OFFSETS_TOPIC) else {
        return;
    };
    cluster
        .world
        .tell(None, format!("{one}, which runs a group, is cut off from the others"));
    let others = cluster
        .houses
        .iter()
        .map(|house| house.host)
        .filter(|host| *host != one);
    others.for_each(|other| Net::part(&cluster.world, one, other, APART_MAX));
    let deadline = machine::now() + APART_MAX;
    while cluster.leader_of(OFFSETS_TOPIC) == Some(one) && machine::now() < deadline {
        pause(CUT_OFF_LOOK).await;
    }
    machine::sleep(QUIET_MAX).await;
    Net::heal(&cluster.world);
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
