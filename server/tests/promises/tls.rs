//! TLS: what passes is what was sent, nobody comes in who is not trusted, and who only knocks holds nobody up.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use headwater_client::{Client, Error, NewTopic, Record};
use headwater_protocol::{
    frame::{self, FrameHeader},
    id::CorrelationId,
};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    kafka::{
        records as kafka,
        wire::{PORT, Wire},
    },
    support::{
        Authority, Certified, Cluster, LONG, Site, Source, await_all_in_sync, await_all_there, batch, own_ip,
        read_topic, run, secure_stream, stored_values, tunnel,
    },
};

const TOPIC: &str = "t";

/// A site, with a CA beside its data and a certificate for its address.
struct Secured {
    site: Site,
    authority: Authority,
    shown: Certified,
    _temporary: tempfile::TempDir,
}

/// The clients' port has TLS.
fn secured(settings: &[(&str, &str)]) -> Secured {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let ip = own_ip();
    let authority = Authority::new(&temporary.path().join("ca"), "Test CA");
    let shown = authority.issue("broker", &[&ip.to_string(), "localhost"]);
    let site = Site::at(&temporary.path().join("data"))
        .on(ip)
        .with_metrics()
        .set("broker.tls_certificate", shown.certificate())
        .set("broker.tls_key", shown.key());
    let site = settings.iter().fold(site, |site, (key, value)| site.set(key, value));
    Secured {
        site,
        authority,
        shown,
        _temporary: temporary,
    }
}

impl Secured {
    fn ca(&self) -> PathBuf {
        self.authority.file()
    }

    async fn client(&self) -> Client {
        client(self.site.address(), &self.ca(), None).await.unwrap()
    }

    fn address_of_kafka(&self) -> SocketAddr {
        (self.site.address().ip(), PORT).into()
    }
}

async fn client(address: SocketAddr, ca: &Path, shows: Option<&Certified>) -> Result<Client, Error> {
    let mut client = Client::builder()
        .bootstrap([address.to_string()])
        .bootstrap_timeout(Duration::ZERO)
        .call_timeout(Duration::from_secs(30))
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .tls_ca(ca);
    if let Some(files) = shows {
        client = client.tls_certificate(&files.certificate, &files.key);
    }
    client.build().await
}

/// All that an error says.
fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", source.unwrap_or_default())
}

/// Why somebody is not let in.
async fn refusal(address: SocketAddr, ca: &Path, shows: Option<&Certified>) -> String {
    let refused = client(address, ca, shows).await;
    chain(&refused.expect_err("it is let in"))
}

