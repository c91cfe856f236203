//! What is wrong with the settings, collected, so that a person sees all of it at once.
//!
//! Layers above add what only they can judge (is there such a model? is this a host pattern?) to the same list.
//! Nothing here may hold the value of a secret.

use std::fmt;

use serde::Serialize;

use super::Source;

/// One wrong setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The key; for a file that cannot be read, the file.
    pub key: String,
    /// Where it was set, where that is known.
    pub source: Option<Source>,
    /// What is wrong: part of a sentence, without its full stop.
    pub what: String,
    /// What to do about it, likewise; empty where the first part says it.
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

/// Returns the words with a full stop, where they do not end in another mark already.
pub(crate) fn sentence(words: &str) -> String {
    if words.ends_with(['.', '?', '!']) { words.to_owned() } else { format!("{words}.") }
}

/// All mistakes found, in the order of the table of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Adds one.
    pub fn add(&mut self, key: &str, source: Option<Source>, wrong: Wrong) {
        self.0.push(Mistake { key: key.to_owned(), source, what: wrong.what, mend: wrong.mend });
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

/// Why a value cannot be used, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong, without a full stop.
    pub what: String,
    /// What to do about it, without a full stop; empty where `what` says it.
    pub mend: String,
}

impl Wrong {
    /// Returns the pair.
    pub fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what: what.into(), mend: mend.into() }
    }
}
