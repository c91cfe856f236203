//! Several bots on several accounts: who answers what, that nothing of one reaches another, and that all of it survives
//! kills and an upgrade from a version that knew one bot.

#[path = "../support/mod.rs"]
mod support;

mod chat;
mod house;
mod protocol;
mod rooms;
mod small;
mod talking;
mod terminal;
