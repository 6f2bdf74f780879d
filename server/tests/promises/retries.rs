//! Connections that are cut at random cost nobody a record and store none twice.

use std::net::SocketAddr;

use headwater_client::{Client, OffsetReset, Start};
use tokio::sync::watch;

use crate::support::{Kind, Load, Proxy, Seed, Site, Source, client_of, own_ip, read_topic, run};

const KIND: Kind = Kind {
    topic: "retries",
    partitions: 4,
    value_lens: &[40, 700, 3_000],
};

/// Connections that are cut.
const CUTS: u64 = 100;

/// More than are sent before the last cut.
const RECORDS_MAX: usize = 10_000_000;

#[test]
fn an_idempotent_producer_leaves_no_duplicate_when_its_connection_is_cut_at_random() {
    let seed = Seed::of("an_idempotent_producer_leaves_no_duplicate_when_its_connection_is_cut_at_random");
    let ip = own_ip();
    // Clients are led from the proxy's shared port to its ports of the cores.
    let site = Site::new().set("broker.advertised_host", &ip.to_string());
    run(async {
        let broker = site.start();
        let listeners = [site.address(), site.core_address(0), site.core_address(1)];
        let proxy = Proxy::start(ip, &listeners, seed.random()).await;
        let front = SocketAddr::new(ip.into(), site.address().port());
        let checker = site.client_with_topic(KIND.topic, KIND.partitions.into()).await;
        proxy.begin_to_cut(CUTS);
        let (progress, mut seen) = watch::channel(0);
        let reader = tokio::spawn(read_dense(client_of(front).await, progress));
        let producers = [client_of(front).await, client_of(front).await, client_of(front).await];
        let load = Load::start(producers, KIND, RECORDS_MAX).await;
        while proxy.cuts() < CUTS {
            load.ledger.await_count(load.ledger.count() + 1).await;
        }
        let ledger = load.finish().await;
        ledger.check_complete(&read_topic(&checker, KIND.topic).await);
        seen.wait_for(|count| *count == ledger.count())
            .await
            .expect("the reader goes on");
        reader.abort();
        broker.stop();
    });
}

/// Reads the topic while it is written and connections are cut; panics if a record is missing, repeated or out of place.
async fn read_dense(client: Client, progress: watch::Sender<u64>) {
    let consumer = client.consumer().topics([KIND.topic]).start(Start::Earliest);
    let mut consumer = consumer.offset_reset(OffsetReset::Error).build().await.unwrap();
    let mut next_offsets = [0; KIND.partitions as usize];
    loop {
        let record = consumer.recv().await.unwrap();
        let next = &mut next_offsets[record.partition.as_usize()];
        assert_eq!(record.offset.get(), *next, "partition {}", record.partition);
        let (source, _) = Source::read(record.value.as_deref().unwrap());
        assert_eq!(usize::from(source.partition), record.partition.as_usize());
        *next += 1;
        progress.send_modify(|count| *count += 1);
    }
}