#[test]
fn what_is_produced_over_tls_is_what_is_read_hot_and_cold_in_both_protocols() {
    run(async {
        let ip = own_ip();
        let all = secured(&[]);
        let kafka_shown = all
            .authority
            .issue("kafka", &[&all.site.address().ip().to_string(), &ip.to_string()]);
        let kafka_address = all.address_of_kafka().to_string();
        let site = [
            ("kafka.listen", kafka_address.as_str()),
            ("kafka.tls_certificate", kafka_shown.certificate()),
            ("kafka.tls_key", kafka_shown.key()),
            ("cores.count", "1"),
        ];
        let all = Secured {
            site: site
                .into_iter()
                .fold(all.site, |site, (key, value)| site.set(key, value)),
            ..all
        };
        let broker = all.site.start();
        let client = all.client().await;
        client
            .admin()
            .create_topic(NewTopic::new(TOPIC).partitions(1))
            .await
            .unwrap();
        let source = Source {
            producer: 1,
            partition: 0,
        };
        let producer = client.producer().batch_bytes(900 << 10).build().await.unwrap();
        // More than the tail buffer holds; of all sizes, so that records begin and end anywhere in those of TLS.
        let lens = [20, 17_000, 300_000, 700_000];
        let mut deliveries = Vec::new();
        for number in 0..100 {
            let value = source.value(number, lens[number as usize % lens.len()]);
            deliveries.push(producer.send(Record::to(TOPIC).value(&value)).await.unwrap());
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        let check = async || {
            let read = read_topic(&client, TOPIC).await.remove(0);
            let numbers: Vec<u64> = read.iter().map(|stored| Source::read(&stored.value).1).collect();
            assert_eq!(numbers, (0..100).collect::<Vec<u64>>());
        };
        for entry in fs::read_dir(all.site.directory().join("t-0")).unwrap() {
            let file = File::open(entry.unwrap().path()).unwrap();
            rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        check().await;
        let path = |name: &str| format!("headwater_fetch_bytes_total{{core=\"0\",path=\"{name}\"}}");
        let cold = all.site.scrape().await;
        assert!(cold[&path("direct")] > 4 << 20 && cold[&path("tail")] > 0, "{cold:?}");
        // Now it is in the page cache, and would leave by sendfile.
        for entry in fs::read_dir(all.site.directory().join("t-0")).unwrap() {
            fs::read(entry.unwrap().path()).unwrap();
        }
        check().await;
        let warm = all.site.scrape().await;
        assert!(warm[&path("copied")] > 4 << 20, "{warm:?}");
        assert_eq!(warm[&path("sendfile")], 0, "the kernel cannot encrypt");
        assert!(warm["headwater_tls_handshakes_total{core=\"0\",outcome=\"done\"}"] >= 1);
        assert!(warm["headwater_tls_certificate_expiry_timestamp_seconds{port=\"kafka\"}"] > 0);

        let mut wire = Wire::connect(tunnel(all.address_of_kafka(), all.authority.client(None)).await).await;
        wire.create_topic("k", 1, &[]).await;
        let known = wire.topic("k").await;
        let topic = ("k", known.topic_id);
        let value = source.value(7, 900_000);
        let produced = wire.produced(12, &kafka::produce(topic, 0, -1, batch(&[&value]))).await;
        assert_eq!((produced.error_code, produced.base_offset), (0, 0));
        let fetched = wire.fetched(12, &kafka::fetch(topic, &[(0, 0)])).await;
        let records = fetched[0].records.as_deref().unwrap();
        assert_eq!(stored_values(records), [(0, value)]);
        broker.stop();
    });
}

#[test]
fn nobody_comes_in_who_is_not_trusted_and_a_change_of_trust_needs_no_restart() {
    run(async {
        let mut all = secured(&[]);
        let directory = all.ca().parent().unwrap().to_owned();
        let clients = Authority::new(&directory.join("clients"), "Clients");
        let others = Authority::new(&directory.join("others"), "Others");
        let trusted = directory.join("trusted.pem");
        fs::write(&trusted, clients.pem()).unwrap();
        all.site = all
            .site
            .set("broker.tls_client_ca", trusted.to_str().unwrap())
            .set("broker.tls_client_auth", "required")
            .set("broker.tls_principal_rules", "RULE:^CN=([a-z]+)$/$1/U")
            .set("metrics.tls_certificate", all.shown.certificate())
            .set("metrics.tls_key", all.shown.key())
            .set("metrics.tls_client_ca", trusted.to_str().unwrap());
        let broker = all.site.start();
        let (address, ca) = (all.site.address(), all.ca());
        let alice = clients.issue("alice", &["alice"]);
        let eve = others.issue("eve", &["eve"]);
        let late = clients.issue_with("late", &["late"], |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        });
        let nameless = clients.issue("x1", &["x"]);
        let known = client(address, &ca, Some(&alice)).await.unwrap();
        known
            .admin()
            .create_topic(NewTopic::new(TOPIC).partitions(1))
            .await
            .unwrap();
        for (shows, said, logged) in [
            (
                None,
                "the broker wants a certificate of this client",
                "it shows no certificate",
            ),
            (
                Some(&eve),
                "does not trust the CA of this client's certificate",
                "of a CA that is not trusted here",
            ),
            (Some(&late), "this client's certificate has expired", "it has expired"),
        ] {
            let lines = broker.lines().len();
            let told = refusal(address, &ca, shows).await;
            assert!(told.contains(said), "{told}");
            // It is said once in a while only.
            let line = broker.lines().split_off(lines).join("\n");
            assert!(line.is_empty() || line.contains(logged), "{line}");
        }
        assert!(
            client(address, &ca, Some(&nameless)).await.is_err(),
            "no rule fits its subject"
        );
        let told = refusal(address, &others.file(), Some(&alice)).await;
        assert!(told.contains("name the CA's file with tls_ca"), "{told}");
        let elsewhere = Client::builder()
            .bootstrap([address.to_string()])
            .bootstrap_timeout(Duration::ZERO);
        let elsewhere = elsewhere.tls_ca(&ca).tls_server_name("elsewhere.example").build().await;
        let told = chain(&elsewhere.err().unwrap());
        assert!(
            told.contains("is not for elsewhere.example, but for") && told.contains("localhost"),
            "{told}"
        );
        let plain = Client::builder()
            .bootstrap([address.to_string()])
            .bootstrap_timeout(Duration::ZERO);
        let told = chain(&plain.build().await.err().unwrap());
        assert!(
            told.contains("it speaks TLS, and this client was not told to"),
            "{told}"
        );
        let alert = alert_of(address, &old_hello()).await;
        assert!(
            matches!(alert, Some(40 | 70)),
            "handshake_failure or protocol_version: {alert:?}"
        );

        // Metrics are for those who show a certificate as well.
        for (shows, is_let_in) in [(Some(&alice), true), (None, false)] {
            let answered = get_metrics(&all, shows).await;
            let is_good = answered
                .as_ref()
                .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 OK"));
            assert_eq!(is_good, is_let_in, "{answered:?}");
        }

        // Alice is trusted no more; what she has is not taken away from her.
        fs::write(&trusted, others.pem()).unwrap();
        broker.signal(Signal::HUP);
        broker.await_line("the certificates of a port were read again");
        known.admin().describe_topic(TOPIC).await.unwrap();
        let told = refusal(address, &ca, Some(&alice)).await;
        assert!(told.contains("does not trust the CA"), "{told}");
        client(address, &ca, Some(&eve)).await.unwrap();

        // What cannot be read changes nothing.
        let lines = broker.lines().len();
        fs::write(&trusted, "nothing").unwrap();
        broker.await_line_after(lines, "those from before stay in force");
        client(address, &ca, Some(&eve)).await.unwrap();
        broker.stop();
    });
}

/// What the port of metrics answers to who shows this.
async fn get_metrics(all: &Secured, shows: Option<&Certified>) -> io::Result<String> {
    let mut stream = secure_stream(all.site.metrics_address(), &all.authority.client(shows)).await?;
    let request = "GET /ready HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A hello that offers TLS 1.1 at most.
fn old_hello() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    // No session; AES 128 with SHA, in CBC mode; no compression.
    body.extend([0, 0, 2, 0, 47, 1, 0]);
    let mut hello = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    hello
}

/// The alert that is answered to these bytes, before the connection is closed.
async fn alert_of(address: SocketAddr, bytes: &[u8]) -> Option<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut answer))
        .await
        .expect("it is closed");
    if let Err(error) = read {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    (answer.len() == 7 && answer[0] == 21).then(|| answer[6])
}

