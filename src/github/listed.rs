//! The operator's list of repositories. Pure.

use std::collections::HashSet;

use crate::rights::Repository;

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
            if let Some(owner) = entry.strip_suffix("/*").and_then(owner) {
                listed.owners.insert(owner);
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

/// Reads an owner's name.
fn owner(text: &str) -> Option<String> {
    Repository::parse(&format!("{text}/x")).map(|any| any.owner().to_owned())
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
