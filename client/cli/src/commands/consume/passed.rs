//! What a reader has passed without a record to print, and how that is said.

use std::collections::BTreeMap;

use headwater_client::{Offset, PartitionIndex, Skip, SkipCause, TopicName};

use crate::screen::note;
use crate::values;

/// Partitions that are named one by one.
const NAMED_MAX: usize = 8;

/// A partition of a topic.
type Place = (TopicName, PartitionIndex);

/// Offsets without a record, by partition.
#[derive(Debug, Default)]
pub struct Passed {
    no_record: BTreeMap<Place, u64>,
    deleted: BTreeMap<Place, u64>,
}

impl Passed {
    /// Of the offsets from `from` up to `to` so many had records.
    pub fn read(&mut self, place: &Place, from: Offset, to: Offset, records: u64) {
        let offsets = to.distance_from(from).unwrap_or(0);
        add(&mut self.no_record, place, offsets.saturating_sub(records));
    }

    /// The position has moved, of which only what lies before `end` was to be read.
    pub fn skipped(&mut self, skip: &Skip, end: u64) {
        let offsets = skip.to.get().min(end).saturating_sub(skip.from.get());
        let place = (skip.topic.clone(), skip.partition);
        match skip.cause {
            SkipCause::Deleted => add(&mut self.deleted, &place, offsets),
            _ => add(&mut self.no_record, &place, offsets),
        }
    }

    /// Says it on standard error, if there is anything to say.
    pub fn report(&self) {
        for (offsets, what) in [
            (&self.deleted, "deleted before they could be read"),
            (&self.no_record, "passed that hold no record, as after compaction"),
        ] {
            if let Some(list) = list(offsets) {
                let total = values::count(offsets.values().sum(), "offset");
                note(&format!("{total} {what}: {list}"));
            }
        }
    }
}

fn add(offsets: &mut BTreeMap<Place, u64>, place: &Place, count: u64) {
    if count > 0 {
        *offsets.entry(place.clone()).or_default() += count;
    }
}

/// `None`: nothing. The topic is named if there are several.
fn list(offsets: &BTreeMap<Place, u64>) -> Option<String> {
    let (first, last) = (offsets.keys().next(), offsets.keys().next_back());
    let is_one_topic = first.map(|(topic, _)| topic) == last.map(|(topic, _)| topic);
    let named = offsets.iter().take(NAMED_MAX);
    let named = named.map(|((topic, partition), count)| {
        if is_one_topic {
            format!("{count} of partition {partition}")
        } else {
            format!("{count} of {topic}, partition {partition}")
        }
    });
    let mut parts: Vec<_> = named.collect();
    let others: Vec<u64> = offsets.values().skip(NAMED_MAX).copied().collect();
    if !others.is_empty() {
        let of = values::count(others.len() as u64, "other partition");
        parts.push(format!("{} of {of}", others.iter().sum::<u64>()));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// What is said at once, as a reader that follows has no end at which to say it; `None` for what is no surprise.
pub fn news(skip: &Skip) -> Option<String> {
    let Skip {
        topic,
        partition,
        from,
        to,
        ..
    } = skip;
    let offsets = values::count(skip.offsets(), "offset");
    match skip.cause {
        SkipCause::Deleted => Some(format!(
            "{offsets} of partition {partition} deleted before they could be read: {from} up to {to}"
        )),
        SkipCause::Recreated => Some(format!(
            "topic {topic} was deleted and created anew; partition {partition} is read from offset {to}"
        )),
        SkipCause::Reset => Some(format!(
            "partition {partition} does not reach offset {from} any more; it is read from offset {to}"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_up_to_a_point_and_none_is_left_out_of_the_sum() {
        let place = |topic: &str, number| (TopicName::new(topic).unwrap(), PartitionIndex::new(number));
        let offsets = |partitions: i32| (0..partitions).map(|number| (place("t", number), 2)).collect();
        assert_eq!(list(&offsets(0)), None);
        assert_eq!(list(&offsets(2)).unwrap(), "2 of partition 0, 2 of partition 1");
        assert!(
            list(&offsets(11))
                .unwrap()
                .ends_with("2 of partition 7, 6 of 3 other partitions")
        );
        let two = BTreeMap::from([(place("t", 0), 1), (place("u", 0), 3)]);
        assert_eq!(list(&two).unwrap(), "1 of t, partition 0, 3 of u, partition 0");
    }
}
