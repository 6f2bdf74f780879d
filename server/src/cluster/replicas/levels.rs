//! The feature levels that somebody can do.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

/// The level of a cluster that was never told another one, and all that a broker can do that says nothing.
pub(super) const FIRST: u16 = 1;

/// The levels that somebody can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Levels {
    pub(crate) oldest: u16,
    pub(crate) newest: u16,
}

impl Levels {
    /// What this program can do.
    pub(crate) const OWN: Levels = Levels {
        oldest: FIRST,
        newest: 1,
    };

    pub(super) fn has(self, level: u16) -> bool {
        (self.oldest..=self.newest).contains(&level)
    }
}

impl From<Levels> for RangeInclusive<u16> {
    fn from(levels: Levels) -> RangeInclusive<u16> {
        levels.oldest..=levels.newest
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Levels { oldest, newest } = self;
        if oldest == newest {
            write!(formatter, "level {newest} only")
        } else {
            write!(formatter, "levels {oldest} to {newest}")
        }
    }
}
