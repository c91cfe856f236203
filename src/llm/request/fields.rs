//! Fields of a request that it can do without: one that a provider refuses by its name is left out from then on, for that model at
//! that endpoint. Pure, but for the memory of it.

use std::sync::atomic::{AtomicU16, Ordering};

use super::{Content, Request, WireMessage, WirePart};
use crate::llm::error::LlmError;

/// A field that a request can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(in crate::llm) enum Field {
    MaxTokens = 1,
    MaxCompletionTokens = 1 << 1,
    StreamOptions = 1 << 2,
    ParallelToolCalls = 1 << 3,
    CacheControl = 1 << 4,
    ReasoningContent = 1 << 5,
    ReasoningDetails = 1 << 6,
    ExtraContent = 1 << 7,
    Temperature = 1 << 8,
}

const NAMES: [(&str, Field); 9] = [
    ("max_tokens", Field::MaxTokens),
    ("max_completion_tokens", Field::MaxCompletionTokens),
    ("stream_options", Field::StreamOptions),
    ("parallel_tool_calls", Field::ParallelToolCalls),
    ("cache_control", Field::CacheControl),
    ("reasoning_content", Field::ReasoningContent),
    ("reasoning_details", Field::ReasoningDetails),
    ("extra_content", Field::ExtraContent),
    ("temperature", Field::Temperature),
];

/// Returns all of them.
pub(in crate::llm) fn all() -> impl Iterator<Item = Field> {
    NAMES.iter().map(|(_, field)| *field)
}

/// What providers say of a field that they do not know.
const REFUSES: &[&str] = &[
    "unsupported",
    "not support",
    "n't support",
    "unknown",
    "unrecognized",
    "unrecognised",
    "unexpected",
    "extra input",
    "extra field",
    "extra_forbidden",
    "not permitted",
    "not allowed",
    "additional property",
    "additional properties",
    "invalid parameter",
    "invalid argument",
    "does not exist",
];

/// The fields that a model has refused, until the program ends.
#[derive(Debug, Default)]
pub(in crate::llm) struct RefusedFields(AtomicU16);

impl RefusedFields {
    pub(in crate::llm) fn add(&self, field: Field) {
        self.0.fetch_or(field as u16, Ordering::Relaxed);
    }

    pub(in crate::llm) fn contains(&self, field: Field) -> bool {
        self.0.load(Ordering::Relaxed) & field as u16 != 0
    }
}

/// Returns the field that a refusal is about, if it is about one: the first that it names, since the next may be the one to use
/// instead.
pub(in crate::llm) fn refused(error: &LlmError) -> Option<Field> {
    let said = match error {
        LlmError::Refused { status: 400 | 422, said } | LlmError::AnswerTooLong { longest: None, said } => &said.0,
        _ => return None,
    };
    let said = said.to_lowercase();
    if !REFUSES.iter().any(|words| said.contains(words)) {
        return None;
    }
    let named = NAMES.iter().filter_map(|(name, field)| Some((said.find(name)?, *field)));
    named.min_by_key(|(at, _)| *at).map(|(_, field)| field)
}

impl Request<'_> {
    /// Returns whether it has a field.
    pub(in crate::llm) fn has(&self, field: Field) -> bool {
        let in_messages = |has: fn(&WireMessage<'_>) -> bool| self.messages.iter().any(has);
        match field {
            Field::MaxTokens => self.max_tokens.is_some(),
            Field::MaxCompletionTokens => self.max_completion_tokens.is_some(),
            Field::StreamOptions => self.stream_options.is_some(),
            Field::ParallelToolCalls => self.parallel_tool_calls.is_some(),
            Field::Temperature => self.temperature.is_some(),
            Field::CacheControl => in_messages(|message| message.content.is_marked()),
            Field::ReasoningContent => in_messages(|message| message.reasoning_content.is_some()),
            Field::ReasoningDetails => in_messages(|message| message.reasoning_details.is_some()),
            Field::ExtraContent => {
                in_messages(|message| message.tool_calls.iter().any(|call| call.extra_content.is_some()))
            }
        }
    }

    /// Leaves a field out. The two names of the longest answer stand for each other.
    pub(in crate::llm) fn leave_out(&mut self, field: Field, refused: &RefusedFields) {
        match field {
            Field::MaxTokens => {
                let longest = self.max_tokens.take();
                if !refused.contains(Field::MaxCompletionTokens) {
                    self.max_completion_tokens = self.max_completion_tokens.or(longest);
                }
            }
            Field::MaxCompletionTokens => {
                let longest = self.max_completion_tokens.take();
                if !refused.contains(Field::MaxTokens) {
                    self.max_tokens = self.max_tokens.or(longest);
                }
            }
            Field::StreamOptions => self.stream_options = None,
            Field::ParallelToolCalls => self.parallel_tool_calls = None,
            Field::Temperature => self.temperature = None,
            Field::CacheControl => self.messages.iter_mut().for_each(|message| message.content.unmark()),
            Field::ReasoningContent => self.messages.iter_mut().for_each(|message| message.reasoning_content = None),
            Field::ReasoningDetails => self.messages.iter_mut().for_each(|message| message.reasoning_details = None),
            Field::ExtraContent => {
                let calls = self.messages.iter_mut().flat_map(|message| &mut message.tool_calls);
                calls.for_each(|call| call.extra_content = None);
            }
        }
    }
}

impl Content<'_> {
    fn is_marked(&self) -> bool {
        let Self::Parts(parts) = self else { return false };
        parts.iter().any(|part| matches!(part, WirePart::Text { cache_control: Some(_), .. }))
    }

    fn unmark(&mut self) {
        let Self::Parts(parts) = self else { return };
        for part in parts {
            if let WirePart::Text { cache_control, .. } = part {
                *cache_control = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::error::ProviderWords;

    #[test]
    fn a_refused_field_is_known_by_its_name() {
        for (said, field) in [
            (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                Some(Field::MaxTokens),
            ),
            ("Unrecognized request argument supplied: max_completion_tokens", Some(Field::MaxCompletionTokens)),
            ("stream_options: Extra inputs are not permitted", Some(Field::StreamOptions)),
            ("Unknown parameter: 'parallel_tool_calls'.", Some(Field::ParallelToolCalls)),
            ("messages.0.content.0.text.cache_control: Extra inputs are not permitted", Some(Field::CacheControl)),
            ("property 'reasoning_content' is unsupported", Some(Field::ReasoningContent)),
            (
                "body -> messages -> 1 -> reasoning_details: additional properties are not allowed",
                Some(Field::ReasoningDetails),
            ),
            (
                "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported.",
                Some(Field::Temperature),
            ),
            ("max_tokens must be at least 1", None),
            ("The model `x` does not exist", None),
            ("messages is not allowed to be empty", None),
        ] {
            let error = LlmError::Refused { status: 400, said: ProviderWords(said.to_owned()) };
            assert_eq!(refused(&error), field, "{said}");
        }
        let busy = LlmError::Unavailable {
            status: Some(503),
            wait: None,
            said: ProviderWords("unsupported max_tokens".into()),
        };
        assert_eq!(refused(&busy), None);
    }
}
