//! The number of cores is the machine's business: it changes between restarts, and clients go on.

use std::collections::BTreeSet;

use headwater_client::Client;

use crate::support::{Kind, Load, Site, check, read_topic, run};

const KIND: Kind = Kind {
    topic: "cores",
    partitions: 4,
    value_lens: &[100, 1_000],
};

/// Acknowledged before each restart.
const RECORDS: usize = 1_000;

#[test]
fn all_data_is_served_and_idempotent_producers_go_on_when_the_number_of_cores_changes() {
    run(async {
        let mut site = Site::new().cores(1);
        let mut broker = site.start();
        let checker = site.client_with_topic(KIND.topic, KIND.partitions.into()).await;
        let load = Load::start([site.client().await, site.client().await], KIND, 0).await;
        for (cores, in_order) in [(2, true), (3, false), (1, false), (2, true), (1, true)] {
            let goal = load.ledger.count() + RECORDS as u64 / 2;
            load.allow(RECORDS);
            load.ledger.await_count(goal).await;
            if in_order {
                broker.stop();
            } else {
                broker.kill();
            }
            site = site.cores(cores);
            broker = site.start();
            assert_eq!(owners(&checker).await.len(), usize::from(cores));
            check(&load.ledger.acknowledged(), &read_topic(&checker, KIND.topic).await);
        }
        let ledger = load.finish().await;
        ledger.check_complete(&read_topic(&checker, KIND.topic).await);
        broker.stop();
    });
}

/// The cores that own a partition.
async fn owners(client: &Client) -> BTreeSet<u16> {
    let topic = client.admin().describe_topic(KIND.topic).await.unwrap();
    topic.partitions.iter().map(|partition| partition.core.get()).collect()
}
