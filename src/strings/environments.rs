//! Environments of repositories: what rooms and models are told. Those without a full stop are clauses, which follow
//! upon what was not done.

use std::{fmt::Display, io, path::Path};

/// Told in the room when a script begins.
pub(crate) fn begins(repository: &str, script: &str) -> String {
    format!("setting up {repository} with its {script}; that is done once, and later clones have it ready")
}

/// Told in the room, and to the model, when there is no environment.
pub(crate) fn not_there(repository: &str, why: &dyn Display) -> String {
    format!("{repository} was not set up: {why}")
}

/// Told to the model once it is there.
pub(crate) fn there(repository: &str, script: &str, size: &str, made: bool, seconds: u64) -> String {
    let how = if made {
        format!("Its {script} was run on a fresh clone ({seconds} s)")
    } else {
        format!("Its {script} had been run on a fresh clone before")
    };
    format!(
        "{repository} is set up. {how}, and what that left in /home/agent, in the system and beside the files of the repository is in \
         place here ({size}): it needs no second installation."
    )
}

/// The clone's state is not that of which environments are made.
pub(crate) const OTHER_STATE: &str =
    "its script or lock files here differ from those of its default branch, and only that one is set up";

/// It has just failed.
pub(crate) const FAILED_BEFORE: &str = "its script failed within the last ten minutes, and is not run again yet";

/// A script that has failed, with its last lines.
pub(crate) fn failed(script: &str, how: &str, lines: &[String]) -> String {
    format!("its {script} {how}{}", quoted(lines))
}

/// A repository that the room may not read, or of which that is not known.
pub(crate) fn not_readable(why: &str) -> String {
    format!("this room cannot clone it now. {why}")
}

/// A repository that cannot be cloned.
pub(crate) fn not_cloned(lines: &[String]) -> String {
    format!("it could not be cloned anew{}", quoted(lines))
}

/// What it left is too large.
pub(crate) fn too_large(bound: &str) -> String {
    format!("what its script left is larger than {bound} (ENVIRONMENTS_DISK)")
}

/// What it left holds a secret.
pub(crate) fn holds_secret(name: &str) -> String {
    format!("its script left {name} in a file, where whoever works here could read it, so that nothing of it was kept")
}

/// What it left could not be packed.
pub(crate) fn not_packed(how: &str) -> String {
    format!("packing what its script left {how}")
}

/// It could not be unpacked.
pub(crate) fn not_unpacked(why: &str) -> String {
    format!("what is kept of it could not be unpacked whole ({why})")
}

/// The folder of what is kept fails.
pub(crate) fn not_kept(error: &io::Error) -> String {
    format!("the server could not read or write what it keeps ({error})")
}

/// The file with secrets fails.
pub(crate) fn secrets_file(file: &Path, why: &dyn Display, mend: &str) -> String {
    format!("the operator's {} (SETUP_SECRETS) cannot be used: {why}. {mend}", file.display())
}

/// What was brought into a room, as a line of what is observed there.
pub(crate) fn here(repository: &str, folder: &str, size: &str) -> String {
    format!("\nset up    {repository} in /workspace/{folder} ({size})")
}

fn quoted(lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    lines.iter().fold(". It said:".to_owned(), |text, line| text + "\n| " + line.as_str())
}
