//! The words that people read, in one voice: short, plain, says what to do next. One file a topic. Knows nothing of who
//! says them, nor of any setting's value: what is particular comes as an argument.

pub mod agents;
pub mod budgets;
pub mod commands;
pub mod database;
pub mod files;
pub mod models;
pub mod rooms;
pub mod sandboxes;
pub mod terminals;
pub mod told;
pub mod turns;

#[cfg(test)]
mod tests;
