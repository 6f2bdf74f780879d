//! When records were acknowledged: for how long a partition had none, and how many in each moment.
//!
//! Told by the tasks that follow records, one call for each. What is kept grows with the time that is watched, not with the records.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_client::PartitionIndex;

use crate::load::clock::Moment;

/// A shorter time without an acknowledgement is no silence.
const SILENCE_MIN: Duration = Duration::from_millis(2);

/// The moments that acknowledgements are counted in.
pub const BIN: Duration = Duration::from_millis(20);

/// Most moments that are kept: a day.
const BINS_MAX: usize = 24 * 3600 * 50;

/// The acknowledgements of a run.
#[derive(Debug)]
pub struct Acknowledgements {
    begin: Moment,
    partitions: Vec<Mutex<Track>>,
    /// Of all partitions together.
    all: Mutex<Track>,
}

#[derive(Debug, Default)]
struct Track {
    /// The last acknowledgement.
    last: Option<Moment>,
    silences: Vec<(Moment, Moment)>,
    /// How many, in each moment since the begin.
    bins: Vec<u32>,
}

fn lock(track: &Mutex<Track>) -> MutexGuard<'_, Track> {
    track.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Acknowledgements {
    /// Of so many partitions, from now on.
    pub fn new(partitions: usize, begin: Moment) -> Self {
        Self {
            begin,
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            all: Mutex::default(),
        }
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// A record of this partition was acknowledged.
    pub fn tell(&self, partition: PartitionIndex, at: Moment) {
        let of_it = self.partitions.get(partition.as_usize());
        for track in of_it.into_iter().chain([&self.all]) {
            lock(track).add(self.begin, at);
        }
    }

    /// The longest time without an acknowledgement that reaches into this span, up to its end, of the partition for which it was longest.
    pub fn longest_silence(&self, partitions: &[usize], from: Moment, until: Moment) -> Duration {
        let of = partitions.iter().filter_map(|&index| self.partitions.get(index));
        let longest = of.map(|track| lock(track).longest_silence(from, until)).max();
        longest.unwrap_or_default()
    }

    /// The same, for the time without an acknowledgement of any partition.
    pub fn longest_of_all(&self, from: Moment, until: Moment) -> Duration {
        lock(&self.all).longest_silence(from, until)
    }

    /// Records a second in each moment of a span, of these partitions together: seconds since its begin, and how many.
    pub fn rates(&self, partitions: &[usize], from: Moment, until: Moment) -> Vec<(f64, f64)> {
        let bin = |moment: Moment| (moment.since(self.begin).as_nanos() / BIN.as_nanos()) as usize;
        let (first, end) = (bin(from), bin(until));
        let mut sums = vec![0_u64; end.saturating_sub(first)];
        for track in partitions.iter().filter_map(|&index| self.partitions.get(index)) {
            let track = lock(track);
            for (sum, count) in sums.iter_mut().zip(track.bins.iter().skip(first)) {
                *sum += u64::from(*count);
            }
        }
        let seconds = BIN.as_secs_f64();
        let rate = |(number, sum): (usize, u64)| (number as f64 * seconds, sum as f64 / seconds);
        sums.into_iter().enumerate().map(rate).collect()
    }
}

impl Track {
    fn add(&mut self, begin: Moment, at: Moment) {
        // Those who follow records may tell of them a little out of order.
        if let Some(last) = self.last
            && at.since(last) >= SILENCE_MIN
        {
            self.silences.push((last, at));
        }
        self.last = self.last.max(Some(at));
        let bin = (at.since(begin).as_nanos() / BIN.as_nanos()) as usize;
        if bin < BINS_MAX {
            if self.bins.len() <= bin {
                self.bins.resize(bin + 1, 0);
            }
            self.bins[bin] += 1;
        }
    }

    fn longest_silence(&self, from: Moment, until: Moment) -> Duration {
        let open = self.last.map(|last| (last, until));
        let open = open.filter(|(begin, end)| end.since(*begin) >= SILENCE_MIN);
        let all = self.silences.iter().copied().chain(open);
        let reaches_in = all.filter(|(begin, end)| *end > from && *begin < until);
        // What comes after the span is not its doing, though the last acknowledgement was in it.
        let lengths = reaches_in.map(|(begin, end)| end.min(until).since(begin));
        lengths.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn tell(seen: &Acknowledgements, partition: i32, moments: impl IntoIterator<Item = u64>) {
        for moment in moments {
            seen.tell(PartitionIndex::new(partition), ms(moment));
        }
    }

    #[test]
    fn a_silence_counts_for_the_partition_that_had_it_even_while_others_go_on() {
        let seen = Acknowledgements::new(2, ms(0));
        for at in 0..500 {
            tell(&seen, 0, Some(at).filter(|at| !(100..400).contains(at)));
            tell(&seen, 1, [at]);
        }
        let longest = |partitions: &[usize]| seen.longest_silence(partitions, ms(100), ms(500));
        assert_eq!(longest(&[0]), Duration::from_millis(301));
        assert_eq!(longest(&[0, 1]), Duration::from_millis(301));
        assert!(longest(&[1]) < SILENCE_MIN);
        assert!(seen.longest_of_all(ms(100), ms(500)) < SILENCE_MIN);
    }

    #[test]
    fn a_silence_that_reaches_into_a_span_counts_from_its_begin_to_the_spans_end_and_one_outside_not_at_all() {
        let seen = Acknowledgements::new(1, ms(0));
        tell(&seen, 0, [10, 60, 65, 200]);
        let longest = |from, until| seen.longest_silence(&[0], ms(from), ms(until)).as_millis();
        assert_eq!(longest(20, 64), 50);
        assert_eq!(longest(61, 64), 4);
        assert_eq!(longest(61, 300), 135);
        assert_eq!(longest(61, 70), 5);
        assert_eq!(longest(0, 10), 0);
    }

    #[test]
    fn a_silence_that_has_not_ended_counts_up_to_the_end() {
        let seen = Acknowledgements::new(1, ms(0));
        tell(&seen, 0, [10]);
        assert_eq!(seen.longest_silence(&[0], ms(20), ms(1_010)), Duration::from_secs(1));
    }

    #[test]
    fn rates_show_the_gap() {
        let seen = Acknowledgements::new(1, ms(0));
        tell(&seen, 0, (0..100).chain(160..200));
        let rates = seen.rates(&[0], ms(40), ms(200));
        let counts: Vec<u64> = rates.iter().map(|(_, rate)| rate.round() as u64).collect();
        assert_eq!(counts, [1_000, 1_000, 1_000, 0, 0, 0, 1_000, 1_000]);
        assert!((rates[3].0 - 0.06).abs() < 1e-9, "{rates:?}");
    }
}
