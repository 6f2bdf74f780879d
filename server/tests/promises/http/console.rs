//! The console against real brokers: every page, whatever others have called their groups and written into their records; who may see and
//! change what; and three brokers of which one is down.

use std::{fs, time::Duration};

use headwater_client::{Client, CommittedOffset, NewTopic, Offset, PartitionIndex, Record, TopicName};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::Instant};

use super::Caller;
use crate::support::{Cluster, LONG, Site, pause, run};

const HOSTILE: &str = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\u{202e}&\"'";

fn with_console(site: Site) -> Site {
    site.with_http().set("http.console_writes", "true")
}

/// A page, which is one, and nothing in it is more than text.
async fn page(who: &Caller, path: &str) -> String {
    let answer = who.get(path).await;
    let body = answer.text();
    assert_eq!(answer.status, 200, "{path}: {body}");
    let policy = answer.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{path}: {policy}"
    );
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    assert!(!body.contains("<script>") && !body.contains("<img"), "{path}: {body}");
    assert!(body.ends_with("</html>"), "{path}: {body}");
    body.to_owned()
}

fn encode(text: &str) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    let encoded = text.bytes().flat_map(|byte| ['%', digit(byte >> 4), digit(byte & 0xf)]);
    encoded.collect()
}

/// What stands between the two the first time.
fn between<'a>(text: &'a str, before: &str, behind: &str) -> &'a str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("{before} is not in {text}"));
    rest.split_once(behind).unwrap().0
}

async fn produce(client: &Client) {
    let producer = client.producer().build().await.unwrap();
    for number in 0..40_i64 {
        let value = format!("{{\"number\":{number}}}");
        let key = format!("key-{number}");
        let record = Record::to("orders")
            .partition(PartitionIndex::new(0))
            .key(&key)
            .value(&value);
        let record = record.timestamp(headwater_client::Timestamp::new(1_700_000_000_000 + number * 1_000));
        drop(producer.send(record).await.unwrap());
    }
    let record = Record::to("orders")
        .partition(PartitionIndex::new(1))
        .key(HOSTILE)
        .value(HOSTILE);
    drop(producer.send(record.header(HOSTILE, HOSTILE)).await.unwrap());
    let record = Record::to("orders")
        .partition(PartitionIndex::new(1))
        .value(b"\x00\xff\xfe");
    drop(producer.send(record).await.unwrap());
    producer.flush().await.unwrap();
}

