//! Reads a bot's own file by the table of its settings; what is missing is a mistake like any other.

use std::path::Path;

use super::{
    Mistakes, Wrong,
    keys::{Key, Table},
    raw::Raw,
    reader::Reader,
};

/// A bot's file on its way to its meaning.
pub(super) struct Reading(Reader);

impl Reading {
    /// Begins with the text of the file, which is shown by this name and holds the settings of `table`.
    pub(super) fn new(shown: &Path, text: &str, table: Table) -> Self {
        let mut mistakes = Mistakes::default();
        let raw = Raw::of_file(shown, text, table, &mut mistakes);
        Self(Reader { raw, settings: Vec::new(), mistakes })
    }

    /// Reads a setting that may have no value.
    pub(super) fn optional<T>(&mut self, key: &Key<T>) -> Option<T> {
        self.0.optional(key)
    }

    /// Reads a setting with a default in the table.
    pub(super) fn value<T>(&mut self, key: &Key<T>) -> T {
        self.0.value(key)
    }

    /// Reads a setting without which there is no bot.
    pub(super) fn needed<T>(&mut self, key: &Key<T>) -> Option<T> {
        let value = self.0.optional(key);
        if value.is_none() && !self.is_wrong(key) {
            self.wrong(key, Wrong::new("it is not set", format!("Write it: {}", key.about.doc.trim_end_matches('.'))));
        }
        value
    }

    /// Returns whether a setting that was read has a value.
    pub(super) fn has<T>(&self, key: &Key<T>) -> bool {
        self.0.settings.iter().any(|setting| setting.key == key.about.name && setting.set)
    }

    /// Returns whether something is wrong with a setting.
    pub(super) fn is_wrong<T>(&self, key: &Key<T>) -> bool {
        self.0.mistakes.has(key.about.name)
    }

    /// Notes a mistake that is found later.
    pub(super) fn wrong<T>(&mut self, key: &Key<T>, wrong: Wrong) {
        let source = self.0.settings.iter().find(|setting| setting.key == key.about.name && setting.set);
        let source = source.map(|setting| setting.source.clone());
        self.0.mistakes.add(key.about.name, source, wrong);
    }

    /// Returns all mistakes, if there are some.
    pub(super) fn finish(self) -> Result<(), Mistakes> {
        if self.0.mistakes.is_empty() { Ok(()) } else { Err(self.0.mistakes) }
    }
}
