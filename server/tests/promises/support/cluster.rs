//! Three processes that are one cluster: each is a member of the quorum and has replicas.

use std::time::{Duration, Instant};

use headwater_client::{BrokerId, Client, ClusterListing};

use super::{broker::Broker, site::Site};

/// Nothing takes so long, on a machine that does anything at all.
pub const LONG: Duration = Duration::from_mins(2);

pub struct Cluster {
    /// They end before their directories go.
    pub brokers: [Option<Broker>; 3],
    pub sites: [Site; 3],
}

impl Cluster {
    pub fn start() -> Cluster {
        Cluster::of([Site::new(), Site::new(), Site::new()])
    }

    /// With other settings than usual.
    pub fn start_with(settings: &[(&str, &str)]) -> Cluster {
        let site = || {
            settings
                .iter()
                .fold(Site::new(), |site, (key, value)| site.set(key, value))
        };
        Cluster::of([site(), site(), site()])
    }

    /// On these sites.
    pub fn of(sites: [Site; 3]) -> Cluster {
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
        Cluster { brokers, sites }
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) {
        self.brokers[number].take().unwrap().kill();
    }

    /// Starts one that does not run.
    pub fn start_one(&mut self, number: usize) {
        self.brokers[number] = Some(self.sites[number].start());
    }

    /// One that runs, but those.
    pub fn other(&self, than: &[usize]) -> usize {
        let mut others = (0..3).filter(|number| self.brokers[*number].is_some() && !than.contains(number));
        others.next_back().unwrap()
    }

    /// A client that knows of all of them.
    pub async fn client(&self) -> Client {
        self.client_that_waits(Duration::from_secs(15)).await
    }

    /// The same, which asks elsewhere if a broker has not answered for so long.
    pub async fn client_that_waits(&self, request_timeout: Duration) -> Client {
        let client = Client::builder()
            .bootstrap(self.sites.each_ref().map(|site| site.address().to_string()))
            .request_timeout(request_timeout)
            .call_timeout(Duration::from_secs(30))
            .backoff(Duration::from_millis(5), Duration::from_millis(50));
        client.build().await.unwrap()
    }
}

/// Waits until no broker is fenced.
pub async fn await_all_there(client: &Client) {
    await_list(client, "all are there", |list| {
        list.brokers.iter().filter(|broker| !broker.is_fenced).count() == 3
    })
    .await;
}

/// Waits until the brokers and partitions are like this.
pub async fn await_list(client: &Client, what: &str, is_so: impl Fn(&ClusterListing) -> bool) -> ClusterListing {
    let deadline = Instant::now() + LONG;
    loop {
        let list = client.admin().list_brokers().await.unwrap();
        if is_so(&list) {
            return list;
        }
        assert!(Instant::now() < deadline, "not so: {what}: {list:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until no partition lacks a replica.
pub async fn await_all_in_sync(client: &Client) {
    await_list(client, "all are in sync", |list| {
        list.partitions > 0 && list.under_replicated == 0
    })
    .await;
}

/// The brokers that have a partition, and the one that leads it.
pub async fn replicas(client: &Client, topic: &str, partition: usize) -> (Vec<usize>, Option<usize>) {
    let number = |broker: BrokerId| usize::try_from(broker.get()).ok();
    let described = client.admin().describe_topic(topic).await.unwrap();
    let partition = &described.partitions[partition];
    let replicas = partition.replicas.replicas.iter().copied().filter_map(number);
    (replicas.collect(), number(partition.leader))
}
