mod agreed;
pub(crate) mod local;
mod seeded;
pub(crate) mod shared;
mod three;
