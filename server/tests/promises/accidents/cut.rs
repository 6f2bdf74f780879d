//! The network fails, in namespaces of its own: brokers that are cut off, from each other or from clients, in both directions or in
//! one; and one that loses and delays what it carries.
//!
//! It takes root; without it the tests say so and pass, unless `HEADWATER_REQUIRE_ROOT_TESTS` is set.

use std::{
    panic::resume_unwind,
    sync::Arc,
    time::{Duration, Instant},
};

use headwater_client::ErrorCode;
use tokio::time::timeout;

use super::{ANSWER_MAX, KIND, Trouble};
use crate::support::{Cluster, LIMIT, Network, Raw, Seed, Site, Source, await_list, batch, produce, run_on, skip};

/// Brokers have the numbers of their hosts; clients are here.
const CLIENTS: usize = 3;

/// No producer of the load.
const LATE: Source = Source {
    producer: u16::MAX,
    partition: 0,
};

/// Runs a test with a cluster of which every broker is on a host of its own, and the test on another.
fn run_in_network<T: Future<Output = ()>>(
    name: &'static str,
    test: impl FnOnce(Arc<Network>, Trouble) -> T + Send + 'static,
) {
    let seed = Seed::of(name);
    let network = match Network::new(CLIENTS + 1, seed.random()) {
        Ok(network) => Arc::new(network),
        Err(why) => return skip(name, &why),
    };
    let entrance = network.entrance(CLIENTS);
    let all = Arc::clone(&network);
    let ran = network.on(CLIENTS, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(entrance)
            .build()
            .unwrap();
        run_on(&runtime, LIMIT, async move {
            let site = |host| Site::new().on(Network::ip(host)).launched_by(all.launcher(host));
            let trouble = Trouble::of(Cluster::of([0, 1, 2].map(site)), KIND).await;
            test(all, trouble).await;
        });
        runtime.shutdown_background();
    });
    if let Err(panic) = ran.join() {
        resume_unwind(panic);
    }
}

/// Waits for so long, and says how late it was at most where it wanted to look again in between.
async fn lateness(time: Duration) -> Duration {
    let (end, step) = (Instant::now() + time, Duration::from_millis(20));
    let mut latest = Duration::ZERO;
    while Instant::now() < end {
        let due = Instant::now() + step;
        tokio::time::sleep(step).await;
        latest = latest.max(Instant::now().saturating_duration_since(due));
    }
    latest
}

fn others(than: usize) -> [usize; 2] {
    [(than + 1) % 3, (than + 2) % 3]
}

impl Trouble {
    async fn await_others_lead(&self, than: usize) {
        // Nobody else knows.
        let client = self.cluster.sites[others(than)[0]].client().await;
        await_list(&client, "others lead", |list| {
            list.brokers[than].is_fenced && list.brokers[than].leads == 0 && list.leaderless == 0
        })
        .await;
    }
}

#[test]
fn a_leader_that_reaches_clients_but_no_other_broker_acknowledges_nothing_and_says_to_try_again() {
    let name = "a_leader_that_reaches_clients_but_no_other_broker_acknowledges_nothing_and_says_to_try_again";
    run_in_network(name, |network, trouble| async move {
        let topic = trouble.client.admin().describe_topic(KIND.topic).await.unwrap().id;
        // It can neither be told that others lead, nor tell.
        let number = trouble.active().await;
        let partition = trouble.led_by(number).await as i32;
        let mut raw = Raw::connect(trouble.cluster.sites[number].address()).await;
        trouble.go_on(200).await;
        network.part(&[number], &others(number));
        let mut request = produce(topic, partition);
        request.timeout_ms = 1_000;
        for late in 0..2 {
            let late = batch(&[&LATE.value(late, 100)]);
            let answer = timeout(ANSWER_MAX, raw.call(&request, &late)).await.unwrap().produce();
            let code = ErrorCode::from_i16(answer.error);
            assert!(code.is_retriable(), "{code:?}: {answer:?}");
        }
        trouble.assert_agrees_on_nothing(number).await;
        trouble.await_others_lead(number).await;
        trouble.go_on(500).await;
        network.heal();
        trouble.await_well().await;
        trouble.go_on(200).await;
        trouble.end().await;
    });
}

#[test]
fn a_leader_that_no_client_reaches_goes_on_where_it_was() {
    run_in_network(
        "a_leader_that_no_client_reaches_goes_on_where_it_was",
        |network, trouble| async move {
            loop {
                trouble.await_well().await;
                let number = trouble.active().await;
                trouble.go_on(200).await;
                let list = trouble.client.admin().list_brokers().await.unwrap();
                network.part(&[number], &[CLIENTS]);
                // Longer than its session.
                let late = lateness(Duration::from_secs(4)).await;
                let after = trouble.client.admin().list_brokers().await.unwrap();
                network.heal();
                if after.brokers == list.brokers {
                    break;
                }
                // One that got no CPU for as long as its session lasts was rightly replaced: another time it gets some.
                assert!(
                    late > Duration::from_millis(200),
                    "it is there, and somebody took its place: {list:?}, {after:?}"
                );
            }
            trouble.go_on(500).await;
            trouble.end().await;
        },
    );
}

#[test]
fn who_is_heard_but_hears_nobody_and_who_hears_but_is_not_heard_are_both_replaced() {
    let name = "who_is_heard_but_hears_nobody_and_who_hears_but_is_not_heard_are_both_replaced";
    run_in_network(name, |network, trouble| async move {
        for is_heard in [true, false] {
            let number = trouble.active().await;
            trouble.go_on(200).await;
            if is_heard {
                network.cut(&others(number), &[number]);
            } else {
                network.cut(&[number], &others(number));
            }
            trouble.await_others_lead(number).await;
            trouble.go_on(500).await;
            network.heal();
            trouble.await_well().await;
        }
        trouble.go_on(200).await;
        trouble.end().await;
    });
}

#[test]
fn a_network_that_loses_and_delays_packets_costs_time_and_no_records() {
    run_in_network(
        "a_network_that_loses_and_delays_packets_costs_time_and_no_records",
        |network, trouble| async move {
            trouble.go_on(200).await;
            network.disturb(0.05, Duration::from_millis(20));
            trouble.go_on(1_500).await;
            let lost = network.lost();
            assert!(lost > 20, "{lost} packets were lost");
            network.heal();
            trouble.await_well().await;
            trouble.end().await;
        },
    );
}
