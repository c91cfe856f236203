//! The bots of an account. They are asked in order, and the first that wants a message gets it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    bots::{Bot, Intent, People, Said},
    ids::BotName,
};

/// An account's bots. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bots {
    all: Arc<[Arc<dyn Bot>]>,
}

/// Who said something.
#[derive(Clone, Copy, Debug)]
pub(super) enum Speaker<'a> {
    /// A person at this machine: every bot hears them.
    Local,
    /// A person in a room, by their name in that protocol.
    Person(&'a str),
    /// Somebody at GitHub who may write to the repository of which they speak. What they write is work for the bot that has a
    /// sandbox, never an order.
    AtGitHub,
}

/// A bot that wants a message, and what it means to that bot.
pub(super) type Wanted = (Arc<dyn Bot>, Intent);

/// A bot panicked while it read a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panicked;

impl Bots {
    pub(super) fn new(all: Vec<Arc<dyn Bot>>) -> Self {
        Self { all: all.into() }
    }

    /// Returns all of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<dyn Bot>> {
        self.all.iter()
    }

    /// Returns the bot of this name, unless it is not set up any more.
    pub(super) fn named(&self, name: &BotName) -> Option<&Arc<dyn Bot>> {
        self.iter().find(|bot| bot.name() == name)
    }

    /// Returns the bot that wants a message, and what it means to that bot.
    pub(super) fn wants(&self, speaker: Speaker<'_>, said: &Said<'_>) -> Result<Option<Wanted>, Panicked> {
        for bot in self.iter() {
            let hears = match speaker {
                Speaker::Local => true,
                // The protocol has let in only what the bot takes from whoever passes by, and `intent` says it again.
                Speaker::Person(person) => {
                    bot.policy().hears(person) || matches!(bot.policy().people, People::Passing(_))
                }
                Speaker::AtGitHub if bot.owns_sandbox() => return Ok(Some((Arc::clone(bot), Intent::Work))),
                Speaker::AtGitHub => false,
            };
            if !hears {
                continue;
            }
            // A panic in one bot must not end the work of a room that others serve, too.
            let intent = catch_unwind(AssertUnwindSafe(|| bot.intent(said))).map_err(|_| {
                tracing::error!(bot = %bot.name(), "a bot panicked over what a message means to it");
                Panicked
            })?;
            if let Some(intent) = intent {
                return Ok(Some((Arc::clone(bot), intent)));
            }
        }
        Ok(None)
    }
}
