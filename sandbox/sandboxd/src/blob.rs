//! Bytes inside JSON: standard base64 with padding, for captured output. Called by serde through [`Blob`].

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes that travel as a base64 string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a base64 string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
                BASE64_STANDARD.decode(text).map(Blob).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_as_other_versions_write_them() {
        for (plain, json) in [("", r#""""#), ("f", r#""Zg==""#), ("fooba", r#""Zm9vYmE=""#)] {
            let blob = Blob(plain.into());
            assert_eq!(serde_json::to_string(&blob).unwrap(), json);
            assert_eq!(serde_json::from_str::<Blob>(json).unwrap(), blob);
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for json in [r#""Zg=""#, r#""====""#, r#""Zm 9""#, "5", "null"] {
            assert!(serde_json::from_str::<Blob>(json).is_err(), "{json}");
        }
    }
}
