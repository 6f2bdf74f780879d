//! Who belongs to a cluster without certificates: whoever knows its secret, and nobody else.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use headwater_client::{
    Acl, AclOperation, AclPattern, AclPermission, AclResource, BrokerId, Client, Error, ErrorCode, NewTopic, Record,
};
use headwater_protocol::{frame::FrameHeader, id::CorrelationId};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    access::sasl::{enter, is_in},
    kafka::wire::Wire,
    support::{Cluster, LONG, Site, await_all_in_sync, await_all_there, await_list, pause, run},
};

const TOPIC: &str = "t";

async fn produce(client: &Client, count: usize) {
    let producer = client.producer().build().await.unwrap();
    for number in 0..count {
        let key = format!("{number}");
        let record = Record::to(TOPIC).key(&key).value("replicated");
        producer.send(record).await.unwrap().await.unwrap();
    }
}

/// Has a broker start again with these secrets.
fn start_again_with(cluster: &mut Cluster, number: usize, secrets: &[(&str, &str)]) {
    let site = std::mem::replace(&mut cluster.sites[number], Site::new());
    cluster.sites[number] = secrets.iter().fold(site, |site, (key, value)| site.set(key, value));
    cluster.brokers[number] = Some(cluster.sites[number].launch());
}

#[test]
fn a_broker_that_does_not_know_the_secret_does_not_join_and_the_cluster_goes_on() {
    run(async {
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let secret = |name: &str| {
            let path: &Path = &temporary.path().join(name);
            fs::write(path, format!("the secret of {name} days")).unwrap();
            format!("file:{}", path.display())
        };
        let (old, new) = (secret("former"), secret("newer"));
        let site = || Site::new().with_metrics().set("cluster.secret", &old);
        let mut cluster = Cluster::of([site(), site(), site()]);
        let client = cluster.client().await;
        await_all_there(&client).await;
        let topic = NewTopic::new(TOPIC).partitions(3);
        client.admin().create_topic(topic).await.unwrap();
        produce(&client, 10).await;
        await_all_in_sync(&client).await;

        // A member of old, at its old address, that does not know the secret any more.
        cluster.brokers[2].take().unwrap().stop();
        start_again_with(&mut cluster, 2, &[("cluster.secret", &new)]);
        let third = cluster.brokers[2].as_ref().unwrap();
        third.await_line("a caller is refused on the port of members");
        await_list(&client, "the third is fenced", |list| {
            list.brokers.iter().filter(|broker| broker.is_fenced).count() == 1
        })
        .await;
        produce(&client, 10).await;
        let counted = "headwater_peer_proofs_refused_total";
        let refused = cluster.sites[0].scrape().await[counted] + cluster.sites[1].scrape().await[counted];
        assert!(refused > 0, "it has called, and was counted");

        // Somebody who says on the port of clients that it is a broker.
        let mut stream = TcpStream::connect(cluster.sites[0].core_address(0)).await.unwrap();
        let header = FrameHeader::new(1000, 0, CorrelationId::new(0), 16, 0).unwrap();
        let hello = [&header.encode()[..], &[0; 16]].concat();
        stream.write_all(&hello).await.unwrap();
        let mut heard = Vec::new();
        let read = tokio::time::timeout(LONG, stream.read_to_end(&mut heard)).await;
        read.expect("it is closed").unwrap();
        let heard = String::from_utf8_lossy(&heard);
        assert!(heard.contains("no proof of cluster.secret"), "{heard}");
        let first = cluster.brokers[0].as_ref().unwrap();
        first.await_line("it says that it is a broker, and has not proved it");

        // While the secret is changed both are good.
        cluster.kill(2);
        start_again_with(&mut cluster, 2, &[("cluster.secret_previous", &old)]);
        cluster.brokers[2].as_ref().unwrap().await_ready();
        await_all_there(&client).await;
        await_all_in_sync(&client).await;
        produce(&client, 10).await;
        drop(client);
        for broker in cluster.brokers.into_iter().flatten() {
            broker.stop();
        }
    });
}

const PASSWORD: &str = "a password of some length";

