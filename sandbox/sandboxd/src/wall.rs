//! Holds a command, and all that it starts, to where it may write: by Landlock, so that nothing which the command runs can
//! take it back.
//!
//! What may be read stays as it is. Landlock knows neither `chmod` nor `utimes`, and what ran before is not held: whoever
//! needs to know that nothing changed looks at the files after the command, too.

use std::{fs::File, io, process};

use landlock::{
    ABI, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, path_beneath_rules,
};

/// The newest version of Landlock whose ways of writing are named here; an older kernel holds what it knows.
const NEWEST: ABI = ABI::V5;

/// Lets this process write below the directories and to the files of `writable` alone, from now on. A path that does not
/// exist allows nothing. Fails where the kernel has no Landlock.
pub(crate) fn write_only_below(writable: &[String]) -> io::Result<()> {
    let writing = AccessFs::from_write(NEWEST);
    let restrict = || -> Result<_, RulesetError> {
        let rules = path_beneath_rules(writable, writing);
        Ruleset::default().handle_access(writing)?.create()?.add_rules(rules)?.restrict_self()
    };
    match restrict() {
        Ok(status) if status.ruleset != RulesetStatus::NotEnforced => Ok(()),
        Ok(_) => Err(io::ErrorKind::Unsupported.into()),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Makes a file in a directory and removes it again.
pub(crate) fn try_to_write(directory: &str) -> io::Result<()> {
    let path = format!("{directory}/.probe-{}", process::id());
    File::create_new(&path)?;
    std::fs::remove_file(path)
}
