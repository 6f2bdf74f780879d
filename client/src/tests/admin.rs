//! What is promised.
