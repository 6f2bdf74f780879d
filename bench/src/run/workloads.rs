//! The workloads: which producers and consumers run at once, and what is measured of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::setting::Setting;
use super::{Workload, interrupted, mixed, until_interrupted};
use crate::cli::ConsumeArgs;
use crate::cost::Usage;
use crate::error::BenchError;
use crate::failover;
use crate::load::clock::Moment;
use crate::load::consume::{self, Consumed, End, Timed};
use crate::load::meter::Meter;
use crate::load::produce::{self, Produced};
use crate::progress::{Goal, Progress};
use crate::report::{Phase, Run};
use crate::target::{Position, Span, Target};
use crate::workload::{Expectation, Findings, StreamId};

/// Why a consume has no latency.
const STORED: &str =
    "consume reads what was stored before, as fast as it comes: the time since a record was sent says nothing";

/// How much is filled in to be read from the disk, if nothing is said.
const COLD_BYTES: u64 = 4 << 30;

/// While retention deletes what is read back, it is begun anew so often.
const READ_BACK_TRIES: usize = 3;

/// Runs a workload once.
pub fn run<T: Target>(workload: &Workload, setting: &mut Setting<'_>) -> Result<Run, BenchError> {
    let done = match workload {
        Workload::Quick => quick::<T>(setting),
        Workload::Produce { verify } => produce::<T>(setting, *verify),
        Workload::Consume(args) if setting.run.place.topic.is_some() => existing::<T>(setting, args),
        Workload::Consume(args) => filled::<T>(setting, args),
        Workload::EndToEnd(consumers) => end_to_end::<T>(setting, *consumers),
        Workload::Mixed(args) => mixed::run::<T>(setting, args),
        Workload::Failover(args) => failover::run::<T>(setting, args),
    };
    let mut done = done.inspect_err(|_given_up| setting.give_up::<T>())?;
    if setting.is_replicated() {
        done.replication = until_interrupted(setting.runtime, async {
            T::connect(&setting.host.address())
                .await?
                .replication(&setting.topic)
                .await
        })?;
    }
    setting.clean_up::<T>()?;
    let usage = done.usage.as_ref().and_then(Usage::caution);
    let phases = done.phases.iter().filter_map(Phase::caution);
    let cautions: Vec<_> = usage.into_iter().chain(phases).collect();
    done.cautions.extend(cautions);
    Ok(done)
}

fn quick<T: Target>(setting: &mut Setting<'_>) -> Result<Run, BenchError> {
    let plan = setting.plan(false)?;
    let gauge = setting.watch();
    let (phase, produced, consume) = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let (phase, produced) = produce_phase(&target, setting, &plan).await?;
        let usage = setting.usage();
        let expectation = Expectation {
            acknowledged: setting.all_acknowledged(&produced),
            ..Expectation::yet_to_come()
        };
        let consume = read_all(&target, setting, expectation, 1, phase.bytes).await?;
        Ok((phase, produced, consume.with(usage.finish())))
    })?;
    let bytes = produced.bytes + consume.bytes;
    let mut done = Run::of(vec![phase, consume]);
    gauge.finish(&mut done, bytes);
    done.cautions.extend(setting.schedule_note(done.main()));
    Ok(done)
}

fn produce<T: Target>(setting: &mut Setting<'_>, verify: bool) -> Result<Run, BenchError> {
    let plan = setting.plan(false)?;
    let gauge = setting.watch();
    let (target, phase, produced, from) = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        target.ensure_topic(&setting.topic, setting.run.load.shape()).await?;
        let from = ends(&target.spans(&setting.topic).await?);
        let (phase, produced) = produce_phase(&target, setting, &plan).await?;
        Ok((target, phase, produced, from))
    })?;
    let mut done = Run::of(vec![phase]);
    gauge.finish(&mut done, produced.bytes);
    done.cautions.extend(setting.schedule_note(done.main()));
    let phase = done.phases.remove(0);
    let phase = if verify {
        until_interrupted(setting.runtime, read_back(&target, setting, phase, &produced, &from))?
    } else {
        phase.unverified("--no-verify")
    };
    done.phases.push(phase);
    Ok(done)
}

/// Reads back what was produced from these positions on, which is in no figure, and verifies it.
async fn read_back<T: Target>(
    target: &T,
    setting: &Setting<'_>,
    phase: Phase,
    produced: &Produced,
    from: &[Position],
) -> Result<Phase, BenchError> {
    for _ in 0..READ_BACK_TRIES {
        let spans = target.spans(&setting.topic).await?;
        // Where retention has deleted the beginning, the rest is looked at.
        let later = |(span, from): (&Span, &Position)| span.start.max(*from);
        let begins: Vec<_> = spans.iter().zip(from).map(later).collect();
        let expectation = Expectation {
            acknowledged: setting.all_acknowledged(produced),
            is_whole: begins == from,
            is_alone: setting.run.place.topic.is_none(),
        };
        let progress = Progress::start("verify", Goal::Bytes(produced.bytes));
        let meter = Meter::new("verify", progress.counter());
        let plan = setting.reader(begins.clone(), expectation, Timed::None);
        let read = read_once(target, &plan, &meter, &spans, 1).await;
        let now = target.spans(&setting.topic).await?;
        if now.iter().zip(&begins).all(|(span, begin)| span.start <= *begin) {
            // What others have written to the topic meanwhile is not asked about.
            let found = read?.map(|found| Findings { foreign: 0, ..found });
            return Ok(phase.verified(found));
        }
    }
    Ok(phase.unverified("the broker's retention went on deleting records while they were read back"))
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
    let usage = setting.usage();
    let produced = produce::run(target, plan, &[Arc::clone(&meter)]).await?;
    drop(sampler);
    let phase = Phase::new("produce", meter.finish(), setting.produce_note());
    Ok((phase.behind(&produced).with(usage.finish()), produced))
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
) -> Result<Option<Findings>, BenchError> {
    let (_tell, end) = watch::channel(End::At(ends(spans), None));
    let mut threads = Vec::new();
    meter.open(Moment::now());
    for _ in 0..consumers {
        threads.push(consume::start(target, plan.clone(), Arc::clone(meter), end.clone()).await?);
    }
    let mut found = None;
    for thread in threads {
        found = add(found, consume::join(thread).await?.findings);
    }
    Ok(found)
}

