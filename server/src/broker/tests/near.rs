//! A consumer that says where it is reads from the replica there, as long as that is as good as the leader.

use std::time::Duration;

use headwater_client::{Client, Consumer, PartitionIndex, Producer, Record, Start};

use super::cluster::{Cluster, run};

const VALUE_LEN: usize = 100;

/// A producer and a consumer of one partition, which must get what is sent.
struct Ends {
    producer: Producer,
    consumer: Consumer,
    sent: usize,
    received: usize,
}

impl Ends {
    async fn send(&mut self, count: usize) {
        for _ in 0..count {
            let value = format!("{:VALUE_LEN$}", self.sent);
            let record = Record::to("t")
                .partition(PartitionIndex::new(0))
                .value(value.as_bytes());
            let _delivery = self.producer.send(record).await.unwrap();
            self.sent += 1;
        }
    }

    /// Each once, and in order.
    async fn receive_all(&mut self) {
        while self.received < self.sent {
            let record = self.consumer.recv().await.unwrap();
            assert_eq!(record.offset.get(), self.received as u64);
            let value = format!("{:VALUE_LEN$}", self.received);
            assert_eq!(record.value.unwrap(), value.as_bytes());
            self.received += 1;
        }
    }

    /// Sends and receives until the broker has given some of it, then some more. Returns how much it has given of that, in bytes.
    async fn read_from(&mut self, cluster: &Cluster, id: i32, count: usize) -> u64 {
        while cluster.read_as_follower(id) == 0 {
            self.send(1).await;
            self.receive_all().await;
        }
        let before = cluster.read_as_follower(id);
        self.send(count).await;
        self.receive_all().await;
        cluster.read_as_follower(id) - before
    }
}

#[test]
fn a_consumer_reads_from_the_replica_in_its_rack_and_has_all_once_and_in_order_while_that_comes_and_goes() {
    run(async {
        let mut cluster = Cluster::new(&[1, 2, 3], 1, 1);
        let client = Client::builder()
            .bootstrap([1, 3].map(|id| cluster.broker(id).addr().to_string()))
            .backoff(Duration::from_millis(5), Duration::from_millis(50))
            // A broker has other ports when it comes again.
            .metadata_age_max(Duration::from_millis(200))
            .build()
            .await
            .unwrap();
        let consumer = client.consumer().topics(["t"]).start(Start::Earliest).rack("rack-2");
        let mut ends = Ends {
            producer: client.producer().build().await.unwrap(),
            consumer: consumer.build().await.unwrap(),
            sent: 0,
            received: 0,
        };
        let given = ends.read_from(&cluster, 2, 50).await;
        assert!(given >= 50 * VALUE_LEN as u64, "all of it: {given}");
        // It runs on, and is not reckoned with.
        cluster.fence(2);
        let before = cluster.read_as_follower(2);
        ends.send(50).await;
        ends.receive_all().await;
        assert_eq!(cluster.read_as_follower(2), before);
        cluster.let_in(2);
        cluster.all_in_sync().await;
        // It ends while it is read from.
        ends.send(200).await;
        cluster.stop(2);
        cluster.fence(2);
        ends.send(200).await;
        ends.receive_all().await;
        cluster.start(2);
        ends.send(200).await;
        ends.receive_all().await;
        cluster.all_in_sync().await;
        assert!(ends.read_from(&cluster, 2, 20).await > 0);
        assert_eq!([1, 3].map(|id| cluster.read_as_follower(id)), [0, 0]);
        let others = client.consumer().topics(["t"]).start(Start::Earliest).rack("rack-9");
        ends.consumer = others.build().await.unwrap();
        ends.received = 0;
        ends.receive_all().await;
        assert_eq!(
            [1, 3].map(|id| cluster.read_as_follower(id)),
            [0, 0],
            "nobody is in that rack"
        );
    });
}
