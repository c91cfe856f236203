//! What a request's body asks for: its model, tools that the provider would run, addresses that it would fetch from.
//!
//! Pure: JSON of a hostile sandbox in, a verdict out. It reads the body once and keeps nothing of it but the model's
//! name. What is not known is refused rather than passed on: one provider or another searches the web for a field, or
//! asks another model than the one that was named. The body itself goes on as it came, so what two readers could take in two ways
//! (a field twice, a known name in another spelling) is refused too. Called by `serve`.

mod names;
mod pieces;
#[cfg(test)]
mod tests;
mod values;

use std::fmt;

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor},
};

use self::{
    names::{CHAT_FIELDS, CHAT_WEB_FIELDS, GEMINI_FIELDS, MESSAGES_FIELDS, RESPONSE_FIELDS},
    pieces::{Each, Piece},
    values::{Any, Place, Text},
};
use super::{Protocol, refusal::Refusal, route::is_model};

/// What a body asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The model that it names, if it does: Gemini's stands in the path.
    pub(super) model: Option<String>,
    /// Tokens of the answers, if they are bounded.
    pub(super) answer: Option<u64>,
}

/// Reads a body.
pub(super) fn read(protocol: Protocol, body: &[u8], web: bool) -> Result<Asked, Refusal> {
    let mut found = Found::default();
    // Where nothing is looked at, serde_json does not check that a text is UTF-8. Readers differ in what they make of one
    // that is not.
    let body = str::from_utf8(body)
        .map_err(|error| Refusal::Malformed(format!("no UTF-8 after {} bytes", error.valid_up_to())))?;
    let mut json = serde_json::Deserializer::from_str(body);
    let whole = Whole { protocol, found: &mut found };
    let ended = whole.deserialize(&mut json).and_then(|()| json.end());
    // A verdict ends the reading, so it comes before what the reader says of that.
    if let Some(refusal) = found.refusal {
        return Err(refusal);
    }
    ended.map_err(|error| Refusal::Malformed(place(&error)))?;
    match found.web {
        Some(refusal) if !web => Err(refusal),
        _ => {
            let answers = found.answers.unwrap_or(1).max(1);
            Ok(Asked { model: found.model, answer: found.longest.map(|longest| longest.saturating_mul(answers)) })
        }
    }
}

/// Says where JSON is wrong, without quoting it.
pub(super) fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

/// What came out so far.
#[derive(Default)]
struct Found {
    model: Option<String>,
    /// Tokens that one answer may have, and how many answers are asked for.
    longest: Option<u64>,
    answers: Option<u64>,
    /// Refused whatever the operator has set.
    refusal: Option<Refusal>,
    /// Refused unless the web is open.
    web: Option<Refusal>,
}

impl Found {
    fn refuse<E: serde::de::Error>(&mut self, refusal: Refusal) -> E {
        self.refusal = Some(refusal);
        E::custom("refused")
    }

    fn name<E: serde::de::Error>(&mut self, model: String) -> Result<(), E> {
        match &self.model {
            Some(before) if *before != model => Err(E::custom("two models")),
            _ => {
                self.model = Some(model);
                Ok(())
            }
        }
    }
}

/// A number, if it is one: what else stands there is the provider's to judge.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Other(IgnoredAny),
}

impl Default for Number {
    fn default() -> Self {
        Self::Other(IgnoredAny)
    }
}

impl Number {
    fn whole(self) -> Option<u64> {
        match self {
            Self::Whole(number) => Some(number),
            Self::Other(IgnoredAny) => None,
        }
    }
}

/// What bounds the answers of Gemini's models.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Generation {
    #[serde(rename = "maxOutputTokens", alias = "max_output_tokens")]
    longest: Number,
    #[serde(rename = "candidateCount", alias = "candidate_count")]
    answers: Number,
}

/// The body of a request.
struct Whole<'f> {
    protocol: Protocol,
    found: &'f mut Found,
}

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let found = self.found;
        let mut seen: Vec<String> = Vec::new();
        while let Some(Text(key)) = map.next_key::<Text<'_>>()? {
            // The two spellings of Gemini's are one field.
            let plain = key.replace('_', "").to_ascii_lowercase();
            if seen.contains(&plain) {
                return Err(A::Error::custom("a field twice"));
            }
            match (self.protocol, &*key) {
                (Protocol::OpenAi | Protocol::Responses | Protocol::Messages, "model") => {
                    found.name::<A::Error>(map.next_value()?)?;
                }
                (Protocol::OpenAi, "messages") => map.next_value_seed(Each(Piece::Message, &mut *found))?,
                (Protocol::OpenAi, "tools") => map.next_value_seed(Each(Piece::ChatTool, &mut *found))?,
                (Protocol::OpenAi, "max_tokens" | "max_completion_tokens")
                | (Protocol::Responses, "max_output_tokens")
                | (Protocol::Messages, "max_tokens") => {
                    found.longest = found.longest.max(map.next_value::<Number>()?.whole());
                }
                (Protocol::OpenAi, "n") => found.answers = map.next_value::<Number>()?.whole(),
                (Protocol::OpenAi, key) if CHAT_FIELDS.contains(&key) => drop(map.next_value::<IgnoredAny>()?),
                (Protocol::OpenAi, key) if CHAT_WEB_FIELDS.contains(&key) => {
                    found.web = Some(Refusal::Web(key.to_owned()));
                    map.next_value::<IgnoredAny>()?;
                }
                (Protocol::Responses, "input") => map.next_value_seed(Each(Piece::ResponseItem, &mut *found))?,
                (Protocol::Responses, "tools") => map.next_value_seed(Each(Piece::ResponseTool, &mut *found))?,
                (Protocol::Responses, key) if RESPONSE_FIELDS.contains(&key) => drop(map.next_value::<IgnoredAny>()?),
                (Protocol::Messages, "messages" | "system") => {
                    map.next_value_seed(Any(Place::Messages, &mut *found))?;
                }
                (Protocol::Messages, "tools") => map.next_value_seed(Each(Piece::MessagesTool, &mut *found))?,
                (Protocol::Messages, key) if MESSAGES_FIELDS.contains(&key) => drop(map.next_value::<IgnoredAny>()?),
                (Protocol::Gemini, "model") => {
                    let model: String = map.next_value()?;
                    let model = model.strip_prefix("models/").unwrap_or(&model);
                    if !is_model(model) {
                        return Err(A::Error::custom("a model's name"));
                    }
                    found.name::<A::Error>(model.to_owned())?;
                }
                (Protocol::Gemini, "contents" | "systemInstruction" | "system_instruction") => {
                    map.next_value_seed(Any(Place::Gemini, &mut *found))?;
                }
                (Protocol::Gemini, "tools") => map.next_value_seed(Each(Piece::GeminiTool, &mut *found))?,
                // What is counted may stand in it whole.
                (Protocol::Gemini, "generateContentRequest" | "generate_content_request") => {
                    map.next_value_seed(Whole { protocol: self.protocol, found: &mut *found })?;
                }
                (Protocol::Gemini, "generationConfig" | "generation_config") => {
                    let Generation { longest, answers } = map.next_value::<Option<Generation>>()?.unwrap_or_default();
                    (found.longest, found.answers) = (longest.whole(), answers.whole());
                }
                (Protocol::Gemini, key) if GEMINI_FIELDS.contains(&key) => drop(map.next_value::<IgnoredAny>()?),
                (_, key) => return Err(found.refuse(Refusal::Field(key.to_owned()))),
            }
            seen.push(plain);
        }
        Ok(())
    }
}
