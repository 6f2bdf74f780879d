//! The workload `mixed`: producers and consumers at the tail, alone and then next to others that should not disturb them:
//! a consumer group whose members fail, and consumers of old data.
//!
//! Old data is what was filled in before; it is read from the disk, as the broker was restarted and the page cache
//! dropped. Each consumer of old data begins anew when it has read all of it, and the page cache is dropped again then.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::setting::Setting;
use super::workloads::{Readers, add, ends, fill, produce_and_read, starts};
use super::{runtime, until_interrupted};
use crate::cli::MixedArgs;
use crate::error::BenchError;
use crate::load::clock::Moment;
use crate::load::consume::{self, End, Timed};
use crate::load::meter::Meter;
use crate::report::table::microseconds;
use crate::report::{Phase, Run};
use crate::target::headwater::slow::{SlowGroup, VICES};
use crate::target::{Span, Target};
use crate::workload::{Damage, Expectation, Findings};

/// What the latency of reading old data is not.
const OLD: &str = "old data is read as fast as it comes: the time since a record was sent says nothing";

/// What there is of old data.
struct History {
    spans: Vec<Span>,
    expectation: Expectation,
    bytes: u64,
}

/// Runs it.
pub fn run<T: Target>(setting: &mut Setting<'_>, args: &MixedArgs) -> Result<Run, BenchError> {
    let history = prepare::<T>(setting, args)?;
    let usage = setting.usage();
    let alone = alone::<T>(setting, args)?;
    let mut notes = Vec::new();
    let (mut phases, mut bytes) = (Vec::new(), 0);
    let mut gauge = setting.watch();
    if args.slow_members > 0 {
        let (slow, produced) = next_to_a_slow_group::<T>(setting, args)?;
        notes.push(effects("a slow group", &alone, &slow));
        notes.push(format!("of the slow group: {VICES}"));
        (phases, bytes) = (slow, produced);
    }
    if args.catch_up_consumers > 0 {
        setting.host.drop_page_cache()?;
        gauge = setting.watch();
        let (mixed, produced) = next_to_catch_up::<T>(setting, args, &history)?;
        notes.push(effects("readers of old data", &alone, &mixed));
        bytes = produced + mixed.last().map_or(0, |catch_up| catch_up.bytes);
        // What it is mainly about comes first.
        phases.splice(0..0, mixed);
    }
    let schedule = setting.schedule_note(&phases[0]);
    phases.extend(alone);
    let mut done = Run::of(phases);
    gauge.finish(&mut done, bytes);
    // Those alone are compared with as well.
    done.usage = Some(usage.finish());
    done.cautions.extend(schedule);
    done.notes.extend(notes);
    if history.bytes < args.history && args.catch_up_consumers > 0 {
        let room = history.bytes;
        let note = format!("the disk has room for {room} bytes of old data only");
        done.notes.push(note);
    }
    if !setting.host.is_ours() && args.catch_up_consumers > 0 {
        done.notes.push(
            "a running broker's memory and page cache cannot be dropped from here: old data may have come from memory"
                .into(),
        );
    }
    Ok(done)
}

/// Fills in the old data, if somebody will read it. What cannot work fails before that takes its time.
fn prepare<T: Target>(setting: &mut Setting<'_>, args: &MixedArgs) -> Result<History, BenchError> {
    if args.catch_up_consumers == 0 && args.slow_members == 0 {
        return Err(BenchError::Options(
            "there is nobody next to the producers: ask for --catch-up-consumers or --slow-members".into(),
        ));
    }
    let bytes = args.history.min(setting.host.room()? / 2);
    let history = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let members = args.group_members.max(args.slow_members);
        if members > 0 {
            target.clone().grouped(members)?;
        }
        target.ensure_topic(&setting.topic, setting.run.load.shape()).await?;
        let acknowledged = if args.catch_up_consumers > 0 {
            fill(&target, setting, bytes).await?
        } else {
            std::collections::HashMap::new()
        };
        Ok(History {
            spans: target.spans(&setting.topic).await?,
            expectation: Expectation::exactly(acknowledged),
            bytes,
        })
    })?;
    if setting.host.is_ours() && args.catch_up_consumers > 0 {
        setting.host.restart_cold()?;
    }
    Ok(history)
}

fn readers(args: &MixedArgs, tail: &'static str, group: &'static str) -> Readers {
    Readers {
        tail: (tail, args.tail_consumers),
        group: (group, args.group_members),
    }
}

/// Those that should not be disturbed, with nobody else.
fn alone<T: Target>(setting: &Setting<'_>, args: &MixedArgs) -> Result<Vec<Phase>, BenchError> {
    until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let alone = produce_and_read(&target, setting, "alone", readers(args, "alone_tail", "alone_group")).await?;
        Ok(alone.0)
    })
}

