//! The command `churn`: guests that come and go in every way, and whether what the broker holds for them stays the same.
//!
//! ```text
//! rounds of guests -> once they are gone: the broker's metrics -> a level of each quantity -> flat, or it grows
//! ```
//! What grows by a little with each guest that has left ends a broker after weeks; no other measurement sees it.

mod guests;
mod levels;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use headwater_client::{Client, Error, ErrorCode, NewTopic};
use indicatif::ProgressBar;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::brokers::Purpose;
use crate::brokers::embedded::Embedded;
use crate::cli::{BrokerArgs, Output};
use crate::environment::Environment;
use crate::error::BenchError;
use crate::progress;
use crate::run::until_interrupted;
use crate::stages::Scrape;
use guests::{Guest, Place};
use levels::{Level, Levels};

/// What `--help` says.
pub const LONG_ABOUT: &str = "\
Sends guests to a broker in this process, or with --server to a running one, round after round: connections that say nothing or
half a word, consumers that are gone while they wait for records, readers that leave in the middle, producers with bursts that
roll segments, members of groups that leave or die, topics that are made and deleted. At the end of each round, when the
connections are gone, it looks at what the broker holds: memory, descriptors, threads, tasks, buffers.

A quantity is flat if the median of the last quarter of the rounds is no higher than that of the second quarter, give or take what
the table says is allowed; the first quarter is for caches to fill, and one that has a budget may fill it at any time. Exit status 3 if one of them grows. Ten minutes are the
default; after a few rounds nothing can be said. With a broker in this process, its memory is that of the bench as well.

What a broker keeps on purpose grows too, within its configuration: each burst comes from a new producer, which a partition
remembers for producers.expiry_ms.";

/// Fewer rounds than this say nothing.
const ROUNDS_MIN: usize = 8;

/// How long the connections of a round may take to be gone.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);

/// Errors that are told apart.
const ERRORS_MAX: usize = 8;

/// How often it is looked whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The topics that last: of bursts, whose segments roll and are deleted; and one that is written once, for those who wait.
const BURSTS: &str = "churn-bursts";
const QUIET: &str = "churn-quiet";

/// Options of `churn`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct ChurnArgs {
    /// Address of a running broker [default: a broker in this process]; its topics churn-* are made and deleted
    #[arg(long, visible_alias = "bootstrap", value_name = "HOST:PORT", requires = "metrics")]
    server: Option<String>,
    /// Address of the running broker's metrics, such as localhost:9644
    #[arg(long, value_name = "HOST:PORT", requires = "server")]
    metrics: Option<String>,
    /// The broker in this process.
    #[command(flatten)]
    #[serde(flatten)]
    broker: BrokerArgs,
    /// How long guests come and go
    #[arg(long, alias = "duration", default_value_t = 600.0, value_parser = seconds)]
    seconds: f64,
    /// Guests at once in each round
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    guests: u16,
    /// Partitions of each of the two topics that last
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: u32,
    /// Which guests come when; the same number brings the same ones
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What to print on standard output
    #[arg(long, value_enum, default_value_t)]
    #[serde(skip)]
    output: Output,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("a number of seconds ({error})"))?;
    if (1.0..=1e6).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("it must be from 1 to 1000000".to_owned())
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Churn {
    workload: &'static str,
    rounds: usize,
    seconds: f64,
    /// How many of each kind have come.
    guests: Vec<(Guest, u64)>,
    /// How many have met an error, by what it said.
    errors: BTreeMap<String, u64>,
    /// How long after the last guest of a round its connections were gone, at most.
    settled_ms_max: u64,
    levels: Vec<Level>,
    config: ChurnArgs,
    environment: Environment,
    notes: Vec<String>,
}

/// Sends the guests.
pub fn run(args: &ChurnArgs, runtime: &Runtime) -> Result<Churn, BenchError> {
    let mut embedded = match &args.server {
        Some(_) => None,
        None => Some(Embedded::start(
            &broker_args(args),
            Purpose {
                partitions: args.partitions,
                is_kafka: false,
            },
        )?),
    };
    let address = match (&embedded, &args.server) {
        (Some(broker), _) => broker.address(),
        (None, server) => server.clone().unwrap_or_default(),
    };
    let metrics = match &embedded {
        Some(broker) => broker.metrics_address(),
        None => args.metrics.clone(),
    };
    let metrics = metrics.ok_or_else(|| BenchError::Options("churn needs the broker's metrics".to_owned()))?;
    let churn = until_interrupted(runtime, churn(args, &address, &metrics));
    if let Some(broker) = &mut embedded {
        broker.stop()?;
    }
    churn
}

/// What is deleted is looked for often, so that there is much to be given back.
fn broker_args(args: &ChurnArgs) -> BrokerArgs {
    let often = ("log.retention_check_interval_ms".to_owned(), "1s".to_owned());
    let mut broker = args.broker.clone();
    broker.set.insert(0, often);
    broker
}

