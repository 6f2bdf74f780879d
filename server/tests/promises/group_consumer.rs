//! Consumers in groups, through the client: they share partitions, take over from each other, and miss nothing, whoever is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, PipeWriter, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use headwater_client::{
    Client, CommittedOffset, Error, ErrorCode, GroupConsumer, GroupConsumerBuilder, Offset, PartitionIndex,
    RebalanceListener, TopicName,
};
use headwater_protocol::schema::{FindGroupRequestT, LeaveGroupRequestT, LeavingMemberT};
use rand::{RngExt as _, rngs::SmallRng};
use tokio::sync::{mpsc, watch};

use crate::support::{Broker, Raw, Seed, Site, batch, client_of, produce, run};

const TOPIC: &str = "work";
const GROUP: &str = "workers";

/// Longer than any test: what happens meanwhile is not because a session has ended.
const LONG: Duration = Duration::from_mins(10);

fn site() -> Site {
    Site::new()
        .set("groups.offsets_partitions", "4")
        .set("groups.session_timeout_ms_min", "100ms")
        .set("groups.initial_rebalance_delay_ms", "50ms")
}

/// Appends records to one partition.
async fn fill(site: &Site, client: &Client, partition: i32, records: usize) {
    let id = client.admin().describe_topic(TOPIC).await.unwrap().id;
    let mut raw = Raw::connect(site.address()).await;
    let values = vec![&b"value"[..]; records];
    let produced = raw.call(&produce(id, partition), &batch(&values)).await.produce();
    assert_eq!(produced.error, 0);
}

/// The partitions that a member has, as it is told.
struct Watch(watch::Sender<BTreeSet<i32>>);

impl Watch {
    fn change(&self, partitions: &[(TopicName, PartitionIndex)], change: impl Fn(&mut BTreeSet<i32>, i32)) {
        self.0.send_modify(|set| {
            for (_, partition) in partitions {
                change(set, partition.get());
            }
        });
    }
}

impl RebalanceListener for Watch {
    fn assigned(&self, partitions: &[(TopicName, PartitionIndex)]) {
        self.change(partitions, |set, partition| assert!(set.insert(partition)));
    }

    fn revoked(&self, partitions: &[(TopicName, PartitionIndex)]) {
        self.change(partitions, |set, partition| assert!(set.remove(&partition)));
    }
}

struct Member {
    consumer: GroupConsumer,
    partitions: watch::Receiver<BTreeSet<i32>>,
}

impl Member {
    async fn start(client: &Client, configure: impl FnOnce(GroupConsumerBuilder) -> GroupConsumerBuilder) -> Member {
        let (sender, partitions) = watch::channel(BTreeSet::new());
        let builder = client.group_consumer(GROUP).topics([TOPIC]).listener(Watch(sender));
        let builder = builder
            .session_timeout(LONG)
            .heartbeat_interval(Duration::from_millis(50));
        let consumer = configure(builder).build().await.unwrap();
        Member { consumer, partitions }
    }

    async fn has(&mut self, count: usize) -> BTreeSet<i32> {
        self.partitions
            .wait_for(|set| set.len() == count)
            .await
            .unwrap()
            .clone()
    }
}

#[test]
fn two_members_share_the_partitions_and_when_one_closes_the_other_takes_over_where_it_was() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 4).await;
        for partition in 0..4 {
            fill(&site, &client, partition, 3).await;
        }
        let mut first = Member::start(&client, |builder| builder).await;
        first.has(4).await;
        let mut second = Member::start(&client, |builder| builder).await;
        let theirs = second.has(2).await;
        let ours = first.has(2).await;
        assert!(ours.is_disjoint(&theirs), "{ours:?} {theirs:?}");
        let mut seen = BTreeMap::new();
        for _ in 0..5 {
            let record = first.consumer.recv().await.unwrap();
            assert!(ours.contains(&record.partition.get()), "{record:?}");
            assert!(seen.insert((record.partition, record.offset), "first").is_none());
        }
        first.consumer.close().await.unwrap();
        second.has(4).await;
        for _ in 0..7 {
            let record = second.consumer.recv().await.unwrap();
            let again = seen.insert((record.partition, record.offset), "second");
            assert_eq!(again, None, "received before by the {again:?}: {record:?}");
        }
        assert_eq!(seen.len(), 12);
        second.consumer.close().await.unwrap();
        assert!(
            client
                .admin()
                .groups()
                .lag(GROUP)
                .await
                .unwrap()
                .iter()
                .all(|lag| lag.lag() == Some(0))
        );
        broker.stop();
    });
}

#[test]
fn when_one_of_three_members_leaves_only_its_partitions_move() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 9).await;
        let mut members = Vec::new();
        for _ in 0..3 {
            members.push(Member::start(&client, |builder| builder).await);
        }
        let mut before = Vec::new();
        for member in &mut members {
            before.push(member.has(3).await);
        }
        let leaver = members.remove(1);
        let moved = before.remove(1);
        leaver.consumer.close().await.unwrap();
        // Each change is told, so that nothing can go and come back unseen.
        for (member, kept) in members.iter_mut().zip(&before) {
            loop {
                let now = member.partitions.borrow_and_update().clone();
                assert!(kept.is_subset(&now), "{kept:?} became {now:?}");
                assert!(
                    now.difference(kept).all(|partition| moved.contains(partition)),
                    "{now:?}"
                );
                if now.len() > 3 && client.admin().groups().describe(GROUP).await.unwrap().members.len() == 2 {
                    break;
                }
                member.partitions.changed().await.unwrap();
            }
        }
        broker.stop();
    });
}

