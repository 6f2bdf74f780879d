//! Groups: two members of which one is killed, and one that goes on where they have committed.

use std::{
    collections::{BTreeMap, HashSet},
    env,
    process::Stdio,
    time::Duration,
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer as _, StreamConsumer},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, timeout},
};

use crate::{
    Outcome, PARTITIONS, Scenario, WAIT, ensure, eventually,
    records::{self, read, receive},
};

impl Scenario {
    /// A member of the group that loses its place after 6 s of silence, and commits only when it is asked to.
    fn member(&self) -> Outcome<StreamConsumer> {
        let mut settings = self.settings();
        settings
            .set("group.id", &self.group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false");
        settings
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500");
        let member: StreamConsumer = settings.create()?;
        member.subscribe(&[&self.topic])?;
        Ok(member)
    }

    /// The other member, in a process of its own, which has read something; and what it says, which must have somewhere to go.
    async fn other_member(&self) -> Outcome<(Child, Lines<BufReader<ChildStdout>>)> {
        let prefix = self.group.trim_end_matches("-group");
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["member", &self.bootstrap, prefix])
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut other = command.spawn()?;
        let mut lines = BufReader::new(other.stdout.take().ok_or("it has no output")?).lines();
        let said = timeout(2 * WAIT, lines.next_line()).await??;
        ensure!(said.as_deref() == Some("record"), "the other member said {said:?}");
        Ok((other, lines))
    }

    /// Kills the other member: this one gets its partitions, and reads all that was not committed.
    pub async fn consume_in_group(&mut self) -> Outcome {
        let (mut other, _lines) = self.other_member().await?;
        let member = self.member()?;
        let (mut seen, mut next) = (HashSet::new(), BTreeMap::new());
        let (mut owned, mut shared) = (0, false);
        let deadline = Instant::now() + Duration::from_secs(30);
        while owned < PARTITIONS as usize || seen.len() < self.sent.len() {
            if let Some(message) = records::next(&member, Duration::from_millis(200)).await? {
                seen.insert(read(&message).id);
                // Of a partition that came back some are read again.
                let next: &mut i64 = next.entry(message.partition()).or_default();
                *next = (*next).max(message.offset() + 1);
            }
            owned = member.assignment()?.count();
            if !shared && (1..PARTITIONS as usize).contains(&owned) {
                shared = true;
                other.kill().await?;
            }
            ensure!(
                Instant::now() < deadline,
                "{} of {} records, {owned} partitions",
                seen.len(),
                self.sent.len()
            );
        }
        ensure!(shared, "the two members never shared the partitions");
        ensure!(
            self.sent.iter().all(|id| seen.contains(id)),
            "other records than were sent"
        );
        let mut done = TopicPartitionList::new();
        for (partition, offset) in next {
            done.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        Ok(member.commit(&done, CommitMode::Sync)?)
    }

    /// Writes one more record: a new member sees this one, and none that was committed.
    pub async fn resume(&mut self) -> Outcome {
        let producer: FutureProducer = self.settings().create()?;
        let id = Header {
            key: "id",
            value: Some("resume-000"),
        };
        let record = FutureRecord::<str, _>::to(&self.topic)
            .payload("more")
            .headers(OwnedHeaders::new().insert(id));
        producer.send(record, WAIT).await.map_err(|(error, _)| error)?;
        let member = self.member()?;
        let message = receive(&member).await?;
        ensure!(
            read(&message).id == "resume-000",
            "{} was read again",
            read(&message).id
        );
        Ok(member.commit_message(&message, CommitMode::Sync)?)
    }

    pub async fn groups(&mut self) -> Outcome {
        let member: StreamConsumer = self.settings().set("group.id", &self.group).create()?;
        let listed = member.fetch_group_list(None, WAIT)?;
        let times = listed
            .groups()
            .iter()
            .filter(|group| group.name() == self.group)
            .count();
        // All brokers were asked; one of them has the group.
        ensure!(times == 1, "{} is listed {times} times", self.group);
        eventually(async || {
            let described = member.fetch_group_list(Some(&self.group), WAIT)?;
            let state = described.groups().first().map(|group| group.state().to_owned());
            ensure!(state.as_deref() == Some("Empty"), "its state is {state:?}");
            Ok(())
        })
        .await?;
        let committed = member.committed_offsets(self.partitions(|_| Offset::Invalid)?, WAIT)?;
        for partition in committed.elements() {
            let (_, end) = member.fetch_watermarks(&self.topic, partition.partition(), WAIT)?;
            ensure!(
                partition.offset() == Offset::Offset(end),
                "{partition:?} has its end at {end}"
            );
        }
        Ok(())
    }
}

/// Says "record" for each that it reads until it is killed.
pub async fn be_the_other_member(scenario: &Scenario) {
    let member = match scenario.member() {
        Ok(member) => member,
        Err(why) => return println!("{why}"),
    };
    loop {
        match member.recv().await {
            Ok(_) => println!("record"),
            Err(error) => eprintln!("{error}"),
        }
    }
}
