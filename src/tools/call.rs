//! Reads a call as a model wrote it: which tool it means, and the one object of arguments that it gives it. Nothing
//! else reads calls; the orchestrator stores and runs what comes out of here.
//!
//! Models and servers write names and arguments in many ways that leave no doubt, and those are taken. What is cut off or
//! broken is never repaired: the model gets the parser's message, the names, an example.

use std::borrow::Cow;

use serde_json::{Deserializer, Map, Value, error::Category};

use super::{ROWS, row};
use crate::{
    json::{self, Braces},
    text,
};

/// The most strings, one in the other, in which arguments may be wrapped.
const WRAPPED: usize = 3;
/// The keys under which some models give the arguments, as if they wrote the whole call.
const WRAPPERS: [&str; 4] = ["arguments", "parameters", "input", "args"];

/// A call that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The tool that is meant; `None` if there is no such tool.
    pub tool: Option<&'static str>,
    /// Its arguments as one JSON object; `None` if they cannot be read.
    pub arguments: Option<String>,
    /// Why it must not run, in a sentence for the model; `None` if it may.
    pub refusal: Option<String>,
}

/// Reads a call: the tool's name and the arguments, as the model wrote them.
pub fn read(name: &str, arguments: &str) -> Call {
    let tool = named(name).or_else(|| between_marks(name));
    let (object, broken) = match object(arguments, tool) {
        Ok(object) => (Some(object.into_owned()), None),
        Err(why) => (None, Some(why)),
    };
    let refusal = match (tool, broken) {
        (None, _) => Some(unknown(name)),
        (Some(tool), Some(why)) => Some(refusal(tool, &why)),
        (Some(_), None) => None,
    };
    Call { tool, arguments: object, refusal }
}

/// Returns the tool that a name means: `functions.run_command`, `default_api:Read-File`, `run_command<|channel|>commentary`.
/// Only what surrounds the name and how it is spelt may differ; a name that is merely near is none.
pub(crate) fn named(name: &str) -> Option<&'static str> {
    // `to=` names the receiver where a model writes its channel into the name; else what stands before the mark counts.
    let bare = match name.rsplit_once("to=") {
        Some((_, receiver)) => receiver.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default(),
        None => name.split("<|").next().unwrap_or_default(),
    };
    let bare = bare.trim_matches(|c: char| !c.is_alphanumeric());
    // The name of the language in which the arguments are written may stand behind it.
    let bare = [" json", " code"].iter().find_map(|kind| bare.strip_suffix(kind)).unwrap_or(bare);
    // Kimi counts its calls behind the name.
    let bare = bare.rsplit_once(':').filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit())).map_or(bare, |(it, _)| it);
    let last = bare.rsplit(['.', ':', '/']).next().unwrap_or_default();
    let last = fold(last.rsplit("__").next().unwrap_or_default());
    ROWS.iter().map(|row| row.name).find(|known| fold(known) == last)
}

fn fold(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns the one tool among the words of a name into which a model wrote marks of its dialect: `<tool_call>run_command`,
/// `run_command<｜tool▁sep｜>`, `<function=run_command>`, `{"name": "run_command"`.
fn between_marks(name: &str) -> Option<&'static str> {
    let marks = |c: char| matches!(c, '<' | '>' | '|' | '｜' | '=' | '{' | '}' | '"' | '\'' | ',' | '(' | ')');
    if !name.contains(marks) {
        return None;
    }
    let mut tools = name.split(marks).filter_map(named);
    let first = tools.next()?;
    tools.all(|other| other == first).then_some(first)
}

/// Returns what the model is told of a tool that does not exist.
pub(super) fn unknown(name: &str) -> String {
    let name = text::one_line(name, 60);
    let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    let near = known.iter().max_by(|a, b| strsim::jaro(a, &name).total_cmp(&strsim::jaro(b, &name)));
    let near = near.filter(|near| strsim::jaro(near, &name) > 0.75).map(|near| format!(" Do you mean `{near}`?"));
    format!("Not run: there is no tool `{name}`.{} The tools are: {}.", near.unwrap_or_default(), known.join(", "))
}

fn refusal(tool: &'static str, why: &Why) -> String {
    let cut_off = match why {
        Why::NoJson(why) if why.classify() == Category::Eof => {
            " They seem to be cut off: write long texts in several smaller calls."
        }
        _ => "",
    };
    let example = row(tool).map_or("{}", |row| row.example);
    format!("Not run: the arguments of {tool} are no JSON object ({why}).{cut_off} Send one, for example {example}")
}

/// Why arguments cannot be used.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("{0}")]
    NoJson(#[from] serde_json::Error),
    #[error("it is some other JSON value")]
    NoObject,
    #[error("there are several that differ")]
    Several,
}

