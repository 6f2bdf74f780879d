//! Values made of random bytes, so that proptest makes the bytes, and makes them fewer when a test fails.

use crate::value::{Bytes, Str, Uuid, Version};

/// Bytes to make values of; zeros without end behind them, which make the smallest values.
pub struct Source<'s> {
    bytes: &'s [u8],
}

impl<'s> Source<'s> {
    pub const fn new(bytes: &'s [u8]) -> Self {
        Self { bytes }
    }

    fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
}

/// What can be made at random, as it is at a version.
pub trait Random {
    fn random(source: &mut Source<'_>, v: Version) -> Self;
}

macro_rules! numbers {
    ($($number:ty)+) => {$(
        impl Random for $number {
            fn random(source: &mut Source<'_>, _: Version) -> Self {
                Self::from_be_bytes(source.array())
            }
        }
    )+};
}

numbers! { i8 i16 u16 i32 i64 }

impl Random for f64 {
    fn random(source: &mut Source<'_>, v: Version) -> Self {
        // Equal to itself, unlike some.
        Self::from(i32::random(source, v)) / 4.0
    }
}

impl Random for bool {
    fn random(source: &mut Source<'_>, _: Version) -> Self {
        source.byte() & 1 != 0
    }
}

impl Random for Uuid {
    fn random(source: &mut Source<'_>, _: Version) -> Self {
        source.array()
    }
}

/// Lengths are short, but sometimes of two bytes in the flexible form.
fn length(source: &mut Source<'_>) -> usize {
    match source.byte() {
        255 => 300,
        byte => usize::from(byte) % 5,
    }
}

impl Random for Str<'_> {
    fn random(source: &mut Source<'_>, _: Version) -> Self {
        let len = length(source);
        let letters = ['a', 'ä', '-', '日', '\0'];
        let text = (0..len).map(|_| letters[usize::from(source.byte()) % letters.len()]);
        Self::Owned(text.collect())
    }
}

impl Random for Bytes<'_> {
    fn random(source: &mut Source<'_>, _: Version) -> Self {
        let len = length(source);
        Self::Owned((0..len).map(|_| source.byte()).collect())
    }
}

impl<T: Random> Random for Vec<T> {
    fn random(source: &mut Source<'_>, v: Version) -> Self {
        let len = usize::from(source.byte()) % 4;
        (0..len).map(|_| T::random(source, v)).collect()
    }
}

impl<T: Random> Random for Option<T> {
    fn random(source: &mut Source<'_>, v: Version) -> Self {
        (source.byte() & 3 != 0).then(|| T::random(source, v))
    }
}
