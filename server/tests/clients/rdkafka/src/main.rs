//! What a program that uses rdkafka does with a broker, step by step: run BOOTSTRAP PREFIX.

mod groups;
mod records;

use std::{env, error::Error, path::PathBuf, time::Duration};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{Consumer as _, StreamConsumer},
    types::RDKafkaErrorCode,
};

use self::records::Read;

const PARTITIONS: i32 = 3;
const SECONDS_MAX: u64 = 58;
/// Of one request.
const WAIT: Duration = Duration::from_secs(10);

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Ends a step unless something is so.
macro_rules! ensure {
    ($holds:expr, $($otherwise:tt)+) => {
        if !$holds {
            return Err(format!($($otherwise)+).into());
        }
    };
}
pub(crate) use ensure;

/// What the steps share: each fills in what later ones need.
struct Scenario {
    bootstrap: String,
    topic: String,
    /// For records that are not acknowledged by all replicas.
    unsafe_topic: String,
    group: String,
    failover: Option<PathBuf>,
    /// Of the first record; each later one is a second younger.
    start: i64,
    /// The ids of all acknowledged records, in the order in which they were sent.
    sent: Vec<String>,
    /// What was read of each partition, in order.
    read: [Vec<Read>; PARTITIONS as usize],
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["member", bootstrap, prefix] => groups::be_the_other_member(&Scenario::new(bootstrap, prefix)).await,
        [bootstrap, prefix] => {
            let mut scenario = Scenario::new(bootstrap, prefix);
            let limit = Duration::from_secs(SECONDS_MAX);
            let succeeded = tokio::time::timeout(limit, scenario.run())
                .await
                .unwrap_or_else(|_elapsed| {
                    println!("FAILED in time: a step is still under way");
                    false
                });
            // Not an orderly end: a step that failed may have left something behind that waits for the broker.
            std::process::exit(i32::from(!succeeded));
        }
        _ => {
            println!("usage: run BOOTSTRAP PREFIX");
            std::process::exit(2);
        }
    }
}

impl Scenario {
    fn new(bootstrap: &str, prefix: &str) -> Scenario {
        let an_hour_ago = std::time::SystemTime::now() - Duration::from_hours(1);
        Scenario {
            bootstrap: bootstrap.to_owned(),
            topic: format!("{prefix}-records"),
            unsafe_topic: format!("{prefix}-unsafe"),
            group: format!("{prefix}-group"),
            failover: env::var_os("FAILOVER_FILE").map(PathBuf::from),
            start: rdkafka::Timestamp::from(an_hour_ago).to_millis().unwrap_or(0),
            sent: Vec::new(),
            read: [const { Vec::new() }; PARTITIONS as usize],
        }
    }

    async fn run(&mut self) -> bool {
        let mut succeeded = true;
        macro_rules! step {
            ($name:literal, $step:expr) => {
                match $step.await {
                    Ok(()) => println!("ok {}", $name),
                    Err(why) => {
                        succeeded = false;
                        println!("FAILED {}: {why}", $name);
                    }
                }
            };
        }
        step!("create topics", self.create());
        step!("produce with every codec", self.produce());
        step!("read all", self.read_all());
        step!("produce with acks 1 and 0", self.produce_unsafe());
        step!("group of two, one killed", self.consume_in_group());
        step!("resume at the commit", self.resume());
        step!("seek by timestamp", self.seek());
        step!("list and describe topics", self.topics());
        step!("list and describe groups, lag", self.groups());
        step!("alter a topic's configuration", self.config());
        step!("delete records", self.delete_records());
        step!("add partitions", self.add_partitions());
        step!("delete group and topics", self.delete());
        succeeded
    }

