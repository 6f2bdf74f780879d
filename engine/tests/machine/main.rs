//! Promises that only a real kernel can confirm, each on a file system of its own.
//!
//! They need root, loop devices and `mkfs.ext4`; where something is missing they say so and pass, unless
//! `HEADWATER_REQUIRE_ROOT_TESTS` is set to 1, as it is in `.ci/run`: then that is a failure.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod allocate;
mod flushes;
mod mounted;
mod setting;
