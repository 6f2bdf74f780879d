//! Whatever comes over a socket gets its named error or a closed connection; no panic, no memory for what is only claimed,
//! and others are not disturbed.

mod batches;
mod bounds;
mod floods;
mod frames;
mod requests;

use headwater_client::{NewTopic, TopicId};

use crate::support::{Broker, Kind, Load, Raw, Site, read_topic};

/// What well-behaved clients use meanwhile.
const KIND: Kind = Kind {
    topic: "well-behaved",
    partitions: 2,
    value_lens: &[100, 2_000],
};

/// Records of well-behaved clients, before and after.
const RECORDS: usize = 2_000;

/// The largest frame that the broker takes here, in bytes after the size field.
pub const FRAME_SIZE_MAX: u32 = 2 << 20;

/// What memory may vary by under the load of this file, 22 MB seen: tail buffers fill up to their 16 MiB, and the allocator
/// keeps what a request of 1 MiB took in its several forms. What is only claimed here would come to 80 MB.
const SLACK_BYTES: u64 = 32 << 20;

/// A broker, a topic to be bad to, and well-behaved clients.
pub struct Setting {
    pub site: Site,
    pub broker: Broker,
    /// Its only partition is owned by either core.
    pub topic: TopicId,
    pub load: Load,
    resident_bytes: u64,
}

impl Setting {
    pub async fn new() -> Setting {
        Setting::at(Site::new()).await
    }

    pub async fn at(site: Site) -> Setting {
        let broker = site.start();
        let client = site.client_with_topic(KIND.topic, KIND.partitions.into()).await;
        let victim = NewTopic::new("victim").partitions(1);
        let topic = client.admin().create_topic(victim).await.unwrap().id;
        let load = Load::start([client], KIND, 0).await;
        let mut setting = Setting {
            site,
            broker,
            topic,
            load,
            resident_bytes: 0,
        };
        setting.others_go_on().await;
        setting.resident_bytes = setting.broker.resident_bytes();
        setting
    }

    pub async fn others_go_on(&self) {
        let goal = self.load.ledger.count() + RECORDS as u64;
        self.load.allow(RECORDS);
        self.load.ledger.await_count(goal).await;
    }

    pub fn check_memory(&self) {
        let (resident, before) = (self.broker.resident_bytes(), self.resident_bytes);
        assert!(
            resident.saturating_sub(before) <= SLACK_BYTES,
            "{before} bytes of memory have become {resident}"
        );
    }

    pub async fn connect(&self) -> Raw {
        Raw::connect(self.site.address()).await
    }

    pub async fn end(self) {
        self.others_go_on().await;
        self.check_memory();
        let client = self.site.client().await;
        let log = read_topic(&client, KIND.topic).await;
        self.load.finish().await.check_complete(&log);
        self.broker.stop();
    }
}
