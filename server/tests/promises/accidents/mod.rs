//! Accidents of a cluster of three processes that is under load all the time: brokers are killed, stand still, have a full disk or an empty
//! one, and are cut off. Whatever happens, nothing that was acknowledged is lost, doubled or out of order, and it goes on by itself.

mod cut;
mod emptied;
mod full;
mod kills;
mod still;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use headwater_client::{Client, ErrorCode, NewTopic, OffsetReset, PartitionDescription, PartitionIndex, Start};
use headwater_protocol::schema::{CreateTopicRequestT, MetadataRequestT};
use tokio::time::timeout;

use crate::support::{
    Cluster, Kind, LONG, Load, Raw, Site, Source, Stored, await_all_in_sync, await_all_there, await_list, pause,
    read_topic,
};

/// One more than there are brokers, so that each leads some.
const KIND: Kind = Kind {
    topic: "trouble",
    partitions: 4,
    value_lens: &[20, 300, 90, 2_000],
};

/// Records a second of all producers together: there is little work, but there always is some.
const RATE: usize = 600;

/// So long a client waits for a broker that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// So long a broker that cannot do what is asked for may take to say so, on a machine that does much else.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A cluster with a topic, two producers, and a consumer that follows.
struct Trouble {
    cluster: Cluster,
    /// Asks, and reads everything in the end.
    client: Client,
    load: Load,
    reader: Reader,
}

impl Trouble {
    async fn start() -> Trouble {
        Trouble::of(Cluster::start(), KIND).await
    }

    async fn of(cluster: Cluster, kind: Kind) -> Trouble {
        let client = cluster.client_that_waits(PATIENCE).await;
        await_all_there(&client).await;
        let new = NewTopic::new(KIND.topic).partitions(KIND.partitions.into());
        client.admin().create_topic(new).await.unwrap();
        for site in &cluster.sites {
            await_known(site).await;
        }
        let producers = [
            cluster.client_that_waits(PATIENCE).await,
            cluster.client_that_waits(PATIENCE).await,
        ];
        let mut load = Load::start(producers, kind, 0).await;
        load.pace(RATE);
        let reader = Reader::start(cluster.client_that_waits(PATIENCE).await).await;
        Trouble {
            cluster,
            client,
            load,
            reader,
        }
    }

    /// Waits until so many more records have been acknowledged.
    async fn go_on(&self, records: u64) {
        let goal = self.load.ledger.count() + records;
        self.load.ledger.await_count(goal).await;
    }

