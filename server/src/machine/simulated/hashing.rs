//! Hash maps whose order is the same in each run of a seed.

use std::hash::{BuildHasher, DefaultHasher, RandomState};

use super::is_running;

/// Keys of a hash map: nobody's guess on the real machine, the same each time in a simulated world.
#[derive(Clone)]
pub(crate) enum Hashing {
    Random(RandomState),
    Known,
}

impl Default for Hashing {
    fn default() -> Hashing {
        if is_running() {
            Hashing::Known
        } else {
            Hashing::Random(RandomState::new())
        }
    }
}

impl BuildHasher for Hashing {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        match self {
            Hashing::Random(state) => state.build_hasher(),
            Hashing::Known => DefaultHasher::new(),
        }
    }
}
