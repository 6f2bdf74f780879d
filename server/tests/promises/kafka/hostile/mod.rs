//! Whatever comes to the listener for Kafka's clients is answered or ends its connection: no panic, memory stays bounded, and others are
//! served as if nothing were.
//!
//! `HEADWATER_FUZZ=1000000` holds so many conversations instead of a thousand. What they find belongs into `corpus`, whose every file is
//! what one client says.

mod conversation;
mod seeds;

use std::{collections::BTreeSet, fs, io::Write as _, net::SocketAddr, path::Path, time::Duration};

use futures::{StreamExt as _, stream};
use headwater_kafka::{
    ApiKey,
    messages::{ApiVersionsRequest, ApiVersionsResponse, MetadataRequest},
};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use self::seeds::Conversation;
use super::wire::{PORT, Wire, frame_of};
use crate::{
    bad_input::{FRAME_SIZE_MAX, Setting},
    support::{Seed, Site, run, run_within},
};

const CORPUS: &str = "tests/promises/kafka/hostile/corpus";

/// Conversations at once.
const TALKERS: u64 = 8;

/// Of a connection that waits: as of Headwater's own protocol.
const BYTES_PER_CONNECTION_MAX: u64 = 12 * 1024;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(CORPUS);
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let read = |path: std::path::PathBuf| (path.file_name().unwrap().display().to_string(), fs::read(path).unwrap());
    let mut corpus: Vec<_> = files.map(read).collect();
    corpus.sort();
    corpus
}

/// A broker with clients that behave, and a topic for those that do not.
struct Target {
    setting: Setting,
    beside: Wire,
    address: SocketAddr,
    topic: [u8; 16],
}

impl Target {
    async fn new(site: Site) -> Target {
        let setting = Setting::at(site).await;
        let mut beside = Wire::of(&setting.site).await;
        beside.create_topic("fuzz", 2, &[]).await;
        let topic = beside.topic("fuzz").await.topic_id;
        Target {
            address: (setting.site.address().ip(), PORT).into(),
            setting,
            beside,
            topic,
        }
    }

    /// Others are served.
    async fn goes_on(&mut self) {
        let hello = ApiVersionsRequest::default();
        let answer: ApiVersionsResponse<'_> = self.beside.ask(ApiKey::ApiVersions, 0, &hello).await;
        assert_eq!(answer.error_code, 0);
    }
}

#[test]
fn the_corpus_is_answered_or_refused_and_others_go_on() {
    run(async {
        let mut target = Target::new(Site::new().cores(1)).await;
        let (mut answered, mut refused) = (0, BTreeSet::new());
        for (name, bytes) in corpus() {
            let bytes = conversation::aimed(&bytes, target.topic);
            for piece in [usize::MAX, 7] {
                let (address, bytes) = (target.address, bytes.clone());
                let held = tokio::task::spawn_blocking(move || conversation::hold(address, &bytes, piece));
                match held.await.unwrap() {
                    0 => _ = refused.insert(name.clone()),
                    answers => answered += answers,
                }
            }
            target.goes_on().await;
        }
        // Of each api some, and what no client says none.
        assert!(answered > 300, "{answered} answers");
        assert!(
            refused.contains("size-negative") && refused.contains("http"),
            "{refused:?}"
        );
        assert!(refused.len() < 20, "{refused:?}");
        target.setting.end().await;
    });
}

/// Raises how many files this process and those that it starts may have open, to so many if it may; returns how many it is then, if
/// there is an end.
fn raise_open_files(wanted: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map(|most| most.max(wanted));
    let raised = |most| Rlimit {
        current: most,
        maximum: most,
    };
    if setrlimit(Resource::Nofile, raised(most)).is_ok() {
        return most;
    }
    // Only root may have more.
    setrlimit(Resource::Nofile, raised(limit.maximum)).unwrap();
    limit.maximum
}

