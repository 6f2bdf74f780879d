//! Those who take part, each a process on a host of its own: all of them the client library, but for a straggler.

mod admin;
mod committer;
mod keeper;
mod member;
mod producer;
mod reader;
mod straggler;
mod trimmer;

pub(super) use self::{
    admin::{Admin, Topics},
    committer::Committer,
    keeper::{Book, Keeper},
    member::Member,
    producer::Producer,
    reader::Reader,
    straggler::commit_late,
    trimmer::Trimmer,
};
use super::{client, judge, ledger, scenario, wire};
