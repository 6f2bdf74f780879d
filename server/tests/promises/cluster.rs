//! Three processes are a cluster: each is a member of the quorum and has replicas. Whoever is killed, nothing acknowledged is lost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use headwater_client::{Client, ErrorCode, NewTopic};

use crate::support::{Broker, Kind, Load, Site, check, read_topic, run};

/// Nothing takes so long, on a machine that does anything at all.
const LONG: Duration = Duration::from_mins(1);

const KIND: Kind = Kind {
    topic: "replicated",
    partitions: 4,
    value_lens: &[20, 300, 2_000],
};

/// Records that are acknowledged between one death and the next.
const RECORDS: usize = 2_000;

struct Cluster {
    sites: [Site; 3],
    brokers: [Option<Broker>; 3],
}

impl Cluster {
    fn start() -> Cluster {
        let sites = [Site::new(), Site::new(), Site::new()];
        let addresses = sites.each_ref().map(Site::peer_address);
        let members = addresses.iter().enumerate();
        let members: Vec<String> = members.map(|(number, address)| format!("{number}@{address}")).collect();
        let mut number = 0;
        let sites = sites.map(|site| {
            let own = number;
            number += 1;
            site.set("broker.id", &own.to_string())
                .set("broker.cluster_id", "cluster")
                .set("cluster.listen", &addresses[own])
                .set("cluster.members", &members.join(","))
        });
        // All of them at once: each waits for a majority.
        let brokers = sites.each_ref().map(|site| Some(site.launch()));
        for broker in brokers.iter().flatten() {
            broker.await_ready();
        }
        Cluster { sites, brokers }
    }

    fn kill(&mut self, number: usize) {
        self.brokers[number].take().unwrap().kill();
    }

    fn start_one(&mut self, number: usize) {
        self.brokers[number] = Some(self.sites[number].start());
    }

    /// A client that knows of all of them.
    async fn client(&self) -> Client {
        let client = Client::builder()
            .bootstrap(self.sites.each_ref().map(|site| site.address().to_string()))
            .request_timeout(Duration::from_secs(15))
            .call_timeout(Duration::from_secs(30))
            .backoff(Duration::from_millis(5), Duration::from_millis(50));
        client.build().await.unwrap()
    }
}

/// A topic of three replicas. Whom the client asks may not have heard yet that all three are there.
async fn create(client: &Client) {
    let deadline = Instant::now() + LONG;
    loop {
        let new = NewTopic::new(KIND.topic)
            .partitions(KIND.partitions.into())
            .replication_factor(3);
        match client.admin().create_topic(new).await {
            Ok(_) => return,
            Err(error) if error.code() == Some(ErrorCode::InvalidReplicationFactor) => {
                assert!(Instant::now() < deadline, "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The broker that leads a partition.
async fn leader(client: &Client, partition: usize) -> usize {
    let described = client.admin().describe_topic(KIND.topic).await.unwrap();
    usize::try_from(described.partitions[partition].leader.get()).unwrap()
}

async fn more(load: &Load) {
    let goal = load.ledger.count() + RECORDS as u64;
    load.allow(2 * RECORDS);
    load.ledger.await_count(goal).await;
}

#[test]
fn what_is_acknowledged_stays_when_leaders_are_killed_and_producers_go_on() {
    run(async {
        let mut cluster = Cluster::start();
        let client = cluster.client().await;
        create(&client).await;
        let load = Load::start([cluster.client().await, cluster.client().await], KIND, 0).await;
        let ledger = Arc::clone(&load.ledger);
        for partition in 0..3 {
            more(&load).await;
            let leader = leader(&client, partition).await;
            cluster.kill(leader);
            // With two of three, one of which leads what the killed one has led.
            more(&load).await;
            check(&ledger.acknowledged(), &read_topic(&client, KIND.topic).await);
            cluster.start_one(leader);
        }
        let ledger = load.finish().await;
        ledger.check_complete(&read_topic(&client, KIND.topic).await);
    });
}

#[test]
fn topics_that_are_deleted_and_made_again_are_new_on_every_broker() {
    run(async {
        let cluster = Cluster::start();
        let client = cluster.client().await;
        for _ in 0..3 {
            create(&client).await;
            let load = Load::start([cluster.client().await], KIND, RECORDS).await;
            let ledger = load.finish().await;
            ledger.check_complete(&read_topic(&client, KIND.topic).await);
            client.admin().delete_topic(KIND.topic).await.unwrap();
        }
    });
}
