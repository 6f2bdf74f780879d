//! Chance: numbers that nobody can guess.

use rand::distr::{Distribution, StandardUniform};

/// A random value.
pub(crate) fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    rand::random()
}

/// A new id that nobody else has (UUID version 4).
pub(crate) fn uuid() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(super::random()).into_uuid()
}