#[test]
fn the_console_shows_what_there_is_to_those_who_may_see_it_and_changes_only_what_its_own_pages_ask() {
    let site = with_console(Site::new().cores(1));
    let secret = site.directory().with_file_name("admin-secret");
    fs::write(&secret, "hush-4711").unwrap();
    let site = site
        .set("groups.offsets_partitions", "1")
        .set("security.sasl", "SCRAM-SHA-256")
        .set("security.authorizer", "true")
        .set("security.failure_wait_ms", "0")
        .set("security.admin_password", &format!("file:{}", secret.display()));
    let broker = site.start();
    run(async {
        let (who, nobody) = (
            Caller::user(&site, "admin", "hush-4711"),
            Caller::user(&site, "nobody", "hush-4712"),
        );
        let client = Client::builder()
            .bootstrap([site.address().to_string()])
            .user("admin", "hush-4711");
        let client = client.build().await.unwrap();
        let admin = client.admin();
        admin.set_user("nobody", "hush-4712", None).await.unwrap();
        admin
            .create_topic(
                NewTopic::new("orders")
                    .partitions(2)
                    .config("retention.ms", 315_360_000_000_i64),
            )
            .await
            .unwrap();
        produce(&client).await;
        let topic = TopicName::new("orders").unwrap();
        let partition = PartitionIndex::new(0);
        let committed = CommittedOffset::new(topic, partition, Offset::new(40));
        admin.groups().reset_offsets(HOSTILE, &[committed]).await.unwrap();
        let group = encode(HOSTILE);

        // Who may see what.
        let asked = Caller::nobody(&site).get("/console").await;
        assert_eq!(
            (asked.status, asked.header("www-authenticate").is_some()),
            (401, true),
            "{}",
            asked.head
        );
        for closed in ["/console", "/console/figures", "/console/charts"] {
            assert_eq!(nobody.get(closed).await.status, 403, "{closed}");
        }
        assert!(!nobody.get("/console/topics").await.text().contains("orders"));
        let closed = nobody.get("/console/topics/orders/records").await;
        assert!(
            closed.status >= 400 && !closed.text().contains("number"),
            "{}",
            closed.text()
        );

        // Every page.
        assert!(
            page(&who, "/console")
                .await
                .contains("<span class=\"badge well\">there</span>")
        );
        assert!(page(&who, "/console/topics").await.contains("/console/topics/orders"));
        let topic = page(&who, "/console/topics/orders").await;
        assert!(between(&topic, "retention.ms", "</tr>").contains("topic"), "{topic}");
        assert!(
            page(&who, "/console/brokers?q=http.")
                .await
                .contains("http.console_writes")
        );
        assert!(page(&who, "/console/charts").await.contains("acknowledge"));
        assert!(page(&who, "/console/security").await.contains("nobody"));
        assert!(page(&who, "/console/groups").await.contains("&lt;script&gt;alert(1)"));
        let shown = page(&who, &format!("/console/group?id={group}")).await;
        assert!(shown.contains("/console/group/reset?id="), "{shown}");
        let figures = who.get("/console/figures?topic=orders").await;
        assert!(
            figures.text().contains("\"acknowledge\"") && figures.text().contains("\"orders\""),
            "{}",
            figures.text()
        );
        let lag = who.get(&format!("/console/group/lag?id={group}")).await;
        assert_eq!(lag.text(), "{\"lag\":{\"orders\":0}}");

        // Records: the newest, by offset, by time, by key; JSON, text and hexadecimal digits.
        let records = "/console/topics/orders/records";
        let newest = page(&who, &format!("{records}?limit=100")).await;
        assert!(
            newest.contains("&lt;script&gt;alert(1)") && newest.contains("00 ff fe"),
            "{newest}"
        );
        let by_offset = page(&who, &format!("{records}?partition=0&from=offset&offset=7&limit=2")).await;
        assert!(
            by_offset.contains("&quot;number&quot;: 7") && by_offset.contains("&quot;number&quot;: 8"),
            "{by_offset}"
        );
        assert!(
            !by_offset.contains("&quot;number&quot;: 9") && !by_offset.contains("&quot;number&quot;: 6"),
            "{by_offset}"
        );
        let by_time = page(
            &who,
            &format!("{records}?partition=0&from=time&time=1700000030000&limit=1&as=hex"),
        )
        .await;
        assert!(
            by_time.contains("7b 22 6e") && by_time.contains("offset=30&"),
            "{by_time}"
        );
        let by_key = page(&who, &format!("{records}?key=key-33")).await;
        assert!(
            by_key.contains("&quot;number&quot;: 33") && by_key.contains("1 shown, 42 looked at"),
            "{by_key}"
        );
        let by_key = page(&who, &format!("{records}?key={group}")).await;
        assert!(by_key.contains("1 shown"), "{by_key}");
        assert!(
            page(&who, "/console/topics/orders/record?partition=0&offset=39")
                .await
                .contains("&quot;number&quot;: 39")
        );
        assert_eq!(
            who.get("/console/topics/orders/record?partition=0&offset=40")
                .await
                .status,
            404
        );
        assert_eq!(who.get("/console/topics/nowhere/records").await.status, 404);

        // As records come.
        let mut stream = who.begin("GET", "/console/topics/orders/tail", "", b"").await;
        let mut come = String::new();
        read_until(&mut stream, &mut come, "event: begin").await;
        let producer = client.producer().build().await.unwrap();
        drop(
            producer
                .send(Record::to("orders").partition(PartitionIndex::new(1)).value(HOSTILE))
                .await
                .unwrap(),
        );
        producer.flush().await.unwrap();
        read_until(&mut stream, &mut come, "alert(1)").await;
        drop(stream);

        // Offsets of a group: what is shown is what is done, once, and only for a page of this address.
        let preview = page(&who, &format!("/console/group/reset?id={group}&to=offset&offset=10")).await;
        assert!(preview.contains("reads 30 again"), "{preview}");
        let offsets = between(&preview, "name=\"offsets\" value=\"", "\"");
        let form = format!("id={group}&offsets={}", encode(offsets));
        let path = "/console/group/reset";
        let send = async |who: &Caller, headers: &str| who.ask("POST", path, headers, form.as_bytes()).await;
        let own = format!("Origin: http://{}\r\n", who.address);
        for foreign in ["", "Origin: http://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
            let refused = send(&who, foreign).await;
            assert_eq!(refused.status, 403, "{foreign}: {}", refused.text());
        }
        let offset_now = async || admin.groups().committed_offsets(HOSTILE).await.unwrap()[0].offset.get();
        assert_eq!(offset_now().await, 40);
        assert!(send(&nobody, &own).await.status >= 400);
        assert_eq!(offset_now().await, 40);
        let done = send(&who, &own).await;
        assert_eq!(done.status, 303, "{}", done.text());
        assert_eq!(offset_now().await, 10);
        assert_eq!(send(&who, &own).await.status, 409);
    });
    broker.stop();
}

