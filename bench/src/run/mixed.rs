//! The workload `mixed`: producers and consumers at the tail, without and then with consumers of old data.
//!
//! Old data is what was filled in before; it is read from the disk, as the broker was restarted and the page cache
//! dropped. Each consumer of old data begins anew when it has read all of it, and the page cache is dropped again then.

use std::sync::Arc;

use tokio::sync::watch;

use super::host::Host;
use super::setting::Setting;
use super::until_interrupted;
use super::workloads::{add, done, ends, fill, produce_and_tail, starts};
use crate::cli::MixedArgs;
use crate::error::BenchError;
use crate::load::clock::Moment;
use crate::load::consume::{self, End, Timed};
use crate::load::meter::Meter;
use crate::report::table::microseconds;
use crate::report::{Phase, Run};
use crate::target::{Span, Target};
use crate::workload::{Damage, Expectation};

/// What the latency of reading old data is not.
const OLD: &str = "old data is read as fast as it comes: the time since a record was sent says nothing";

/// Runs it.
pub fn run<T: Target>(setting: &mut Setting<'_>, args: &MixedArgs) -> Result<Run, BenchError> {
    let room = setting.host.room()?;
    let history = args.history.min(room / 2);
    let (spans, acknowledged) = until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let acknowledged = fill(&target, setting, history).await?;
        Ok((target.spans(&setting.topic).await?, acknowledged))
    })?;
    if matches!(setting.host, Host::Embedded(_)) {
        setting.host.restart_cold()?;
    }
    let address = setting.host.address();
    let alone = until_interrupted(setting.runtime, async {
        let target = T::connect(&address).await?;
        produce_and_tail(&target, setting, args.tail_consumers, ["alone", "alone_tail"]).await
    })?;
    setting.host.drop_page_cache()?;
    let gauge = setting.watch();
    let ((produce, tail), catch_up) = until_interrupted(setting.runtime, async {
        let target = T::connect(&address).await?;
        let (until_dropped, stop) = watch::channel(());
        let meter = Meter::new("catch_up", Arc::default());
        // Consumers of old data start first, and are stopped when the others are done.
        let readers = (0..args.catch_up_consumers).map(|_| {
            let expectation = Expectation::Exactly(acknowledged.clone());
            read_history(&target, setting, &spans, expectation, &meter, stop.clone())
        });
        let sampler = setting.sampler(&[&meter]);
        meter.open(Moment::now());
        let readers = futures::future::try_join_all(readers);
        let both = async {
            let both = produce_and_tail(&target, setting, args.tail_consumers, ["produce", "tail"]).await;
            drop(until_dropped);
            both
        };
        let (both, found) = futures::future::try_join(both, readers).await?;
        drop(sampler);
        let damage = found.into_iter().fold(None, add);
        Ok((both, Phase::new("catch_up", meter.finish(), OLD).verified(damage)))
    })?;
    let notes = effects(&alone.0, &produce);
    let bytes = produce.bytes + catch_up.bytes;
    let schedule = setting.schedule_note(&produce);
    let mut done = done(
        [Some(produce), tail, Some(catch_up), Some(alone.0), alone.1]
            .into_iter()
            .flatten()
            .collect(),
    );
    gauge.finish(&mut done, bytes);
    done.notes.extend(notes);
    done.notes.extend(schedule);
    if history < args.history {
        done.notes
            .push(format!("the disk has room for {history} bytes of old data only"));
    }
    if matches!(setting.host, Host::Running { .. }) {
        done.notes.push(
            "a running broker's memory and page cache cannot be dropped from here: old data may have come from memory"
                .into(),
        );
    }
    Ok(done)
}

/// What the readers of old data did to the producers.
fn effects(alone: &Phase, produce: &Phase) -> Vec<String> {
    let percent = 100.0 * (produce.bytes_per_s / alone.bytes_per_s.max(1e-9) - 1.0);
    let mut text = format!("with readers of old data: throughput of the producers {percent:+.1}%");
    if let (Some(before), Some(after)) = (alone.latency_us, produce.latency_us) {
        let ratio = after.p99 / before.p99.max(1e-9);
        let (before, after) = (microseconds(before.p99), microseconds(after.p99));
        text = format!("{text}, their p99 x{ratio:.2} ({before} to {after})");
    }
    vec![text]
}

/// One consumer that reads everything there was, over and over, until it is stopped.
async fn read_history<T: Target>(
    target: &T,
    setting: &Setting<'_>,
    spans: &[Span],
    expectation: Expectation,
    meter: &Arc<Meter>,
    mut stop: watch::Receiver<()>,
) -> Result<Option<Damage>, BenchError> {
    let mut damage = None;
    loop {
        let plan = setting.reader(starts(spans), expectation.clone(), Timed::None);
        let (tell, end) = watch::channel(End::At(ends(spans), None));
        let mut thread = consume::start(target, plan, Arc::clone(meter), end).await?;
        tokio::select! {
            consumed = &mut thread => {
                let consumed = consumed.map_err(|error| BenchError::Threads(error.into()))??;
                damage = add(damage, consumed.damage);
                setting.host.drop_page_cache()?;
            }
            // The sender is dropped.
            _ = stop.changed() => {
                let _ = tell.send(End::Now);
                let consumed = consume::join(thread).await?;
                // It was stopped in the middle: what it had not read is not lost.
                let partial = consumed.damage.map(|damage| Damage { lost: 0, ..damage });
                return Ok(add(damage, partial));
            }
        }
    }
}
