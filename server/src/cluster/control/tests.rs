#![expect(
    clippy::await_holding_lock,
    reason = "a disk that is held up is what these tests are about"
)]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::{Mutex, mpsc as std_mpsc},
    time::Duration,
};

use futures::FutureExt as _;
use headwater_engine::disk::{DirEntry, StdDirectory};
use tempfile::TempDir;

use super::*;
use crate::{
    cluster::{LocalLog, quorum::QuorumHandle},
    config::Config,
};

/// Longer than anything takes that does not wait for the disk that is held up.
const LIMIT: Duration = Duration::from_secs(30);

/// A disk on which making a directory takes as long as somebody holds the lock.
#[derive(Clone, Debug)]
struct HeldUp {
    disk: StdDirectory,
    lock: Arc<Mutex<()>>,
    begun: std_mpsc::Sender<()>,
    /// The same for what is agreed on.
    log_lock: Arc<Mutex<()>>,
    log_begun: std_mpsc::Sender<()>,
}

impl Directory for HeldUp {
    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.begun.send(()).unwrap();
        let _held = self.lock.lock().unwrap();
        self.disk.create_dir(path).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path).await
    }

    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read_file(path).await
    }

    async fn replace_file(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        let _held = self.log_lock.lock().unwrap();
        self.log_begun.send(()).unwrap();
        self.disk.replace_file(path, content).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path).await
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path).await
    }
}

/// A control plane without cores, in a directory of its own.
struct Plane {
    handle: ControlHandle,
    metrics: std::net::SocketAddr,
    lock: Arc<Mutex<()>>,
    begun: std_mpsc::Receiver<()>,
    log_lock: Arc<Mutex<()>>,
    log_begun: std_mpsc::Receiver<()>,
    control: Control,
    _directory: TempDir,
}

impl Plane {
    fn start() -> Plane {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (sender, begun) = std_mpsc::channel();
        let (log_sender, log_begun) = std_mpsc::channel();
        let (lock, log_lock) = (Arc::default(), Arc::default());
        let disk = HeldUp {
            disk: StdDirectory::default(),
            lock: Arc::clone(&lock),
            begun: sender,
            log_lock: Arc::clone(&log_lock),
            log_begun: log_sender,
        };
        let mut config = Config::default();
        directory.path().clone_into(&mut config.log.directory);
        let config = Arc::new(config);
        let quorum = agree_on_a_thread(disk.clone(), Arc::clone(&config));
        let (store, _) = block_on(TopicStore::open(disk, Arc::clone(&config), quorum)).unwrap();
        // The data directory itself.
        begun.recv_timeout(LIMIT).unwrap();
        // The log, and that the broker is there.
        for _ in 0..2 {
            log_begun.recv_timeout(LIMIT).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let metrics = listener.local_addr().unwrap();
        let (handle, queues) = channel(&store);
        let (mesh, _) = Mesh::new(0);
        let parts = ControlParts { store, mesh, queues };
        let control = Control::start(parts, None, Some((listener, config, Arc::default()))).unwrap();
        Plane {
            handle,
            metrics,
            lock,
            begun,
            log_lock,
            log_begun,
            control,
            _directory: directory,
        }
    }

    fn scrape(&self) -> String {
        let mut socket = TcpStream::connect(self.metrics).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut response = String::new();
        socket.read_to_string(&mut response).unwrap();
        response
    }
}

/// The way to a log, which a thread writes as long as somebody has the way.
fn agree_on_a_thread(disk: HeldUp, config: Arc<Config>) -> QuorumHandle {
    let (sender, opened) = std_mpsc::channel();
    std::thread::spawn(move || {
        block_on(async {
            let (quorum, agree) = LocalLog::open(&disk, &config).await.unwrap();
            sender.send(quorum).unwrap();
            agree.await;
        });
    });
    opened.recv_timeout(LIMIT).unwrap()
}

fn topic(name: &str) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions: 3,
        replication_factor: -1,
        configs: Vec::new(),
        assignments: None,
    }
}

