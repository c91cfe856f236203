//! The model client against a real HTTP server that plays providers: their streams as recorded, their refusals, their
//! silences.

#[path = "../support/mod.rs"]
mod support;

mod asked;
mod broken;
mod labels;
mod providers;
mod repeated;
mod trouble;
mod windows;
