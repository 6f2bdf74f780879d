//! What the death of a broker did: when, to whom, for how long nothing was acknowledged, and what became of the records.

use std::time::Duration;

use serde::Serialize;

use super::acknowledgements::Acknowledgements;
use crate::load::clock::Moment;
use crate::workload::{Incident, Toll};

/// Before a kill, so much is shown of what was acknowledged.
pub const SHOWN_BEFORE: Duration = Duration::from_secs(1);

/// After a kill, so much is shown, or as much as it took, and again so much.
const SHOWN_AFTER: Duration = Duration::from_secs(3);

/// A broker that was killed, and came back.
#[derive(Debug, Clone)]
pub struct Death {
    /// Which.
    pub broker: i32,
    /// The partitions that it led.
    pub led: Vec<usize>,
    /// Whether it was the active coordinator; `None` if the system does not tell.
    pub was_coordinator: Option<bool>,
    /// When it was killed.
    pub killed: Moment,
    /// When it was started again.
    pub restarted: Moment,
    /// When it was in sync again.
    pub in_sync: Moment,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Kill {
    /// The broker.
    pub broker: i32,
    /// How many partitions it led.
    pub partitions_led: usize,
    /// Whether it was the active coordinator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was_coordinator: Option<bool>,
    /// Since the first record was due.
    pub at_s: f64,
    /// For how long no record was acknowledged of the partition that it took longest for: of those that it led, or of all if it led none.
    pub silent_ms: f64,
    /// For how long nothing was acknowledged at all.
    pub all_silent_ms: f64,
    /// From its start until it was in sync again.
    pub back_in_sync_ms: f64,
    /// What became of records that were due between when all was well before and after it.
    #[serde(flatten)]
    pub toll: Toll,
    /// Acknowledged records a second around it, of those partitions, from a second before it on.
    #[serde(skip)]
    pub rates: Vec<(f64, f64)>,
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
pub struct Failover {
    /// In their order.
    pub kills: Vec<Kill>,
    /// The median and the worst of the kills of brokers that led something.
    pub silent_ms: Option<Silent>,
    /// What became of records in all.
    #[serde(flatten)]
    pub toll: Toll,
}

/// For how long nothing was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Silent {
    /// Of half of the kills no longer.
    pub median: f64,
    /// At most.
    pub worst: f64,
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl Failover {
    /// Judges deaths by what was acknowledged and found; the load has ended at `end`.
    pub fn judge(
        deaths: &[Death],
        acknowledged: &Acknowledgements,
        incidents: &[Incident],
        (begin, end): (Moment, Moment),
    ) -> Self {
        let partitions = acknowledged.partitions();
        let mut kills = Vec::new();
        for (number, death) in deaths.iter().enumerate() {
            let next = deaths.get(number + 1);
            let until = next.map_or(end, |next| next.killed);
            let all: Vec<usize> = (0..partitions).collect();
            let watched = if death.led.is_empty() { &all } else { &death.led };
            let silent = acknowledged.longest_silence(watched, death.killed, until);
            // What a death has done, records show that were due while it was, or before it and after all was well again.
            let from = number
                .checked_sub(1)
                .map_or(Moment::default(), |before| deaths[before].in_sync);
            let is_its =
                |incident: &&Incident| incident.due >= from && (next.is_none() || incident.due < death.in_sync);
            let shown_from = Moment::from_nanos(death.killed.as_nanos().saturating_sub(SHOWN_BEFORE.as_nanos() as u64));
            let shown_until = death.killed.plus(silent * 2 + SHOWN_AFTER).min(until);
            kills.push(Kill {
                broker: death.broker,
                partitions_led: death.led.len(),
                was_coordinator: death.was_coordinator,
                at_s: death.killed.since(begin).as_secs_f64(),
                silent_ms: millis(silent),
                all_silent_ms: millis(acknowledged.longest_of_all(death.killed, until)),
                back_in_sync_ms: millis(death.in_sync.since(death.restarted)),
                toll: incidents.iter().filter(is_its).map(|incident| incident.toll).sum(),
                rates: acknowledged.rates(watched, shown_from, shown_until),
            });
        }
        let led = kills.iter().filter(|kill| kill.partitions_led > 0);
        let mut silent: Vec<f64> = led.map(|kill| kill.silent_ms).collect();
        silent.sort_by(f64::total_cmp);
        let median = silent.get(silent.len() / 2).copied();
        Self {
            silent_ms: median
                .zip(silent.last().copied())
                .map(|(median, worst)| Silent { median, worst }),
            toll: incidents.iter().map(|incident| incident.toll).sum(),
            kills,
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_client::PartitionIndex;

    use super::*;

    const fn ms(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn death(broker: i32, led: &[usize], killed: u64) -> Death {
        Death {
            broker,
            led: led.to_vec(),
            was_coordinator: Some(false),
            killed: ms(killed),
            restarted: ms(killed + 500),
            in_sync: ms(killed + 700),
        }
    }

    #[test]
    fn each_kill_has_its_own_silence_and_its_own_toll() {
        let seen = Acknowledgements::new(2, ms(0));
        for at in 0..5_000 {
            if !(1_000..1_300).contains(&at) && !(3_000..3_100).contains(&at) {
                seen.tell(PartitionIndex::new(0), ms(at));
            }
            seen.tell(PartitionIndex::new(1), ms(at));
        }
        let lost = |due, lost| Incident {
            due: ms(due),
            toll: Toll {
                lost,
                ..Toll::default()
            },
        };
        // The first just before its broker was killed.
        let incidents = [lost(990, 2), lost(3_050, 5)];
        let deaths = [death(0, &[0], 1_000), death(1, &[0], 3_000), death(2, &[], 4_500)];
        let judged = Failover::judge(&deaths, &seen, &incidents, (ms(0), ms(5_000)));
        let of = |figure: fn(&Kill) -> f64| judged.kills.iter().map(figure).collect::<Vec<_>>();
        assert_eq!(of(|kill| kill.silent_ms.round()), [301.0, 101.0, 0.0]);
        assert_eq!(of(|kill| kill.all_silent_ms), [0.0, 0.0, 0.0]);
        assert_eq!(of(|kill| kill.back_in_sync_ms), [200.0; 3]);
        assert_eq!(of(|kill| kill.toll.lost as f64), [2.0, 5.0, 0.0]);
        assert_eq!(judged.toll.lost, 7);
        // A broker that led nothing says nothing of how long it takes to find another leader.
        assert_eq!(
            judged.silent_ms,
            Some(Silent {
                median: 301.0,
                worst: 301.0
            })
        );
    }
}
