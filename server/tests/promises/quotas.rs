//! Who has a quota uses no more than it, over all its connections and cores, and nobody else notices.
//!
//! That no more is used holds on any machine. That it is no less needs one that has time for it, so there are three attempts.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use headwater_client::{Admin, QuotaEntity, QuotaKey, QuotaName};
use headwater_kafka::{
    ApiKey,
    messages::{
        MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
};
use headwater_protocol::{id::TopicId, schema::ApiVersionsRequestT};

use crate::{
    kafka::wire::{PORT, Wire},
    support::{Raw, Site, batch, fetch, pause, produce, run},
};

const RATE: f64 = 400_000.0;

/// Bytes of a request, and about of what a fetch gets.
const LEN: usize = 10_000;

/// Usage is measured for so long, once what was saved before is used.
const WARM_UP: Duration = Duration::from_millis(400);
const MEASURED: Duration = Duration::from_secs(3);

/// What one gets that is told to be of a program of this name.
async fn connect(address: SocketAddr, client: &str) -> Raw {
    let mut raw = Raw::connect(address).await;
    let hello = ApiVersionsRequestT {
        client_name: Some("test".to_owned()),
        client_version: Some("1".to_owned()),
        client_id: Some(client.to_owned()),
    };
    assert_eq!(raw.call(&hello, &[]).await.api_versions().error, 0);
    raw
}

async fn limit(admin: &Admin, entity: QuotaEntity, key: QuotaKey, value: impl Into<Option<f64>>) {
    admin.alter_quotas(&entity, &[(key, value.into())]).await.unwrap();
}

fn client_id(name: &str) -> QuotaEntity {
    QuotaEntity {
        client_id: Some(QuotaName::Is(name.to_owned())),
        ..QuotaEntity::default()
    }
}

/// Bytes in a second that a client uses which asks again as soon as it is answered. Of several that share a quota the time is the same:
/// one that went on alone would have all of it.
async fn rate(began: Instant, mut use_some: impl AsyncFnMut() -> usize) -> f64 {
    let mut used = 0;
    loop {
        let some = use_some().await;
        let at = began.elapsed();
        if at > WARM_UP + MEASURED {
            return used as f64 / MEASURED.as_secs_f64();
        }
        if at >= WARM_UP {
            used += some;
        }
    }
}

async fn produced(site: &Site, core: u16, client: &str, topic: TopicId, began: Instant) -> f64 {
    let mut raw = connect(site.core_address(core), client).await;
    let records = batch(&[&[b'x'; LEN]]);
    rate(began, async || {
        assert_eq!(raw.call(&produce(topic, 0), &records).await.produce().error, 0);
        records.len()
    })
    .await
}

async fn fetched(site: &Site, core: u16, client: &str, topic: TopicId, began: Instant) -> f64 {
    let mut raw = connect(site.core_address(core), client).await;
    rate(began, async || {
        let reply = raw.call(&fetch(topic, &[(0, 0)], 0, 1), &[]).await;
        assert!(reply.payload.len() < 10 * LEN, "no more at once than a quota allows");
        reply.payload.len()
    })
    .await
}

#[test]
fn a_quota_is_kept_to_a_tenth_by_one_connection_and_by_two_of_different_cores_and_over_a_restart() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let client = site.client_with_topic("limited", 1).await;
        let admin = client.admin();
        for name in ["one", "two"] {
            limit(&admin, client_id(name), QuotaKey::ProducerByteRate, RATE).await;
            limit(&admin, client_id(name), QuotaKey::ConsumerByteRate, RATE).await;
        }
        let told = admin.quotas().await.unwrap();
        assert_eq!(told.len(), 2);
        broker.stop();
        let broker = site.start();
        let admin = site.client().await.admin();
        assert_eq!(admin.quotas().await.unwrap(), told);
        let topic = admin.describe_topic("limited").await.unwrap().id;
        // Something to fetch again and again.
        let mut raw = Raw::connect(site.address()).await;
        for _ in 0..20 {
            raw.call(&produce(topic, 0), &batch(&[&[b'x'; LEN]])).await;
        }
        for attempt in 1.. {
            let two = |one: f64, other: f64| one + other;
            let began = Instant::now();
            let (one, first, second) = tokio::join!(
                produced(&site, 0, "one", topic, began),
                produced(&site, 0, "two", topic, began),
                produced(&site, 1, "two", topic, began),
            );
            let began = Instant::now();
            let (fetch_one, fetch_first, fetch_second) = tokio::join!(
                fetched(&site, 0, "one", topic, began),
                fetched(&site, 0, "two", topic, began),
                fetched(&site, 1, "two", topic, began),
            );
            let rates = [one, two(first, second), fetch_one, two(fetch_first, fetch_second)];
            let shares = rates.map(|rate| rate / RATE);
            eprintln!("of the quota were used: {shares:.3?}; each of two: {first:.0} and {second:.0} bytes");
            assert!(shares.iter().all(|share| *share < 1.1), "too much: {shares:?}");
            if shares.iter().all(|share| *share > 0.9) {
                break;
            }
            assert!(attempt < 3, "too little: {shares:?}");
        }
        broker.stop();
    });
}

