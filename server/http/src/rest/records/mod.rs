//! Records: in, one by one or in batches, and out, by offset, by time, or as they come.

pub(crate) mod one;
pub(crate) mod produce;
mod raw;
pub(crate) mod read;
mod stream;
