//! Reads a JSON object field by field, so that a mistake is named by its place, as in `endpoints[0].url`. Pure.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use crate::text;

/// The most mistakes of one file that are kept.
const MOST: usize = 8;
/// The most characters of a value that a mistake repeats.
const SHOWN: usize = 40;

/// The mistakes of a file, each a sentence that begins with its place.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    pub(super) fn add(&mut self, place: &str, what: impl fmt::Display) {
        if self.0.len() < MOST {
            let place = text::one_line(place, 120);
            self.0.push(if place.is_empty() { what.to_string() } else { format!("{place}: {what}") });
        }
    }

    pub(super) fn into_sentences(self) -> Vec<String> {
        self.0
    }
}

/// The members of an object, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Members(pub(super) Vec<(String, Value)>);

/// Reads the object that the file has under this name; `None` if it has none.
pub(super) struct Under<'a>(pub(super) &'a str);

impl<'de> DeserializeSeed<'de> for Under<'_> {
    type Value = Option<Members>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Under<'_> {
    type Value = Option<Members>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// The fields of one entry.
pub(super) struct Fields<'a> {
    place: String,
    value: &'a Value,
    faults: &'a mut Faults,
}

impl<'a> Fields<'a> {
    /// Begins with an entry that has to be an object with no field that is nearly one of `known`: what is unknown
    /// otherwise is somebody else's.
    pub(super) fn of(place: String, value: &'a Value, known: &[&str], faults: &'a mut Faults) -> Option<Self> {
        let Some(object) = value.as_object() else {
            faults.add(&place, "it is no object");
            return None;
        };
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            let near = |known: &&&str| strsim::damerau_levenshtein(known, name) <= 2 && name.len() > 3;
            if let Some(near) = known.iter().find(near) {
                faults.add(&format!("{place}.{name}"), format_args!("there is no such field; did you mean `{near}`?"));
            }
        }
        Some(Self { place, value, faults })
    }

    pub(super) fn fault(&mut self, name: &str, what: impl fmt::Display) {
        self.faults.add(&format!("{}.{name}", self.place), what);
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.value.get(name).filter(|value| !value.is_null())
    }

    /// Returns a text, if the field is there; one that is empty or has control characters is a mistake.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        match value.as_str().map(str::trim) {
            Some(text) if !text.is_empty() && text.len() <= 1000 && !text.chars().any(char::is_control) => {
                Some(text.to_owned())
            }
            Some(_) => self.wrong(name, "it is empty, too long or has line breaks"),
            None => self.wrong(name, "it is no text"),
        }
    }

    /// Returns a text that has to be there.
    pub(super) fn required(&mut self, name: &str) -> Option<String> {
        if self.get(name).is_none() {
            return self.wrong(name, "it is missing");
        }
        self.text(name)
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        match self.get(name) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => self.wrong(name, "it is neither true nor false").unwrap_or_default(),
        }
    }

    pub(super) fn whole(&mut self, name: &str) -> Option<u64> {
        let value = self.get(name)?;
        value.as_u64().or_else(|| self.wrong(name, "it is no whole number"))
    }

    /// Returns a number above nothing.
    pub(super) fn number(&mut self, name: &str) -> Option<f64> {
        let value = self.get(name)?;
        let number = value.as_f64().filter(|number| number.is_finite() && *number >= 0.0);
        number.or_else(|| self.wrong(name, "it is no number"))
    }

    /// Returns a size in bytes, as a number or as `17g`.
    pub(super) fn size(&mut self, name: &str) -> Option<u64> {
        let value = self.get(name)?;
        let size = match value {
            Value::String(text) => bytes(text),
            value => value.as_u64(),
        };
        let shown = text::one_line(&value.to_string(), SHOWN);
        size.or_else(|| self.wrong(name, format_args!("{shown} is no size; write bytes, or `17g`")))
    }

    /// Returns the fields of an object in it.
    pub(super) fn inner(&mut self, name: &str, known: &[&str]) -> Option<Fields<'_>> {
        let value = self.get(name)?;
        Fields::of(format!("{}.{name}", self.place), value, known, self.faults)
    }

    fn wrong<T>(&mut self, name: &str, what: impl fmt::Display) -> Option<T> {
        self.fault(name, what);
        None
    }
}

/// Reads a size such as `512m` or `17.5g`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_lowercase();
    let text = text.trim_end_matches('b').trim_end_matches('i');
    let (number, unit) = match text.strip_suffix(['k', 'm', 'g', 't']) {
        Some(number) => (number, 1 << (10 * (1 + "kmgt".find(&text[number.len()..])?))),
        None => (text, 1_u64),
    };
    let plain = number.trim().bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = number.trim().parse::<f64>().ok().filter(|number| plain && *number > 0.0)?;
    Some((number * unit as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, size) in [
            ("17g", Some(17 << 30)),
            ("1.5 GiB", Some(3 << 29)),
            ("512m", Some(512 << 20)),
            ("1024", Some(1024)),
            ("", None),
            ("g", None),
            ("-1g", None),
            ("1e9", None),
            ("17q", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
    }
}
