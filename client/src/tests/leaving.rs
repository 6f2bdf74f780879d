//! Two brokers, of which the one that leads falls silent with its connections open, as one whose machine has died; or of which one does
//! not know what the other does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater_protocol::frame::{Api, FrameHeader, HEADER_LEN, encode_head};
use headwater_protocol::head::Head;
use headwater_protocol::id::TopicId;
use headwater_protocol::schema;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::broker::api_versions;
use super::network::Network;
use crate::client::Client;
use crate::runtime::sync::Mutex;
use crate::{Offset, Record, Start};

/// Longer than any test takes: whoever waits for this waits for ever.
const NEVER: Duration = Duration::from_hours(24);

/// The broker that leads, and after its silence is not among the brokers any more.
const FIRST: u16 = 9000;
const SECOND: u16 = 9100;

/// What both brokers are told by the coordinator.
struct Cluster {
    topic: TopicId,
    /// The first of them leads.
    brokers: Mutex<Vec<u16>>,
    first_is_silent: AtomicBool,
    /// It has been cut off from the other since before there was a topic.
    first_knows_nothing: AtomicBool,
    /// To which brokers batches came that were answered.
    produced: Mutex<Vec<u16>>,
    /// To which brokers fetches came.
    fetched: Mutex<Vec<u16>>,
}

impl Cluster {
    fn start(network: &Arc<Network>) -> Arc<Self> {
        let cluster = Arc::new(Self {
            topic: TopicId::random(),
            brokers: Mutex::new(vec![FIRST, SECOND]),
            first_is_silent: AtomicBool::new(false),
            first_knows_nothing: AtomicBool::new(false),
            produced: Mutex::default(),
            fetched: Mutex::default(),
        });
        for port in [FIRST, SECOND] {
            let mut incoming = network.listen(port);
            let cluster = Arc::clone(&cluster);
            tokio::spawn(async move {
                while let Some(stream) = incoming.recv().await {
                    tokio::spawn(Arc::clone(&cluster).serve(stream, port));
                }
            });
        }
        cluster
    }

    /// The first one falls silent; a while later the coordinator has noticed.
    fn lose_the_first(self: &Arc<Self>) {
        self.first_is_silent.store(true, Ordering::Relaxed);
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            *cluster.brokers.lock() = vec![SECOND];
        });
    }

    async fn serve(self: Arc<Self>, mut stream: DuplexStream, port: u16) {
        loop {
            let mut header = [0; HEADER_LEN];
            if stream.read_exact(&mut header).await.is_err() {
                return;
            }
            let header = FrameHeader::parse(&header, 64 << 20).unwrap().unwrap();
            let mut body = vec![0; header.frame_len() - HEADER_LEN];
            stream.read_exact(&mut body).await.unwrap();
            if port == FIRST && self.first_is_silent.load(Ordering::Relaxed) {
                continue;
            }
            if let Some(response) = self.answer(header, port)
                && stream.write_all(&response).await.is_err()
            {
                return;
            }
        }
    }

    fn answer(&self, header: FrameHeader, port: u16) -> Option<Vec<u8>> {
        fn reply(header: FrameHeader, head: &impl Head) -> Vec<u8> {
            encode_head(head, 0, header.correlation_id, 0)
        }
        Some(match Api::from_u16(header.api)? {
            Api::ApiVersions => reply(header, &api_versions()),
            Api::Metadata => reply(header, &self.metadata(port)),
            Api::InitProducerId => reply(header, &schema::InitProducerIdResponseT::default()),
            Api::Produce => {
                let mut produced = self.produced.lock();
                produced.push(port);
                let base_offset = produced.len() as i64 - 1;
                let stored = schema::ProduceResponseT {
                    base_offset,
                    ..Default::default()
                };
                reply(header, &stored)
            }
            // Nothing comes: it is held back as long as a consumer lets it.
            Api::Fetch => {
                self.fetched.lock().push(port);
                return None;
            }
            api => panic!("nobody asks for {api:?}"),
        })
    }

    fn metadata(&self, told_by: u16) -> schema::MetadataResponseT {
        let brokers = self.brokers.lock();
        let broker = |&port: &u16| schema::BrokerT {
            id: port.into(),
            host: Some("broker".into()),
            port,
            core_ports: Some(vec![port]),
        };
        let partition = schema::PartitionMetadataT {
            leader: brokers[0].into(),
            ..Default::default()
        };
        let topic = schema::TopicMetadataT {
            name: Some("t".into()),
            id: Some(self.topic.into()),
            partitions: Some(vec![partition]),
            ..Default::default()
        };
        let is_known = told_by != FIRST || !self.first_knows_nothing.load(Ordering::Relaxed);
        schema::MetadataResponseT {
            brokers: Some(brokers.iter().map(broker).collect()),
            topics: Some(if is_known { vec![topic] } else { Vec::new() }),
            ..Default::default()
        }
    }
}

async fn client(network: &Arc<Network>) -> Client {
    let bootstrap = [FIRST, SECOND].map(|port| format!("broker:{port}"));
    let builder = Client::builder().bootstrap(bootstrap).request_timeout(NEVER);
    builder.simulated(Arc::clone(network) as _, 1).build().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn records_go_to_the_new_leader_though_the_old_one_has_closed_nothing_and_answers_nothing() {
    let network = Network::new();
    let cluster = Cluster::start(&network);
    let client = client(&network).await;
    let producer = client.producer().delivery_timeout(NEVER).build().await.unwrap();
    producer
        .send(Record::to("t").value("before"))
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!(*cluster.produced.lock(), [FIRST]);
    cluster.lose_the_first();
    let sent = producer.send(Record::to("t").value("after")).await.unwrap();
    let delivered = tokio::time::timeout(Duration::from_mins(1), sent).await;
    assert_eq!(delivered.unwrap().unwrap().offset, Some(Offset::new(1)));
    assert_eq!(*cluster.produced.lock(), [FIRST, SECOND]);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_reads_on_from_the_new_leader_though_the_old_one_has_closed_nothing_and_answers_nothing() {
    let network = Network::new();
    let cluster = Cluster::start(&network);
    let client = client(&network).await;
    let builder = client.consumer().topics(["t"]).start(Start::Offset(Offset::new(0)));
    let mut consumer = builder.build().await.unwrap();
    cluster.lose_the_first();
    let reads_on = async {
        while cluster.fetched.lock().last() != Some(&SECOND) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        record = consumer.recv() => panic!("there is nothing to read: {record:?}"),
        asked = tokio::time::timeout(Duration::from_mins(1), reads_on) => asked.unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_the_broker_at_hand_does_not_know_is_asked_for_elsewhere() {
    let network = Network::new();
    let cluster = Cluster::start(&network);
    cluster.first_knows_nothing.store(true, Ordering::Relaxed);
    *cluster.brokers.lock() = vec![SECOND, FIRST];
    let builder = Client::builder().bootstrap([format!("broker:{FIRST}")]);
    let client = builder.simulated(Arc::clone(&network) as _, 1).build().await.unwrap();
    let producer = client.producer().build().await.unwrap();
    let sent = producer.send(Record::to("t").value("a")).await.unwrap();
    assert_eq!(sent.await.unwrap().offset, Some(Offset::new(0)));
    assert_eq!(*cluster.produced.lock(), [SECOND]);
}