/// With room for few partitions, and the files that they need.
fn few_partitions() -> Site {
    let site = Site::new().set("groups.offsets_partitions", "4");
    site.set("limits.partitions_max", "64")
        .set("limits.partitions_per_topic_max", "64")
}

/// What is written where a number might be.
const NUMBERS: [i32; 10] = [-1, -2, 0, 1, 2, 0x7f, 0xff, 0x7fff, i32::MAX, i32::MIN];

fn spoil(frame: &mut Vec<u8>, random: &mut SmallRng) {
    for _ in 0..random.random_range(1..=4) {
        if frame.is_empty() {
            return;
        }
        let at = random.random_range(0..frame.len());
        let until = random.random_range(at..=frame.len().min(at + 40));
        let number = NUMBERS[random.random_range(0..NUMBERS.len())].to_be_bytes();
        match random.random_range(0..8) {
            0 => frame[at] = random.random(),
            1 => frame[at] ^= 1 << random.random_range(0..8),
            2 => _ = frame.splice(at..frame.len().min(at + 4), number),
            3 => _ = frame.splice(at..frame.len().min(at + 2), [number[2], number[3]]),
            4 => _ = frame.drain(at..until),
            5 => {
                let again = frame[at..until].to_vec();
                frame.splice(at..at, again);
            }
            6 => frame.truncate(at),
            _ if frame.len() >= 8 => {
                frame[5] = random.random_range(0..100);
                frame[7] = random.random_range(0..20);
            }
            _ => {}
        }
    }
}

/// Some frames, one or the other of them spoilt, some of these with a size that is right all the same.
fn talk(frames: &[Vec<u8>], random: &mut SmallRng) -> Vec<u8> {
    let mut said = Vec::new();
    for _ in 0..random.random_range(1..=5) {
        let mut frame = frames[random.random_range(0..frames.len())].clone();
        if random.random_bool(0.7) {
            spoil(&mut frame, random);
            if random.random_bool(0.8) {
                frame = conversation::mended(&frame);
            }
        }
        said.extend_from_slice(&frame);
    }
    if random.random_bool(0.1) {
        said.truncate(random.random_range(0..=said.len()));
    }
    said
}

#[test]
fn no_conversation_at_all_harms_the_broker_or_others() {
    let mut seed = Seed::of("no_conversation_at_all_harms_the_broker_or_others");
    let conversations = seed.number("HEADWATER_FUZZ", 1_000);
    let limit = Duration::from_secs(100 + conversations / 50);
    run_within(limit, async {
        // What is made of topics by chance has its bounds.
        let site = few_partitions().cores(1).set("limits.partitions_per_topic_max", "16");
        let mut target = Target::new(site).await;
        let frames = |(_, bytes): (String, Vec<u8>)| {
            let bytes = conversation::aimed(&bytes, target.topic);
            let frames: Vec<_> = conversation::frames(&bytes).into_iter().map(<[u8]>::to_vec).collect();
            frames
        };
        let frames: Vec<Vec<u8>> = corpus().into_iter().flat_map(frames).collect();
        let mut random = seed.random();
        let mut talkers = JoinSet::new();
        for _ in 0..TALKERS {
            let (frames, address) = (frames.clone(), target.address);
            let mut random = SmallRng::seed_from_u64(random.random());
            talkers.spawn_blocking(move || {
                for _ in 0..conversations / TALKERS {
                    let piece = if random.random_bool(0.2) { 11 } else { usize::MAX };
                    conversation::hold(address, &talk(&frames, &mut random), piece);
                }
            });
        }
        while let Some(talked) = talkers.join_next().await {
            talked.unwrap();
            target.goes_on().await;
        }
        target.setting.end().await;
    });
}

