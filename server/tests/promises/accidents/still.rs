//! Brokers that stand still for longer than their session, as a machine does that is paused or swaps: they cannot know that others
//! lead by the time they go on.

use headwater_client::ErrorCode;
use rustix::process::Signal;

use super::{KIND, Trouble};
use crate::support::{Raw, Source, await_list, batch, produce, run};

/// No producer of the load.
const LATE: Source = Source {
    producer: u16::MAX,
    partition: 0,
};

/// The broker so many behind the active coordinator stands still.
async fn one_stands_still(behind: usize) {
    let trouble = Trouble::start().await;
    let topic = trouble.client.admin().describe_topic(KIND.topic).await.unwrap().id;
    let number = (trouble.active().await + behind) % 3;
    trouble.await_well().await;
    let partition = trouble.led_by(number).await as i32;
    let mut raw = Raw::connect(trouble.cluster.sites[number].address()).await;
    let broker = trouble.cluster.brokers[number].as_ref().unwrap();
    trouble.go_on(200).await;
    broker.stand_still();
    // It is the first that the broker sees when it goes on, and takes itself to be the leader.
    let late = batch(&[&LATE.value(0, 100)]);
    raw.send(&produce(topic, partition), &late).await;
    await_list(&trouble.client, "others lead", |list| {
        list.brokers[number].is_fenced && list.brokers[number].leads == 0 && list.leaderless == 0
    })
    .await;
    trouble.go_on(500).await;
    broker.signal(Signal::CONT);
    let answer = raw
        .receive()
        .await
        .map(|reply| ErrorCode::from_i16(reply.produce().error));
    assert!(answer.is_none_or(ErrorCode::is_retriable), "{answer:?}");
    trouble.await_well().await;
    // What came late is nowhere.
    trouble.end().await;
}

#[test]
fn a_leader_that_stood_still_acknowledges_nothing_afterwards_and_has_everything_again() {
    run(one_stands_still(1));
}

#[test]
fn an_active_coordinator_that_stood_still_acknowledges_nothing_afterwards_and_has_everything_again() {
    run(one_stands_still(0));
}
