//! What a connection promises, against peers that say whatever the test wants.

use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::error::ErrorCode;
use headwater_protocol::frame::{Api, FrameHeader, HEADER_LEN, encode, encode_head};
use headwater_protocol::id::CorrelationId;
use headwater_protocol::schema;
use headwater_protocol::topic::TopicName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::broker::{Broker, PORT, api_versions};
use super::network::Network;
use crate::address::Address;
use crate::connection::{Answer, Connection, ConnectionSettings, Reply};
use crate::error::{Error, ProtocolViolation, Sign};
use crate::requests;
use crate::runtime::transport::Tcp;

const LIMITS: ConnectionSettings = ConnectionSettings {
    client_id: None,
    connect_timeout: Duration::from_secs(5),
    request_timeout: Duration::from_secs(30),
    frame_size_max: 1 << 20,
    credentials: None,
};

/// The other end of a connection.
struct Peer {
    stream: DuplexStream,
}

impl Peer {
    async fn accept(incoming: &mut UnboundedReceiver<DuplexStream>) -> Self {
        Self {
            stream: incoming.recv().await.unwrap(),
        }
    }

    /// Reads a request, and returns its header.
    async fn request(&mut self) -> FrameHeader {
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header).await.unwrap();
        let header = FrameHeader::parse(&header, 1 << 20).unwrap().unwrap();
        self.stream
            .read_exact(&mut vec![0; header.frame_len() - HEADER_LEN])
            .await
            .unwrap();
        header
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Answers the first exchange.
    async fn greet(&mut self) {
        let header = self.request().await;
        self.send(&encode_head(&api_versions(), 0, header.correlation_id, 0))
            .await;
    }
}

/// A connection and its other end.
async fn connected() -> (Connection, Peer) {
    let network = Network::new();
    let mut incoming = network.listen(PORT);
    let address = Address::new("broker", PORT);
    let (connection, peer) = futures::join!(Connection::open(&*network, &address, &LIMITS), async {
        let mut peer = Peer::accept(&mut incoming).await;
        peer.greet().await;
        peer
    });
    (connection.unwrap(), peer)
}

fn metadata_request() -> schema::MetadataRequestT {
    requests::metadata(None::<std::iter::Empty<&TopicName>>)
}

/// What becomes of a request that is answered with these bytes, made from its header.
async fn answered_with(response: impl Fn(FrameHeader) -> Vec<u8>) -> (Connection, Result<(), Error>) {
    let (connection, mut peer) = connected().await;
    let answer = async {
        let header = peer.request().await;
        peer.send(&response(header)).await;
        peer
    };
    let request = metadata_request();
    let (result, _peer) = futures::join!(connection.call(&request), answer);
    let result = result
        .and_then(|frame| connection.read(&frame, requests::read_metadata))
        .map(drop);
    (connection, result)
}