async fn churn(args: &ChurnArgs, address: &str, metrics: &str) -> Result<Churn, BenchError> {
    let client = Client::connect(address).await;
    let client = client.map_err(BenchError::client("cannot connect"))?;
    make_topics(&client, args.partitions).await?;
    let place = Place {
        address: address.to_owned(),
        partitions: args.partitions,
    };
    let bar = progress::show(
        ProgressBar::new((args.seconds * 1e3) as u64),
        "churn {bar:40} {percent:>3}% {msg}",
    );
    let mut random = SmallRng::seed_from_u64(args.seed);
    let mut levels = Levels::new(look(metrics).await?);
    let mut counts = Guest::ALL.map(|guest| (guest, 0));
    let (mut errors, mut settled_max) = (BTreeMap::new(), Duration::ZERO);
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < args.seconds {
        let mut round = tokio::task::JoinSet::new();
        for _ in 0..args.guests {
            let (guest, count) = &mut counts[random.random_range(0..Guest::ALL.len())];
            *count += 1;
            round.spawn(guest.visit(place.clone(), random.random()));
        }
        for visit in round.join_all().await {
            if let Err(error) = visit {
                let text = error.to_string();
                let is_new = !errors.contains_key(&text);
                let text = if is_new && errors.len() >= ERRORS_MAX {
                    "others".to_owned()
                } else {
                    text
                };
                *errors.entry(text).or_default() += 1;
            }
        }
        let left = Instant::now();
        let seen = settled(metrics, &levels, left + SETTLED_WITHIN).await?;
        settled_max = settled_max.max(left.elapsed());
        levels.add(&seen);
        bar.set_position(began.elapsed().as_millis() as u64);
        bar.set_message(format!("{} rounds", levels.rounds()));
    }
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    if args.server.is_some() {
        remove_topics(&client).await?;
    }
    let environment = Environment::look(args.broker.data_dir.as_deref());
    let mut notes = Vec::new();
    if levels.rounds() < ROUNDS_MIN {
        notes.push(format!("fewer than {ROUNDS_MIN} rounds say nothing: raise --seconds"));
    }
    if !environment.optimised {
        notes.push("built without optimisation: build with --release".to_owned());
    }
    Ok(Churn {
        workload: "churn",
        rounds: levels.rounds(),
        seconds,
        guests: counts.to_vec(),
        errors,
        settled_ms_max: settled_max.as_millis() as u64,
        levels: levels.judge(ROUNDS_MIN),
        config: args.clone(),
        environment,
        notes,
    })
}

/// The broker's metrics once no more connections are open than at the start; those at the end of the time in any case, and then they
/// show it.
async fn settled(metrics: &str, levels: &Levels, until: Instant) -> Result<Scrape, BenchError> {
    loop {
        let seen = look(metrics).await?;
        if levels.is_settled(&seen) || Instant::now() >= until {
            return Ok(seen);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(metrics: &str) -> Result<Scrape, BenchError> {
    let address = metrics.to_owned();
    let looked = tokio::task::spawn_blocking(move || Scrape::fetch(&address)).await;
    let looked = looked.map_err(|error| BenchError::Threads(error.into()))?;
    looked.map_err(|error| BenchError::Options(error.to_string()))
}

async fn make_topics(client: &Client, partitions: u32) -> Result<(), BenchError> {
    let topic = |name| NewTopic::new(name).partitions(partitions.cast_signed());
    let bursts = topic(BURSTS)
        .config("segment.bytes", "1048576")
        .config("retention.bytes", "4194304");
    for topic in [bursts, topic(QUIET)] {
        match client.admin().create_topic(topic).await {
            Ok(_) => {}
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
            Err(error) => return Err(BenchError::client("cannot make a topic")(error)),
        }
    }
    let written = guests::write_everywhere(client, QUIET, partitions).await;
    written.map_err(BenchError::client("cannot write to a topic"))
}

async fn remove_topics(client: &Client) -> Result<(), BenchError> {
    let admin = client.admin();
    let ours = |error: Error| BenchError::client("cannot remove a topic")(error);
    for topic in admin.topics().await.map_err(ours)? {
        if topic.name.as_str().starts_with("churn-") {
            admin.delete_topic(topic.name.as_str()).await.map_err(ours)?;
        }
    }
    Ok(())
}

impl Churn {
    /// Whether something grows.
    pub fn grows(&self) -> bool {
        self.levels.iter().any(|level| level.is_flat == Some(false))
    }

    /// What is printed, as one line.
    pub fn json(&self) -> serde_json::Value {
        crate::run::config_of(self)
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = crate::report::text::Text::for_output();
        text.table(levels::table(&self.levels));
        text.gap();
        let came: Vec<_> = self
            .guests
            .iter()
            .map(|(guest, count)| format!("{count} {guest}"))
            .collect();
        let came = came.join(", ");
        text.line(
            "guests",
            &format!("{came}; in {} rounds, {:.0} s", self.rounds, self.seconds),
        );
        text.line(
            "settled",
            &format!("within {} ms of the last guest of a round", self.settled_ms_max),
        );
        for (error, count) in &self.errors {
            text.line("met", &format!("{count} times: {error}"));
        }
        for note in &self.notes {
            text.line("note", note);
        }
        let verdict = match (self.grows(), self.rounds < ROUNDS_MIN) {
            (_, true) => "nothing can be said of so few rounds",
            (true, false) => "something grows with guests that are gone",
            (false, false) => "flat: what guests took was given back",
        };
        text.line("verdict", verdict);
        text.finish()
    }

    /// Where it is printed, and how.
    pub fn output(&self) -> Output {
        self.config.output
    }
}
