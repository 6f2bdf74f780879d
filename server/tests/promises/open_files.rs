//! A broker that has no file descriptor left lets records wait, and goes on by itself when there is one.

use headwater_client::{Client, OffsetSpec};

use crate::support::{Raw, Site, batch, produce, run};

async fn end(client: &Client) -> Option<u64> {
    let ends = client.admin().list_offsets("t", OffsetSpec::Latest).await.unwrap();
    ends[0].map(headwater_client::Offset::get)
}

#[test]
fn records_wait_for_a_descriptor_and_none_is_refused_or_lost() {
    run(async {
        let site = Site::new().cores(1);
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let id = client.admin().describe_topic("t").await.unwrap().id;
        let mut raw = Raw::connect(site.address()).await;
        assert_eq!(end(&client).await, Some(0));
        // What is open stays open.
        let usual = broker.limit_files(0);
        raw.send(&produce(id, 0), &batch(&[b"first"])).await;
        broker.await_line("records wait");
        raw.send(&produce(id, 0), &batch(&[b"second"])).await;
        assert_eq!(end(&client).await, Some(0), "nothing is durable yet");
        broker.limit_files(usual);
        for offset in 0..2 {
            let reply = raw.receive().await.unwrap().produce();
            assert_eq!((reply.error, reply.base_offset), (0, offset));
        }
        broker.kill();
        let broker = site.start();
        assert_eq!(end(&client).await, Some(2));
        broker.stop();
    });
}
