//! The size of a model's context, and where it is known from.
//!
//! In this order: the operator's setting, the server that was asked, the family by the model's name, a cautious
//! guess. A smaller number in a refusal counts before all of them, since it is what really holds. State only;
//! `model.rs` keeps one.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::providers::LOCAL_WINDOW;

/// A smaller number is not believed to be a context size.
const LEAST: u64 = 1024;
/// The pause between two questions to a server, which may be restarted with another size.
const AGAIN: Duration = Duration::from_mins(10);

/// Where the size of a context is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowSource {
    /// `context_window` in `matrix-agent.toml`.
    Setting,
    /// The server, which was asked.
    Server,
    /// The provider, in the refusal of a request that was too long.
    Refusal,
    /// The model's name, which belongs to a known family.
    Name,
    /// Nowhere; it is a guess.
    Guess,
}

impl fmt::Display for WindowSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setting => "so says `context_window` in matrix-agent.toml",
            Self::Server => "so says its server",
            Self::Refusal => "so said its provider when a request was too long",
            Self::Name => "so it is with models of its name",
            Self::Guess => "a guess: set `context_window` for it in matrix-agent.toml",
        })
    }
}

/// The size of a context, and where it is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The size in tokens.
    pub tokens: u64,
    /// Where it is known from.
    pub source: WindowSource,
}

impl Window {
    /// Returns what is assumed of a server of which nothing is known yet.
    pub(super) fn of_a_local_server() -> Self {
        Self { tokens: LOCAL_WINDOW, source: WindowSource::Guess }
    }
}

/// A server's answer about a model's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The model has this size.
    Holds(u64),
    /// The model could have this size; the actual one is known once it is loaded.
    AtMost(u64),
    /// The server does not say.
    Nothing,
}

/// Everything that is known about a model's context; 0 stands for unknown.
#[derive(Debug)]
pub(super) struct KnownWindow {
    setting: Option<u64>,
    by_name: Window,
    server: AtomicU64,
    refusal: AtomicU64,
    /// When the server may be asked again; `None` for now.
    next: Mutex<Option<Instant>>,
}

impl KnownWindow {
    pub(super) fn new(setting: Option<u64>, by_name: Window) -> Self {
        Self { setting, by_name, server: AtomicU64::new(0), refusal: AtomicU64::new(0), next: Mutex::default() }
    }

    /// Returns the size that holds now.
    pub(super) fn window(&self) -> Window {
        let (server, refusal) = (self.server.load(Ordering::Relaxed), self.refusal.load(Ordering::Relaxed));
        let said = match (self.setting, server) {
            (Some(tokens), _) => Window { tokens, source: WindowSource::Setting },
            (None, 0) => self.by_name,
            (None, tokens) => Window { tokens, source: WindowSource::Server },
        };
        if refusal > 0 && refusal < said.tokens {
            return Window { tokens: refusal, source: WindowSource::Refusal };
        }
        said
    }

    /// Notes the limit in a refusal.
    pub(super) fn refused(&self, limit: u64) {
        if limit >= LEAST && (limit < self.refusal.load(Ordering::Relaxed) || self.refusal.load(Ordering::Relaxed) == 0)
        {
            self.refusal.store(limit, Ordering::Relaxed);
        }
    }

    /// Returns whether the server should be asked now.
    pub(super) fn wants_to_ask(&self) -> bool {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        self.setting.is_none() && next.is_none_or(|next| next <= Instant::now())
    }

    /// Notes the server's answer.
    pub(super) fn answered(&self, answer: Answer) {
        let (tokens, again) = match answer {
            Answer::Holds(tokens) => (tokens, false),
            // The actual size is known once the model is loaded.
            Answer::AtMost(tokens) => (self.by_name.tokens.min(tokens), true),
            Answer::Nothing => (0, false),
        };
        if tokens >= LEAST {
            self.server.store(tokens, Ordering::Relaxed);
        }
        let next = (!again).then(|| Instant::now() + AGAIN);
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::parse_model;

    fn known(setting: Option<u64>, model: &str) -> KnownWindow {
        KnownWindow::new(setting, parse_model(model, Some("http://127.0.0.1:9/v1")).unwrap().window())
    }

    fn window(tokens: u64, source: WindowSource) -> Window {
        Window { tokens, source }
    }

    #[test]
    fn the_setting_goes_before_the_server_and_the_server_before_the_name() {
        let model = known(None, "nobody-knows-it");
        assert_eq!(model.window(), window(32_768, WindowSource::Guess));
        let model = known(None, "anthropic.claude-sonnet-4");
        assert_eq!(model.window(), window(200_000, WindowSource::Name));
        model.answered(Answer::Holds(65_536));
        assert_eq!(model.window(), window(65_536, WindowSource::Server));
        assert!(!model.wants_to_ask());
        model.refused(500);
        model.refused(40_000);
        model.refused(60_000);
        assert_eq!(model.window(), window(40_000, WindowSource::Refusal));

        let model = known(Some(10_000), "claude-sonnet-4");
        assert!(!model.wants_to_ask());
        assert_eq!(model.window(), window(10_000, WindowSource::Setting));
        model.refused(40_000);
        assert_eq!(model.window(), window(10_000, WindowSource::Setting));
    }

    #[test]
    fn a_model_that_is_not_loaded_yet_is_asked_about_again() {
        let model = known(None, "nobody-knows-it");
        assert!(model.wants_to_ask());
        model.answered(Answer::AtMost(8192));
        assert_eq!((model.window().tokens, model.wants_to_ask()), (8192, true));
        model.answered(Answer::AtMost(131_072));
        assert_eq!(model.window(), window(32_768, WindowSource::Server), "what it could hold is not what it was given");
        model.answered(Answer::Nothing);
        assert!(!model.wants_to_ask());
    }
}