/// The time of each round trip of a connection that has no quota.
async fn round_trips(raw: &mut Raw, topic: TopicId, count: usize) -> Duration {
    let records = batch(&[b"x"]);
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        assert_eq!(raw.call(&produce(topic, 0), &records).await.produce().error, 0);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[count * 99 / 100]
}

#[test]
fn whoever_has_used_too_much_is_told_so_and_not_read_and_holds_up_nobody_else() {
    run(async {
        let site = Site::new().cores(1).with_metrics();
        let kafka = SocketAddr::new(site.address().ip(), PORT);
        let site = site.set("kafka.listen", &kafka.to_string());
        let broker = site.start();
        let client = site.client_with_topic("limited", 1).await;
        let admin = client.admin();
        let topic = admin.describe_topic("limited").await.unwrap().id;
        let mut free = connect(site.address(), "free").await;
        let before = round_trips(&mut free, topic, 300).await;
        limit(&admin, client_id("slow"), QuotaKey::ProducerByteRate, 1000.0).await;
        let records = batch(&[&vec![b'x'; 100_000]]);
        // Muted for a hundred seconds; what it sends besides stays where it is.
        let mut muted = Vec::new();
        for _ in 0..5 {
            let mut raw = connect(site.address(), "slow").await;
            raw.send(&produce(topic, 0), &records).await;
            if muted.is_empty() {
                let first = raw.receive().await.unwrap();
                assert_eq!(first.produce().error, 0, "what was taken in is answered");
            }
            muted.push(raw);
        }
        for raw in &mut muted {
            raw.send(&produce(topic, 0), &records).await;
        }
        let beside = round_trips(&mut free, topic, 300).await;
        eprintln!("p99 before {before:?}, beside those that are muted {beside:?}");
        let answered = tokio::time::timeout(Duration::from_millis(1), muted[0].receive()).await;
        assert!(answered.is_err(), "it is muted");
        // Those of the others wait for its debt to be paid.
        assert_eq!(site.gauge("in_flight_bytes").await, 0);
        let metrics = site.scrape().await;
        let labels = "{quota=\"producer_byte_rate\",user=\"\",client_id=\"slow\",ip=\"\"}";
        let times = metrics[&format!("headwater_quota_throttles_total{labels}")];
        assert_eq!(times, 1);
        assert!(metrics[&format!("headwater_quota_throttled_seconds_total{labels}")] >= 95);
        // Another quota counts at once.
        limit(&admin, client_id("slow"), QuotaKey::ProducerByteRate, None).await;
        assert_eq!(muted[0].receive().await.unwrap().produce().error, 0);
        of_kafkas_clients(&admin, kafka, topic).await;
        addresses(&site, &admin).await;
        broker.stop();
    });
}

/// They are told for how long.
async fn of_kafkas_clients(admin: &Admin, address: SocketAddr, topic: TopicId) {
    let mut wire = Wire::connect(address).await;
    limit(admin, client_id("probe"), QuotaKey::ProducerByteRate, 10_000.0).await;
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            topic_id: *topic.as_uuid().as_bytes(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(batch(&[&[b'x'; LEN]]).into()),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    // It learns the client's name from the first.
    for is_known in [false, true] {
        let told: ProduceResponse<'_> = wire.ask(ApiKey::Produce, 13, &request).await;
        assert_eq!(told.responses[0].partition_responses[0].error_code, 0);
        let wait = told.throttle_time_ms;
        assert!((100..=1100).contains(&wait) || !is_known, "told to wait for {wait} ms");
    }
    limit(admin, client_id("probe"), QuotaKey::ProducerByteRate, None).await;
    limit(admin, client_id("probe"), QuotaKey::RequestPercentage, 0.01).await;
    // What is done for it takes some time, which is much more than it may use.
    loop {
        let request = MetadataRequest {
            topics: None,
            ..MetadataRequest::default()
        };
        let told: MetadataResponse<'_> = wire.ask(ApiKey::Metadata, 13, &request).await;
        if told.throttle_time_ms > 0 {
            break;
        }
    }
    limit(admin, client_id("probe"), QuotaKey::RequestPercentage, None).await;
}

/// Connections from one address.
async fn addresses(site: &Site, admin: &Admin) {
    let each = QuotaEntity {
        ip: Some(QuotaName::Default),
        ..QuotaEntity::default()
    };
    limit(admin, each.clone(), QuotaKey::ConnectionCreationRate, 1.0).await;
    let mut served = 0;
    for _ in 0..4 {
        let mut raw = Raw::connect(site.address()).await;
        served += usize::from(raw.try_call(&ApiVersionsRequestT::default()).await.is_some());
        pause().await;
    }
    // One at once, one for the second before; each that is turned away may have taken a second.
    assert!((1..4).contains(&served), "{served} of 4");
    assert!(site.gauge("connections_over_quota_total").await >= 1);
    limit(admin, each, QuotaKey::ConnectionCreationRate, None).await;
    assert_eq!(admin.quotas().await.unwrap(), []);
}
