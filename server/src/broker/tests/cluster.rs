//! Brokers of one cluster in this process, and its coordinator by hand: the state that a quorum would hold, handed to each of them.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use futures::executor::block_on;
use headwater_client::Client;
use headwater_protocol::{
    batch::{BatchLimits, RecordBatch},
    id::{BrokerId, PartitionIndex, TopicId},
    topic::TopicName,
};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::{
    cluster::replicas::{IsrChange, Registration, ReplicaCommand as Command, ReplicaMap},
    config::ByteSize,
    image::{Address, ClusterImage, Durability, PartitionId, Replicas, Terms, Topic, TopicState},
    metrics::Family,
};

const CORES: u16 = 2;

/// Longer than any of it takes; only what hangs comes to it.
pub(super) const LIMIT: Duration = Duration::from_mins(1);

/// One broker: its directory stays, its process comes and goes.
struct Node {
    directory: TempDir,
    process: u128,
    store: Uuid,
    broker: Option<Broker>,
}

pub(super) struct Cluster {
    map: ReplicaMap,
    nodes: BTreeMap<BrokerId, Node>,
    processes: u128,
    topics: Vec<Arc<Topic>>,
    /// What a broker sends in a second to replicas that are not in sync.
    catch_up: ByteSize,
}

impl Cluster {
    /// Brokers of these numbers, all of which have a topic `t` of as many partitions, led by the first.
    pub(super) fn new(ids: &[i32], partitions: u32, min_isr: u16) -> Cluster {
        let catch_up = Config::default().cluster.catch_up_bytes_per_second_max;
        Cluster::paced(ids, partitions, min_isr, catch_up.bytes())
    }

    /// The same with a budget of each broker for replicas that catch up, in bytes a second.
    pub(super) fn paced(ids: &[i32], partitions: u32, min_isr: u16, catch_up: u64) -> Cluster {
        let mut cluster = Cluster {
            map: ReplicaMap::default(),
            nodes: BTreeMap::new(),
            processes: 0,
            topics: Vec::new(),
            catch_up: ByteSize::new(catch_up),
        };
        for id in ids {
            let node = Node {
                directory: directory(),
                process: 0,
                store: Uuid::from_u128(*id as u128),
                broker: None,
            };
            cluster.nodes.insert(BrokerId::new(*id), node);
            cluster.start(*id);
        }
        cluster.create("t", partitions, min_isr);
        cluster
    }

    /// A topic that all have.
    pub(super) fn create(&mut self, name: &str, partitions: u32, min_isr: u16) {
        let id = TopicId::new(Uuid::from_u128(self.topics.len() as u128 + 1));
        self.topics.push(Arc::new(Topic {
            name: TopicName::new(name).unwrap(),
            id,
            partition_count: partitions,
            overrides: BTreeMap::new(),
            state: TopicState::Ready,
            becoming: None,
        }));
        let terms = Terms {
            min_isr,
            durability: Durability::Disk,
        };
        let brokers: Vec<BrokerId> = self.nodes.keys().copied().collect();
        self.decide(&Command::Place {
            topic: id,
            terms,
            replicas: vec![brokers; partitions as usize],
        });
        for node in self.nodes.values() {
            self.publish(node);
        }
    }

    /// What its quorum and `reconcile` would do for a broker: the directories, and the topics.
    fn publish(&self, node: &Node) {
        for topic in &self.topics {
            for index in topic.partitions() {
                fs::create_dir_all(node.directory.path().join(topic.partition_directory(index))).unwrap();
            }
        }
        let Some(broker) = &node.broker else { return };
        let image = ClusterImage::new(1000 + self.topics.len() as u64, self.topics.iter().cloned());
        block_on(crate::cluster::publish(&broker.mesh, Arc::new(image)));
    }

    fn registration(&self, id: BrokerId, address: Address) -> Registration {
        let node = &self.nodes[&id];
        Registration {
            id,
            process: Uuid::from_u128(node.process),
            store: node.store,
            opened: 1,
            was_clean: false,
            address,
            rack: Some(format!("rack-{id}")),
        }
    }

    /// Starts a broker, as a process that is not known yet, and lets it in.
    pub(super) fn start(&mut self, id: i32) {
        let id = BrokerId::new(id);
        self.processes += 1;
        let process = self.processes;
        self.nodes.get_mut(&id).unwrap().process = process;
        let unknown = Address {
            host: "127.0.0.1".to_owned(),
            port: 1,
            core_ports: vec![1; usize::from(CORES)],
        };
        self.decide(&Command::Register(self.registration(id, unknown)));
        let node = &self.nodes[&id];
        let mut config = config(node.directory.path(), id);
        config.cluster.catch_up_bytes_per_second_max = self.catch_up;
        let broker = Broker::start_assigned(config, self.map.assignment(id).unwrap());
        let broker = broker.unwrap();
        let address = broker.own_address().clone();
        self.nodes.get_mut(&id).unwrap().broker = Some(broker);
        self.decide(&Command::Register(self.registration(id, address)));
        self.publish(&self.nodes[&id]);
        self.let_in(id.get());
    }

    /// The coordinator takes a broker to be there.
    pub(super) fn let_in(&mut self, id: i32) {
        let id = BrokerId::new(id);
        let incarnation = self.map.broker(id).unwrap().incarnation;
        self.decide(&Command::Unfence { id, incarnation });
    }

    /// Stops a broker, without its cluster being told.
    pub(super) fn stop(&mut self, id: i32) {
        let broker = self.nodes.get_mut(&BrokerId::new(id)).unwrap().broker.take();
        broker.unwrap().shutdown().unwrap();
    }

