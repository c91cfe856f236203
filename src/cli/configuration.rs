//! The settings as the subcommands get them: each asks for what it is going to do, and gets the typed settings for
//! that or every mistake at once.

use crate::{
    config::{self, Config, Loaded, Mistakes, Setting, Sources, Unread},
    ops::{self, Purpose},
};

/// What was read, right or wrong.
#[derive(Debug)]
pub(super) struct Configuration {
    loaded: Loaded,
}

impl Configuration {
    /// Reads all layers; what is wrong is told by the methods below.
    pub(super) fn read(sources: &Sources) -> Self {
        Self { loaded: config::load(sources) }
    }

    /// Returns every setting as it is in effect.
    pub(super) fn settings(&self) -> &[Setting] {
        &self.loaded.settings
    }

    /// Returns the files of settings that were not read, though somebody might believe so.
    pub(super) fn unread(&self) -> &[Unread] {
        &self.loaded.unread
    }

    /// Says whether the settings will do for `purpose`.
    pub(super) fn check(&self, purpose: Purpose) -> Result<(), Mistakes> {
        let mistakes = ops::review(&self.loaded, purpose);
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// Returns the settings if they will do for `purpose`.
    pub(super) fn checked(&self, purpose: Purpose) -> Result<&Config, Mistakes> {
        self.check(purpose).map(|()| &self.loaded.config)
    }

    /// Returns whether a model can be asked.
    pub(super) fn has_model(&self) -> bool {
        ops::has_model(&self.loaded.config)
    }

    /// Returns what was read, right or wrong: for `doctor`, who tells all that is.
    pub(super) fn into_loaded(self) -> Loaded {
        self.loaded
    }
}