#[test]
fn a_member_that_is_too_slow_is_told_once_and_another_takes_over() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 1).await;
        fill(&site, &client, 0, 2).await;
        let limit = Duration::from_millis(300);
        let mut slow = Member::start(&client, |builder| builder.max_poll_interval(limit)).await;
        let taken = slow.consumer.recv().await.unwrap();
        assert_eq!(taken.offset.get(), 0);
        let mut other = Member::start(&client, |builder| builder).await;
        other.has(1).await;
        let again = other.consumer.recv().await.unwrap();
        assert_eq!(again.offset.get(), 0, "what the slow one was at was not committed");
        other.consumer.close().await.unwrap();
        let told = slow.consumer.recv().await.unwrap_err();
        assert!(
            matches!(told, Error::PollIntervalExceeded { limit: told } if told == limit),
            "{told:?}"
        );
        assert!(slow.consumer.assignment().is_empty());
        let next = slow.consumer.recv().await.unwrap();
        assert_eq!(next.offset.get(), 1);
        broker.stop();
    });
}

#[test]
fn lost_partitions_are_told_once_and_before_any_other_record() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 1).await;
        fill(&site, &client, 0, 3).await;
        let mut member = Member::start(&client, |builder| builder.auto_commit(None)).await;
        assert_eq!(member.consumer.recv().await.unwrap().offset.get(), 0);
        member.consumer.commit().await.unwrap();
        assert_eq!(member.consumer.recv().await.unwrap().offset.get(), 1);
        member.partitions.mark_unchanged();
        expel_all(&site, &client).await;
        member.partitions.changed().await.unwrap();
        let told = member.consumer.recv().await.unwrap_err();
        let Error::PartitionsLost { partitions, code } = told else {
            panic!("{told:?}");
        };
        assert_eq!((partitions.len(), code), (1, ErrorCode::UnknownMemberId));
        // It has joined again, and what was not committed comes again.
        let record = member.consumer.recv().await.unwrap();
        assert_eq!(record.offset.get(), 1);
        broker.stop();
    });
}

/// Takes every member out of the group, as the end of their sessions would.
async fn expel_all(site: &Site, client: &Client) {
    let members = client
        .admin()
        .groups()
        .describe(GROUP)
        .await
        .unwrap()
        .members
        .into_iter();
    let mut raw = Raw::connect(site.address()).await;
    let find = FindGroupRequestT {
        group_id: Some(GROUP.to_owned()),
    };
    let found = raw.call(&find, &[]).await.find_group();
    let mut raw = Raw::connect((site.address().ip(), found.core_port).into()).await;
    let leaving = |id| LeavingMemberT {
        member_id: Some(id),
        instance_id: None,
        reason: None,
    };
    let request = LeaveGroupRequestT {
        group_id: Some(GROUP.to_owned()),
        members: Some(members.map(|member| leaving(member.member_id)).collect()),
    };
    assert_eq!(raw.call(&request, &[]).await.leave_group().error, 0);
}

#[test]
fn commits_are_of_what_was_received_and_a_paused_partition_waits() {
    run(async {
        let site = site();
        let broker = site.start();
        let client = site.client_with_topic(TOPIC, 2).await;
        fill(&site, &client, 0, 4).await;
        let index = PartitionIndex::new(0);
        let pattern = regex::Regex::new("^wo").unwrap();
        let consumer = client.group_consumer(GROUP).pattern(pattern).auto_commit(None);
        let mut consumer = consumer.build().await.unwrap();
        assert_eq!(consumer.committed(TOPIC, index).await.unwrap(), None);
        consumer.recv().await.unwrap();
        consumer.recv().await.unwrap();
        consumer.commit().await.unwrap();
        let committed = consumer.committed(TOPIC, index).await.unwrap().unwrap();
        assert_eq!(committed.offset.get(), 2);
        consumer.pause(TOPIC, index).unwrap();
        fill(&site, &client, 1, 1).await;
        assert_eq!(consumer.recv().await.unwrap().partition.get(), 1);
        assert_eq!(consumer.position(TOPIC, index).unwrap().get(), 2);
        consumer.resume(TOPIC, index).unwrap();
        assert_eq!(consumer.recv_batch().await.unwrap().first_offset().get(), 2);
        let later = consumer.commit_async();
        consumer
            .seek(TOPIC, index, headwater_client::Start::Earliest)
            .await
            .unwrap();
        later.await.unwrap();
        assert_eq!(consumer.recv().await.unwrap().offset.get(), 0);
        let committed = consumer.committed(TOPIC, index).await.unwrap().unwrap();
        assert_eq!(committed.offset.get(), 4);
        consumer.close().await.unwrap();
        broker.stop();
    });
}

// --- Members in processes of their own ------------------------------------------------------------------------------

const MEMBER: &str = "HEADWATER_TEST_MEMBER";

/// A member in a process of its own. Killed when it is dropped.
struct Process(Child);

impl Process {
    /// All members write to the same pipe, so that what they say has an order.
    fn start(site: &Site, name: &str, says: &PipeWriter) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "--nocapture", "group_consumer::a_member"]);
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
