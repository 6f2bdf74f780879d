//! The workloads: which producers and consumers run at once, and what is measured of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::setting::Setting;
use super::{Workload, mixed, until_interrupted};
use crate::cli::ConsumeArgs;
use crate::error::BenchError;
use crate::load::clock::Moment;
use crate::load::consume::{self, Consumed, End, Timed};
use crate::load::meter::Meter;
use crate::load::produce::{self, Produced};
use crate::progress::{Goal, Progress};
use crate::report::{Phase, Run};
use crate::target::{Position, Span, Target};
use crate::workload::{Damage, Expectation, StreamId};

/// Why a consume has no latency.
const STORED: &str =
    "consume reads what was stored before, as fast as it comes: the time since a record was sent says nothing";

/// How much is filled in to be read from the disk, if nothing is said.
const COLD_BYTES: u64 = 4 << 30;

/// Runs a workload once.
pub fn run<T: Target>(workload: &Workload, setting: &mut Setting<'_>) -> Result<Run, BenchError> {
    let done = match workload {
        Workload::Quick => quick::<T>(setting),
        Workload::Produce => produce::<T>(setting),
        Workload::Consume(args) if setting.run.place.topic.is_some() => existing::<T>(setting, args),
        Workload::Consume(args) => filled::<T>(setting, args),
        Workload::EndToEnd(consumers) => end_to_end::<T>(setting, *consumers),
        Workload::Mixed(args) => mixed::run::<T>(setting, args),
    }?;
    setting.clean_up::<T>()?;
    Ok(done)
}

/// A run of these parts.
pub fn done(phases: Vec<Phase>) -> Run {
    Run {
        phases,
        shares: Vec::new(),
        limits: None,
        beside: None,
        cost: None,
        stages: Vec::new(),
        notes: Vec::new(),
    }
}

fn quick<T: Target>(setting: &mut Setting<'_>) -> Result<Run, BenchError> {
    let plan = setting.plan(false)?;
    let gauge = setting.watch();
    let (phase, produced, consume) = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let (phase, produced) = produce_phase(&target, setting, &plan).await?;
        let expectation = Expectation::Exactly(produced.acknowledged.clone());
        let consume = read_all(&target, setting, expectation, 1, phase.bytes).await?;
        Ok((phase, produced, consume))
    })?;
    let bytes = produced.bytes + consume.bytes;
    let mut done = done(vec![phase.behind(&produced.behind), consume]);
    gauge.finish(&mut done, bytes);
    done.notes.extend(setting.schedule_note(done.main()));
    Ok(done)
}

fn produce<T: Target>(setting: &mut Setting<'_>) -> Result<Run, BenchError> {
    let plan = setting.plan(false)?;
    let gauge = setting.watch();
    let (phase, produced) = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        produce_phase(&target, setting, &plan).await
    })?;
    let mut done = done(vec![phase.behind(&produced.behind)]);
    gauge.finish(&mut done, produced.bytes);
    done.notes.extend(setting.schedule_note(done.main()));
    Ok(done)
}

/// Produces as the options say, with a progress bar.
async fn produce_phase<T: Target>(
    target: &T,
    setting: &Setting<'_>,
    plan: &produce::Plan,
) -> Result<(Phase, Produced), BenchError> {
    let progress = Progress::start("produce", setting.goal());
    let meter = Meter::new("produce", progress.counter());
    let sampler = setting.sampler(&[&meter]);
    let produced = produce::run(target, plan, &[Arc::clone(&meter)]).await?;
    drop(sampler);
    Ok((Phase::new("produce", meter.finish(), setting.produce_note()), produced))
}

/// Fills the topic with so many bytes of values, as fast as it goes; nothing is reported of it.
pub async fn fill<T: Target>(
    target: &T,
    setting: &Setting<'_>,
    bytes: u64,
) -> Result<HashMap<StreamId, u64>, BenchError> {
    let progress = Progress::start("fill", Goal::Bytes(bytes));
    let mut plan = setting.plan(false)?;
    plan.load.bytes = Some(bytes);
    plan.load.rate = None;
    let meter = Meter::new("fill", progress.counter());
    Ok(produce::run(target, &plan, &[meter]).await?.acknowledged)
}

/// Reads what is in the topic with so many consumers, each of which reads everything.
async fn read_all<T: Target>(
    target: &T,
    setting: &Setting<'_>,
    expectation: Expectation,
    consumers: u16,
    bytes: u64,
) -> Result<Phase, BenchError> {
    let spans = target.spans(&setting.topic).await?;
    let progress = Progress::start("consume", Goal::Bytes(bytes.saturating_mul(u64::from(consumers))));
    let meter = Meter::new("consume", progress.counter());
    let sampler = setting.sampler(&[&meter]);
    let plan = setting.reader(starts(&spans), expectation, Timed::None);
    let damage = read_once(target, &plan, &meter, &spans, consumers).await?;
    drop(sampler);
    Ok(Phase::new("consume", meter.finish(), STORED).verified(damage))
}

