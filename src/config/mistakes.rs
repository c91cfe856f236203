//! The mistakes in the settings, collected so that a person sees all of them at once.
//!
//! Layers above add those that only they can find (an unknown model, an invalid host pattern). A mistake must not
//! contain the value of a secret.

use std::fmt;

use serde::Serialize;

use super::Source;

/// A wrong setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The key; for a file that cannot be read, the file's path.
    pub key: String,
    /// Where it was set, if known.
    pub source: Option<Source>,
    /// What is wrong: a part of a sentence, without a full stop.
    pub what: String,
    /// What to do about it, without a full stop; empty if `what` says it.
    pub mend: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        write!(f, ": {}", sentence(&self.what))?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, " {}", sentence(&self.mend)) }
    }
}

/// Returns the words with a full stop, unless they end in another mark.
pub(crate) fn sentence(words: &str) -> String {
    if words.ends_with(['.', '?', '!']) { words.to_owned() } else { format!("{words}.") }
}

/// All mistakes, in the order of the table of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Adds one.
    pub fn add(&mut self, key: &str, source: Option<Source>, wrong: Wrong) {
        self.0.push(Mistake { key: key.to_owned(), source, what: wrong.what, mend: wrong.mend });
    }

    /// Adds others, of whose settings nothing is known to be wrong yet.
    pub fn extend(&mut self, others: Self) {
        let new: Vec<_> = others.0.into_iter().filter(|mistake| !self.has(&mistake.key)).collect();
        self.0.extend(new);
    }

    /// Returns whether something is wrong with `key`.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|mistake| mistake.key == key)
    }

    /// Returns whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns them.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("One setting is wrong:")?,
            count => write!(f, "{count} settings are wrong:")?,
        }
        for mistake in &self.0 {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Why a value is invalid, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong, without a full stop.
    pub what: String,
    /// What to do about it, without a full stop; empty where `what` says it.
    pub mend: String,
}

impl Wrong {
    /// Returns both parts.
    pub fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: what.into(), mend: mend.into() }
    }
}
