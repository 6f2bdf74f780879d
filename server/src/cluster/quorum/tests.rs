mod agreed;
mod seeded;
mod three;
