//! What groups forget in time: offsets of groups that were long empty, offsets of topics that are gone, and groups of which
//! nothing is left (KIP-211).

use super::offsets::Place;
use crate::{
    coordinator::groups::{
        group::{Group, Phase},
        record::Record,
        step::{Step, Write},
    },
    model::group::Committed,
};

impl Group {
    /// Deletes what has been kept for long enough.
    pub(crate) fn expire(&mut self, step: &mut Step<'_>) {
        if !self.is_empty() || self.writes > 0 || !self.roster.promised.is_empty() || !self.pending.is_empty() {
            return;
        }
        if self.is_behind {
            let records = vec![self.stored()];
            return step.write(self, Write::Emptied, records);
        }
        if self.consumers_are_behind() {
            return self.store(None, step);
        }
        let (retention, now) = (step.config.offsets_retention_ms.duration(), step.now);
        let empty = self.since.age(now);
        // Consumers that assign themselves have no membership to end: each offset counts from its commit.
        // A group of type consumer does not remember since when it is empty.
        let had_members = self.protocol_type.is_some() && self.consumers.is_none();
        let is_old = |committed: &mut Committed| {
            let age = committed.at.age(now);
            let age = if had_members { age.min(empty) } else { age };
            age >= retention
        };
        let places = |(place, committed): (&Place, &mut Committed)| is_old(committed).then(|| place.clone());
        let places: Vec<Place> = self.offsets.committed.iter_mut().filter_map(places).collect();
        let records = self.offset_tombstones(&places);
        if places.len() == self.offsets.committed.len() {
            self.end(records, step);
        } else if !places.is_empty() {
            step.write(self, Write::Forget { call: None, places }, records);
        }
    }

    /// Deletes the group with its last offsets.
    fn end(&mut self, mut records: Vec<Record>, step: &mut Step<'_>) {
        self.phase = Phase::Dead;
        records.extend(self.tombstones(step));
        step.write(self, Write::End, records);
    }

    /// Deletes the offsets of topics that are gone: one of the same name made later begins anew.
    pub(crate) fn forget_deleted_topics(&mut self, step: &mut Step<'_>) {
        if self.phase == Phase::Dead {
            return;
        }
        let mut places = Vec::from_iter(self.places(step));
        places.retain(|place| step.topics.count(&place.0) == 0);
        if places.is_empty() {
            return;
        }
        let records = self.offset_tombstones(&places);
        step.write(self, Write::Forget { call: None, places }, records);
    }
}
