//! Reads a JSON object field by field, so that a mistake is named by its place, as in `endpoints[0].url`. Pure.
//!
//! A field that is not known is a mistake, and so is one that stands there twice: whoever wrote it believes that it does
//! something. What begins with `_`, `$` or `x-` is a note of theirs.

use std::{collections::HashSet, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
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

/// Reads what the file's object has under this name, and the names of all else in it.
pub(super) struct Under<'a, T> {
    name: &'a str,
    what: PhantomData<T>,
}

impl<'a, T> Under<'a, T> {
    pub(super) fn new(name: &'a str) -> Self {
        Self { name, what: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Under<'_, T> {
    type Value = (Option<T>, Vec<String>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Under<'_, T> {
    type Value = (Option<T>, Vec<String>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut others) = (None, vec![]);
        while let Some(name) = map.next_key::<String>()? {
            if name == self.name {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
                others.push(name);
            }
        }
        Ok((found, others))
    }
}

/// Looks for fields that stand twice in one object, at any depth.
pub(super) struct Twice<'f> {
    /// The value's place in the file; empty for the whole.
    place: String,
    faults: &'f mut Faults,
}

impl<'f> Twice<'f> {
    pub(super) fn new(faults: &'f mut Faults) -> Self {
        Self { place: String::new(), faults }
    }
}

impl<'de> DeserializeSeed<'de> for Twice<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Twice<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let name_there = if plain { name.clone() } else { format!("\"{name}\"") };
            let place = if self.place.is_empty() { name_there } else { format!("{}.{name_there}", self.place) };
            if !seen.insert(name) {
                self.faults.add(&place, "it stands there twice");
            }
            map.next_value_seed(Twice { place, faults: self.faults })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            let place = format!("{}[{index}]", self.place);
            if list.next_element_seed(Twice { place, faults: self.faults })?.is_none() {
                break;
            }
        }
        Ok(())
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

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Names the fields that are none of `known`.
pub(super) fn unknown<'n>(place: &str, names: impl Iterator<Item = &'n String>, known: &[&str], faults: &mut Faults) {
    let noted = |name: &str| name.starts_with(['_', '$']) || name.starts_with("x-");
    for name in names.filter(|name| !known.contains(&name.as_str()) && !noted(name)) {
        let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
        let near = |known: &&&str| strsim::damerau_levenshtein(known, name) <= 2 && name.len() > 3;
        match known.iter().find(near) {
            Some(near) => faults.add(&place, format_args!("there is no such field; did you mean `{near}`?")),
            None => faults.add(&place, format_args!("there is no such field, only {}", names_of(known))),
        }
    }
}

fn names_of(known: &[&str]) -> String {
    known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The fields of one entry.
pub(super) struct Fields<'a> {
    place: String,
    value: &'a Value,
    faults: &'a mut Faults,
}

impl<'a> Fields<'a> {
    /// Begins with an entry that has to be an object with no other fields than `known`.
    pub(super) fn of(place: String, value: &'a Value, known: &[&str], faults: &'a mut Faults) -> Option<Self> {
        let Some(object) = value.as_object() else {
            faults.add(&place, "it is no object");
            return None;
        };
        unknown(&place, object.keys(), known, faults);
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
