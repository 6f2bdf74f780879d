//! Members in processes of their own, which are killed, and the broker with them: others take over, and nothing is missed.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, PipeWriter, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use headwater_client::{CommittedOffset, Error, Offset, PartitionIndex, RebalanceListener, TopicName};
use rand::{RngExt as _, rngs::SmallRng};
use tokio::sync::mpsc;

use crate::{
    group_consumer::{GROUP, Member, TOPIC, fill, site},
    support::{Broker, Seed, Site, client_of, run},
};

const MEMBER: &str = "HEADWATER_TEST_MEMBER";

/// A member in a process of its own. Killed when it is dropped.
struct Process(Child);

impl Process {
    /// All members write to the same pipe, so that what they say has an order.
    fn start(site: &Site, name: &str, says: &PipeWriter) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "--nocapture", "group_kills::a_member"]);
        command.env(MEMBER, format!("{} {name}", site.address()));
        command.stdin(Stdio::null()).stdout(says.try_clone().unwrap());
        Process(command.spawn().unwrap())
    }

    fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Says when partitions come. One write each, which a pipe keeps whole.
struct Say(Arc<str>);

impl RebalanceListener for Say {
    fn assigned(&self, partitions: &[(TopicName, PartitionIndex)]) {
        for (_, partition) in partitions {
            say(&format!("begin {} {partition} 0", self.0));
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

#[test]
#[ignore = "the process of a member, which the other tests start"]
fn a_member() {
    let Ok(told) = std::env::var(MEMBER) else { return };
    let (address, name) = told.split_once(' ').unwrap();
    let (address, name): (SocketAddr, Arc<str>) = (address.parse().unwrap(), Arc::from(name));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if let Err(error) = runtime.block_on(member(address, &name)) {
        say(&format!("failed {name} 0 0 {error:?}"));
    }
}

async fn member(address: SocketAddr, name: &Arc<str>) -> Result<(), Error> {
    let client = client_of(address).await;
    let builder = client
        .group_consumer(GROUP)
        .topics([TOPIC])
        .listener(Say(Arc::clone(name)));
    let builder = builder
        .session_timeout(Duration::from_secs(2))
        .heartbeat_interval(Duration::from_millis(100));
    let commits_itself = name.len().is_multiple_of(2);
    let interval = (!commits_itself).then_some(Duration::from_millis(50));
    let mut consumer = builder.auto_commit(interval).build().await?;
    let mut since_commit = BTreeMap::new();
    loop {
        let record = match consumer.recv().await {
            Ok(record) => record,
            Err(error) if error.is_retriable() || matches!(error, Error::PartitionsLost { .. }) => {
                since_commit.clear();
                continue;
            }
            Err(error) => return Err(error),
        };
        // The work.
        tokio::time::sleep(Duration::from_micros(300)).await;
        say(&format!("record {name} {} {}", record.partition, record.offset));
        since_commit.insert(record.partition, record.offset.next());
        // Partitions that were revoked meanwhile are no longer this member's to commit.
        let held = consumer.assignment();
        since_commit.retain(|partition, _| held.iter().any(|(_, other)| other == partition));
        let is_time = commits_itself && since_commit.len() > 1 && record.offset.get() % 16 == 0;
        let offset = |(partition, offset): (&PartitionIndex, &Offset)| {
            CommittedOffset::new(record.topic.clone(), *partition, *offset)
        };
        let offsets: Vec<CommittedOffset> = since_commit.iter().map(offset).collect();
        if is_time && consumer.commit_offsets(&offsets).await.is_ok() {
            for (partition, offset) in std::mem::take(&mut since_commit) {
                say(&format!("commit {name} {partition} {offset}"));
            }
        }
    }
}

/// What members have said, in order.
#[derive(Default)]
struct Book {
    seen: BTreeMap<(i32, u64), u32>,
    /// What was known to be committed when a member began with a partition.
    began: BTreeMap<(String, i32), u64>,
    committed: BTreeMap<i32, u64>,
    duplicates: u32,
}

impl Book {
    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let [
            what @ ("begin" | "record" | "commit" | "failed"),
            name,
            partition,
            offset,
            ..,
        ] = words[..]
        else {
            return;
        };
        assert_ne!(what, "failed", "{line}");
        let (partition, offset): (i32, u64) = (partition.parse().unwrap(), offset.parse().unwrap());
        let stay = (name.to_owned(), partition);
        match what {
            "begin" => {
                let committed = self.committed.get(&partition).copied().unwrap_or(0);
                self.began.insert(stay, committed);
            }
            "commit" => {
                let committed = self.committed.entry(partition).or_default();
                *committed = offset.max(*committed);
            }
            _ => {
                let from = self.began.get(&stay).copied().unwrap_or(0);
                assert!(offset >= from, "{line}: committed up to {from} before it began");
                let times = self.seen.entry((partition, offset)).or_default();
                *times += 1;
                self.duplicates += u32::from(*times > 1);
            }
        }
    }
}

/// Passes on what is said in a pipe.
fn listen(reader: std::io::PipeReader) -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[test]
fn when_a_member_is_killed_another_takes_over_after_its_session() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 2).await;
        for partition in 0..2 {
            fill(&site, &client, partition, 1).await;
        }
        let (reader, says) = std::io::pipe().unwrap();
        let mut lines = listen(reader);
        let mut book = Book::default();
        let victim = Process::start(&site, "victim", &says);
        while book.seen.len() < 2 {
            book.note(&lines.recv().await.unwrap());
        }
        let mut survivor = Member::start(&client, |builder| builder).await;
        let kept = survivor.has(1).await;
        victim.kill();
        let all = survivor.has(2).await;
        assert!(kept.is_subset(&all));
        broker.stop();
    });
}

