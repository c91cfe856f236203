//! What is granted to rooms: the store's rows in memory, so that a check waits for nothing.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use super::{act::Subject, history::Cover, repository::Repository};
use crate::{
    ids::{Address, TurnId},
    store::StoredGrant,
};

/// The kinds of subjects in the store.
const HOST: &str = "host";
const REPOSITORY: &str = "repository";

/// Something that was granted to a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What it is about.
    pub subject: Subject,
    /// Whether things may be changed there: branches pushed, pull requests opened, comments written.
    pub writes: bool,
    /// Who gave it, by their chat protocol's name.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub since: i64,
    /// When it ends; `None`: not by time.
    pub until: Option<i64>,
    /// The turn with which it ends.
    pub turn: Option<TurnId>,
}

/// How long a grant lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// Until this turn ends.
    Turn(TurnId),
    /// So long.
    For(Duration),
    /// Until it is taken back.
    Room,
}

impl Grant {
    /// Returns a grant that is given now.
    pub(super) fn new(subject: Subject, writes: bool, by: &str, now: i64, lasts: Lasts) -> Self {
        let (until, turn) = match lasts {
            Lasts::Turn(turn) => (None, Some(turn)),
            Lasts::For(time) => (Some(now.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))), None),
            Lasts::Room => (None, None),
        };
        Self { subject, writes, by: by.to_owned(), since: now, until, turn }
    }

    /// Returns it as the store has it.
    pub(super) fn stored(&self, at: &Address) -> StoredGrant {
        let (kind, what) = names(&self.subject);
        let Self { writes, by, since, until, turn, .. } = self.clone();
        StoredGrant { at: at.clone(), kind, what, writes, by, since, until, turn }
    }

    fn has_ended(&self, now: i64) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Returns whether it is in force at a time, while this turn is open in its room.
    fn holds(&self, now: i64, open: Option<&TurnId>) -> bool {
        !self.has_ended(now) && (self.turn.is_none() || self.turn.as_ref() == open)
    }
}

/// Returns a subject's kind and name in the store.
pub(super) fn names(subject: &Subject) -> (String, String) {
    let kind = match subject {
        Subject::Host(_) => HOST,
        Subject::Repository(_) => REPOSITORY,
    };
    (kind.to_owned(), subject.to_string())
}

/// The grants of all rooms.
#[derive(Debug, Default)]
pub(super) struct Granted {
    rooms: RwLock<HashMap<Address, Vec<Grant>>>,
}

impl Granted {
    /// Takes over what is stored.
    pub(super) fn load(&self, stored: Vec<StoredGrant>) {
        let mut rooms = self.write();
        rooms.clear();
        for StoredGrant { at, kind, what, writes, by, since, until, turn } in stored {
            let subject = match kind.as_str() {
                HOST => Some(Subject::Host(what)),
                REPOSITORY => Repository::parse(&what).map(Subject::Repository),
                // A newer version has granted what this one does not know.
                _ => None,
            };
            if let Some(subject) = subject {
                rooms.entry(at).or_default().push(Grant { subject, writes, by, since, until, turn });
            }
        }
    }

    /// Returns what the grants of a room say of an act about a subject, at a time and with this turn open.
    pub(super) fn cover(
        &self,
        at: &Address,
        subject: &Subject,
        writes: bool,
        now: i64,
        open: Option<&TurnId>,
    ) -> Cover {
        let rooms = self.read();
        let grants = rooms.get(at).into_iter().flatten();
        grants.filter(|grant| grant.subject == *subject && grant.holds(now, open)).fold(
            Cover::default(),
            |cover, grant| Cover {
                act: cover.act || grant.writes || !writes,
                // Whoever lets this work read it has said nothing of who may say yes to more.
                subject: cover.subject || grant.turn.is_none(),
            },
        )
    }

    /// Returns the rooms that have grants, or had some that have ended.
    pub(super) fn rooms(&self) -> Vec<Address> {
        self.read().keys().cloned().collect()
    }

    /// Returns the grants of a room that are in force.
    pub(super) fn of(&self, at: &Address, now: i64, open: Option<&TurnId>) -> Vec<Grant> {
        self.read().get(at).into_iter().flatten().filter(|grant| grant.holds(now, open)).cloned().collect()
    }

    /// Adds a grant, in place of one for the same subject and turn; those that have ended go.
    pub(super) fn add(&self, at: &Address, grant: Grant, now: i64) {
        let mut rooms = self.write();
        let grants = rooms.entry(at.clone()).or_default();
        grants.retain(|old| !old.has_ended(now) && (&old.subject, &old.turn) != (&grant.subject, &grant.turn));
        grants.push(grant);
    }

    /// Removes grants of a room.
    pub(super) fn remove(&self, at: &Address, which: impl Fn(&Grant) -> bool) {
        let mut rooms = self.write();
        if let Some(grants) = rooms.get_mut(at) {
            grants.retain(|grant| !which(grant));
            if grants.is_empty() {
                rooms.remove(at);
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Address, Vec<Grant>>> {
        self.rooms.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Address, Vec<Grant>>> {
        self.rooms.write().unwrap_or_else(PoisonError::into_inner)
    }
}
