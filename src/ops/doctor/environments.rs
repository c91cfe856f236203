//! Checks what is kept of repositories' setups, and the file with what these are given. Only reads.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use super::Check;
use crate::{
    clock::Clock,
    config::Config,
    environments::{self, BadSecrets, Listed},
    ops::settings,
    text,
};

const NAME: &str = "environments";

pub(super) fn check(config: &Config) -> Vec<Check> {
    let bound = config.sandbox.environments;
    if bound == 0 {
        return vec![Check::good(NAME, "ENVIRONMENTS_DISK is 0: no repository is set up")];
    }
    let mut checks =
        vec![kept(environments::list(&settings::environments_folder(config)), bound, Clock::default().file_date())];
    checks.extend(config.sandbox.setup_secrets.as_deref().and_then(secrets));
    checks
}

fn kept(listed: io::Result<Vec<Listed>>, bound: u64, now: SystemTime) -> Check {
    let bound = text::human_bytes(bound);
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let what = format!("what is kept of repositories' setups cannot be read ({error})");
            return Check::warning(NAME, what, "Run `matrix-agent doctor` as the server's user");
        }
    };
    let Some(oldest) = listed.last() else {
        return Check::good(NAME, format!("none is kept yet, of {bound} (ENVIRONMENTS_DISK)"));
    };
    let bytes = text::human_bytes(listed.iter().map(|listed| listed.bytes).sum());
    let age = text::human_duration(now.duration_since(oldest.used).unwrap_or(Duration::ZERO));
    let (number, oldest) = (listed.len(), &oldest.repository);
    Check::good(
        NAME,
        format!("{number} kept, {bytes} of {bound} (ENVIRONMENTS_DISK); {oldest} was not used for longest: {age}"),
    )
}

/// Looks through the file with secrets; one that is not there is told with the settings.
fn secrets(file: &Path) -> Option<Check> {
    let shown = file.display();
    match environments::look_through(file) {
        Ok(number) => Some(Check::good(NAME, format!("SETUP_SECRETS: {number} in {shown}"))),
        Err(BadSecrets::Missing | BadSecrets::NoFile) => None,
        Err(error) => {
            let what = format!(
                "SETUP_SECRETS: {shown} cannot be used, and no setup of a repository that is listed there works: {error}"
            );
            Some(Check::bad(NAME, what, error.mend()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn what_is_kept_is_told_in_a_line() {
        let told = |listed, bound| kept(listed, bound, Clock::default().file_date()).what;
        assert_eq!(told(Ok(vec![]), 10 << 30), "none is kept yet, of 10 GiB (ENVIRONMENTS_DISK)");
        assert!(told(Err(io::ErrorKind::NotFound.into()), 1 << 30).starts_with("none is kept yet"));
        assert!(told(Err(io::ErrorKind::PermissionDenied.into()), 1 << 30).contains("cannot be read"));
        let folder = tempfile::tempdir().expect("a folder");
        for (key, repository, days) in [("a", "acme/site", 1), ("b", "acme/other", 3)] {
            let file = fs::File::create(folder.path().join(format!("{key}.tar"))).expect("a file");
            let used = Clock::default().file_date() - Duration::from_hours(24 * days);
            file.set_modified(used).expect("a time");
            let record =
                serde_json::json!({"repository": repository, "script": "a.sh", "bytes": 3 << 20, "seconds": 1});
            fs::write(folder.path().join(format!("{key}.json")), record.to_string()).expect("a file");
        }
        let listed = environments::list(folder.path());
        assert_eq!(
            told(listed, 10 << 30),
            "2 kept, 6 MiB of 10 GiB (ENVIRONMENTS_DISK); acme/other was not used for longest: 3 d"
        );
    }

    #[test]
    fn whatever_is_wrong_with_the_secrets_is_told_with_the_mend_and_without_a_value() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("secrets");
        assert!(secrets(&file).is_none() && secrets(folder.path()).is_none(), "these are told with the settings");
        let told = |text: &str, mode: u32| {
            fs::write(&file, text).expect("a file");
            fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("a mode");
            let check = secrets(&file).expect("it is told");
            assert!(!check.what.contains("canary-value"), "{}", check.what);
            format!("{}. {}", check.what, check.mend.unwrap_or_default())
        };
        assert!(
            told("# ours\nacme/site A=canary-value\nacme/site B=canary-value\n", 0o600)
                .contains("SETUP_SECRETS: 2 in ")
        );
        assert!(told("acme/site A=canary-value\n", 0o644).ends_with("may read it. Run `chmod 600` on it"));
        assert!(
            told("\nacme canary-value\n", 0o600)
                .ends_with("line 2 is none of `owner/name NAME=value`. Write `owner/name NAME=value` there")
        );
    }
}
