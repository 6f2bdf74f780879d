//! Under construction.

pub mod check;
pub mod config;
pub mod image;
pub mod topics;
