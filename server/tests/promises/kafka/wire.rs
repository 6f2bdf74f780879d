//! A client of Kafka's protocol that does what it is told.

use std::net::SocketAddr;

use headwater_kafka::{
    ApiKey, Message, Reader, header,
    messages::{
        CreateTopicsRequest, CreateTopicsResponse, MetadataRequest, MetadataResponse, RequestHeader,
        create_topics_request::CreatableTopic, metadata_request::MetadataRequestTopic,
        metadata_response::MetadataResponseTopic,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::Site;

/// The port of Kafka's clients that all cores share.
pub const PORT: u16 = 9092;

/// One connection.
pub struct Wire {
    stream: TcpStream,
    next_id: i32,
}

impl Wire {
    /// Where it leads.
    pub fn peer(&self) -> SocketAddr {
        self.stream.peer_addr().unwrap()
    }

    pub async fn connect(address: SocketAddr) -> Wire {
        Wire {
            stream: TcpStream::connect(address).await.unwrap(),
            next_id: 0,
        }
    }

    /// To the port of a site that all cores share.
    pub async fn of(site: &Site) -> Wire {
        Wire::connect((site.address().ip(), PORT).into()).await
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a request, and returns its correlation id.
    pub async fn send<'a>(&mut self, key: ApiKey, version: i16, request: &impl Message<'a>) -> i32 {
        self.next_id += 1;
        let frame = frame_of(key, version, self.next_id, request);
        self.send_bytes(&frame).await;
        self.next_id
    }

    /// The next response, without its length; `None` if the broker closes the connection instead.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.ok()?;
        let mut frame = vec![0; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame)
    }

    /// The response to a request, which must be all that there is in it.
    pub async fn response<A: Message<'static>>(&mut self, key: ApiKey, version: i16, id: i32) -> A {
        let response = self.try_response(key, version, id).await;
        response.unwrap_or_else(|| panic!("the connection is closed at {key:?} {version}"))
    }

    /// The same; `None` if the broker closes the connection instead.
    pub async fn try_response<A: Message<'static>>(&mut self, key: ApiKey, version: i16, id: i32) -> Option<A> {
        let frame = self.receive().await?;
        // Tests are short: what it borrows from stays.
        let mut reader = Reader::new(Vec::leak(frame));
        assert_eq!(i32::from_be_bytes(reader.array().unwrap()), id, "{key:?} {version}");
        if key.response_header_version(version) > 0 {
            assert_eq!(
                reader.array().unwrap(),
                [0_u8],
                "no tags in the header of {key:?} {version}"
            );
        }
        let response = A::read(&mut reader, version);
        let response = response.unwrap_or_else(|error| panic!("{key:?} {version}: {error}"));
        assert_eq!(
            reader.left(),
            0,
            "{key:?} {version}: more than {response:?}",
            response = A::NAME
        );
        Some(response)
    }

    pub async fn ask<'a, A: Message<'static>>(&mut self, key: ApiKey, version: i16, request: &impl Message<'a>) -> A {
        let id = self.send(key, version, request).await;
        self.response(key, version, id).await
    }

    /// Makes a topic of a site.
    pub async fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let code = self.code_of_new(name, partitions, configs).await;
        assert_eq!(code, 0, "{name}");
    }

    /// The code of what is said to a topic with such a setting.
    pub async fn try_create(&mut self, name: &str, config: (&str, &str)) -> i16 {
        self.code_of_new(name, 1, &[config]).await
    }

    async fn code_of_new(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> i16 {
        use headwater_kafka::messages::create_topics_request::CreatableTopicConfig;
        let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: (*name).into(),
            value: Some((*value).into()),
        });
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: -1,
            configs: configs.collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 10_000,
            validate_only: false,
        };
        let response: CreateTopicsResponse<'_> = self.ask(ApiKey::CreateTopics, 7, &request).await;
        response.topics[0].error_code
    }

    /// Where topics are; `make` those that are not there.
    pub async fn metadata(&mut self, topics: &[&str], make: bool) -> MetadataResponse<'static> {
        let topics = topics.iter().map(|name| MetadataRequestTopic {
            name: Some((*name).into()),
            ..MetadataRequestTopic::default()
        });
        let request = MetadataRequest {
            topics: Some(topics.collect()),
            allow_auto_topic_creation: make,
            ..MetadataRequest::default()
        };
        self.ask(ApiKey::Metadata, 13, &request).await
    }

    pub async fn topic(&mut self, name: &str) -> MetadataResponseTopic<'static> {
        self.metadata(&[name], false).await.topics.remove(0)
    }
}

/// A whole frame.
pub fn frame_of<'a>(key: ApiKey, version: i16, id: i32, request: &impl Message<'a>) -> Vec<u8> {
    let head = RequestHeader {
        request_api_key: key.number(),
        request_api_version: version,
        correlation_id: id,
        client_id: Some("probe".into()),
    };
    let mut frame = vec![0; 4];
    head.write(&mut frame, key.request_header_version(version)).unwrap();
    request.write(&mut frame, version).unwrap();
    let length = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    // What is written can be read.
    assert!(header::read_request(&mut Reader::new(&frame[4..])).is_ok() || !key.serves(version));
    frame
}