#[test]
fn half_open_handshakes_and_those_who_speak_no_tls_hold_nobody_up() {
    run(async {
        let mut all = secured(&[
            ("cores.count", "1"),
            ("limits.handshakes_max", "16"),
            ("limits.handshake_wait_ms_max", "1s"),
        ]);
        let kafka = all.address_of_kafka().to_string();
        all.site = all.site.set("kafka.listen", &kafka);
        let broker = all.site.start();
        let address = all.site.address();
        let client = all.client().await;
        client
            .admin()
            .create_topic(NewTopic::new(TOPIC).partitions(1))
            .await
            .unwrap();
        let producer = client.producer().build().await.unwrap();
        let mut knocking = JoinSet::new();
        for number in 0..300 {
            knocking.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // Some say nothing, some begin a hello and leave it at that.
                let hello = old_hello();
                stream.write_all(&hello[..number % 20]).await.unwrap();
                // Until it is given up.
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer).await;
            });
            if number % 10 == 0 {
                let delivery = producer.send(Record::to(TOPIC).value("goes on")).await.unwrap();
                delivery.await.unwrap();
            }
        }
        // Whoever means it comes in past all of them.
        all.client().await.admin().describe_topic(TOPIC).await.unwrap();
        let deadline = Instant::now() + LONG;
        while knocking.join_next().await.is_some() {
            assert!(Instant::now() < deadline, "every one is closed");
        }
        let metrics = all.site.scrape().await;
        let ended =
            |outcome: &str| metrics[&format!("headwater_tls_handshakes_total{{core=\"0\",outcome=\"{outcome}\"}}")];
        assert!(ended("crowded") > 0 && ended("late") > 0, "{metrics:?}");
        assert_eq!(ended("crowded") + ended("late"), 300);

        // Plain words at a port with TLS, and TLS at one without.
        let request = frame::encode_head(
            &headwater_protocol::schema::ApiVersionsRequestT::default(),
            0,
            CorrelationId::new(1),
            0,
        );
        for plain in [
            &request[..],
            b"GET / HTTP/1.1\r\n\r\n",
            &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 255, 255],
        ] {
            assert!(alert_of(address, plain).await.is_some());
        }
        let at_plain = secure_stream(all.address_of_kafka(), &all.authority.client(None)).await;
        assert!(at_plain.is_err());
        broker.await_line("it speaks TLS");
        assert_eq!(all.site.gauge("strangers_total").await, 1);
        let lines: String = broker.lines().join("\n");
        assert!(lines.contains("TLS could not be agreed on"), "{lines}");
        broker.stop();
    });
}

