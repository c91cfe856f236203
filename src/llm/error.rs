//! Errors between this program and a model, each a sentence for the person who waits and a fix for the operator. They
//! contain no key and no part of a prompt: `refusal.rs` cleans a provider's words first.

use std::time::Duration;

use super::endpoint::SettingError;
use crate::strings::models;

/// Why there is no answer. `Display` is the sentence for the person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LlmError {
    /// The settings cannot work.
    #[error("{}", models::setting(.0.key, &.0.problem))]
    Setting(#[from] SettingError),
    /// No connection was made, or it broke before an answer came.
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
    /// 402, or an exhausted quota that waiting does not refill.
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
        /// How long the provider says to wait.
        wait: Option<Duration>,
        /// The provider's words.
        said: ProviderWords,
    },
    /// The conversation does not fit into the model's context.
    #[error("{}", models::overflow(&.said.behind()))]
    Overflow {
        /// The provider's words.
        said: ProviderWords,
        /// The numbers of tokens in them.
        told: ToldTokens,
    },
    /// The requested length of the answer is more than the model gives.
    #[error("{}", models::answer_too_long(&.said.behind()))]
    AnswerTooLong {
        /// The longest answer in tokens, if the provider says it.
        longest: Option<u64>,
        /// The provider's words.
        said: ProviderWords,
    },
    /// The provider refuses the pictures in the conversation.
    #[error("{}", models::pictures(&.said.behind()))]
    Pictures {
        /// The provider's words.
        said: ProviderWords,
        /// Whether the model sees no pictures at all.
        blind: bool,
    },
    /// Any 3xx. Redirects are not followed, since the key would be sent along.
    #[error("{}", models::REDIRECTED)]
    Redirected,
    /// Any other 4xx: the request itself is refused.
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
        /// How long the provider says to wait.
        wait: Option<Duration>,
        /// The provider's words.
        said: ProviderWords,
    },
    /// Nothing came for too long.
    #[error("{}", models::slow(.stage.as_str(), *.limit))]
    Slow {
        /// What the model did not manage.
        stage: Stage,
        /// The time limit.
        limit: Duration,
    },
    /// The stream ended in the middle.
    #[error("{}", models::CUT)]
    Cut,
    /// The response is no chat completion, and trying again will not change that.
    #[error("{}", models::garbled(.0))]
    Garbled(&'static str),
    /// The response is no complete chat completion; another try may give one.
    #[error("{}", models::broken(.0))]
    Broken(&'static str),
    /// The provider could not parse a call that the model wrote. The model is told.
    #[error("{}", models::bad_call(&.0.behind()))]
    BadCall(ProviderWords),
}

/// The most tokens that a model takes and how many it was sent, as far as its provider says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToldTokens {
    /// The most that it takes.
    pub limit: Option<u64>,
    /// The size of the request.
    pub asked: Option<u64>,
}

/// What may make a refused request succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing in the request caused the refusal.
    Nothing,
    /// A shorter conversation.
    Shorter(ToldTokens),
    /// A conversation without pictures.
    NoPictures,
    /// A shorter answer, of at most so many tokens.
    ShorterAnswer(Option<u64>),
    /// The request was refused for an unknown reason.
    Unknown,
}

/// What a model did not manage in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// To send anything.
    Begin,
    /// To go on after it had begun.
    GoOn,
    /// To come to an end.
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

/// A provider's own words: short, on one line, without key and prompt. Empty if it sent none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderWords(pub(super) String);

impl ProviderWords {
    /// Returns the words in the form that follows a sentence.
    fn behind(&self) -> String {
        if self.0.is_empty() { String::new() } else { models::said(&self.0) }
    }
}

impl LlmError {
    /// Returns what it is, in a word of a few, for counting.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Setting(_) => "setting",
            Self::Unreachable { .. } => "unreachable",
            Self::KeyRefused(_) | Self::Forbidden(_) => "key",
            Self::NoCredit(_) => "credit",
            Self::UnknownModel { .. } => "model",
            Self::RateLimited { .. } => "rate_limit",
            Self::Overflow { .. } | Self::AnswerTooLong { .. } => "too_long",
            Self::Slow { .. } => "timeout",
            Self::Unavailable { .. } => "unavailable",
            Self::Pictures { .. } | Self::Redirected | Self::Refused { .. } => "refused",
            Self::Cut | Self::Garbled(_) | Self::Broken(_) | Self::BadCall(_) => "broken",
        }
    }

    /// Returns whether a shorter conversation would help. Never `true` for a rate limit.
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

    /// Returns how long the provider says to wait.
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
