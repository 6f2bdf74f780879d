//! The journal of a core: what it has acknowledged is there whatever becomes of it, and what was dropped does not come back.

mod contract;
mod cores;
mod damage;
mod failures;
mod hardships;
