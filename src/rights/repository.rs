//! Names of repositories. Pure.

use std::fmt;

/// The most characters of an owner's or a repository's name.
const LONGEST: usize = 100;

/// A repository at GitHub: `owner/name`, in lower case, as GitHub tells names apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    /// Reads `owner/name`, with `.git` or without.
    pub fn parse(text: &str) -> Option<Self> {
        let (owner, name) = text.split_once('/')?;
        let name = name.strip_suffix(".git").unwrap_or(name);
        (is_owner(owner) && is_name(name)).then(|| Self(format!("{owner}/{name}").to_ascii_lowercase()))
    }

    /// Reads where a clone comes from: `https://github.com/owner/name.git`, `git@github.com:owner/name.git` and the like.
    pub fn of_remote(url: &str) -> Option<Self> {
        let url = url.trim().trim_end_matches('/');
        let rest = [
            "https://github.com/",
            "http://github.com/",
            "github.com/",
            "ssh://git@github.com/",
            "git@github.com:",
            "git://github.com/",
        ]
        .iter()
        .find_map(|start| {
            url.get(..start.len()).filter(|head| head.eq_ignore_ascii_case(start)).map(|head| &url[head.len()..])
        })?;
        Self::parse(rest)
    }

    /// Reads what a person writes: `owner/name`, or where a clone comes from.
    pub fn named(text: &str) -> Option<Self> {
        Self::parse(text.trim()).or_else(|| Self::of_remote(text))
    }

    /// Returns `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the owner.
    pub fn owner(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(owner, _)| owner)
    }

    /// Returns the name without its owner.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_owner(text: &str) -> bool {
    is_word(text, b"-_")
}

fn is_name(text: &str) -> bool {
    is_word(text, b"-_.") && !matches!(text, "." | ".." | ".git")
}

fn is_word(text: &str, extra: &[u8]) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_whatever_their_case_and_ending() {
        let site = Repository::parse("Acme/Site.git").unwrap();
        assert_eq!((site.as_str(), site.owner(), site.name()), ("acme/site", "acme", "site"));
        assert_eq!(Repository::parse("acme/site"), Some(site.clone()));
        for url in [
            "https://github.com/Acme/site",
            "https://GitHub.com/acme/site.git/",
            "github.com/acme/site",
            "git@github.com:acme/site.git",
            "ssh://git@github.com/acme/site",
        ] {
            assert_eq!(Repository::of_remote(url), Some(site.clone()), "{url}");
        }
        for no in [
            "",
            "acme",
            "acme/",
            "/site",
            "acme/site/x",
            "acme/..",
            "acme/.git",
            "ac.me/site",
            "acme/s ite",
            "acme/%73",
        ] {
            assert_eq!(Repository::parse(no), None, "{no}");
        }
        for (text, there) in [
            (" Acme/Site ", true),
            ("github.com/acme/site/", true),
            ("https://github.com/acme/site/x", false),
            ("github.com/a.b", false),
        ] {
            assert_eq!(Repository::named(text), there.then(|| site.clone()), "{text}");
        }
        for no in [
            "https://github.com.evil.org/acme/site",
            "https://gitlab.com/acme/site",
            "https://x@github.com/acme/site",
            "é",
        ] {
            assert_eq!(Repository::of_remote(no), None, "{no}");
        }
    }
}