#[tokio::test(start_paused = true)]
async fn responses_reach_their_requests_in_whatever_order_they_come() {
    let (connection, mut peer) = connected().await;
    let calls = (0..10).map(|_| async {
        let request = requests::init_producer_id();
        let frame = connection.call(&request).await.unwrap();
        connection
            .read(&frame, requests::read_init_producer_id)
            .unwrap()
            .0
            .get()
    });
    let answer = async {
        let mut headers = Vec::new();
        for _ in 0..10 {
            headers.push(peer.request().await);
        }
        for header in headers.into_iter().rev() {
            let producer_id = i64::from(header.correlation_id.get());
            let response = schema::InitProducerIdResponseT {
                producer_id,
                ..Default::default()
            };
            peer.send(&encode_head(&response, 0, header.correlation_id, 0)).await;
        }
    };
    let (ids, ()) = futures::join!(futures::future::join_all(calls), answer);
    assert_eq!(ids, (1..=10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_frame_beyond_the_limit_ends_the_connection_with_its_name() {
    let (connection, result) = answered_with(|header| {
        FrameHeader::new(header.api, 0, header.correlation_id, 0, 100 << 20)
            .unwrap()
            .encode()
            .to_vec()
    })
    .await;
    let Err(Error::Protocol {
        source: ProtocolViolation::Frame(_),
        ..
    }) = result
    else {
        panic!("{result:?}")
    };
    assert!(connection.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_response_to_nothing_ends_the_connection_with_its_name() {
    let (connection, result) = answered_with(|header| {
        let id = CorrelationId::new(header.correlation_id.get() + 1000);
        encode_head(&schema::MetadataResponseT::default(), 0, id, 0)
    })
    .await;
    let Err(Error::Protocol {
        source: ProtocolViolation::UnknownCorrelation(_),
        ..
    }) = result
    else {
        panic!("{result:?}")
    };
    assert!(connection.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_response_of_another_kind_ends_the_connection_with_its_name() {
    let (connection, result) =
        answered_with(|header| encode_head(&schema::DeleteTopicResponseT::default(), 0, header.correlation_id, 0))
            .await;
    let Err(Error::Protocol {
        source: ProtocolViolation::WrongApi { want: 2, got: 4 },
        ..
    }) = result
    else {
        panic!("{result:?}")
    };
    assert!(connection.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_none_ends_the_connection_with_its_name() {
    let (connection, result) =
        answered_with(|header| encode(Api::Metadata, 0, header.correlation_id, &[0xff; 64], 0)).await;
    let Err(Error::Protocol {
        source: ProtocolViolation::Head(_),
        ..
    }) = result
    else {
        panic!("{result:?}")
    };
    assert!(connection.is_closed());
}

#[tokio::test(start_paused = true)]
async fn an_error_frame_fails_its_request_and_the_connection_goes_on() {
    let (connection, result) = answered_with(|header| {
        let error = schema::ErrorResponseT {
            error: ErrorCode::InvalidRequest as i16,
            message: Some("no".into()),
        };
        encode_head(&error, 0, header.correlation_id, 0)
    })
    .await;
    assert_eq!(result.unwrap_err().to_string(), "INVALID_REQUEST: no");
    assert!(!connection.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_fails_every_open_request() {
    let (connection, mut peer) = connected().await;
    let requests = metadata_request();
    let calls = futures::future::join_all((0..5).map(|_| connection.call(&requests)));
    let end = async {
        peer.request().await;
        drop(peer);
    };
    let (results, ()) = futures::join!(calls, end);
    assert!(
        results
            .iter()
            .all(|result| matches!(result, Err(Error::Disconnected { .. }))),
        "{results:?}"
    );
    assert!(connection.is_closed());
    assert!(matches!(
        connection.call(&requests).await,
        Err(Error::Disconnected { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_ends_the_connection_in_time() {
    let (connection, _peer) = connected().await;
    let before = Instant::now();
    let result = connection.call(&metadata_request()).await;
    assert!(
        matches!(
            result,
            Err(Error::Timeout {
                operation: "metadata",
                ..
            })
        ),
        "{result:?}"
    );
    assert_eq!(before.elapsed(), LIMITS.request_timeout);
    assert!(connection.is_closed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_waits_for_any_more_is_dropped() {
    let (connection, mut peer) = connected().await;
    let requests = metadata_request();
    let given_up = tokio::time::timeout(Duration::from_secs(1), connection.call(&requests));
    let (given_up, first) = futures::join!(given_up, peer.request());
    assert!(given_up.is_err());
    let answer = async {
        let second = peer.request().await;
        for header in [first, second] {
            peer.send(&encode_head(
                &schema::MetadataResponseT::default(),
                0,
                header.correlation_id,
                0,
            ))
            .await;
        }
    };
    let (result, ()) = futures::join!(connection.call(&requests), answer);
    result.unwrap();
    assert!(!connection.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_closes_when_its_last_handle_is_dropped() {
    let (connection, mut peer) = connected().await;
    drop(connection.clone());
    assert!(!connection.is_closed());
    drop(connection);
    assert_eq!(peer.stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_greet_is_given_up_in_time() {
    let network = Network::new();
    let mut incoming = network.listen(PORT);
    let before = Instant::now();
    let result = Connection::open(&*network, &Address::new("broker", PORT), &LIMITS).await;
    let Err(Error::NotHeadwater { sign, .. }) = result else {
        panic!("{result:?}")
    };
    assert_eq!(sign, Sign::Silent);
    assert_eq!(before.elapsed(), LIMITS.connect_timeout);
    let mut stream = incoming.recv().await.unwrap();
    let mut sent = Vec::new();
    stream.read_to_end(&mut sent).await.unwrap();
    assert!(!sent.is_empty(), "and the connection is closed");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_the_peer_does_not_speak_is_not_sent() {
    let network = Network::new();
    let mut incoming = network.listen(PORT);
    let address = Address::new("broker", PORT);
    let (connection, _peer) = futures::join!(Connection::open(&*network, &address, &LIMITS), async {
        let mut peer = Peer::accept(&mut incoming).await;
        let header = peer.request().await;
        let mut response = api_versions();
        response
            .apis
            .as_mut()
            .unwrap()
            .retain(|range| range.api != Api::Metadata.as_u16());
        peer.send(&encode_head(&response, 0, header.correlation_id, 0)).await;
        peer
    });
    let result = connection.unwrap().call(&metadata_request()).await;
    assert!(
        matches!(
            result,
            Err(Error::Unsupported {
                request: "metadata",
                ..
            })
        ),
        "{result:?}"
    );
}

#[tokio::test]
async fn the_same_holds_over_real_sockets() {
    let network = Network::new();
    let _broker = Broker::start(&network, 1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::from(listener.local_addr().unwrap());
    let relay = tokio::spawn(async move {
        let (mut outside, _) = listener.accept().await.unwrap();
        let mut inside = network.dial(PORT).unwrap();
        let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
    });
    let connection = Connection::open(&Tcp, &address, &LIMITS).await.unwrap();
    let request = metadata_request();
    let calls = (0..100).map(|_| connection.call(&request));
    for result in futures::future::join_all(calls).await {
        connection.read(&result.unwrap(), requests::read_metadata).unwrap();
    }
    drop(connection);
    relay.await.unwrap();
    let refused = Connection::open(&Tcp, &address, &LIMITS).await;
    assert!(matches!(refused, Err(Error::Connect { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_a_lost_connection_takes_along_end_in_the_order_in_which_they_were_sent() {
    let (connection, _peer) = connected().await;
    let (sender, mut ends) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..100 {
        let sender = sender.clone();
        let reply = Reply::new(connection.address(), move |_end| sender.send(number).unwrap());
        connection.submit(&metadata_request(), Bytes::new(), Answer::Expected, reply);
    }
    connection.close(&Error::Closed);
    for number in 0..100 {
        assert_eq!(ends.try_recv().unwrap(), number);
    }
}
