//! Values of `matrix-agent.toml` as the text that they would be in the environment.

use toml::Value;

use super::{Wrong, parse::Parsed};

/// Returns a value as text. A list counts only for a setting that may have `several` values; of any other it would
/// quietly become one text.
pub(super) fn text(value: &Value, several: bool) -> Parsed<String> {
    let kind = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Integer(number) => return Ok(number.to_string()),
        Value::Float(number) => return Ok(number.to_string()),
        Value::Array(entries) if several && entries.is_empty() => return Ok("none".to_owned()),
        Value::Array(entries) if several => match entries.iter().map(Value::as_str).collect::<Option<Vec<_>>>() {
            Some(entries) => return Ok(entries.join(",")),
            None => "list of anything but texts",
        },
        Value::Array(_) => "list",
        other => other.type_str(),
    };
    let mend = if several { "Write a text or a list of texts" } else { "Write a text or a number" };
    Err(Wrong::new(format!("it cannot be a {kind}"), mend))
}