/// The same next to a group that fails, whose phase comes last; and what was produced, in bytes.
fn next_to_a_slow_group<T: Target>(setting: &Setting<'_>, args: &MixedArgs) -> Result<(Vec<Phase>, u64), BenchError> {
    let address = setting.host.address();
    until_interrupted(setting.runtime, async {
        let target = T::connect(&address).await?;
        let from = ends(&target.spans(&setting.topic).await?);
        let meter = Meter::new("slow_group", Arc::default());
        let slow = SlowGroup::new(&address, &setting.topic, args.slow_members, &from, Arc::clone(&meter)).await?;
        let sampler = setting.sampler(&[&meter]);
        let measured = async {
            slow.settled(from.len()).await;
            meter.open(Moment::now());
            let readers = readers(args, "beside_slow_tail", "beside_slow_group");
            produce_and_read(&target, setting, "beside_slow", readers).await
        };
        let (mut phases, produced) = tokio::select! {
            measured = measured => measured?,
            Err(error) = slow.run() => return Err(error),
        };
        drop(sampler);
        let slow = Phase::new("slow_group", meter.finish(), "the group is slow on purpose");
        phases.push(slow.unverified("what its members die over comes again"));
        Ok((phases, produced.bytes))
    })
}

/// The same next to consumers of old data, whose phase comes last; and what was produced, in bytes.
fn next_to_catch_up<T: Target>(
    setting: &Setting<'_>,
    args: &MixedArgs,
    history: &History,
) -> Result<(Vec<Phase>, u64), BenchError> {
    // Threads of their own, as other programs have: else producers would wait for them in this program instead of the broker.
    let apart = runtime("catch-up", args.run.load.client_cpus.clone())?;
    let measured = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let (until_dropped, stop) = watch::channel(());
        let meter = Meter::new("catch_up", Arc::default());
        // Consumers of old data start first, and are stopped when the others are done.
        let old = (0..args.catch_up_consumers)
            .map(|_| read_history(&target, setting, history, &meter, stop.clone(), apart.handle()));
        let sampler = setting.sampler(&[&meter]);
        meter.open(Moment::now());
        let old = futures::future::try_join_all(old);
        let others = async {
            let measured = produce_and_read(&target, setting, "produce", readers(args, "tail", "group")).await;
            drop(until_dropped);
            measured
        };
        let ((mut phases, produced), found) = futures::future::try_join(others, old).await?;
        drop(sampler);
        let damage = found.into_iter().fold(None, add);
        phases.push(Phase::new("catch_up", meter.finish(), OLD).verified(damage));
        Ok((phases, produced.bytes))
    });
    apart.shutdown_background();
    measured
}

/// What others did to the producers and to the group, if there is one: each is in its place in both.
fn effects(others: &str, alone: &[Phase], beside: &[Phase]) -> String {
    let group = |phases: &[Phase]| phases.iter().find(|phase| phase.workload.ends_with("group")).cloned();
    let mut text = format!("with {others}: {}", effect("the producers", &alone[0], &beside[0]));
    if let (Some(before), Some(after)) = (group(alone), group(beside)) {
        text = format!("{text}; {}", effect("the group that keeps up", &before, &after));
    }
    text
}

fn effect(whose: &str, before: &Phase, after: &Phase) -> String {
    let percent = 100.0 * (after.bytes_per_s / before.bytes_per_s.max(1e-9) - 1.0);
    let mut text = format!("throughput of {whose} {percent:+.1}%");
    if let (Some(before), Some(after)) = (before.latency_us, after.latency_us) {
        let ratio = after.p99 / before.p99.max(1e-9);
        let (before, after) = (microseconds(before.p99), microseconds(after.p99));
        text = format!("{text}, their p99 x{ratio:.2} ({before} to {after})");
    }
    text
}

/// One consumer that reads everything there was, over and over, until it is stopped.
async fn read_history<T: Target>(
    target: &T,
    setting: &Setting<'_>,
    history: &History,
    meter: &Arc<Meter>,
    mut stop: watch::Receiver<()>,
    apart: &Handle,
) -> Result<Option<Findings>, BenchError> {
    let mut found = None;
    loop {
        let plan = setting.reader(starts(&history.spans), history.expectation.clone(), Timed::None);
        let (tell, end) = watch::channel(End::At(ends(&history.spans), None));
        let (target, meter) = (target.clone(), Arc::clone(meter));
        let started = apart.spawn(async move { consume::start(&target, plan, meter, end).await });
        let mut thread = started.await.map_err(|error| BenchError::Threads(error.into()))??;
        tokio::select! {
            consumed = &mut thread => {
                let consumed = consumed.map_err(|error| BenchError::Threads(error.into()))??;
                found = add(found, consumed.findings);
                setting.host.drop_page_cache()?;
            }
            // The sender is dropped.
            _ = stop.changed() => {
                let _ = tell.send(End::Now);
                let consumed = consume::join(thread).await?;
                // It was stopped in the middle: what it had not read is not lost.
                let partial = consumed.findings.map(|findings| Findings {
                    damage: Damage {
                        lost: 0,
                        ..findings.damage
                    },
                    ..findings
                });
                return Ok(add(found, partial));
            }
        }
    }
}
