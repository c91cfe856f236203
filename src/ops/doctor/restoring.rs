//! Whether a backup has come back only in part. Where none has, there is nothing to tell.

use super::Check;
use crate::{config::Config, ops::lock::is_restoring};

pub(super) fn check(config: &Config) -> Vec<Check> {
    match is_restoring(&config.paths.state_dir) {
        Ok(true) => vec![Check::bad(
            "restore",
            format!(
                "a restore in {} was cut off, or is under way; no server starts there",
                config.paths.state_dir.display()
            ),
            "If it is over, run scripts/restore.sh again with its backup: it puts back what was there, and begins anew",
        )],
        // Who may not look there is told so by the check of the database.
        Ok(false) | Err(_) => Vec::new(),
    }
}
