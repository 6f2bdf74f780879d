mod agreed;
mod load;
pub(crate) mod local;
mod seeded;
pub(crate) mod shared;
mod three;
