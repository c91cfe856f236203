//! Reads typed settings by the table: parses each, and notes its effective value with its source.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    Mistakes, Source,
    keys::{About, Key, Preset},
    raw::Raw,
};

/// An effective setting.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// The heading under which it is listed.
    #[serde(skip)]
    pub group: &'static str,
    /// The value as text; `None` for a secret or without a value.
    pub value: Option<String>,
    /// Whether it is a secret.
    pub secret: bool,
    /// Whether it has a value.
    pub set: bool,
    /// Where the value comes from.
    pub source: Source,
}

/// What was typed, on its way to its meaning.
pub(super) struct Reader {
    pub(super) raw: Raw,
    /// The effective values so far.
    pub(super) settings: Vec<Setting>,
    /// The mistakes so far.
    pub(super) mistakes: Mistakes,
}

impl Reader {
    /// Returns the parsed value, if one was typed and is valid.
    fn typed<T>(&mut self, key: &Key<T>) -> Option<T> {
        let typed = self.raw.get(&key.about)?.clone();
        match (key.parse)(&typed.text) {
            Ok(value) => {
                self.note(&key.about, Some(typed.text), typed.source);
                Some(value)
            }
            Err(wrong) => {
                self.mistakes.add(key.about.name, Some(typed.source), wrong);
                None
            }
        }
    }

    /// Reads a setting that may have no value.
    pub(super) fn optional<T>(&mut self, key: &Key<T>) -> Option<T> {
        let value = self.typed(key);
        if value.is_none() {
            self.note(&key.about, None, Source::Default);
        }
        value
    }

    /// Reads a setting with a default in the table.
    pub(super) fn value<T>(&mut self, key: &Key<T>) -> T {
        if let Some(value) = self.typed(key) {
            return value;
        }
        let Preset::Text(text) = key.about.default else {
            unreachable!("{} has a default in the table: a test loads all settings", key.about.name)
        };
        self.note(&key.about, Some(text.to_owned()), Source::Default);
        (key.parse)(text).unwrap_or_else(|_| unreachable!("a test parses every default of the table"))
    }

    /// Reads a setting that follows from another one, if that is set.
    pub(super) fn or_follows<T>(&mut self, key: &Key<T>, follows: Option<(String, &'static str)>) -> Option<T> {
        if let Some(value) = self.typed(key) {
            return Some(value);
        }
        let Some((text, from)) = follows else {
            self.note(&key.about, None, Source::Default);
            return None;
        };
        let value = (key.parse)(&text).ok();
        self.note(&key.about, Some(text), Source::Follows(from));
        value
    }

    /// Reads a setting that follows from another one, and else has a default in the table.
    pub(super) fn value_or_follows<T>(&mut self, key: &Key<T>, follows: Option<(String, &'static str)>) -> T {
        if follows.is_none() {
            return self.value(key);
        }
        self.or_follows(key, follows).unwrap_or_else(|| self.value(key))
    }

    /// Reads a path whose default depends on who runs the program. The default is checked too, since a home
    /// directory's path may be too long for sockets.
    pub(super) fn folder(&mut self, key: &Key<PathBuf>, default: PathBuf) -> PathBuf {
        if let Some(value) = self.typed(key) {
            return value;
        }
        let text = default.to_string_lossy().into_owned();
        if let Err(wrong) = (key.parse)(&text) {
            self.mistakes.add(key.about.name, Some(Source::Default), wrong);
        }
        self.note(&key.about, Some(text), Source::Default);
        default
    }

    fn note(&mut self, about: &About, value: Option<String>, source: Source) {
        self.settings.push(Setting {
            key: about.name,
            group: about.group,
            set: value.is_some(),
            value: value.filter(|_| !about.secret),
            secret: about.secret,
            source,
        });
    }
}
