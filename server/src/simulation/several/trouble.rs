//! What goes wrong between brokers, and what an operator does meanwhile.

use std::{net::IpAddr, time::Duration};

use headwater_client::BrokerId;

use super::{super::wire::pause, APART_MAX, Cluster};
use crate::{
    cluster::{
        Order,
        replicas::{Election, ReplicaCommand},
    },
    machine::{self, simulated::net::Net},
};

/// Between two pieces of trouble, at most.
const QUIET_MAX: Duration = Duration::from_secs(3);

/// Makes so much trouble, one piece after the other. What is apart then stays so until it is healed.
pub(super) async fn make(cluster: &Cluster, pieces: usize) {
    for _ in 0..pieces {
        pause(QUIET_MAX).await;
        one(cluster);
    }
}

fn one(cluster: &Cluster) {
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
            let state = cluster.agreement.state();
            let partitions = state.replicas().partitions().map(|(id, _)| id).collect();
            tell("an operator wants the preferred leaders".to_owned());
            cluster.agreement.ask(Order::Replicas(ReplicaCommand::Elect {
                partitions,
                how: Election::Preferred,
            }));
        }
        _ => {
            let state = cluster.agreement.state();
            let moved = state.replicas().partitions().filter(|_| world.chance(0.5));
            let partitions = moved.map(|(id, _)| (id, Some(any_three(cluster)))).collect();
            tell("an operator moves partitions".to_owned());
            cluster
                .agreement
                .ask(Order::Replicas(ReplicaCommand::Reassign { partitions }));
        }
    }
}

fn any_three(cluster: &Cluster) -> Vec<BrokerId> {
    let mut all: Vec<BrokerId> = (0..cluster.houses.len() as i32).map(BrokerId::new).collect();
    let mut drawn = || all.swap_remove(cluster.world.draw(0..all.len()));
    vec![drawn(), drawn(), drawn()]
}
