//! Transactions: what is open, what was aborted, and how far readers of what is committed may read.

mod compact;
mod crash;
mod history;
mod life;
mod model;
mod reader;
mod rules;
