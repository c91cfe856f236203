//! The lists in a body: messages, parts of an input, and tools. A tool is judged by its type, or, of Gemini's, by its name; in
//! messages are looked for addresses (`values`).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    Found,
    names::{CHAT_WEB_TOOLS, GEMINI_WEB_TOOLS, MESSAGES_TOOLS, MESSAGES_WEB_TOOLS, RESPONSE_ITEMS},
    values::{Any, Place, Text},
};
use crate::gateway::models::refusal::Refusal;

/// What the elements of a list are.
#[derive(Clone, Copy)]
pub(super) enum Piece {
    /// A message of a chat.
    Message,
    /// A tool of a chat.
    ChatTool,
    /// A part of a response's input.
    ResponseItem,
    /// A tool of a response.
    ResponseTool,
    /// A tool of Anthropic's messages, which need not have a type.
    MessagesTool,
    /// An object of Gemini's whose fields are tools.
    GeminiTool,
}

/// What may become of an object of some type.
enum Kind {
    /// It is passed on.
    Open,
    /// It is if the web is open.
    Web,
    /// It is not.
    Closed,
}

impl Piece {
    /// Judges the type of an object.
    fn judge(self, kind: &str) -> Kind {
        let begins = |names: &[&str]| names.iter().any(|name| kind.starts_with(name));
        let (open, web) = match self {
            Self::ChatTool => (kind == "function", CHAT_WEB_TOOLS.contains(&kind)),
            Self::ResponseTool => (matches!(kind, "function" | "custom" | "namespace"), CHAT_WEB_TOOLS.contains(&kind)),
            Self::ResponseItem => (RESPONSE_ITEMS.contains(&kind), false),
            Self::MessagesTool => (kind == "custom" || begins(&MESSAGES_TOOLS), begins(&MESSAGES_WEB_TOOLS)),
            Self::Message | Self::GeminiTool => (true, false),
        };
        match (open, web) {
            (true, _) => Kind::Open,
            (false, true) => Kind::Web,
            (false, false) => Kind::Closed,
        }
    }
}

/// A list of one kind of objects; `null` is an empty one.
pub(super) struct Each<'f>(pub(super) Piece, pub(super) &'f mut Found);

impl<'de> DeserializeSeed<'de> for Each<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Each<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(One(self.0, &mut *self.1))?.is_some() {}
        Ok(())
    }
}

/// One of them.
struct One<'f>(Piece, &'f mut Found);

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(piece, found) = self;
        let mut typed = false;
        while let Some(Text(key)) = map.next_key::<Text<'_>>()? {
            match (piece, &*key) {
                (Piece::ChatTool | Piece::ResponseTool | Piece::MessagesTool | Piece::ResponseItem, "type") => {
                    let kind: String = map.next_value()?;
                    if std::mem::replace(&mut typed, true) {
                        return Err(A::Error::custom("a field twice"));
                    }
                    match piece.judge(&kind) {
                        Kind::Open => {}
                        Kind::Web => found.web = Some(Refusal::Web(kind)),
                        Kind::Closed => return Err(found.refuse(Refusal::Tool(kind))),
                    }
                }
                // Of a group of tools each is one.
                (Piece::ResponseTool, "tools") => map.next_value_seed(Each(piece, &mut *found))?,
                // Text, and what the model said, thought or called: nothing is fetched for it. Nor for what a function is.
                (
                    Piece::Message,
                    "role" | "name" | "tool_call_id" | "tool_calls" | "function_call" | "reasoning"
                    | "reasoning_content" | "reasoning_details" | "refusal",
                )
                | (
                    Piece::ResponseItem,
                    "role" | "id" | "call_id" | "name" | "namespace" | "status" | "arguments" | "input" | "action"
                    | "encrypted_content" | "summary" | "phase",
                )
                | (Piece::ChatTool | Piece::ResponseTool | Piece::MessagesTool, _)
                | (Piece::GeminiTool, "functionDeclarations" | "function_declarations") => {
                    map.next_value::<IgnoredAny>()?;
                }
                (Piece::Message, "content") | (Piece::ResponseItem, "content" | "output") => {
                    map.next_value_seed(Any(Place::Content, &mut *found))?;
                }
                (Piece::Message | Piece::ResponseItem, _) => {
                    map.next_value_seed(Any(Place::Chat, &mut *found))?;
                }
                (Piece::GeminiTool, key) => {
                    if !GEMINI_WEB_TOOLS.contains(&key) {
                        return Err(found.refuse(Refusal::Tool(key.to_owned())));
                    }
                    found.web = Some(Refusal::Web(key.to_owned()));
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if matches!(piece, Piece::ChatTool | Piece::ResponseTool) && !typed {
            return Err(A::Error::custom("a tool without a type"));
        }
        Ok(())
    }
}