#[tokio::test]
async fn producer_ids_and_metrics_do_not_wait_for_a_topic_whose_disk_is_slow() {
    let plane = Plane::start();
    let held = plane.lock.lock().unwrap();
    let handle = plane.handle.clone();
    let creating = tokio::spawn(async move { handle.create_topic(topic("slow"), false).await });
    // A task runs when this one waits for something.
    tokio::task::yield_now().await;
    plane.begun.recv_timeout(LIMIT).unwrap();

    // More than one block, so that the disk is needed for them.
    let mut given = std::collections::BTreeSet::new();
    for _ in 0..1500 {
        let id = tokio::time::timeout(LIMIT, plane.handle.new_producer_id()).await;
        given.insert(id.expect("an id waits for the topic").unwrap());
    }
    assert_eq!(given.len(), 1500);
    assert!(plane.scrape().starts_with("HTTP/1.1 200"));
    assert!(!creating.is_finished());

    drop(held);
    let created = tokio::time::timeout(LIMIT, creating).await.unwrap().unwrap().unwrap();
    assert_eq!(created.partition_count, 3);
}

#[tokio::test]
async fn a_producer_id_does_not_wait_for_a_disk_that_is_slow_while_some_are_reserved() {
    let plane = Plane::start();
    let mut given = std::collections::BTreeSet::new();
    let mut take = async |count: usize| {
        for _ in 0..count {
            let id = tokio::time::timeout(LIMIT, plane.handle.new_producer_id()).await;
            let id = id.expect("an id waits for the disk").unwrap();
            assert!(given.insert(id), "{id} is given twice");
        }
    };
    // Of the first block; the second is reserved by then, or being so.
    take(600).await;
    for _ in 0..2 {
        plane.log_begun.recv_timeout(LIMIT).unwrap();
    }
    let held = plane.log_lock.lock().unwrap();
    take(1300).await;
    drop(held);
    take(1000).await;
}

#[tokio::test]
async fn changes_to_topics_are_made_in_the_order_in_which_they_were_asked_for() {
    let plane = Plane::start();
    let held = plane.lock.lock().unwrap();
    let handle = &plane.handle;
    let first = handle.create_topic(topic("a"), false);
    let again = handle.create_topic(topic("a"), false);
    let delete = handle.delete_topic("a".to_owned(), None);
    let last = handle.create_topic(topic("a"), false);
    let mut all = std::pin::pin!(futures::future::join4(first, again, delete, last));
    assert!(all.as_mut().now_or_never().is_none());
    plane.begun.recv_timeout(LIMIT).unwrap();
    drop(held);
    let (first, again, deleted, last) = tokio::time::timeout(LIMIT, all).await.unwrap();
    assert_eq!(again.unwrap_err().code, ErrorCode::TopicAlreadyExists);
    deleted.unwrap();
    assert_ne!(first.unwrap().id, last.unwrap().id);
}

#[test]
fn a_control_plane_that_stops_finishes_what_it_is_doing_and_refuses_the_rest() {
    let plane = Plane::start();
    let held = plane.lock.lock().unwrap();
    let handle = &plane.handle;
    let mut first = std::pin::pin!(handle.create_topic(topic("a"), false));
    assert!(first.as_mut().now_or_never().is_none());
    plane.begun.recv_timeout(LIMIT).unwrap();
    let mut second = std::pin::pin!(handle.create_topic(topic("b"), false));
    assert!(second.as_mut().now_or_never().is_none());
    let Control { stop, parts, .. } = plane.control;
    drop(stop);
    drop(held);
    let deadline = Instant::now() + LIMIT;
    for part in parts {
        part.join(deadline).unwrap();
    }
    assert_eq!(first.now_or_never().unwrap().unwrap().name.as_str(), "a");
    let refused = second.now_or_never().unwrap().unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotLeaderOrFollower);
}