const PARTITIONS: i32 = 4;
const RECORDS_PER_PARTITION: u64 = 1_500;

#[test]
fn every_record_is_processed_at_least_once_whoever_is_killed() {
    const NAME: &str = "every_record_is_processed_at_least_once_whoever_is_killed";
    let mut seed = Seed::of(NAME);
    let kills = seed.number("HEADWATER_GROUP_KILLS", 8);
    run(async {
        let mut random = seed.random();
        let site = site();
        let mut broker = site.start();
        let client = site.client_with_topic(TOPIC, PARTITIONS).await;
        let (reader, says) = std::io::pipe().unwrap();
        let mut lines = listen(reader);
        // Names of both lengths: members of the one commit themselves.
        let mut names = (0..).map(|number: u32| format!("m{number:0width$}", width = 3 + number as usize % 2));
        let mut members: Vec<Process> = (&mut names)
            .take(3)
            .map(|name| Process::start(&site, &name, &says))
            .collect();
        let mut book = Book::default();
        let mut filled = 0;
        for round in 0..=kills {
            let goal = RECORDS_PER_PARTITION * (round + 1) / (kills + 1);
            for partition in 0..PARTITIONS {
                fill(&site, &client, partition, (goal - filled) as usize).await;
            }
            filled = goal;
            if round < kills {
                // Somewhere in the middle of what there is.
                let part = random.random_range(0.2..0.9);
                let until = (part * (goal * PARTITIONS as u64) as f64) as usize;
                await_records(&mut lines, &mut book, until).await;
                broker = kill_somebody(&site, broker, &mut members, &mut random, &mut || {
                    Process::start(&site, &names.next().unwrap(), &says)
                });
            }
        }
        let all = RECORDS_PER_PARTITION as usize * PARTITIONS as usize;
        await_records(&mut lines, &mut book, all).await;
        assert_eq!(book.seen.len(), all);
        drop(members);
        broker.stop();
    });
}

async fn await_records(lines: &mut mpsc::UnboundedReceiver<String>, book: &mut Book, count: usize) {
    while book.seen.len() < count {
        let line = tokio::time::timeout(Duration::from_mins(1), lines.recv()).await;
        let line = line.unwrap_or_else(|_elapsed| {
            let mut missing = vec![0; PARTITIONS as usize];
            book.seen
                .keys()
                .for_each(|(partition, _)| missing[*partition as usize] += 1);
            panic!("records are not processed; of each partition there were {missing:?}")
        });
        book.note(&line.unwrap());
    }
}

/// A member, which is replaced, or the broker, which is started again.
fn kill_somebody(
    site: &Site,
    broker: Broker,
    members: &mut Vec<Process>,
    random: &mut SmallRng,
    start: &mut dyn FnMut() -> Process,
) -> Broker {
    if random.random_ratio(1, 3) {
        broker.kill();
        return site.start();
    }
    let victim = random.random_range(0..members.len());
    members.swap_remove(victim).kill();
    members.push(start());
    broker
}
