//! x
mod arguments;
mod lines;
mod matching;
mod nearest;
