//! The words that people read, in one voice: short, plain, says what to do next. One file a topic. Knows nothing of who
//! says them, nor of any setting's value: what is particular comes as an argument.

pub(crate) mod admin;
pub(crate) mod agents;
pub(crate) mod budgets;
pub(crate) mod chat;
pub(crate) mod commands;
pub(crate) mod database;
pub(crate) mod environments;
pub(crate) mod exobot;
pub(crate) mod files;
pub(crate) mod github;
pub(crate) mod localbot;
pub(crate) mod models;
pub(crate) mod rights;
pub(crate) mod rooms;
pub(crate) mod sandboxes;
pub(crate) mod talk;
pub(crate) mod tasks;
pub(crate) mod terminals;
pub(crate) mod told;
pub(crate) mod turns;
pub(crate) mod updates;

/// Returns a count of what has a regular plural: `1 commit`, `3 commits`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests;