/// Finds the one object in a text. An empty text counts as an empty object, as some models write it.
fn object<'a>(text: &'a str, tool: Option<&'static str>) -> Result<Cow<'a, str>, Why> {
    let bare = without_marks(text);
    let plain: Option<Map<String, Value>> = serde_json::from_str(bare).ok();
    let object = match &plain {
        Some(object) => object.clone(),
        None => only(values(bare, WRAPPED)?)?,
    };
    let mut inner = None;
    for _ in 0..WRAPPED {
        match unwrapped(inner.as_ref().unwrap_or(&object), tool)? {
            Some(deeper) => inner = Some(deeper),
            None => break,
        }
    }
    match inner {
        Some(inner) => Ok(Cow::Owned(Value::Object(inner).to_string())),
        // The text stays as it was written, since the provider's cache holds these bytes.
        None if plain.is_some() => Ok(Cow::Borrowed(bare)),
        None => Ok(Cow::Owned(Value::Object(object).to_string())),
    }
}

/// Takes off the marks between which some models write arguments: `<|message|>{…}<|call|>`, `{…}</tool_call>`, a fence.
fn without_marks(text: &str) -> &str {
    let blank = |c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}';
    let mut bare = text.trim_matches(blank);
    loop {
        let before = bare;
        if let Some(end) = ["|>", "｜>", ">"].into_iter().find(|end| bare.ends_with(end)) {
            let opens = if end == ">" { "</" } else { &format!("<{}", &end[..end.len() - 1]) };
            bare = bare.rsplit_once(opens).map_or(bare, |(rest, _)| rest);
        }
        if let Some(end) =
            ["<|", "<｜"].into_iter().find(|mark| bare.starts_with(mark)).map(|mark| format!("{}>", &mark[1..]))
        {
            bare = bare.split_once(&*end).map_or(bare, |(_, rest)| rest);
        }
        if let Some(inner) = bare.strip_prefix("json").filter(|rest| rest.trim_start().starts_with('{')) {
            bare = inner;
        }
        if let Some((_, inner)) = bare.strip_prefix("```").and_then(|rest| rest.split_once('\n')) {
            bare = inner.trim_end_matches(blank).strip_suffix("```").unwrap_or(inner);
        }
        bare = bare.trim_matches(blank);
        if bare == before {
            return bare;
        }
    }
}

/// Reads all values of a text, which come one after the other where a server begins each call with `{}` or sends the
/// whole again as it ends. A string that holds JSON stands for the values in it.
fn values(text: &str, wrapped: usize) -> Result<Vec<Value>, Why> {
    let all = |text: &str| Deserializer::from_str(text).into_iter().collect::<Result<Vec<Value>, _>>();
    // Closing brackets behind a whole value are passed over.
    let closed = || {
        let (value, behind) = text.split_at_checked(Braces::default().feed(text.as_bytes())?)?;
        let is_bracket = |c: char| c.is_whitespace() || matches!(c, '}' | ']');
        all(value).ok().filter(|_| behind.chars().all(is_bracket))
    };
    let read = match all(text) {
        Ok(values) => values,
        Err(_) => all(&json::lossy(text.as_bytes())).or_else(|why| closed().ok_or(why))?,
    };
    let mut values = Vec::with_capacity(read.len());
    for value in read {
        match value {
            Value::String(inner) if wrapped > 0 && inner.trim_start().starts_with(['{', '"']) => {
                values.extend(self::values(&inner, wrapped - 1)?);
            }
            other => values.push(other),
        }
    }
    Ok(values)
}

/// Returns the one object among values, of which the others must be empty or the same.
fn only(mut values: Vec<Value>) -> Result<Map<String, Value>, Why> {
    values.retain(|value| match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    });
    values.dedup();
    match (values.pop(), values.is_empty()) {
        (None, _) => Ok(Map::new()),
        (Some(Value::Object(object)), true) => Ok(object),
        // This is a list of nothing but the object.
        (Some(Value::Array(list)), true) if list.len() == 1 && list[0].is_object() => only(list),
        (Some(_), true) => Err(Why::NoObject),
        (Some(_), false) => Err(Why::Several),
    }
}

