mod agreed;
pub(crate) mod local;
mod seeded;
mod three;
