//! The settings for subcommands: each says for what it needs them, and gets the typed settings or every mistake at
//! once.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
};

use crate::{
    config::{self, Config, Loaded, LogFormat, Mistakes, Paths, Setting, ShownAccount, Sources, Unread},
    ops::{self, Purpose},
};

/// The settings as they were read, right or wrong.
#[derive(Debug)]
pub(super) struct Configuration {
    loaded: Loaded,
    /// Where the settings were looked for.
    sources: Sources,
}

impl Configuration {
    /// Reads all layers; mistakes are reported by the methods below.
    pub(super) fn read(sources: &Sources) -> Self {
        Self { loaded: config::load(sources), sources: sources.clone() }
    }

    /// Returns every effective setting.
    pub(super) fn settings(&self) -> &[Setting] {
        &self.loaded.settings
    }

    /// Returns the path of a file that lies beside the settings; `None` if there are none.
    pub(super) fn beside(&self, name: &str) -> Option<PathBuf> {
        self.sources.beside(name)
    }

    /// Returns the options that name the files of settings, for another program that is to read the same.
    pub(super) fn options(&self) -> Vec<OsString> {
        let files = [("--env-file", &self.sources.env_file), ("--config-file", &self.sources.file)];
        let named = files.into_iter().filter_map(|(option, file)| Some((option, file.as_ref()?)));
        let file = |file: &PathBuf| self.sources.working_directory.join(file).into_os_string();
        named.flat_map(|(option, named)| [option.into(), file(named)]).collect()
    }

    /// Returns the Matrix accounts.
    pub(super) fn accounts(&self) -> Vec<ShownAccount> {
        self.loaded.accounts()
    }

    /// Returns files of settings that were not read although somebody might expect it.
    pub(super) fn unread(&self) -> &[Unread] {
        &self.loaded.unread
    }

    /// Checks whether the settings suffice for `purpose`.
    pub(super) fn check(&self, purpose: Purpose) -> Result<(), Mistakes> {
        let mistakes = ops::review(&self.loaded, purpose);
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// Checks whether the settings suffice for a server that somebody reaches in a room.
    pub(super) fn check_rooms(&self) -> Result<(), Mistakes> {
        let mut mistakes = ops::review(&self.loaded, Purpose::Run);
        mistakes.extend(ops::review_rooms(&self.loaded));
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// Returns the settings if they suffice for `purpose`.
    pub(super) fn checked(&self, purpose: Purpose) -> Result<&Config, Mistakes> {
        self.check(purpose).map(|()| &self.loaded.config)
    }

    /// Returns the state directory, for what needs nothing else: whoever looks after a server that runs is not kept from it by a mistake
    /// in a setting that it read before. Mistakes elsewhere are told on standard error.
    pub(super) fn state_dir(&self) -> Result<PathBuf, Mistakes> {
        self.state().map(|paths| paths.state_dir.clone())
    }

    /// Returns the directory of the audit log, in the same way.
    pub(super) fn audit(&self) -> Result<PathBuf, Mistakes> {
        self.state().map(Paths::audit)
    }

    fn state(&self) -> Result<&Paths, Mistakes> {
        let mistakes = ops::review(&self.loaded, Purpose::Anything);
        if self.loaded.is_state_unsure {
            return Err(mistakes);
        }
        if !mistakes.is_empty() {
            let told =
                "warning: Settings are wrong, and no server would start with them: `matrix-agent config` tells which.";
            // If standard error is closed, nobody is there to be warned.
            let _ = writeln!(io::stderr(), "{told}");
        }
        Ok(&self.loaded.config.paths)
    }

    /// Returns how the log is written.
    pub(super) fn log_format(&self) -> LogFormat {
        self.loaded.config.paths.log_format
    }

    /// Returns whether a model is configured.
    pub(super) fn has_model(&self) -> bool {
        ops::has_model(&self.loaded.config)
    }

    /// Returns what was read, right or wrong, for `doctor`, which reports all of it.
    pub(super) fn into_loaded(self) -> Loaded {
        self.loaded
    }
}
