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