#[test]
fn who_is_slow_to_speak_or_never_listens_takes_nothing_from_others() {
    run(async {
        let site = Site::new().set("limits.frame_wait_ms_max", "1s");
        let mut target = Target::new(site).await;
        // Each claims as much as a frame may have, and says little of it in a long time.
        let mut slow = JoinSet::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(target.address).await.unwrap();
            slow.spawn(async move {
                let claim = FRAME_SIZE_MAX.to_be_bytes();
                stream.write_all(&[&claim[..], &[0, 0, 0, 9]].concat()).await.unwrap();
                // Until the broker hangs up.
                while stream.write_all(&[0]).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
        // Each asks on and on, and reads no answer.
        let everything = frame_of(
            ApiKey::Metadata,
            9,
            1,
            &MetadataRequest {
                topics: None,
                ..MetadataRequest::default()
            },
        );
        let mut deaf = Vec::new();
        for _ in 0..4 {
            let mut stream = TcpStream::connect(target.address).await.unwrap();
            let asking = async {
                while stream.write_all(&everything).await.is_ok() {}
                panic!("it was hung up on");
            };
            let is_stuck = tokio::time::timeout(Duration::from_millis(500), asking).await.is_err();
            assert!(is_stuck, "what nobody reads is not answered for ever");
            deaf.push(stream);
        }
        target.goes_on().await;
        target.setting.others_go_on().await;
        target.setting.check_memory();
        // In its time each is hung up on.
        while let Some(ended) = slow.join_next().await {
            ended.unwrap();
        }
        drop(deaf);
        target.setting.end().await;
    });
}

#[test]
fn ten_thousand_connections_are_served_and_cost_little() {
    const NAME: &str = "ten_thousand_connections_are_served_and_cost_little";
    const WANTED: u64 = 10_000;
    // Each core takes its share, and the kernel deals connections out by chance: some more must be allowed.
    let allowed = |count: u64| count + count / 20;
    // A broker starts only with twice as many files as it may have connections, and some.
    let count =
        raise_open_files(2 * allowed(WANTED) + 1_000).map_or(WANTED, |most| WANTED.min((most - 1_000) / 2 * 20 / 21));
    if count < WANTED {
        let fewer = format!("{NAME} has {count} connections: a process may have too few files open (ulimit -Hn)\n");
        // Past the harness, which would keep it to itself.
        let _ = std::io::stderr().write_all(fewer.as_bytes());
    }
    run(async {
        let site = few_partitions().set("limits.connections_max", &allowed(count).to_string());
        let mut target = Target::new(site).await;
        let before = target.setting.broker.resident_bytes();
        let address = target.address;
        let connect = |_| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            ask(&mut stream).await;
            stream
        };
        let mut all: Vec<_> = stream::iter(0..count).map(connect).buffer_unordered(64).collect().await;
        let each = target.setting.broker.resident_bytes().saturating_sub(before) / count;
        assert!(
            each <= BYTES_PER_CONNECTION_MAX,
            "{each} bytes for each of {count} connections"
        );
        target.goes_on().await;
        target.setting.others_go_on().await;
        for stream in all.iter_mut().step_by(100) {
            ask(stream).await;
        }
        drop(all);
        target.setting.others_go_on().await;
        target.setting.broker.stop();
    });
}

async fn ask(stream: &mut TcpStream) {
    let hello = frame_of(ApiKey::ApiVersions, 0, 1, &ApiVersionsRequest::default());
    stream.write_all(&hello).await.unwrap();
    let mut size = [0; 4];
    stream.read_exact(&mut size).await.unwrap();
    let mut answer = vec![0; i32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..6], [0, 0, 0, 1, 0, 0]);
}

/// What is new in the seeds goes into the corpus by `HEADWATER_WRITE_CORPUS=1`.
#[test]
fn the_corpus_has_every_seed_as_it_would_be_made_now() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(CORPUS);
    let is_to_be_written = std::env::var_os("HEADWATER_WRITE_CORPUS").is_some();
    for (name, bytes) in seeds::all() as Vec<Conversation> {
        let path = directory.join(name);
        if is_to_be_written {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let there = fs::read(&path).unwrap_or_default();
        assert!(there == bytes, "{name} differs: HEADWATER_WRITE_CORPUS=1 writes it");
    }
}