/// Returns the arguments within what is a whole call again, as in `{"name": "read_file", "arguments": {…}}`.
fn unwrapped(object: &Map<String, Value>, tool: Option<&'static str>) -> Result<Option<Map<String, Value>>, Why> {
    let Some((wrapper, inner)) = WRAPPERS.iter().find_map(|key| object.get_key_value(*key)) else { return Ok(None) };
    let is_label = |(key, value): (&String, &Value)| match &**key {
        "name" | "tool" | "function" | "recipient_name" => {
            value.as_str().is_some_and(|it| tool.is_some() && named(it) == tool)
        }
        "type" | "id" => true,
        _ => key == wrapper,
    };
    if !object.iter().all(is_label) {
        return Ok(None);
    }
    match inner {
        Value::Object(inner) => Ok(Some(inner.clone())),
        Value::String(inner) if inner.trim_start().starts_with('{') => only(values(inner, WRAPPED)?).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn run(text: &str) -> Result<Value, String> {
        let call = read("run_command", text);
        match (call.arguments, call.refusal) {
            (Some(object), None) => Ok(serde_json::from_str(&object).expect("JSON")),
            (None, Some(why)) => Err(why),
            other => panic!("both or neither: {other:?}"),
        }
    }

    #[test]
    fn a_name_is_known_whatever_surrounds_it_and_however_it_is_spelt() {
        for name in [
            "run_command",
            " run_command\n",
            "functions.run_command",
            "functions.run_command:0",
            "run_command:12",
            "default_api.run_command",
            "default_api:run_command",
            "mcp__sandbox__run_command",
            "tools/run_command",
            "run_command<|channel|>commentary",
            "run_command<|channel|>json",
            "assistant<|channel|>commentary to=functions.run_command<|constrain|>json",
            "commentary to=functions.run_command json",
            "Run_Command",
            "runCommand",
            "run-command",
            "run command",
            "RUN_COMMAND",
            "`run_command`",
            "\"run_command\"",
            "run_command()",
            "run_command json",
        ] {
            assert_eq!(named(name), Some("run_command"), "{name}");
        }
        for name in [
            "<tool_call>run_command",
            "<function=run_command>",
            "run_command<｜tool▁sep｜>",
            "run_command</function>",
            "{\"name\": \"run_command\"",
            "function=functions.run_command",
            "run_command(command=",
        ] {
            assert_eq!(read(name, "{}").tool, Some("run_command"), "{name}");
        }
        for name in ["run_command|read_file", "<run>", "x=run_commands", "<|channel|>final"] {
            assert_eq!(read(name, "{}").tool, None, "{name}");
        }
        assert_eq!(named("default_api.read_file"), Some("read_file"));
        for name in [
            "",
            "run",
            "run_commands",
            "command",
            "shell",
            "rm -rf\n/",
            "<|channel|>",
            "functions.",
            "run_command.x",
            ":0",
            ".",
        ] {
            assert_eq!(named(name), None, "{name}");
        }
    }

    #[test]
    fn an_object_is_found_in_what_other_clients_read_too() {
        let ls = json!({"command": "ls"});
        for text in [
            r#"{"command":"ls"}"#,
            r#"{}{"command":"ls"}"#,
            "{ }\n{\"command\":\"ls\"}",
            r#"null{"command":"ls"}"#,
            r#"""{"command":"ls"}{}"#,
            r#"{"command":"ls"}{"command":"ls"}"#,
            r#"{}{"command":"ls"} {"command": "ls"}"#,
            r#""{\"command\":\"ls\"}""#,
            r#""\"{\\\"command\\\":\\\"ls\\\"}\"""#,
            r#""{\"command\":\"ls\"}""{\"command\":\"ls\"}""#,
            r#"{"command":"ls"}<|call|>"#,
            r#"{"command":"ls"} <|im_end|><|endoftext|>"#,
            r#"<|message|>{"command":"ls"}<|call|>"#,
            "{\"command\":\"ls\"}\n</arguments>\n</tool_call>",
            "{\"command\":\"ls\"}<｜tool▁call▁end｜>",
            "```json\n{\"command\":\"ls\"}\n```",
            "\u{feff}{\"command\":\"ls\"}\0",
            r#"[{"command":"ls"}]"#,
            r#"{"command":"ls"}}"#,
            "{\"command\":\"ls\"}\n]}",
            "json\n{\"command\":\"ls\"}",
            r#"{"parameters":{"parameters":{"command":"ls"}}}"#,
            r#"{"name":"functions.run_command","arguments":{"command":"ls"}}"#,
            r#"{"arguments":"{\"command\":\"ls\"}"}"#,
            r#"{"type":"function","name":"run_command","parameters":{"command":"ls"}}"#,
        ] {
            assert_eq!(run(text), Ok(ls.clone()), "{text}");
        }
        for nothing in ["", " \n", "{}", "null", "{}{}", r#""""#] {
            assert_eq!(run(nothing), Ok(json!({})), "{nothing}");
        }
        // What a string holds is no mark.
        for kept in [r#"{"command":"echo '</b>'"}"#, r#"{"command":"a <|x|> b"}"#] {
            assert_eq!(run(kept), Ok(serde_json::from_str(kept).expect("JSON")), "{kept}");
        }
        assert_eq!(run("{\"command\":\"a\nb\tc\u{1}\"}"), Ok(json!({"command": "a\nb\tc\u{1}"})));
        assert_eq!(run(r#"{"command":"echo \ud83d"}"#), Ok(json!({"command": "echo \u{fffd}"})));
        // Only a whole call is unwrapped.
        for kept in
            [r#"{"arguments":{"x":1},"command":"ls"}"#, r#"{"name":"read_file","arguments":{}}"#, r#"{"input":"x"}"#]
        {
            assert_eq!(run(kept), Ok(serde_json::from_str(kept).expect("JSON")), "{kept}");
        }
        assert_eq!(
            read("run_command", " {\"command\" : \"ls\"}\n").arguments.as_deref(),
            Some(r#"{"command" : "ls"}"#)
        );
    }

    #[test]
    fn no_tool_has_a_parameter_that_would_be_taken_for_a_wrapper() {
        for spec in super::super::specs(&super::super::ToolLimits::default(), true, true, true) {
            for wrapper in WRAPPERS {
                assert!(spec.parameters["properties"].get(wrapper).is_none(), "{}.{wrapper}", spec.name);
            }
        }
    }

    #[test]
    fn what_is_broken_is_never_run_and_told_with_an_example() {
        for (text, says) in [
            (r#"{"command":"rm -rf /workspa"#, "cut off"),
            (r#"{"command":"ls""#, "cut off"),
            (r#"{}{"command":"ls"#, "cut off"),
            ("{\"command\":\"a\nb", "cut off"),
            (r#"{"command":"ls",}"#, "trailing comma"),
            (r#"{"command":{"command":"ls"}"#, "cut off"),
            (r#""{\"command\":\"l"#, "cut off"),
            (r#""{\"command\":\"l""#, "cut off"),
            (r#"{"command":"ls"}{"command":"rm"}"#, "several that differ"),
            ("ls -l", "expected value"),
            ("{'command': 'ls'}", "key must be a string"),
            ("[1]", "some other JSON value"),
            (r#""ls""#, "some other JSON value"),
        ] {
            let error = run(text).expect_err(text);
            assert!(error.starts_with("Not run: ") && error.contains(says), "{text}: {error}");
            assert!(error.ends_with(r#"for example {"command":"ls -la"}"#), "{error}");
        }
    }

    #[test]
    fn an_unknown_tool_is_answered_with_the_known_ones() {
        let call = read("read_files", r#"{"path":"a"}"#);
        assert_eq!((call.tool, call.arguments.as_deref()), (None, Some(r#"{"path":"a"}"#)));
        assert_eq!(
            call.refusal.as_deref(),
            Some(
                "Not run: there is no tool `read_files`. Do you mean `read_file`? The tools are: run_command, read_file, \
                 write_file, edit_file, run_tests, take_screenshot, send_file, plan, implement, review, github, self_update."
            )
        );
        assert!(unknown("x").starts_with("Not run: there is no tool `x`. The tools are"));
    }

    proptest! {
        /// However a server wraps, repeats or announces arguments, the tool gets the same; cut off, it gets nothing.
        #[test]
        fn wrapping_changes_nothing_and_cutting_refuses(
            command in any::<String>(),
            before in prop::sample::select(vec!["", "{}", "null", "{} "]),
            again in any::<bool>(),
            layers in 0..3_usize,
            cut in any::<prop::sample::Index>(),
        ) {
            let object = json!({"command": command, "workdir": "a"});
            let mut one = object.to_string();
            for _ in 0..layers {
                one = Value::String(one).to_string();
            }
            let whole = format!("{before}{one}{}", if again { &one } else { "" });
            prop_assert_eq!(run(&whole), Ok(object.clone()));
            let cut = one.floor_char_boundary(1 + cut.index(one.len() - 1));
            if cut > 0 && cut < one.len() {
                prop_assert!(run(&format!("{before}{}", &one[..cut])).is_err(), "{}", &one[..cut]);
            }
        }

        #[test]
        fn whatever_is_read_is_an_object(name in any::<String>(), text in "[{}\\[\\]\":,a\\\\\n <|>ntul1]{0,40}") {
            let _ = named(&name);
            let call = read(&name, &text);
            prop_assert_eq!(call.arguments.is_none() || call.tool.is_none(), call.refusal.is_some());
            if let Some(object) = call.arguments {
                prop_assert!(serde_json::from_str::<Map<String, Value>>(&object).is_ok(), "{}", object);
            }
        }
    }
}
