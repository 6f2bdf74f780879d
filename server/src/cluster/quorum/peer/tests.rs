//! Who is refused on the peer port, and that it changes nothing.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use openraft::{async_runtime::watch::WatchReceiver as _, raft::VoteRequest};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    frame::FrameError,
    handshake::{Caller, Greeting, Hello, Welcome},
    *,
};
use crate::{
    cluster::quorum::{
        codec::{decode, encode},
        id::{Cluster, Identity, Incarnation, NodeId, StoreId},
        member::Quorum,
        order::Order,
        store::{Beginning, Store},
    },
    tls::{ClusterSecret, Tls},
};

/// No answer takes so long, on a machine that does anything at all.
const LONG: Duration = Duration::from_mins(1);

/// A quorum of one.
struct House {
    quorum: Quorum,
    address: SocketAddr,
    identity: Identity,
    _directory: TempDir,
}

fn cluster(name: &str) -> Cluster {
    Cluster::try_from(name.to_owned()).unwrap()
}

fn bind() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl House {
    async fn build() -> House {
        House::build_with(None).await
    }

    /// Whoever calls has to know these secrets, if any.
    async fn build_with(secrets: Option<&[&str]>) -> House {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("quorum.redb");
        let identity = Identity {
            cluster: cluster("a cluster"),
            node: NodeId::from(1),
            store: StoreId::new(),
        };
        let (listener, address) = bind();
        let beginning = Beginning {
            address: address.to_string(),
            ..Beginning::default()
        };
        Store::create(&path, &identity, Some(&beginning)).unwrap();
        let tls = Arc::new(Tls {
            secret: secrets.map(ClusterSecret::of_texts),
            ..Tls::default()
        });
        let quorum = Quorum::start(&path, Some(listener), tls, |error| panic!("{error}")).await;
        let quorum = quorum.unwrap();
        // From here on it has nothing more to write of its own.
        quorum.propose(Order::ReserveProducerIds).await.unwrap();
        House {
            quorum,
            address,
            identity,
            _directory: directory,
        }
    }

    /// A hello of the member itself, which it would listen to.
    fn hello(&self, nonce: u64) -> Hello {
        let Identity { cluster, node, store } = self.identity.clone();
        Hello {
            nonce,
            caller: Caller {
                cluster,
                node,
                store,
                incarnation: Incarnation(9),
                member_since: None,
            },
            node,
            store: Some(store),
        }
    }

    /// What is said to a hello that differs from a good one as `change` says, and the connection.
    async fn greet(&self, change: impl FnOnce(&mut Hello)) -> (Welcome, TcpStream) {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let greeting: Greeting = handshake::hear(&mut connection).await.unwrap().unwrap();
        let mut hello = self.hello(greeting.nonce);
        change(&mut hello);
        handshake::say(&mut connection, &hello).await.unwrap();
        let welcome = handshake::hear(&mut connection).await.unwrap().unwrap();
        (welcome, connection)
    }

    /// Vote, log and members: all that a stranger could change.
    fn told(&self) -> String {
        let metrics = self.quorum.raft.metrics().borrow_watched().clone();
        format!(
            "{:?} {:?} {:?}",
            metrics.vote, metrics.last_log_index, metrics.membership_config
        )
    }

    async fn stop(self) {
        self.quorum.stop(crate::machine::now() + LONG).await.unwrap();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Reads until the other side ends the connection.
async fn end(mut connection: TcpStream) {
    let mut rest = Vec::new();
    // It may be reset, as what was sent was not read.
    let _ = timeout(LONG, connection.read_to_end(&mut rest))
        .await
        .expect("the connection stays open");
}

fn vote_of_a_later_term() -> Request {
    Request::Vote(VoteRequest::new(Vote::new(1000, NodeId::from(2)), None))
}

/// What is wrong with a hello.
type Break = Box<dyn FnOnce(&mut Hello)>;

#[test]
fn whoever_is_no_member_is_refused_by_name_and_changes_nothing() {
    runtime().block_on(async {
        let house = House::build().await;
        let before = house.told();
        let stranger: Break = Box::new(|hello| hello.caller.node = NodeId::from(2));
        let emptied: Break = Box::new(|hello| hello.caller.store = StoreId::new());
        let other_cluster: Break = Box::new(|hello| hello.caller.cluster = cluster("another"));
        let other_node: Break = Box::new(|hello| hello.node = NodeId::from(3));
        let other_store: Break = Box::new(|hello| hello.store = Some(StoreId::new()));
        let replayed: Break = Box::new(|hello| hello.nonce = hello.nonce.wrapping_add(1));
        for (change, expected) in [
            (stranger, "2 is no member of this quorum"),
            (emptied, "must not vote"),
            (other_cluster, "another is another cluster than a cluster"),
            (other_node, "member 3 was called, and this is member 1"),
            (other_store, "does not have the store"),
            (replayed, "made for another connection"),
        ] {
            let (welcome, mut connection) = house.greet(change).await;
            let refused = welcome.unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
            // It goes on as if nothing had been said.
            let _ = frame::send(&mut connection, &encode(&vote_of_a_later_term())).await;
            end(connection).await;
        }
        assert_eq!(house.told(), before);
        house.stop().await;
    });
}

#[test]
fn whoever_does_not_prove_the_secret_hears_nothing_and_changes_nothing() {
    runtime().block_on(async {
        let (old, new) = ("the-secret-of-old-days", "the-secret-of-new-days");
        let house = House::build_with(Some(&[new, old])).await;
        let before = house.told();
        let call = async |secret: &str| {
            let mut connection = TcpStream::connect(house.address).await.unwrap();
            let secret = ClusterSecret::of_texts(&[secret]);
            let proved = super::proof::calling(&secret, None, &mut connection).await.unwrap();
            (proved, connection)
        };
        for secret in [old, new] {
            let (proved, mut connection) = call(secret).await;
            proved.unwrap();
            // Then it is greeted as ever.
            let greeting: Greeting = handshake::hear(&mut connection).await.unwrap().unwrap();
            handshake::say(&mut connection, &house.hello(greeting.nonce))
                .await
                .unwrap();
            let welcome: Welcome = handshake::hear(&mut connection).await.unwrap().unwrap();
            welcome.unwrap();
        }
        let (proved, mut connection) = call("some-other-secret-altogether").await;
        assert_eq!(proved, Err(Refused::OtherSecret));
        let _ = frame::send(&mut connection, &encode(&vote_of_a_later_term())).await;
        end(connection).await;
        // A member of one's own that has no secret is told what is missing.
        let mut connection = TcpStream::connect(house.address).await.unwrap();
        let heard: Result<Greeting, Refused> = handshake::hear(&mut connection).await.unwrap();
        assert_eq!(heard.unwrap_err(), Refused::SecretWanted);
        // One that says hello all the same, or sends back what it has heard.
        handshake::say(&mut connection, &house.hello(0)).await.unwrap();
        let last = frame::receive(&mut connection, FRAME_LEN_MAX).await.unwrap();
        assert_eq!(last.len(), 4, "it hears that it has proved nothing");
        end(connection).await;
        let mut connection = TcpStream::connect(house.address).await.unwrap();
        let challenge = frame::receive(&mut connection, FRAME_LEN_MAX).await.unwrap();
        let echoed = [&challenge[..], &challenge[4..]].concat();
        frame::send(&mut connection, &echoed).await.unwrap();
        let last = frame::receive(&mut connection, FRAME_LEN_MAX).await.unwrap();
        assert_eq!(last.len(), 4, "it hears that it has proved nothing");
        end(connection).await;
        assert_eq!(house.told(), before);
        assert_eq!(house.quorum.local.tls().secret.as_ref().unwrap().refused(), 3);
        house.stop().await;

        // Who has a secret does not talk to a member that has none.
        let house = House::build().await;
        let mut connection = TcpStream::connect(house.address).await.unwrap();
        let secret = ClusterSecret::of_texts(&[new]);
        let proved = super::proof::calling(&secret, None, &mut connection).await.unwrap();
        assert_eq!(proved, Err(Refused::NoSecret));
        drop(connection);
        house.stop().await;
    });
}

#[test]
fn an_older_process_of_a_member_is_refused_once_the_newer_has_called() {
    runtime().block_on(async {
        let house = House::build().await;
        let (welcome, mut older) = house.greet(|_| {}).await;
        welcome.unwrap();
        let (welcome, _) = house.greet(|hello| hello.caller.incarnation = Incarnation(10)).await;
        welcome.unwrap();
        let refused = Refused::Outdated { node: NodeId::from(1) };
        let (welcome, _) = house.greet(|_| {}).await;
        assert_eq!(welcome, Err(refused.clone()));
        frame::send(&mut older, &encode(&vote_of_a_later_term())).await.unwrap();
        let answer = frame::receive(&mut older, FRAME_LEN_MAX).await.unwrap();
        let answer: Response = decode(&answer).unwrap();
        assert!(matches!(answer, Response::Failed(Failure::Refused(why)) if why == refused));
        house.stop().await;
    });
}

#[test]
fn who_does_not_say_which_store_it_wants_may_only_ask_how_far_it_is() {
    runtime().block_on(async {
        let house = House::build().await;
        let (welcome, mut connection) = house.greet(|hello| hello.store = None).await;
        welcome.unwrap();
        let mut ask = async |request: &Request| {
            frame::send(&mut connection, &encode(request)).await.unwrap();
            let answer = frame::receive(&mut connection, FRAME_LEN_MAX).await.unwrap();
            decode::<Response>(&answer).unwrap()
        };
        let Response::Progress(progress) = ask(&Request::Progress).await else {
            panic!("another answer")
        };
        assert_eq!(progress.store, house.identity.store);
        let before = house.told();
        let answer = ask(&vote_of_a_later_term()).await;
        assert!(matches!(answer, Response::Failed(Failure::Refused(Refused::Unchecked))));
        assert_eq!(house.told(), before);
        house.stop().await;
    });
}

/// A frame with what a member of the protocols `oldest` to `newest` would say.
fn words(oldest: u16, newest: u16) -> Vec<u8> {
    let mut content = b"HWQ\x01".to_vec();
    content.extend_from_slice(&oldest.to_be_bytes());
    content.extend_from_slice(&newest.to_be_bytes());
    content
}

#[test]
fn members_of_other_protocols_are_told_so_whatever_they_say_then() {
    let refused = handshake::read::<Hello>(&words(2, 7)).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("speaks the protocols 2 to 7, the other 1 to 1"),
        "{refused}"
    );
    let mut newer = words(1, 7);
    newer.extend_from_slice(&encode(&Greeting { nonce: 5 }));
    assert_eq!(handshake::read::<Greeting>(&newer).unwrap().nonce, 5);
    assert_eq!(
        handshake::read::<Hello>(b"GET / HTTP/1.1\r\n").unwrap_err(),
        Refused::NotAPeer
    );
}

/// Sends bytes as the first words, or as the first request.
async fn send_raw(house: &House, is_welcome: bool, bytes: &[u8]) {
    let mut connection = if is_welcome {
        house.greet(|_| {}).await.1
    } else {
        TcpStream::connect(house.address).await.unwrap()
    };
    // It may have been refused before all of it was sent.
    let _ = connection.write_all(bytes).await;
    let _ = connection.shutdown().await;
    end(connection).await;
}

#[test]
fn oversized_frames_and_random_bytes_end_the_connection_and_change_nothing() {
    runtime().block_on(async {
        let house = House::build().await;
        let before = house.told();
        let mut oversized = u32::MAX.to_be_bytes().to_vec();
        oversized.extend_from_slice(&[0; 4096]);
        let mut changed = Vec::new();
        frame::send(&mut changed, &encode(&vote_of_a_later_term()))
            .await
            .unwrap();
        let last = changed.len() - 1;
        changed[last] ^= 1;
        let mut nonsense = Vec::new();
        frame::send(&mut nonsense, &[1, 250, 250, 250]).await.unwrap();
        for bytes in [
            oversized,
            changed,
            nonsense,
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            Vec::new(),
        ] {
            for is_welcome in [false, true] {
                send_raw(&house, is_welcome, &bytes).await;
            }
        }
        assert_eq!(house.told(), before);
        house.stop().await;
    });
}

#[test]
fn a_snapshot_that_is_not_what_it_said_is_refused_and_changes_nothing() {
    runtime().block_on(async {
        let house = House::build().await;
        let before = house.told();
        let (welcome, mut connection) = house.greet(|_| {}).await;
        welcome.unwrap();
        let mut ask = async |request: Request| {
            frame::send(&mut connection, &encode(&request)).await.unwrap();
            let answer = frame::receive(&mut connection, FRAME_LEN_MAX).await.unwrap();
            decode::<Response>(&answer).unwrap()
        };
        let begin = |len| Request::SnapshotBegin {
            vote: Vote::new(1000, NodeId::from(1)),
            meta: SnapshotMeta::default(),
            len,
        };
        let refused = |answer| match answer {
            Response::Failed(Failure::Snapshot { reason }) => reason,
            other => panic!("{other:?}"),
        };
        let answer = refused(ask(begin(SNAPSHOT_LEN_MAX + 1)).await);
        assert!(answer.contains("are allowed"), "{answer}");
        let answer = refused(ask(Request::SnapshotPiece(vec![1])).await);
        assert!(answer.contains("before its beginning"), "{answer}");
        assert!(matches!(ask(begin(10)).await, Response::SnapshotMore));
        let answer = refused(ask(Request::SnapshotPiece(vec![1; 11])).await);
        assert!(answer.contains("longer than it said"), "{answer}");
        assert!(matches!(ask(begin(10)).await, Response::SnapshotMore));
        let answer = refused(ask(Request::SnapshotPiece(Vec::new())).await);
        assert!(answer.contains("a piece is empty"), "{answer}");
        assert_eq!(house.told(), before);
        house.stop().await;
    });
}

proptest! {
    #[test]
    fn a_frame_arrives_as_it_was_sent_unless_it_is_too_long(
        content in prop::collection::vec(any::<u8>(), 0..100),
        max in 0..100_usize,
    ) {
        let mut sent = Vec::new();
        runtime().block_on(frame::send(&mut sent, &content)).unwrap();
        let received = runtime().block_on(frame::receive(&mut sent.as_slice(), max));
        match received {
            Ok(received) => prop_assert!(received == content && content.len() <= max),
            Err(error) => {
                let is_refused = matches!(error, FrameError::TooLong { .. });
                prop_assert!(is_refused && content.len() > max);
            }
        }
    }
}
