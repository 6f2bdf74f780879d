//! Groups whose members stop asking or die without a word hold up nobody: neither producers nor other groups.

use std::{collections::BTreeSet, time::Duration};

use headwater_client::{Client, GroupConsumer, GroupState};
use tokio::sync::mpsc;

use crate::support::{Kind, Load, Site, Source, pause, run};

/// More than what the client of a member that does not ask would fetch ahead.
const KIND: Kind = Kind {
    topic: "t",
    partitions: 4,
    value_lens: &[16_000],
};
const RECORDS: usize = 4_000;

/// Longer than any test: nothing here happens because a session has ended.
const LONG: Duration = Duration::from_mins(10);

async fn join(site: &Site, group: &str) -> GroupConsumer {
    let builder = site.client().await.group_consumer(group).topics([KIND.topic]);
    let builder = builder.session_timeout(LONG).rebalance_timeout(LONG);
    let builder = builder.heartbeat_interval(Duration::from_millis(50));
    builder.max_poll_interval(LONG).build().await.unwrap()
}

/// Says of each record whose it is, until nobody listens.
async fn follow(mut consumer: GroupConsumer, received: mpsc::UnboundedSender<(Source, u64)>) {
    loop {
        let record = consumer.recv().await.unwrap();
        if received.send(Source::read(record.value.as_deref().unwrap())).is_err() {
            consumer.close().await.unwrap();
            return;
        }
    }
}

/// Waits for a state that a group comes to by itself.
async fn await_state(client: &Client, group: &str, state: GroupState) {
    while client.admin().groups().describe(group).await.unwrap().state != state {
        pause().await;
    }
}

#[test]
fn members_that_ask_no_more_and_members_that_die_hold_up_neither_producers_nor_another_group() {
    run(async {
        let site = Site::new()
            .set("groups.offsets_partitions", "4")
            .set("groups.initial_rebalance_delay_ms", "50ms");
        let broker = site.start();
        let client = site.client_with_topic(KIND.topic, KIND.partitions.into()).await;
        let load = Load::start([site.client().await], KIND, 0).await;
        load.allow(KIND.partitions.into());
        // One group has a member that is there and asks for nothing more.
        let mut stopped = join(&site, "stopped").await;
        let at = stopped.recv().await.unwrap();
        // Another waits for a member that is dead: the one that is left will not get anything for as long as a session lasts.
        let mut dead = join(&site, "waiting").await;
        dead.recv().await.unwrap();
        drop(dead);
        let mut waiting = join(&site, "waiting").await;
        let waits = tokio::spawn(async move { waiting.recv().await.map(drop) });
        await_state(&client, "waiting", GroupState::PreparingRebalance).await;

        let (received, mut records) = mpsc::unbounded_channel();
        let first = tokio::spawn(follow(join(&site, "healthy").await, received.clone()));
        load.allow(RECORDS);
        let second = tokio::spawn(follow(join(&site, "healthy").await, received));
        let goal = RECORDS as u64 + u64::from(KIND.partitions);
        load.ledger.await_count(goal).await;
        let sent = load.finish().await;
        let mut seen = BTreeSet::new();
        while (seen.len() as u64) < sent.count() {
            seen.insert(records.recv().await.unwrap());
        }

        assert_eq!(sent.count(), goal);
        assert!(!waits.is_finished(), "its group waits for the dead one");
        let state = client.admin().groups().describe("waiting").await.unwrap().state;
        assert_eq!(state, GroupState::PreparingRebalance);
        // Nothing of what it did not ask for is lost to the one that has stopped.
        assert_eq!(stopped.position(KIND.topic, at.partition), Some(at.offset.next()));
        let mut left = goal - 1;
        while left > 0 {
            stopped.recv().await.unwrap();
            left -= 1;
        }
        drop(records);
        waits.abort();
        first.abort();
        second.abort();
        broker.stop();
    });
}
