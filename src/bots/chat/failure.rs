//! What the person who asked is told when there is no answer: one plain sentence, and never a provider's own words. Pure.

use std::time::Duration;

use crate::{llm::LlmError, strings::chat, text};

/// When to try again where the provider does not say.
const A_WHILE: Duration = Duration::from_mins(1);

/// Returns the sentence for why a model gave no answer.
pub(in crate::bots) fn told(error: &LlmError) -> String {
    match error {
        LlmError::Unreachable { .. } => chat::UNREACHABLE.to_owned(),
        LlmError::RateLimited { wait, .. } => chat::rate_limited(&text::human_duration(wait.unwrap_or(A_WHILE))),
        LlmError::Unavailable { status, .. } => chat::unavailable(*status),
        LlmError::Refused { status, .. } => chat::refused(*status),
        LlmError::Setting(_)
        | LlmError::KeyRefused(_)
        | LlmError::Forbidden(_)
        | LlmError::NoCredit(_)
        | LlmError::UnknownModel { .. }
        | LlmError::AnswerTooLong { .. }
        | LlmError::Redirected => chat::MISCONFIGURED.to_owned(),
        LlmError::Overflow { .. } => chat::TOO_LONG.to_owned(),
        LlmError::Pictures { .. } => chat::NO_PICTURES.to_owned(),
        LlmError::Slow { .. } => chat::SLOW.to_owned(),
        LlmError::Cut => chat::BROKEN_OFF.to_owned(),
        LlmError::Garbled(_) | LlmError::Broken(_) | LlmError::BadCall(_) => chat::NO_ANSWER.to_owned(),
    }
}
