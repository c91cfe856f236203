//! What rooms are told of the program's own replacement.

use super::counted;

/// The version that served before the last update, in a sentence.
pub(crate) const THE_ONE_BEFORE: &str = "the version before";

/// A version, in a sentence.
pub(crate) fn version(commit: &str, subject: &str) -> String {
    let commit: String = commit.chars().take(10).collect();
    match (commit.is_empty(), subject.is_empty()) {
        (true, _) => "the new version".to_owned(),
        (false, true) => format!("`{commit}`"),
        (false, false) => format!("`{commit}` ({subject})"),
    }
}

/// A new version will be started now.
pub(crate) fn built(version: &str) -> String {
    format!(
        "🔧 I have built {version}, and it works on a copy of my data. I start anew with it now; what runs here goes on."
    )
}

/// The new version serves.
pub(crate) fn done(version: &str, note: Option<&str>) -> String {
    let note = note.map(|note| format!(" {note}")).unwrap_or_default();
    format!("✅ I run as {version} now.{note}")
}

/// Nothing was changed.
pub(crate) fn kept(version: &str, why: &str) -> String {
    format!(
        "❌ I was not replaced by {version}: {}. The version that ran before has run all the time.",
        why.trim_end_matches('.')
    )
}

/// The old version serves again.
pub(crate) fn back(version: &str, why: &str) -> String {
    format!(
        "❌ I was replaced by {version}, and that has failed: {}. The version that ran before runs again.",
        why.trim_end_matches('.')
    )
}

/// Neither version serves as it should.
pub(crate) fn stuck(version: &str, why: &str) -> String {
    format!(
        "❌ I was replaced by {version}, and the way back has failed, too: {}. See `journalctl -u matrix-agent-redeploy` on the server.",
        why.trim_end_matches('.')
    )
}

/// What an administrator is asked, before it is known which commit it is about.
pub(crate) const REPLACE: &str = "replace this server's own program";

/// The same with the commit, and how many come along.
pub(crate) fn to_replace(commit: &str, subject: &str, count: usize) -> String {
    format!("{REPLACE} by {}, {} further, and start it anew", version(commit, subject), counted(count as u64, "commit"))
}

/// What is done at the moment.
pub(crate) fn step(builds: bool) -> &'static str {
    if builds { "the new version is being built" } else { "the new version is being tried" }
}
