//! x
mod matching;
