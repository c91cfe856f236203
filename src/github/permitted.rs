//! Pushes that somebody has said yes to: the tool `github` notes each while it makes it, and the gateway, by which it goes,
//! lets nothing else out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::GitHub;
use crate::{ids::Address, rights::Repository};

/// The pushes that are being made.
#[derive(Debug, Default)]
pub(super) struct Permitted(Mutex<Vec<Push>>);

/// One branch of a repository, set to one commit from one room.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Push {
    room: Address,
    repository: Repository,
    branch: String,
    commit: String,
}

/// A permitted push; it is one no more when this is dropped.
pub struct PermittedPush {
    github: GitHub,
    push: Push,
}

impl Permitted {
    fn all(&self) -> MutexGuard<'_, Vec<Push>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GitHub {
    /// Lets a room's sandbox set a branch (`agent/login`) to a commit (its whole id) until the returned value is dropped.
    #[must_use]
    pub fn permit_push(&self, room: &Address, repository: &Repository, branch: &str, commit: &str) -> PermittedPush {
        let push = Push {
            room: room.clone(),
            repository: repository.clone(),
            branch: branch.to_owned(),
            commit: commit.to_owned(),
        };
        self.inner.permitted.all().push(push.clone());
        PermittedPush { github: self.clone(), push }
    }

    /// Tells whether a room's sandbox may set a branch to a commit now.
    pub fn permits_push(&self, room: &Address, repository: &Repository, branch: &str, commit: &str) -> bool {
        self.inner.permitted.all().iter().any(|push| {
            (&push.room, &push.repository, &*push.branch, &*push.commit) == (room, repository, branch, commit)
        })
    }
}

impl Drop for PermittedPush {
    fn drop(&mut self) {
        let mut all = self.github.inner.permitted.all();
        if let Some(at) = all.iter().position(|push| *push == self.push) {
            all.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_permitted_as_it_is_and_while_it_is_made() {
        let github = GitHub::default();
        let [site, other] = ["acme/site", "acme/other"].map(|name| Repository::parse(name).unwrap());
        let [room, elsewhere] = ["!a:x.org", "!b:x.org"].map(|room| Address::of_first(room.to_owned()));
        let permits = |room, repository, branch, commit| github.permits_push(room, repository, branch, commit);
        assert!(!permits(&room, &site, "agent/x", "1"));
        let first = github.permit_push(&room, &site, "agent/x", "1");
        let second = github.permit_push(&room, &site, "agent/x", "1");
        assert!(permits(&room, &site, "agent/x", "1"));
        assert!(!permits(&elsewhere, &site, "agent/x", "1"));
        assert!(!permits(&room, &other, "agent/x", "1"));
        assert!(!permits(&room, &site, "agent/y", "1"));
        assert!(!permits(&room, &site, "agent/x", "2"));
        drop(first);
        assert!(permits(&room, &site, "agent/x", "1"), "the other one is still made");
        drop(second);
        assert!(!permits(&room, &site, "agent/x", "1"));
    }
}