/// The first positions of all partitions.
pub fn starts(spans: &[Span]) -> Vec<Position> {
    spans.iter().map(|span| span.start).collect()
}

/// The last positions of all partitions.
pub fn ends(spans: &[Span]) -> Vec<Position> {
    spans.iter().map(|span| span.end).collect()
}

/// Every consumer reads from its start to the end of the spans. The meter is opened when the first one is ready.
pub async fn read_once<T: Target>(
    target: &T,
    plan: &consume::Plan,
    meter: &Arc<Meter>,
    spans: &[Span],
    consumers: u16,
) -> Result<Option<Damage>, BenchError> {
    let (_tell, end) = watch::channel(End::At(ends(spans), None));
    let mut threads = Vec::new();
    meter.open(Moment::now());
    for _ in 0..consumers {
        threads.push(consume::start(target, plan.clone(), Arc::clone(meter), end.clone()).await?);
    }
    let mut damage = None;
    for thread in threads {
        let consumed = consume::join(thread).await?;
        damage = add(damage, consumed.damage);
    }
    Ok(damage)
}

/// Both together.
pub fn add(a: Option<Damage>, b: Option<Damage>) -> Option<Damage> {
    match (a, b) {
        (Some(a), Some(b)) => Some(Damage {
            lost: a.lost + b.lost,
            duplicated: a.duplicated + b.duplicated,
            reordered: a.reordered + b.reordered,
            corrupt: a.corrupt + b.corrupt,
        }),
        (a, b) => a.or(b),
    }
}

/// Consumes what is in the topic that the options name.
fn existing<T: Target>(setting: &mut Setting<'_>, args: &ConsumeArgs) -> Result<Run, BenchError> {
    let gauge = setting.watch();
    let phase = until_interrupted_unless(args.follow, setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let spans = target.spans(&setting.topic).await?;
        let is_whole = spans.iter().all(|span| span.start == Position::default());
        let expectation = if is_whole {
            Expectation::FromTheFirst
        } else {
            Expectation::FromAnywhere
        };
        let mut plan = setting.reader(starts(&spans), expectation, Timed::None);
        plan.verify = plan.verify.filter(|_| args.verify);
        let progress = Progress::start("consume", Goal::None);
        let meter = Meter::new("consume", progress.counter());
        let sampler = setting.sampler(&[&meter]);
        let first = if args.follow {
            End::Open
        } else {
            End::At(ends(&spans), None)
        };
        let (tell, end) = watch::channel(first);
        meter.open(Moment::now());
        let mut threads = Vec::new();
        for _ in 0..args.consumers {
            threads.push(consume::start(&target, plan.clone(), Arc::clone(&meter), end.clone()).await?);
        }
        if args.follow {
            tokio::signal::ctrl_c().await.map_err(BenchError::Threads)?;
            let _ = tell.send(End::Now);
        }
        let mut found = Vec::new();
        for thread in threads {
            found.push(consume::join(thread).await?);
        }
        drop(sampler);
        let measured = meter.finish();
        let damage = account(&found, args, measured.records / u64::from(args.consumers));
        Ok(Phase::new("consume", measured, STORED).verified(damage))
    })?;
    let bytes = phase.bytes;
    let mut done = done(vec![phase]);
    gauge.finish(&mut done, bytes);
    Ok(done)
}

/// What all consumers found, given how many records there should be.
fn account(found: &[Consumed], args: &ConsumeArgs, records: u64) -> Option<Damage> {
    let each = found.iter().map(|consumed| {
        let mut damage = consumed.damage?;
        if let Some(expected) = args.expect_records {
            let seen = records.saturating_sub(damage.duplicated) + consumed.unreadable;
            damage.lost = damage.lost.max(expected.saturating_sub(seen));
        }
        Some(damage)
    });
    each.fold(None, add)
}

/// Fills a topic, then reads it: once from the disk, or over and over from memory.
fn filled<T: Target>(setting: &mut Setting<'_>, args: &ConsumeArgs) -> Result<Run, BenchError> {
    let load = &setting.run.load;
    let broker = &setting.run.place.broker;
    // So that the oldest record is still in the buffer when the last one has been written.
    let hot = broker.tail_buffer / 2;
    let bytes = load
        .bytes
        .unwrap_or(if args.cold { COLD_BYTES } else { hot })
        .min(setting.host.room()?);
    let acknowledged = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        fill(&target, setting, bytes).await
    })?;
    if args.cold {
        setting.host.restart_cold()?;
    }
    let gauge = setting.watch();
    let expectation = Expectation::Exactly(acknowledged);
    let phase = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let time = load.duration().filter(|_| !args.cold);
        match time {
            Some(time) => read_for(&target, setting, &expectation, args.consumers, time).await,
            None => read_all(&target, setting, expectation, args.consumers, bytes).await,
        }
    })?;
    let through = phase.bytes;
    let mut done = done(vec![phase]);
    gauge.finish(&mut done, through);
    if !args.cold && bytes > hot {
        done.notes.push(format!(
            "{} MB were read, more than half of --tail-buffer: part of it may come from the disk",
            bytes / 1_000_000
        ));
    }
    Ok(done)
}

