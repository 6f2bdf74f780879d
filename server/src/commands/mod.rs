//! What `headwater-server` does besides running the broker and looking at the machine: a first configuration (`init`), whether a
//! broker is ready (`ready`), and what a shell and `man` want to know of it. The command line itself is `main`'s.

pub mod init;
pub mod ready;
pub mod shell;
