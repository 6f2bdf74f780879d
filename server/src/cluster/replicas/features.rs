//! What the brokers of a cluster may rely on of each other. A level stands for everything that brokers do together: what they agree on,
//! write and send to each other. Each broker says which levels it can do; the cluster is at the level that an operator has finalised,
//! however new the brokers are. Until then it is as it was, and the older program can be started again; afterwards there is no way back.
//!
//! | level | what it unlocks |
//! |---|---|
//! | 1 | everything that there is today |
//!
//! A form that a broker of the level before cannot read is used only from the level on that unlocks it.

use headwater_protocol::id::BrokerId;
use serde::{Deserialize, Serialize};

use super::{
    error::ReplicaError,
    levels::{FIRST, Levels},
    state::BROKERS_MAX,
};
use crate::model::plain;

/// The level of the cluster, and what its brokers can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Features {
    finalised: u16,
    #[serde(with = "plain::keyed")]
    supported: Vec<(BrokerId, Levels)>,
}

impl Default for Features {
    fn default() -> Features {
        Features {
            finalised: FIRST,
            supported: Vec::new(),
        }
    }
}

impl Features {
    /// The level at which the cluster is.
    pub(crate) fn finalised(&self) -> u16 {
        self.finalised
    }

    /// What a broker can do. One that has not said anything is as old as brokers are.
    pub(crate) fn supported(&self, broker: BrokerId) -> Levels {
        let said = self.supported.iter().find(|(id, _)| *id == broker);
        said.map_or(
            Levels {
                oldest: FIRST,
                newest: FIRST,
            },
            |(_, levels)| *levels,
        )
    }

    /// Notes what a broker can do; one that cannot do what the others rely on must not be one of them.
    pub(super) fn support(&mut self, broker: BrokerId, levels: Levels) -> Result<(), ReplicaError> {
        if !levels.has(self.finalised) {
            return Err(ReplicaError::Level {
                broker,
                levels,
                finalised: self.finalised,
            });
        }
        self.forget(broker);
        if self.supported.len() >= BROKERS_MAX {
            return Err(ReplicaError::TooManyBrokers(BROKERS_MAX));
        }
        self.supported.push((broker, levels));
        Ok(())
    }

    /// Whether a broker may be one of the cluster, as far as is known of it.
    pub(super) fn check(&self, broker: BrokerId) -> Result<(), ReplicaError> {
        let levels = self.supported(broker);
        if levels.has(self.finalised) {
            return Ok(());
        }
        Err(ReplicaError::Level {
            broker,
            levels,
            finalised: self.finalised,
        })
    }

    /// The cluster is at this level from now on, if all of these brokers can do it.
    pub(super) fn finalise(&mut self, level: u16, brokers: impl Iterator<Item = BrokerId>) -> Result<(), ReplicaError> {
        if level < self.finalised {
            return Err(ReplicaError::LevelBefore {
                level,
                finalised: self.finalised,
            });
        }
        for broker in brokers {
            let levels = self.supported(broker);
            if !levels.has(level) {
                return Err(ReplicaError::Unsupported { broker, levels, level });
            }
        }
        self.finalised = level;
        Ok(())
    }

    /// A broker is gone for good.
    pub(super) fn forget(&mut self, broker: BrokerId) {
        self.supported.retain(|(id, _)| *id != broker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(id: i32) -> BrokerId {
        BrokerId::new(id)
    }

    fn levels(oldest: u16, newest: u16) -> Levels {
        Levels { oldest, newest }
    }

    #[test]
    fn a_level_is_finalised_only_when_every_broker_can_do_it_and_there_is_no_way_back() {
        let mut features = Features::default();
        let both = || [broker(0), broker(1)].into_iter();
        features.support(broker(0), levels(1, 2)).unwrap();
        // The other one has said nothing, or is started as the older program again: nothing was finalised yet.
        for older in [None, Some(levels(1, 1))] {
            if let Some(older) = older {
                features.support(broker(1), levels(1, 2)).unwrap();
                features.support(broker(1), older).unwrap();
            }
            let refused = features.finalise(2, both()).unwrap_err();
            assert_eq!(
                refused,
                ReplicaError::Unsupported {
                    broker: broker(1),
                    levels: levels(1, 1),
                    level: 2
                }
            );
        }
        assert_eq!(features.finalised(), 1);
        features.support(broker(1), levels(1, 3)).unwrap();
        features.finalise(2, both()).unwrap();
        features.finalise(2, both()).unwrap();
        assert_eq!(features.finalised(), 2);
        let back = features.finalise(1, both()).unwrap_err();
        assert_eq!(back, ReplicaError::LevelBefore { level: 1, finalised: 2 });
    }

    #[test]
    fn who_cannot_do_what_was_finalised_is_refused_also_if_it_says_nothing() {
        let mut features = Features::default();
        features.support(broker(0), levels(1, 2)).unwrap();
        features.finalise(2, [broker(0)].into_iter()).unwrap();
        for old in [levels(1, 1), levels(3, 4)] {
            let refused = features.support(broker(0), old).unwrap_err();
            assert_eq!(
                refused,
                ReplicaError::Level {
                    broker: broker(0),
                    levels: old,
                    finalised: 2
                }
            );
        }
        assert_eq!(features.check(broker(0)), Ok(()));
        assert!(features.check(broker(1)).is_err());
        // One that is gone for good says nothing any more.
        features.forget(broker(0));
        assert!(features.check(broker(0)).is_err());
    }
}
