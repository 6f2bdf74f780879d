//! A data directory that was used before there was a quorum is taken over as it is.

use headwater_client::ErrorCode;
use headwater_protocol::{id::TopicId, schema::InitProducerIdRequestT};

use crate::support::{Raw, Site, batch, produce, read_topic, run};

const FILES: [(&str, &str); 3] = [
    ("broker.json", r#"{"cluster_id":"blue","broker_id":0}"#),
    ("producer-ids.json", r#"{"next":5000}"#),
    (
        "topics.json",
        r#"{"topics":[{"name":"orders","id":"0190163d-8694-739b-aea5-966c26f8ad91","partitions":2,"configs":{"retention.ms":"86400000"},"state":"ready"}]}"#,
    ),
];

#[test]
fn a_data_directory_of_before_the_quorum_keeps_its_topics_identity_and_producer_ids() {
    run(async {
        let site = Site::new();
        let directory = site.directory();
        for partition in ["orders-0", "orders-1"] {
            std::fs::create_dir_all(directory.join(partition)).unwrap();
        }
        for (file, content) in FILES {
            let crc32c = crc32c::crc32c(content.as_bytes());
            let sealed = format!("{{\"format_version\":1,\"crc32c\":{crc32c},\"content\":{content}}}\n");
            std::fs::write(directory.join(file), sealed).unwrap();
        }
        let topic: TopicId = "0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
        let mut ids = std::collections::BTreeSet::new();
        for round in 0..3_usize {
            let broker = site.start();
            let client = site.client().await;
            let described = client.admin().describe_topic("orders").await.unwrap();
            assert_eq!((described.id, described.partitions.len()), (topic, 2));
            let mut raw = Raw::connect(site.address()).await;
            let given = raw
                .call(&InitProducerIdRequestT::default(), &[])
                .await
                .init_producer_id();
            assert!(given.error == 0 && given.producer_id >= 5000 && ids.insert(given.producer_id));
            let stored = raw.call(&produce(topic, 0), &batch(&[b"a record"])).await.produce();
            assert_eq!(ErrorCode::from_i16(stored.error), ErrorCode::None);
            assert_eq!(read_topic(&client, "orders").await[0].len(), round + 1);
            assert!(FILES.iter().all(|(file, _)| !directory.join(file).exists()));
            if round == 0 {
                broker.kill();
            } else {
                broker.stop();
            }
        }
    });
}
