//! Hash maps. In a simulated world their order is the same in each run of a seed; otherwise they are the standard library's.

#[cfg(not(test))]
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V>;

#[cfg(test)]
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, super::simulated::Hashing>;
