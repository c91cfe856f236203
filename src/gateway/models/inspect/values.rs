//! Values of any shape in a body, in which a provider could find an address that it would fetch from; and names of fields.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::Found;
use crate::gateway::models::refusal::Refusal;

/// Schemes of addresses from which a provider could fetch.
const SCHEMES: [&str; 7] = ["http", "https", "ftp", "file", "gs", "s3", "oss"];

/// Where a value stands, and so what counts as an address in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A chat message's content: itself text, or parts of which some are.
    Content,
    /// Deeper in a chat message: any text may be an address.
    Chat,
    /// Anywhere in Anthropic's messages: only a source has an address.
    Messages,
    /// Anywhere in Gemini's contents: only files have addresses.
    Gemini,
}

/// Any value; looks for addresses in it.
pub(super) struct Any<'f>(pub(super) Place, pub(super) &'f mut Found);

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.0 == Place::Chat && is_remote(text) {
            self.1.web = Some(Refusal::RemoteUrl);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Any(self.0, &mut *self.1))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(place, found) = self;
        while let Some(Text(key)) = map.next_key::<Text<'_>>()? {
            let inside = match (place, &*key) {
                // A part's text is text. Deeper, the same name could be anything.
                (Place::Content, "text") => Place::Content,
                (Place::Content | Place::Chat, _) | (Place::Messages, "source") => Place::Chat,
                (Place::Gemini, "fileData" | "file_data") => {
                    found.web = Some(Refusal::RemoteUrl);
                    Place::Gemini
                }
                // What was called and what it gave are a program's own values.
                (Place::Gemini, "args" | "response" | "text" | "data") | (Place::Messages, "input" | "signature") => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                (Place::Messages, _) => Place::Messages,
                (Place::Gemini, _) => Place::Gemini,
            };
            map.next_value_seed(Any(inside, &mut *found))?;
        }
        Ok(())
    }
}

/// Tells whether a provider that is given this for a picture or a file would fetch it from somewhere.
fn is_remote(text: &str) -> bool {
    let start = text.trim_start();
    let scheme = start.split_once(':').map(|(scheme, _)| scheme);
    let known = scheme.is_some_and(|scheme| SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)));
    let near = start.len().min(64);
    known || start.starts_with("//") || start.as_bytes()[..near].windows(3).any(|three| three == b"://")
}

/// A field's name, which is copied only where it holds escapes.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Name).map(Text)
    }
}