    /// The coordinator takes a broker to be gone.
    pub(super) fn fence(&mut self, id: i32) {
        let id = BrokerId::new(id);
        let incarnation = self.map.broker(id).unwrap().incarnation;
        self.decide(&Command::Fence { id, incarnation });
    }

    /// The coordinator takes a command, and every broker is told what comes of it.
    pub(super) fn decide(&mut self, command: &Command) {
        let (map, _) = self.map.apply(command).unwrap();
        self.map = map;
        for (id, node) in &self.nodes {
            if let Some(broker) = &node.broker {
                broker.assign(self.map.assignment(*id).unwrap());
            }
        }
    }

    /// Does what the brokers wish.
    pub(super) fn grant_wishes(&mut self) {
        let ids: Vec<BrokerId> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(broker) = &self.nodes[&id].broker else {
                continue;
            };
            let wishes = broker.wishes();
            let incarnation = self.map.broker(id).unwrap().incarnation;
            if !wishes.failed.is_empty() || !wishes.opened.is_empty() {
                self.decide(&Command::Report {
                    from: id,
                    incarnation,
                    failed: wishes.failed,
                    opened: wishes.opened,
                });
            }
            let change = |(id, wish): (PartitionId, crate::image::IsrWish)| IsrChange {
                id,
                leader_epoch: wish.leader_epoch,
                epoch: wish.epoch,
                stay: wish.stay,
                join: wish.join,
            };
            let changes: Vec<IsrChange> = wishes.in_sync.into_iter().map(change).collect();
            if !changes.is_empty() {
                self.decide(&Command::Alter {
                    from: id,
                    incarnation,
                    changes,
                });
            }
        }
    }

    /// Whether every replica of every partition is in sync.
    pub(super) fn is_whole(&self) -> bool {
        let is_whole = |(_, replicas): (PartitionId, &Replicas)| replicas.isr.len() == replicas.replicas.len();
        self.map.partitions().all(is_whole)
    }

    /// Grants wishes until every replica of every partition is in sync.
    pub(super) async fn all_in_sync(&mut self) {
        while !self.is_whole() {
            self.grant_wishes();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn partition(&self, topic: usize, index: i32) -> PartitionId {
        PartitionId {
            topic: self.topics[topic].id,
            index: PartitionIndex::new(index),
        }
    }

    pub(super) fn replicas(&self, id: PartitionId) -> &Replicas {
        self.map.replicas(id).unwrap()
    }

    pub(super) fn incarnation(&self, id: i32) -> u64 {
        self.map.broker(BrokerId::new(id)).unwrap().incarnation.get()
    }

    pub(super) fn broker(&self, id: i32) -> &Broker {
        self.nodes[&BrokerId::new(id)].broker.as_ref().unwrap()
    }

    /// Bytes that consumers were given by this broker of partitions that another one leads.
    pub(super) fn read_as_follower(&self, id: i32) -> u64 {
        let mesh = &self.broker(id).mesh;
        let ask = |core| {
            block_on(mesh.ask(core, |reply| CoreMessage::Metrics {
                with_times: false,
                reply,
            }))
        };
        let cores = mesh.ids().filter_map(ask);
        cores.map(|core| core.sum(Family::FollowerFetchBytes)).sum()
    }

    /// A client that knows of this broker, and asks it where everything is.
    pub(super) async fn client(&self, id: i32) -> Client {
        Client::builder()
            .bootstrap([self.broker(id).addr().to_string()])
            .backoff(Duration::from_millis(5), Duration::from_millis(50))
            .build()
            .await
            .unwrap()
    }

    /// Stops all brokers. What each has of a partition: batch by batch, byte for byte.
    pub(super) fn logs(&mut self, topic: &str, index: i32) -> Vec<Vec<Vec<u8>>> {
        let logs = self.nodes.values_mut().map(|node| {
            if let Some(broker) = node.broker.take() {
                broker.shutdown().unwrap();
            }
            batches_in(&node.directory.path().join(format!("{topic}-{index}")))
        });
        logs.collect()
    }
}

fn config(directory: &Path, id: BrokerId) -> Config {
    let mut config = Config::default();
    config.broker.listen = ([127, 0, 0, 1], 0).into();
    config.broker.id = id;
    config.broker.cluster_id = Some("cluster".parse().unwrap());
    config.cores.count = CORES;
    config.cores.pin = false;
    config.cores.tail_buffer_bytes_max = ByteSize::new(16 << 20);
    config.cores.cold_read_bytes_max = ByteSize::new(4 << 20);
    config.log.segment_size_bytes = ByteSize::new(1 << 20);
    config.log.batch_size_bytes_max = ByteSize::new(256 << 10);
    config.limits.shutdown_grace_ms = crate::config::Millis::new(200);
    directory.clone_into(&mut config.log.directory);
    config
}

/// All batches of a partition's files, up to where there are none.
fn batches_in(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    let mut batches = Vec::new();
    for file in files {
        let bytes = fs::read(file).unwrap();
        let mut rest = bytes.as_slice();
        let limits = BatchLimits {
            batch_size_max: rest.len(),
        };
        while let Ok(batch) = RecordBatch::parse(rest, &limits) {
            batches.push(batch.bytes().to_vec());
            rest = &rest[batch.size()..];
        }
    }
    batches
}

/// Runs a test on tokio, and fails it if it hangs.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(LIMIT, test).await });
    assert!(ended.is_ok(), "the test hangs");
    runtime.shutdown_background();
}
