//! What can go wrong between us and a model, as a sentence for the person who waits and the mend for whoever runs the
//! service. No variant holds a key or a piece of a prompt: `refusal.rs` cleans a provider's words before they get here.

use std::time::Duration;

use super::endpoint::SettingError;
use crate::strings::models;

/// Why there is no answer. `Display` is the sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LlmError {
    /// The settings cannot work.
    #[error("{}", models::setting(.0.key, &.0.problem))]
    Setting(#[from] SettingError),
    /// No connection, or none that lasted until an answer.
    #[error("{}", models::unreachable(.host, .why))]
    Unreachable {
        /// Host and port.
        host: String,
        /// The cause in a few words.
        why: String,
    },
    /// 401.
    #[error("{}", models::key_refused(&.0.behind()))]
    KeyRefused(ProviderWords),
    /// 403.
    #[error("{}", models::forbidden(&.0.behind()))]
    Forbidden(ProviderWords),
    /// 402, or a quota that waiting does not refill.
    #[error("{}", models::no_credit(&.0.behind()))]
    NoCredit(ProviderWords),
    /// 404.
    #[error("{}", models::unknown_model(.model, &.said.behind()))]
    UnknownModel {
        /// The name that was sent.
        model: String,
        /// The provider's words.
        said: ProviderWords,
    },
    /// 429, after all retries.
    #[error("{}", models::rate_limited(*.wait, &.said.behind()))]
    RateLimited {
        /// How long it told us to wait.
        wait: Option<Duration>,
        /// The provider's words.
        said: ProviderWords,
    },
    /// The conversation does not fit into the model's context.
    #[error("{}", models::overflow(&.said.behind()))]
    Overflow {
        /// The provider's words.
        said: ProviderWords,
        /// The figures in them.
        told: ToldTokens,
    },
    /// An answer as long as was asked for is more than the model gives.
    #[error("{}", models::answer_too_long(&.said.behind()))]
    AnswerTooLong {
        /// The most tokens that it gives.
        longest: Option<u64>,
        /// The provider's words.
        said: ProviderWords,
    },
    /// It takes the pictures in the conversation amiss.
    #[error("{}", models::pictures(&.said.behind()))]
    Pictures {
        /// The provider's words.
        said: ProviderWords,
        /// The model sees none at all.
        blind: bool,
    },
    /// Any 3xx. None is followed: the key would go along.
    #[error("{}", models::REDIRECTED)]
    Redirected,
    /// Any other 4xx: the request itself displeases.
    #[error("{}", models::refused(*.status, &.said.behind()))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The provider's words.
        said: ProviderWords,
    },
    /// 5xx, overload, or an error inside a stream, after all retries.
    #[error("{}", models::unavailable(*.status, *.wait, &.said.behind()))]
    Unavailable {
        /// The HTTP status, where there was one.
        status: Option<u16>,
        /// How long it told us to wait.
        wait: Option<Duration>,
        /// The provider's words.
        said: ProviderWords,
    },
    /// Nothing came for too long.
    #[error("{}", models::slow(.stage.as_str(), *.limit))]
    Slow {
        /// What it failed to do.
        stage: Stage,
        /// The limit that passed.
        limit: Duration,
    },
    /// The stream ended in the middle.
    #[error("{}", models::CUT)]
    Cut,
    /// What came is no chat completion, and never will be one.
    #[error("{}", models::garbled(.0))]
    Garbled(&'static str),
    /// What came is no whole chat completion; the next one may be.
    #[error("{}", models::broken(.0))]
    Broken(&'static str),
    /// The model wrote a call that its provider could not read: its own slip, which it is told.
    #[error("{}", models::bad_call(&.0.behind()))]
    BadCall(ProviderWords),
}

/// How many tokens a model takes and how many it was given, as far as its provider tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToldTokens {
    /// The most that it takes.
    pub limit: Option<u64>,
    /// What it was given.
    pub asked: Option<u64>,
}

/// What may make a request go through that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing in the request is to blame.
    Nothing,
    /// A shorter conversation.
    Shorter(ToldTokens),
    /// A conversation without pictures.
    NoPictures,
    /// A shorter answer, of at most so many tokens.
    ShorterAnswer(Option<u64>),
    /// The request displeases, and nobody knows why.
    Unknown,
}

/// What a model did not manage in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing at all came.
    Begin,
    /// It fell silent in the middle.
    GoOn,
    /// It went on without an end.
    End,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Begin => models::SLOW_BEGIN,
            Self::GoOn => models::SLOW_GO_ON,
            Self::End => models::SLOW_END,
        }
    }
}

/// A provider's own words: short, on one line, without key and prompt. Empty when it had none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderWords(pub(super) String);

impl ProviderWords {
    /// Returns the words as they stand behind a sentence.
    fn behind(&self) -> String {
        if self.0.is_empty() { String::new() } else { models::said(&self.0) }
    }
}

impl LlmError {
    /// Returns whether a shorter conversation would help. Never true for a rate limit.
    pub fn is_overflow(&self) -> bool {
        matches!(self, Self::Overflow { .. })
    }

    /// Returns what may help.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Overflow { told, .. } => Remedy::Shorter(*told),
            Self::Pictures { .. } => Remedy::NoPictures,
            Self::AnswerTooLong { longest, .. } => Remedy::ShorterAnswer(*longest),
            Self::Refused { .. } => Remedy::Unknown,
            _ => Remedy::Nothing,
        }
    }

    /// Returns the sentence for the person who waits.
    pub fn user_text(&self) -> String {
        self.to_string()
    }

    /// Returns whether the same request may succeed a moment later.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::RateLimited { .. }
                | Self::Unavailable { .. }
                | Self::Slow { stage: Stage::GoOn, .. }
                | Self::Cut
                | Self::Broken(_)
        )
    }

    /// Returns how long the provider told us to wait.
    pub(super) fn told_wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { wait, .. } | Self::Unavailable { wait, .. } => *wait,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_tell_the_mend() {
        let said = || ProviderWords("no such key".to_owned());
        insta::assert_snapshot!(
            [
                LlmError::KeyRefused(said()),
                LlmError::RateLimited { wait: Some(Duration::from_hours(1)), said: ProviderWords::default() },
                LlmError::Unavailable { status: Some(503), wait: None, said: ProviderWords::default() },
                LlmError::Slow { stage: Stage::Begin, limit: Duration::from_mins(5) },
                LlmError::Unreachable { host: "host:8000".to_owned(), why: "connection refused".to_owned() },
            ]
            .map(|error| error.user_text())
            .join("\n"),
            @r"
        The model's provider refused the key. Check LLM_API_KEY. It said: “no such key”
        The model's provider takes no more requests just now; it asks to wait 60 minutes.
        The model's provider has trouble (503); try again in a minute.
        The model did not begin to answer within 300 s. Try again, or choose a faster one with LLM_MODEL.
        The model's provider at host:8000 cannot be reached (connection refused). Check the network and LLM_BASE_URL.
        "
        );
    }
}
