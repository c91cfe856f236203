//! A newer version takes the place of the one that runs, or the one that runs goes on.

#[path = "../support/mod.rs"]
mod support;

mod asked;
mod canary;
mod full;
mod machine;
mod rooms;
mod switch;