async fn read_until(stream: &mut TcpStream, come: &mut String, wanted: &str) {
    let read = async {
        let mut bytes = [0; 4096];
        while !come.contains(wanted) {
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "it ended: {come}");
            come.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap();
}

#[test]
fn with_one_of_three_brokers_down_the_console_of_another_says_so_and_shows_all_the_rest() {
    let site = || with_console(Site::new().cores(1));
    let mut cluster = Cluster::of([site(), site(), site()]);
    run(async {
        let client = cluster.client().await;
        let new = NewTopic::new("orders").partitions(3).replication_factor(3);
        client.admin().create_topic(new).await.unwrap();
        let producer = client.producer().build().await.unwrap();
        for number in 0..30 {
            let value = format!("value-{number}");
            let record = Record::to("orders")
                .partition(PartitionIndex::new(number % 3))
                .value(&value);
            drop(producer.send(record).await.unwrap());
        }
        producer.flush().await.unwrap();
        let topic = TopicName::new("orders").unwrap();
        let committed = CommittedOffset::new(topic, PartitionIndex::new(0), Offset::new(4));
        client
            .admin()
            .groups()
            .reset_offsets("readers", &[committed])
            .await
            .unwrap();
        cluster.kill(2);
        let who = Caller::nobody(&cluster.sites[0]);
        let until = Instant::now() + LONG;
        let overview = loop {
            let overview = page(&who, "/console").await;
            let said = [
                "Broker 2 is not there",
                "not all replicas in sync",
                "these do not answer: 2",
            ];
            if said.iter().all(|said| overview.contains(said)) {
                break overview;
            }
            assert!(Instant::now() < until, "{overview}");
            pause().await;
        };
        assert!(!overview.contains("All is well."), "{overview}");
        let topics = page(&who, "/console/topics").await;
        assert!(topics.contains("3 not all in sync"), "{topics}");
        let topic = page(&who, "/console/topics/orders").await;
        assert!(!topic.contains("nobody"), "{topic}");
        let records = page(&who, "/console/topics/orders/records?limit=100").await;
        assert!(
            (0..30).all(|number| records.contains(&format!("value-{number}<"))),
            "{records}"
        );
        let group = page(&who, "/console/group?id=readers").await;
        assert!(between(&group, "Behind by", "</div>").contains('6'), "{group}");
        for path in [
            "/console/groups",
            "/console/brokers",
            "/console/charts",
            "/console/topics/orders/record?partition=0&offset=0",
        ] {
            page(&who, path).await;
        }
    });
}
