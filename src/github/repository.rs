//! Names of repositories, and the operator's list of them.
//!
//! Pure.

use std::{collections::HashSet, fmt};

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

/// An entry of `GITHUB_REPOS` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no repository: write `owner/name`, or `owner/*` for all of an owner")]
pub struct BadRepository(pub String);

/// Repositories that the operator has listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repositories {
    exact: HashSet<Repository>,
    /// Owners, in lower case, all of whose repositories are meant.
    owners: HashSet<String>,
}

impl Repositories {
    /// Reads entries: `owner/name` or `owner/*`.
    pub fn parse<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> Result<Self, BadRepository> {
        let mut listed = Self::default();
        for entry in entries {
            let entry = entry.as_ref().trim();
            if let Some(owner) = entry.strip_suffix("/*").filter(|owner| is_owner(owner)) {
                listed.owners.insert(owner.to_ascii_lowercase());
            } else {
                listed.exact.insert(Repository::parse(entry).ok_or_else(|| BadRepository(entry.to_owned()))?);
            }
        }
        Ok(listed)
    }

    /// Returns those that are listed by their whole name, in the order of their names.
    pub fn whole_names(&self) -> impl Iterator<Item = Repository> {
        let mut names: Vec<Repository> = self.exact.iter().cloned().collect();
        names.sort();
        names.into_iter()
    }

    /// Tells whether a repository is among them.
    pub fn contains(&self, repository: &Repository) -> bool {
        self.exact.contains(repository) || self.owners.contains(repository.owner())
    }
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
        for no in [
            "https://github.com.evil.org/acme/site",
            "https://gitlab.com/acme/site",
            "https://x@github.com/acme/site",
            "é",
        ] {
            assert_eq!(Repository::of_remote(no), None, "{no}");
        }
    }

    #[test]
    fn a_list_has_repositories_and_owners() {
        let listed = Repositories::parse(["Acme/site", "tools/*"]).unwrap();
        let has = |name| listed.contains(&Repository::parse(name).unwrap());
        assert!(has("acme/SITE") && has("Tools/any"));
        assert!(!has("acme/other") && !has("tools2/any"));
        assert!(!Repositories::default().contains(&Repository::parse("acme/site").unwrap()));
        for bad in ["*", "*/*", "acme", "https://github.com/acme/site", "a b/*", ""] {
            assert_eq!(Repositories::parse([bad]), Err(BadRepository(bad.to_owned())), "{bad}");
        }
    }
}
