//! The bot in Matrix rooms: a real homeserver, the real binary, real sandboxes, persons with real clients. Only the
//! model is scripted.

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod audit;
mod backlog;
mod coding_agents;
mod commands;
mod crash;
mod element;
mod files;
mod guests;
mod hostile;
mod lies;
mod locked;
mod messages;
mod outage;
mod people;
mod places;
mod quotes;
mod rights;
mod session;
mod talk;
mod trouble;
mod unsigned;
mod verification;
