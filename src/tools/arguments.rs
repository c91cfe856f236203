//! Turns the object that a call holds into a tool's arguments, and a tool's arguments into the schema that models read.
//!
//! Knows no particular tool. What is unmistakable is accepted (a number or flag in quotes, an empty optional value); all
//! else is told to the model, with an example.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Returns the JSON Schema of `T` as all providers take it: no references, no `null` types, nothing but what helps the
/// model.
pub(super) fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    lean(&mut schema);
    schema
}

/// Drops what only costs tokens, or what some provider rejects.
fn lean(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    for key in ["title", "format", "default", "minimum", "additionalProperties"] {
        object.remove(key);
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(lean);
        // The type's own documentation is for people who read the code.
        object.remove("description");
    }
}

/// Reads the arguments of a call, an object as [`super::read_call`] gives it; the error is what the model is told.
pub(super) fn parse<T: JsonSchema + DeserializeOwned>(tool: &str, object: &str, example: &str) -> Result<T, String> {
    let told = |why: &serde_json::Error| {
        format!("{tool} cannot use these arguments: {why}. Nothing was run. An example: {example}")
    };
    let mut arguments: Map<String, Value> = serde_json::from_str(object).map_err(|why| told(&why))?;
    coerce(&mut arguments, &schema::<T>());
    serde_json::from_value(Value::Object(arguments)).map_err(|why| told(&why))
}

/// Returns a number that has no fraction as an integer.
fn whole(number: f64) -> Option<Value> {
    (number.fract() == 0.0 && (0.0..1e15).contains(&number)).then(|| Value::from(number as u64))
}

/// Gives each argument the type that the schema names, where the value leaves no doubt, and drops empty optional ones.
fn coerce(arguments: &mut Map<String, Value>, schema: &Value) {
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|it| it == name));
    arguments.retain(|name, value| {
        let empty = value.is_null() || value.as_str().is_some_and(str::is_empty);
        !empty || required(name)
    });
    for (name, value) in arguments.iter_mut() {
        let wanted = schema["properties"][name]["type"].as_str().unwrap_or_default();
        let better = match (wanted, &*value) {
            ("integer", Value::String(text)) => text.trim().parse().ok().and_then(whole),
            ("integer", Value::Number(number)) => number.as_f64().and_then(whole),
            ("boolean", Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(Value::from(true)),
                "false" | "no" | "off" | "0" => Some(Value::from(false)),
                _ => None,
            },
            ("boolean", Value::Number(number)) if number.as_u64().is_some_and(|it| it < 2) => {
                Some(Value::from(number.as_u64() == Some(1)))
            }
            ("string", Value::Number(number)) => Some(Value::from(number.to_string())),
            _ => None,
        };
        if let Some(better) = better {
            *value = better;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    /// Not for models.
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        /// A path.
        path: String,
        /// A number.
        lines: Option<u64>,
        /// A flag.
        #[serde(default)]
        all: bool,
    }

    fn read(text: &str) -> Result<Arguments, String> {
        parse("peek", text, r#"{"path":"a"}"#)
    }

    fn good(path: &str, lines: Option<u64>, all: bool) -> Arguments {
        Arguments { path: path.into(), lines, all }
    }

    #[test]
    fn a_schema_is_flat_and_lean() {
        let expected = json!({"type": "object", "required": ["path"], "properties": {
            "path": {"type": "string", "description": "A path."},
            "lines": {"type": "integer", "description": "A number."},
            "all": {"type": "boolean", "description": "A flag."},
        }});
        assert_eq!(schema::<Arguments>(), expected);
    }

    #[test]
    fn what_is_unmistakable_is_taken() {
        assert_eq!(read(r#"{"path":"a"}"#), Ok(good("a", None, false)));
        assert_eq!(read(r#"{"path":"a","lines":"12","all":"True"}"#), Ok(good("a", Some(12), true)));
        assert_eq!(read(r#"{"path":"a","lines":"12.0","all":1}"#), Ok(good("a", Some(12), true)));
        assert_eq!(read(r#"{"path":"a","all":"no"}"#), Ok(good("a", None, false)));
        assert_eq!(read(r#"{"path":3000,"lines":12.0,"all":null}"#), Ok(good("3000", Some(12), false)));
        assert_eq!(read(r#"{"path":"","lines":""}"#), Ok(good("", None, false)));
    }

    #[test]
    fn what_is_broken_is_told_with_an_example() {
        for (text, says) in [
            ("[1]", "invalid type"),
            ("{}", "missing field `path`"),
            (r#"{"path":"a","line":1}"#, "unknown field `line`, expected one of `path`, `lines`, `all`"),
            (r#"{"path":"a","lines":"many"}"#, "many"),
            (r#"{"path":"a","lines":-1}"#, "-1"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(says) && error.contains(r#"{"path":"a"}"#), "{text}: {error}");
            assert!(error.contains("Nothing was run"), "{error}");
        }
    }
}