/// Both together.
pub fn add(a: Option<Findings>, b: Option<Findings>) -> Option<Findings> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.and(b)),
        (a, b) => a.or(b),
    }
}

/// Consumes what is in the topic that the options name.
fn existing<T: Target>(setting: &mut Setting<'_>, args: &ConsumeArgs) -> Result<Run, BenchError> {
    let gauge = setting.watch();
    let (phase, found) = until_interrupted_unless(args.follow, setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let spans = target.spans(&setting.topic).await?;
        let is_whole = spans.iter().all(|span| span.start == Position::default());
        let mut plan = setting.reader(starts(&spans), Expectation::stored(is_whole), Timed::None);
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
            interrupted().await?;
            let _ = tell.send(End::Now);
        }
        let mut found = Vec::new();
        for thread in threads {
            found.push(consume::join(thread).await?);
        }
        drop(sampler);
        Ok((Phase::new("consume", meter.finish(), STORED), account(&found, args)))
    })?;
    let bytes = phase.bytes;
    let mut done = Run::of(Vec::new());
    done.phases.push(match found {
        None => phase.unverified("records were counted; --verify checks that they are what `produce` has sent"),
        Some(found) => {
            done.notes.extend(doubt(&found));
            let records = phase.records;
            let phase = phase.verified(Some(found));
            if found.verified == 0 && found.foreign > 0 {
                phase.unverified(format!("none of {records} records was written by this bench"))
            } else {
                phase
            }
        }
    });
    gauge.finish(&mut done, bytes);
    Ok(done)
}

/// Why a verification may say less than it seems to.
fn doubt(found: &Findings) -> Option<String> {
    let Findings {
        verified,
        altered,
        foreign,
        ..
    } = *found;
    if foreign > 0 {
        return Some(format!(
            "{foreign} records were not written by this bench, and cannot be verified (exit status 2): leave out --verify to \
             count records only"
        ));
    }
    (verified > 0 && altered == verified).then(|| {
        "the value of every record is another than was expected: give consume the --record-size, --compressibility or --payload \
         that produce was given"
            .to_owned()
    })
}

/// What all consumers found, given how many records there should be.
fn account(found: &[Consumed], args: &ConsumeArgs) -> Option<Findings> {
    let each = found.iter().map(|consumed| {
        let mut findings = consumed.findings?;
        if let Some(expected) = args.expect_records {
            let damage = &mut findings.damage;
            let seen = findings.verified.saturating_sub(damage.duplicated) + consumed.unreadable;
            damage.lost = damage.lost.max(expected.saturating_sub(seen));
        }
        Some(findings)
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
    let expectation = Expectation::exactly(acknowledged);
    let phase = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let time = load.duration().filter(|_| !args.cold);
        match time {
            Some(time) => read_for(&target, setting, &expectation, args.consumers, time).await,
            None => read_all(&target, setting, expectation, args.consumers, bytes).await,
        }
    })?;
    let through = phase.bytes;
    let mut done = Run::of(vec![phase]);
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
    let (mut phases, produced) = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let readers = Readers {
            tail: ("end_to_end", consumers),
            group: ("group", 0),
        };
        produce_and_read(&target, setting, "produce", readers).await
    })?;
    let bytes = produced.bytes;
    let schedule = setting.schedule_note(&phases[0]);
    // It is about what the consumers see.
    phases.reverse();
    let mut done = Run::of(phases);
    gauge.finish(&mut done, bytes);
    done.cautions.extend(schedule);
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

/// Producers, and consumers at the tail: the phase of the producers, and of each kind of consumers that there is; and what
/// was produced, in the warm-up too. The topic must be ours, or empty.
pub async fn produce_and_read<T: Target>(
    target: &T,
    setting: &Setting<'_>,
    name: &'static str,
    readers: Readers,
) -> Result<(Vec<Phase>, Produced), BenchError> {
    let plan = setting.plan(true)?;
    target.ensure_topic(&setting.topic, setting.run.load.shape()).await?;
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
            let reader = setting.reader(ends(&spans), Expectation::yet_to_come(), setting.tail_timed());
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
    let _ = tell.send(End::At(last, Some(produced.acknowledged.clone())));
    let mut findings: HashMap<&str, Option<Findings>> = HashMap::new();
    for (name, thread) in threads {
        let found = findings.entry(name).or_default();
        *found = add(*found, consume::join(thread).await?.findings);
    }
    drop(sampler);
    let mut phase = Phase::new(name, acks.finish(), setting.produce_note()).behind(&produced);
    if kinds.is_empty() {
        phase = phase.unverified("nobody read what was produced (--tail-consumers 0)");
    }
    let mut phases = vec![phase];
    for (meter, ..) in &kinds {
        let phase = Phase::new(meter.name, meter.finish(), setting.tail_note());
        phases.push(phase.verified(findings.remove(meter.name).flatten()));
    }
    Ok((phases, produced))
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