/// A client of these brokers, which asks elsewhere if one does not answer.
async fn come_in(sites: &[Site], user: &str) -> Result<Client, Error> {
    let client = Client::builder()
        .bootstrap(sites.iter().map(|site| site.address().to_string()))
        .user(user, PASSWORD)
        .request_timeout(Duration::from_secs(3))
        .call_timeout(Duration::from_mins(1))
        .backoff(Duration::from_millis(5), Duration::from_millis(50));
    client.build().await
}

#[test]
fn users_and_rules_survive_elections_and_new_members_and_whoever_comes_back_knows_who_is_out() {
    run(async {
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let password = temporary.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        let site = || {
            Site::new()
                .set("security.sasl", "SCRAM-SHA-256")
                .set("security.authorizer", "true")
                .set("security.failure_wait_ms", "0")
                .set("security.admin_password", &format!("file:{}", password.display()))
        };
        let mut cluster = Cluster::of([site(), site(), site()]);
        let client = come_in(&cluster.sites, "admin").await.unwrap();
        let admin = client.admin();
        await_all_there(&client).await;
        admin.create_topic(NewTopic::new(TOPIC).partitions(3)).await.unwrap();
        await_all_in_sync(&client).await;
        admin.set_user("alice", PASSWORD, None).await.unwrap();
        let may_write = Acl {
            resource: AclResource::Topic,
            pattern: AclPattern::Literal,
            name: TOPIC.to_owned(),
            principal: "User:alice".to_owned(),
            host: "*".to_owned(),
            operation: AclOperation::Write,
            permission: AclPermission::Allow,
        };
        admin.create_acls(&[may_write]).await.unwrap();
        let alice_may_write_and_no_more = async |sites: &[Site]| {
            let alice = come_in(sites, "alice").await.unwrap();
            produce(&alice, 3).await;
            let refused = alice.admin().delete_topic(TOPIC).await.unwrap_err();
            assert_eq!(refused.code(), Some(ErrorCode::TopicAuthorizationFailed), "{refused}");
            let refused = come_in(sites, "bob").await.unwrap_err();
            assert_eq!(refused.code(), Some(ErrorCode::SaslAuthenticationFailed), "{refused}");
        };
        alice_may_write_and_no_more(&cluster.sites).await;

        // Another coordinator is active.
        let active = admin.describe_quorum().await.unwrap().active.unwrap();
        let active = usize::try_from(active.get()).unwrap();
        cluster.kill(active);
        alice_may_write_and_no_more(&cluster.sites).await;
        cluster.start_one(active);
        await_all_there(&client).await;
        await_all_in_sync(&client).await;

        // Another member is in the place of one, with nothing on its disk.
        let replaced = (active + 1) % 3;
        cluster.kill(replaced);
        fs::remove_dir_all(cluster.sites[replaced].directory()).unwrap();
        let waiting = cluster.sites[replaced].launch();
        waiting.await_line("this member waits until it belongs to a quorum");
        let id = BrokerId::new(i32::try_from(replaced).unwrap());
        admin.remove_quorum_member(id).await.unwrap();
        let address = cluster.sites[replaced].peer_address();
        admin.add_quorum_members(&[(id, address)]).await.unwrap();
        waiting.await_ready();
        cluster.brokers[replaced] = Some(waiting);
        await_all_there(&client).await;
        await_all_in_sync(&client).await;
        alice_may_write_and_no_more(&cluster.sites[replaced..=replaced]).await;

        // One that hears nothing while she is removed, and has her on a connection.
        let mut wire = Wire::of(&cluster.sites[replaced]).await;
        let entered = enter(&mut wire, "SCRAM-SHA-256", "alice", PASSWORD).await;
        assert!(entered.error_code == 0 && is_in(&mut wire).await);
        let cut_off = cluster.brokers[replaced].as_ref().unwrap();
        cut_off.stand_still();
        admin.remove_user("alice").await.unwrap();
        cut_off.signal(Signal::CONT);
        let back = Instant::now();
        while is_in(&mut wire).await {
            assert!(back.elapsed() < LONG, "she stays in");
            pause().await;
        }
        println!("she is out {:?} after the broker was back", back.elapsed());
        assert!(come_in(&cluster.sites[replaced..=replaced], "alice").await.is_err());
        drop(client);
        for broker in cluster.brokers.into_iter().flatten() {
            // Whoever was asked for another member and does not lead says so.
            broker.expect_errors("has to forward request").kill();
        }
    });
}
