//! Checks the key for GitHub: whether GitHub takes it, what it may do, and for which of the listed repositories.

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

use super::Check;
use crate::{
    clock::Clock,
    config::Config,
    github::{GitHubError, KeyHealth},
    ops::settings,
};

const NAME: &str = "GitHub";
/// Days before a key's end from which on it is told.
const SOON: i64 = 14;

pub(super) async fn check(config: &Config) -> Vec<Check> {
    // A key that cannot be read is told with the settings.
    let clock = Clock::default();
    let Ok(github) = settings::github(config, clock.clone()) else { return vec![] };
    if !github.has_key() {
        return vec![Check::good(NAME, "no key: public repositories are read, and nothing is sent there")];
    }
    let now = Timestamp::from_millisecond(clock.millis()).unwrap_or_default();
    told(github.key_health().await, now.to_zoned(TimeZone::UTC).date())
}

fn told(health: Result<KeyHealth, GitHubError>, today: Date) -> Vec<Check> {
    let KeyHealth { name, workflows, ends, closed } = match health {
        Ok(health) => health,
        Err(GitHubError::BadKey) => {
            let what = "GitHub does not take the key: it is wrong, has expired or was revoked";
            return vec![Check::bad(
                NAME,
                what,
                "Make a new one and set it; for an App also look at this machine's clock",
            )];
        }
        Err(error) => return vec![Check::warning(NAME, error.to_string(), "Run `matrix-agent doctor` again later")],
    };
    let mut checks = vec![Check::good(
        NAME,
        format!(
            "the key of {name} is taken. Your CI runs pushed agent/… branches with the repository's secrets, as any branch: \
             docs/github.md, “Your CI”, says how to hold them"
        ),
    )];
    if workflows {
        checks.push(Check::warning(
            NAME,
            "the key may change workflows, so that a branch of an agent's can bring its own to your CI",
            "Take the permission Workflows (of a classic token the scope workflow) from it",
        ));
    }
    if let Some(ends) = ends.filter(|ends| *ends < today.saturating_add(SOON.days())) {
        checks.push(Check::warning(NAME, format!("the token ends on {ends}"), "Make a new one before that day"));
    }
    checks.extend(closed.into_iter().map(|(repository, error)| {
        Check::warning(NAME, format!("{repository} is listed and cannot be used"), error.to_string())
    }));
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::Repository;

    fn lines(health: Result<KeyHealth, GitHubError>) -> Vec<String> {
        let today = "2026-03-01".parse().expect("a day");
        told(health, today).iter().map(|check| format!("{} {}", check.status, check.what)).collect()
    }

    #[test]
    fn what_a_key_may_too_much_or_too_little_is_told() {
        let sound = KeyHealth { name: "ann".into(), workflows: false, ends: None, closed: vec![] };
        let lines_of = |health: &KeyHealth| lines(Ok(health.clone()));
        assert!(lines_of(&sound)[0].starts_with("✅ the key of ann is taken. Your CI runs"));
        assert_eq!(lines_of(&sound).len(), 1);
        let day = |day: &str| Some(day.parse().expect("a day"));
        assert_eq!(lines_of(&KeyHealth { ends: day("2026-03-15"), ..sound.clone() }).len(), 1);
        let site = Repository::parse("acme/site").expect("a name");
        let all = KeyHealth {
            workflows: true,
            ends: day("2026-03-14"),
            closed: vec![(site.clone(), GitHubError::Gone(site))],
            ..sound
        };
        let lines_of_all = lines_of(&all);
        for (line, start) in lines_of_all[1..].iter().zip([
            "⚠️ the key may change workflows",
            "⚠️ the token ends on 2026-03-14",
            "⚠️ acme/site is listed",
        ]) {
            assert!(line.starts_with(start), "{line}");
        }
        assert_eq!(lines_of_all.len(), 4);
        assert!(lines(Err(GitHubError::BadKey))[0].starts_with("❌ GitHub does not take the key"));
        assert!(lines(Err(GitHubError::Lost("status 502".into())))[0].starts_with("⚠️ GitHub does not answer"));
    }
}