/// Reads everything over and over until the time is over.
async fn read_for<T: Target>(
    target: &T,
    setting: &Setting<'_>,
    expectation: &Expectation,
    consumers: u16,
    time: Duration,
) -> Result<Phase, BenchError> {
    let spans = target.spans(&setting.topic).await?;
    let progress = Progress::start("consume", Goal::Time(time));
    let meter = Meter::new("consume", progress.counter());
    let sampler = setting.sampler(&[&meter]);
    let started = Moment::now();
    let mut damage = None;
    while damage.is_none() || Moment::now().since(started) < time {
        let plan = setting.reader(starts(&spans), expectation.clone(), Timed::None);
        let found = read_once(target, &plan, &meter, &spans, consumers).await?;
        damage = add(damage, found);
    }
    drop(sampler);
    Ok(Phase::new("consume", meter.finish(), STORED).verified(damage))
}

fn end_to_end<T: Target>(setting: &mut Setting<'_>, consumers: u16) -> Result<Run, BenchError> {
    let gauge = setting.watch();
    let (mut phases, bytes) = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let readers = Readers {
            tail: ("end_to_end", consumers),
            group: ("group", 0),
        };
        produce_and_read(&target, setting, "produce", readers).await
    })?;
    let schedule = setting.schedule_note(&phases[0]);
    // It is about what the consumers see.
    phases.reverse();
    let mut done = done(phases);
    gauge.finish(&mut done, bytes);
    done.notes.extend(schedule);
    Ok(done)
}

/// Who reads what is produced as it comes: how they are called in the report, and how many there are.
#[derive(Debug, Clone, Copy)]
pub struct Readers {
    /// Consumers that read everything, each.
    pub tail: (&'static str, u16),
    /// Members of a group that share it.
    pub group: (&'static str, u16),
}

/// Producers, and consumers at the tail: the phase of the producers, and of each kind of consumers that there is; and how
/// many bytes were produced, those of the warm-up too, which cost as much. The topic must be ours, or empty.
pub async fn produce_and_read<T: Target>(
    target: &T,
    setting: &Setting<'_>,
    name: &'static str,
    readers: Readers,
) -> Result<(Vec<Phase>, u64), BenchError> {
    let plan = setting.plan(true)?;
    target.ensure_topic(&setting.topic, setting.run.load.partitions).await?;
    let spans = target.spans(&setting.topic).await?;
    let progress = Progress::start(name, setting.goal());
    let acks = Meter::new(name, progress.counter());
    let (tell, end) = watch::channel(End::Open);
    let (tail, group) = (readers.tail, readers.group);
    let mut kinds = Vec::new();
    if tail.1 > 0 {
        kinds.push((Meter::new(tail.0, Arc::default()), target.clone(), tail.1));
    }
    if group.1 > 0 {
        kinds.push((Meter::new(group.0, Arc::default()), target.clone().grouped(group.1)?, 1));
    }
    let mut threads = Vec::new();
    for (meter, target, consumers) in &kinds {
        for _ in 0..*consumers {
            let reader = setting.reader(ends(&spans), Expectation::FromTheFirst, setting.tail_timed());
            let thread = consume::start(target, reader, Arc::clone(meter), end.clone()).await?;
            threads.push((meter.name, thread));
        }
    }
    let mut meters = vec![Arc::clone(&acks)];
    meters.extend(kinds.iter().map(|(meter, ..)| Arc::clone(meter)));
    let sampler = setting.sampler(&meters.iter().collect::<Vec<_>>());
    let produced = produce::run(target, &plan, &meters).await?;
    let last = ends(&target.spans(&setting.topic).await?);
    // Consumers that failed meanwhile are asked below.
    let _ = tell.send(End::At(last, Some(produced.acknowledged)));
    let mut damage: HashMap<&str, Option<Damage>> = HashMap::new();
    for (name, thread) in threads {
        let found = damage.entry(name).or_default();
        *found = add(*found, consume::join(thread).await?.damage);
    }
    drop(sampler);
    let mut phases = vec![Phase::new(name, acks.finish(), setting.produce_note()).behind(&produced.behind)];
    for (meter, ..) in &kinds {
        let phase = Phase::new(meter.name, meter.finish(), setting.tail_note());
        phases.push(phase.verified(damage.remove(meter.name).flatten()));
    }
    Ok((phases, produced.bytes))
}

/// Until Ctrl-C, unless the work listens for that itself.
fn until_interrupted_unless<R>(
    listens: bool,
    runtime: &Runtime,
    work: impl Future<Output = Result<R, BenchError>>,
) -> Result<R, BenchError> {
    if listens {
        runtime.block_on(work)
    } else {
        until_interrupted(runtime, work)
    }
}