    fn settings(&self) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.bootstrap);
        settings
    }

    fn admin(&self) -> Outcome<AdminClient<DefaultClientContext>> {
        Ok(self.settings().create()?)
    }

    /// A consumer by itself. Its group is only a name: it never joins.
    fn reader(&self) -> Outcome<StreamConsumer> {
        let mut settings = self.settings();
        settings
            .set("group.id", format!("{}-reader", self.group))
            .set("enable.auto.commit", "false");
        Ok(settings.create()?)
    }

    fn partitions(&self, offset: impl Fn(i32) -> Offset) -> Outcome<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(&self.topic, partition, offset(partition))?;
        }
        Ok(list)
    }

    async fn create(&mut self) -> Outcome {
        let replicas = env::var("REPLICAS").map_or(Ok(1), |text| text.parse())?;
        let new = |name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(replicas));
        all(self
            .admin()?
            .create_topics([&new(&self.topic), &new(&self.unsafe_topic)], &options())
            .await?)
    }

    async fn topics(&mut self) -> Outcome {
        let reader = self.reader()?;
        let all = reader.fetch_metadata(None, WAIT)?;
        ensure!(
            all.topics().iter().any(|topic| topic.name() == self.topic),
            "{} is not listed",
            self.topic
        );
        let described = reader.fetch_metadata(Some(&self.topic), WAIT)?;
        let partitions = described.topics()[0].partitions();
        ensure!(
            partitions.len() == PARTITIONS as usize,
            "{} partitions",
            partitions.len()
        );
        for partition in partitions {
            let (leader, isr) = (partition.leader(), partition.isr());
            ensure!(
                isr.contains(&leader),
                "partition {}: leader {leader} of {isr:?}",
                partition.id()
            );
        }
        Ok(())
    }

    async fn config(&mut self) -> Outcome {
        let (admin, topic) = (self.admin()?, ResourceSpecifier::Topic(&self.topic));
        let alter = AlterConfig::new(topic).set("retention.ms", "86400000");
        for altered in admin.alter_configs([&alter], &options()).await? {
            altered.map_err(|(_, code)| code)?;
        }
        eventually(async || {
            let described = admin.describe_configs([&topic], &options()).await?;
            let entries = described.into_iter().next().ok_or("no topic is described")??;
            let entry = entries.get("retention.ms").ok_or("retention.ms is not described")?;
            let seen = (entry.value.as_deref(), &entry.source);
            ensure!(
                seen == (Some("86400000"), &ConfigSource::DynamicTopic),
                "it is {seen:?}"
            );
            Ok(())
        })
        .await
    }

    async fn delete_records(&mut self) -> Outcome {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(&self.topic, 0, Offset::Offset(5))?;
        let deleted = self.admin()?.delete_records(&before, &options()).await?;
        for partition in deleted.elements() {
            partition.error()?;
            ensure!(
                partition.offset() == Offset::Offset(5),
                "the low watermark is {:?}",
                partition.offset()
            );
        }
        let (low, _) = self.reader()?.fetch_watermarks(&self.topic, 0, WAIT)?;
        ensure!(low == 5, "the partition begins at {low}");
        Ok(())
    }

    async fn add_partitions(&mut self) -> Outcome {
        let wanted = PARTITIONS as usize + 1;
        all(self
            .admin()?
            .create_partitions([&NewPartitions::new(&self.topic, wanted)], &options())
            .await?)?;
        let reader = self.reader()?;
        eventually(async || {
            let described = reader.fetch_metadata(Some(&self.topic), WAIT)?;
            let there = described.topics()[0].partitions().len();
            ensure!(there == wanted, "{there} partitions");
            Ok(())
        })
        .await
    }

    async fn delete(&mut self) -> Outcome {
        let admin = self.admin()?;
        all(admin.delete_groups(&[&self.group], &options()).await?)?;
        all(admin
            .delete_topics(&[&self.topic, &self.unsafe_topic], &options())
            .await?)?;
        let reader = self.reader()?;
        eventually(async || {
            let left = reader.fetch_metadata(None, WAIT)?;
            for topic in left.topics() {
                ensure!(
                    ![&self.topic, &self.unsafe_topic].contains(&&topic.name().to_owned()),
                    "{} is still listed",
                    topic.name()
                );
            }
            Ok(())
        })
        .await
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(WAIT))
        .operation_timeout(Some(WAIT))
}

/// The first error of those that an administrator is told, each by its topic or group.
fn all(results: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> Outcome {
    for result in results {
        result.map_err(|(name, code)| format!("{name}: {code}"))?;
    }
    Ok(())
}

/// Tries again for ten seconds, as brokers may learn of a change a little later than it is acknowledged.
async fn eventually(mut check: impl AsyncFnMut() -> Outcome) -> Outcome {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        match check().await {
            Err(_) if tokio::time::Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(100)).await,
            outcome => return outcome,
        }
    }
}