#[test]
fn brokers_know_each_other_by_their_certificates_and_nobody_else_joins() {
    run(async {
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let cluster_ca = Authority::new(&temporary.path().join("cluster"), "Cluster");
        let clients_ca = Authority::new(&temporary.path().join("ports"), "Ports");
        // What each proves of it is bound to its connection.
        let secret = temporary.path().join("secret");
        fs::write(&secret, "a secret that brokers share").unwrap();
        let site = |number: usize| {
            let ip = own_ip();
            let host = ip.to_string();
            let peer = cluster_ca.issue(&format!("broker-{number}"), &[&host]);
            let port = clients_ca.issue(&format!("port-{number}"), &[&host]);
            Site::at(&temporary.path().join(number.to_string()))
                .on(ip)
                .set("broker.tls_certificate", port.certificate())
                .set("broker.tls_key", port.key())
                .set("cluster.tls_certificate", peer.certificate())
                .set("cluster.tls_key", peer.key())
                .set("cluster.tls_ca", cluster_ca.file().to_str().unwrap())
                .set("cluster.secret", &format!("file:{}", secret.display()))
        };
        let cluster = Cluster::of([site(0), site(1), site(2)]);
        let client = client(cluster.sites[0].address(), &clients_ca.file(), None)
            .await
            .unwrap();
        await_all_there(&client).await;
        client
            .admin()
            .create_topic(NewTopic::new(TOPIC).partitions(3))
            .await
            .unwrap();
        let producer = client.producer().build().await.unwrap();
        for number in 0..30 {
            let delivery = producer
                .send(Record::to(TOPIC).key(&format!("{number}")).value("replicated"))
                .await;
            delivery.unwrap().await.unwrap();
        }
        await_all_in_sync(&client).await;

        // Somebody who knows the address and the words, with the certificate of a client, or none.
        let outsider = clients_ca.issue("outsider", &["outsider"]);
        let peers: SocketAddr = cluster.sites[0].peer_address().parse().unwrap();
        let mut plain = TcpStream::connect(peers).await.unwrap();
        plain.write_all(b"HWQ\x01").await.unwrap();
        let mut heard = Vec::new();
        let _ = tokio::time::timeout(LONG, plain.read_to_end(&mut heard))
            .await
            .expect("it is closed");
        assert!(
            !heard.starts_with(&[0, 0]),
            "it is told nothing of the members: {heard:?}"
        );
        let mut config = (*cluster_ca.client(Some(&outsider))).clone();
        config.alpn_protocols = vec![b"headwater-peer".to_vec()];
        let config = std::sync::Arc::new(config);
        for address in [peers, cluster.sites[0].address()] {
            let said = async {
                let mut stream = secure_stream(address, &config).await?;
                // In TLS 1.3 only what follows tells.
                stream.read_u8().await
            };
            let error = said.await.expect_err("an outsider is let in");
            assert!(
                chain(&error).contains("UnknownCA") || chain(&error).contains("UnknownIssuer"),
                "{error}"
            );
        }
        // A client that is let in as such, and says that it is a broker.
        let mut stream = secure_stream(cluster.sites[0].core_address(0), &clients_ca.client(None))
            .await
            .unwrap();
        let header = FrameHeader::new(1000, 0, CorrelationId::new(0), 16, 0).unwrap();
        stream
            .write_all(&[&header.encode()[..], &[0; 16]].concat())
            .await
            .unwrap();
        let mut heard = Vec::new();
        let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut heard))
            .await
            .expect("it is closed");
        assert_eq!(heard, [] as [u8; 0]);
        let first = cluster.brokers[0].as_ref().unwrap();
        first.await_line("it says that it is a broker, and has not shown");
        drop(client);
        for broker in cluster.brokers.into_iter().flatten() {
            broker.stop();
        }
    });
}
