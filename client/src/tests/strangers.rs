//! Connecting to what is not there, or is something else; and what is said while a broker is away.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::broker::{Harm, PORT};
use super::network::Network;
use super::{Broker, builder, one_broker};
use crate::{Client, Error, Producer, Record, Sign, Start, Stranger};

const SECOND: Duration = Duration::from_secs(1);

/// What a listener does with each connection.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Reads something and answers with this.
    Answers(&'static [u8]),
    /// Answers what begins as Kafka's requests do, and hangs up on anything else.
    IsKafka,
    HangsUp,
    SaysNothing,
}

fn listen(network: &Network, manner: Manner) {
    let mut incoming = network.listen(PORT);
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Some(mut stream) = incoming.recv().await {
            let mut request = [0; 12];
            stream.read_exact(&mut request).await.unwrap();
            match manner {
                Manner::Answers(answer) => stream.write_all(answer).await.unwrap(),
                Manner::IsKafka if request[..6] == [0, 0, 0, 10, 0, 18] => {
                    stream
                        .write_all(&[&[0, 0, 0, 6][..], &request[8..], &[0, 0]].concat())
                        .await
                        .unwrap();
                }
                Manner::IsKafka | Manner::HangsUp => {}
                Manner::SaysNothing => silent.push(stream),
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn what_is_no_broker_is_named_and_what_is_something_else_for_sure_at_once() {
    use Manner::{Answers, HangsUp, IsKafka, SaysNothing};
    let patience = SECOND / 2..SECOND + SECOND / 10;
    for (manner, sign, times) in [
        (
            Answers(b"HTTP/1.1 400 Bad Request\r\n"),
            Sign::Speaks(Stranger::Http),
            None,
        ),
        (Answers(&[0x15, 3, 1, 0, 2, 2, 70]), Sign::Speaks(Stranger::Tls), None),
        (Answers(b"SSH-2.0-OpenSSH_9.6\r\n"), Sign::Unreadable, None),
        (IsKafka, Sign::Speaks(Stranger::Kafka), Some(&patience)),
        (HangsUp, Sign::Closes, Some(&patience)),
        (SaysNothing, Sign::Silent, Some(&(5 * SECOND..6 * SECOND))),
    ] {
        let network = Network::new();
        listen(&network, manner);
        let start = Instant::now();
        let error = builder(&network, 1).build().await.unwrap_err();
        let Error::NotHeadwater { address, sign: told } = &error else {
            panic!("{manner:?}: {error:?}")
        };
        assert_eq!((address.port(), *told), (PORT, sign), "{manner:?}");
        match times {
            None => assert_eq!(start.elapsed(), Duration::ZERO, "{manner:?}"),
            Some(times) => assert!(times.contains(&start.elapsed()), "{manner:?}: {:?}", start.elapsed()),
        }
    }
    let speaks = |stranger| Sign::Speaks(stranger).to_string();
    assert!(speaks(Stranger::Http).contains("is it the metrics port?"));
    assert!(speaks(Stranger::Kafka).contains("Kafka's protocol, and this client"));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_listens_connecting_fails_soon_and_a_broker_that_just_starts_is_waited_for() {
    let network = Network::new();
    let start = Instant::now();
    let error = builder(&network, 1).build().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Connect {
                is_advertised: false,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(start.elapsed() <= SECOND, "{:?}", start.elapsed());
    let waiting = tokio::spawn(builder(&network, 1).bootstrap_timeout(10 * SECOND).build());
    sleep(5 * SECOND).await;
    let _broker = Broker::start(&network, 1);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn another_address_that_may_have_a_broker_yet_is_waited_for_whatever_the_first_is() {
    let network = Network::new();
    listen(&network, Manner::Answers(b"HTTP/1.1 400 Bad Request\r\n"));
    let error = builder(&network, 1).bootstrap(["other:1"]).build().await.unwrap_err();
    assert!(
        matches!(&error, Error::Connect { address, .. } if address.host() == "other"),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_host_that_only_the_broker_has_named_is_told_as_such() {
    let network = Network::new();
    let broker = Broker::start(&network, 1);
    broker.create_topic("t", 1);
    for (given, is_advertised) in [("elsewhere:9000", true), ("broker:9000", false)] {
        let client = Client::builder()
            .bootstrap([given])
            .simulated(Arc::clone(&network) as _, 1)
            .build()
            .await
            .unwrap();
        network.close(PORT + 1);
        let producer = client.producer().build().await.unwrap();
        let delivery = producer.send(Record::to("t").value("v")).await.unwrap();
        let trouble = trouble_of(&producer).await;
        assert_eq!(
            trouble.to_string().contains("broker.advertised_host"),
            is_advertised,
            "{trouble}"
        );
        broker.listen();
        delivery.await.unwrap();
    }
}

/// What keeps the producer from storing records.
async fn trouble_of(producer: &Producer) -> Error {
    loop {
        if let Some(error) = producer.retrying_after() {
            return error;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_tells_why_its_records_wait_for_as_long_as_they_do() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    let producer = client.producer().build().await.unwrap();
    producer.send(Record::to("t").value("v")).await.unwrap().await.unwrap();
    assert!(producer.retrying_after().is_none());
    broker.harm(Harm {
        refuse: 1.0,
        ..Harm::default()
    });
    let delivery = producer.send(Record::to("t").value("v")).await.unwrap();
    let trouble = trouble_of(&producer).await;
    assert_eq!(trouble.code(), Some(crate::ErrorCode::KafkaStorageError));
    broker.harm(Harm {
        slow: SECOND,
        ..Harm::default()
    });
    delivery.await.unwrap();
    // What waits now waits for nothing but an answer.
    let delivery = producer.send(Record::to("t").value("v")).await.unwrap();
    sleep(SECOND / 2).await;
    assert!(producer.retrying_after().is_none());
    delivery.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_consumer_tells_that_nobody_answers_and_when_somebody_does_though_there_is_no_record() {
    let (broker, client) = one_broker().await;
    broker.create_topic("t", 1);
    let builder = client.consumer().topics(["t"]).start(Start::Earliest);
    let mut consumer = builder.build().await.unwrap();
    assert!(consumer.recv_timeout(SECOND).await.unwrap().is_none());
    assert!(consumer.retrying_after().is_none());
    broker.stop();
    assert!(consumer.recv_timeout(SECOND).await.unwrap().is_none());
    let trouble = consumer.retrying_after().unwrap();
    assert!(
        matches!(trouble, Error::Connect { .. } | Error::Disconnected { .. }),
        "{trouble:?}"
    );
    broker.listen();
    assert!(consumer.recv_timeout(5 * SECOND).await.unwrap().is_none());
    assert!(consumer.retrying_after().is_none());
}
