//! The tables of the native protocol's heads, as `flatc` makes them of `schema/headwater.fbs`.
//!
//! `schema/generate` writes the generated file and, with `--check`, tells whether it still is what the compiler makes
//! of the schema. Read untrusted heads through [`head::decode`](crate::head::decode) only: it verifies them first.

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    mismatched_lifetime_syntaxes,
    missing_docs,
    unused_extern_crates,
    unsafe_op_in_unsafe_fn
)]
#[rustfmt::skip]
mod generated;

pub use generated::headwater::*;