    /// The active coordinator, as soon as there is one.
    async fn active(&self) -> usize {
        let deadline = Instant::now() + LONG;
        loop {
            if let Ok(quorum) = self.client.admin().describe_quorum().await
                && let Some(active) = quorum.active
            {
                return active.get() as usize;
            }
            assert!(Instant::now() < deadline, "nobody is the active coordinator");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A partition that the broker leads now.
    async fn led_by(&self, broker: usize) -> usize {
        let deadline = Instant::now() + LONG;
        loop {
            let described = self.client.admin().describe_topic(KIND.topic).await.unwrap();
            let mut partitions = described.partitions.iter();
            if let Some(led) = partitions.position(|partition| partition.leader.get() == broker as i32) {
                return led;
            }
            assert!(
                Instant::now() < deadline,
                "broker {broker} leads nothing: {described:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A broker that has no majority refuses a change of topics, soon and with an error that says to try again.
    async fn assert_agrees_on_nothing(&self, number: usize) {
        let mut raw = Raw::connect(self.cluster.sites[number].address()).await;
        let create = CreateTopicRequestT {
            name: Some("unagreed".to_owned()),
            partitions: 1,
            replication_factor: -1,
            ..CreateTopicRequestT::default()
        };
        let answer = timeout(ANSWER_MAX, raw.call(&create, &[])).await.unwrap();
        let answer = answer.create_topic();
        assert!(ErrorCode::from_i16(answer.error).is_retriable(), "{answer:?}");
    }

    /// What one of the brokers that run may log.
    fn expect_errors(&mut self, number: usize, text: &'static str) {
        let broker = self.cluster.brokers[number].take().unwrap();
        self.cluster.brokers[number] = Some(broker.expect_errors(text));
    }

    /// Waits until one of the partitions is like this.
    async fn await_partition(&self, what: &str, is_so: impl Fn(&PartitionDescription) -> bool) {
        let deadline = Instant::now() + LONG;
        loop {
            let described = self.client.admin().describe_topic(KIND.topic).await.unwrap();
            if described.partitions.iter().any(&is_so) {
                return;
            }
            assert!(Instant::now() < deadline, "not so: {what}: {described:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all is as it was: every broker is there, has everything, and leads what it is to lead.
    async fn await_well(&self) {
        await_all_there(&self.client).await;
        await_all_in_sync(&self.client).await;
        await_list(&self.client, "all lead what they are to lead", |list| {
            list.brokers.iter().all(|broker| broker.leads == broker.preferred)
        })
        .await;
    }

    /// Ends the load once everything was acknowledged. All of it is there once and in order, consumers were shown nothing else, and
    /// all three brokers have the same, byte for byte.
    async fn end(self) {
        let ledger = self.load.finish().await;
        let log = read_topic(&self.client, KIND.topic).await;
        ledger.check_complete(&log);
        self.reader.check(&log).await;
        await_all_there(&self.client).await;
        await_all_in_sync(&self.client).await;
        let Cluster { brokers, sites } = self.cluster;
        drop(brokers);
        for partition in 0..KIND.partitions {
            let name = format!("{}-{partition}", KIND.topic);
            let [first, others @ ..] = sites.each_ref().map(|site| batches(&site.directory().join(&name)));
            for (number, other) in (1..).zip(&others) {
                let same = first.iter().zip(other).take_while(|(one, other)| one == other).count();
                assert!(
                    first == *other,
                    "{name} is {} bytes on broker 0 and {} on broker {number}: they differ at {same}",
                    first.len(),
                    other.len()
                );
            }
        }
    }
}

/// Waits until a broker knows of the topic: clients ask any of them.
async fn await_known(site: &Site) {
    let deadline = Instant::now() + LONG;
    let mut raw = Raw::connect(site.address()).await;
    let topics = Some(vec![KIND.topic.to_owned()]);
    let question = MetadataRequestT { topics };
    loop {
        let told = raw.call(&question, &[]).await.metadata().topics.unwrap_or_default();
        if told.first().is_some_and(|topic| topic.error == 0) {
            return;
        }
        assert!(Instant::now() < deadline, "a broker does not hear of a topic: {told:?}");
        pause().await;
    }
}

/// The batches of a partition, one after the other, from its first segment on.
fn batches(directory: &Path) -> Vec<u8> {
    const HEADER: usize = 12;
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|found| found == "log"))
        .collect();
    segments.sort();
    let (mut all, mut next) = (Vec::new(), 0);
    for segment in segments {
        let bytes = std::fs::read(segment).unwrap();
        let mut rest = &bytes[..];
        // Behind the last batch there are zeros, or what another segment had there before.
        while rest.len() > 27 && i64::from_be_bytes(rest[..8].try_into().unwrap()) == next {
            let len = i32::from_be_bytes(rest[8..HEADER].try_into().unwrap());
            let Some((batch, behind)) = rest.split_at_checked(HEADER + len as usize).filter(|_| len > 0) else {
                break;
            };
            next += 1 + i64::from(i32::from_be_bytes(batch[23..27].try_into().unwrap()));
            all.extend_from_slice(batch);
            rest = behind;
        }
    }
    all
}

/// A consumer that reads all that there is while it comes: what it was shown has to stay.
struct Reader {
    seen: Arc<Mutex<Vec<Vec<Stored>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Reader {
    async fn start(client: Client) -> Reader {
        let seen = Arc::new(Mutex::new(vec![Vec::new(); KIND.partitions.into()]));
        let all = (0..KIND.partitions).map(|partition| PartitionIndex::new(partition.into()));
        let consumer = client.consumer().assign(KIND.topic, all).start(Start::Earliest);
        let mut consumer = consumer.offset_reset(OffsetReset::Error).build().await.unwrap();
        let task = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                loop {
                    match consumer.recv().await {
                        Ok(record) => seen.lock().unwrap()[record.partition.as_usize()].push(Stored {
                            offset: record.offset.get(),
                            value: record.value.unwrap(),
                        }),
                        // It says so once a minute, and goes on.
                        Err(error) => assert!(matches!(error, headwater_client::Error::Timeout { .. }), "{error}"),
                    }
                }
            }
        });
        Reader { seen, task }
    }

    /// Waits until it has seen as much as there is, and compares.
    async fn check(self, log: &[Vec<Stored>]) {
        let deadline = Instant::now() + LONG;
        let count = |log: &[Vec<Stored>]| log.iter().map(Vec::len).sum::<usize>();
        while count(&self.seen.lock().unwrap()) < count(log) {
            assert!(!self.task.is_finished(), "the consumer has failed");
            assert!(Instant::now() < deadline, "the consumer does not get everything");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.task.abort();
        for (seen, log) in self.seen.lock().unwrap().iter().zip(log) {
            for (seen, stored) in seen.iter().zip(log) {
                let told = |record: &Stored| (record.offset, Source::read(&record.value));
                assert_eq!(told(seen), told(stored), "a consumer was shown what is not there");
            }
        }
    }
}
