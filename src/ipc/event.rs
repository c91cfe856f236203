//! The schema of an event, and how a file is parsed. Pure. Parsing is lenient: what has only one meaning is accepted
//! (raw control characters, invalid UTF-8, unknown fields), and what is shown is one clean line of bounded length.
//!
//! Three shapes are accepted: our own, an object with `version` and `kind`, as `ipc-send` writes it; the payload of a
//! coding agent's hook as the hook receives it; and what the original matrix-agent wrote under three fixed names.

mod hook;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{json, text};

/// The newest version of our own shape that is accepted. Versions only add fields; a file with a higher one is
/// refused.
pub(crate) const VERSION: u64 = 1;

/// The longest file in bytes.
pub(crate) const LONGEST: usize = 1 << 20;

/// The most characters of a line.
const LINE: usize = 200;
/// The most bytes of a session's id.
const SESSION: usize = 64;
/// The most characters of an agent's name.
const AGENT: usize = 20;

/// The original's file names, and the hook of Gemini CLI whose payload is in each.
const FIXED: [(&str, &str); 3] =
    [("event-result.json", "AfterAgent"), ("event-progress.json", "AfterTool"), ("notification.json", "Notification")];

/// An event that a program in a sandbox has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who should see it.
    pub kind: Kind,
    /// One clean line of at most 200 characters; the word of a [`Kind::Canary`].
    pub line: String,
}

/// Who should see an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// People in the room.
    News,
    /// Nobody: it is too unimportant or too frequent (each piece of a model's answer).
    Detail,
    /// Whoever tests whether events arrive.
    Canary,
}

/// Why a file is not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not a complete JSON object; it may still be being written.
    #[error("it is no JSON object")]
    NotJson,
    /// It is an object of unknown shape.
    #[error("it is no event that is known here")]
    Unknown,
    /// Its version is newer than [`VERSION`].
    #[error("it is an event of version {0}, and this server knows {VERSION}")]
    Newer(u64),
}

/// Our own shape.
#[derive(Debug, Deserialize)]
struct Posted {
    kind: PostedKind,
    /// Who sends it; empty for a script.
    #[serde(default)]
    agent: String,
    /// Its text.
    #[serde(default)]
    text: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PostedKind {
    /// Work goes on.
    Progress,
    /// Somebody should look.
    Notification,
    /// A run has ended.
    Result,
    /// A test of whether events arrive.
    Canary,
}

/// Parses a file with this name.
///
/// # Errors
///
/// The file is no event that this server knows; [`Unreadable`] says why.
pub fn parse(name: &[u8], bytes: &[u8]) -> Result<Event, Unreadable> {
    read(name, bytes).map(|(event, _)| event)
}

/// Like [`parse`]; also returns whose run has ended, if the event says that: a session's id or, if the hook names
/// none, the agent's name.
pub(super) fn read(name: &[u8], bytes: &[u8]) -> Result<(Event, Option<String>), Unreadable> {
    let fields: Map<String, Value> = serde_json::from_str(&json::lossy(bytes)).map_err(|_| Unreadable::NotJson)?;
    let fixed = FIXED.into_iter().find(|(fixed, _)| fixed.as_bytes() == name);
    let mut ended = None;
    let mut hooked = |hook: &str| {
        let agent = agent(name, &fields);
        ended = hook::is_end(hook).then(|| session(&fields).unwrap_or_else(|| agent.clone()));
        hook::event(&agent, hook, &fields)
    };
    let event = if let Some(hook) = fields.get("hook_event_name").and_then(Value::as_str) {
        hooked(hook)
    } else if let Some(version) = fields.get("version").and_then(Value::as_u64) {
        posted(version, fields.clone())?
    } else if let Some((_, hook)) = fixed {
        hooked(hook)
    } else {
        return Err(Unreadable::Unknown);
    };
    let line = text::one_line(&event.line, LINE);
    if line.is_empty() { Err(Unreadable::Unknown) } else { Ok((Event { line, ..event }, ended)) }
}

/// Returns the session's id in a payload, if there is one.
fn session(fields: &Map<String, Value>) -> Option<String> {
    let session = fields.get("session_id")?.as_str()?;
    (!session.is_empty() && session.len() <= SESSION).then(|| session.to_owned())
}

fn posted(version: u64, fields: Map<String, Value>) -> Result<Event, Unreadable> {
    if version > VERSION {
        return Err(Unreadable::Newer(version));
    }
    let Posted { kind, agent, text } = serde_json::from_value(fields.into()).map_err(|_| Unreadable::Unknown)?;
    let (mark, kind) = match kind {
        PostedKind::Canary => return Ok(Event { kind: Kind::Canary, line: text }),
        PostedKind::Progress => ("", Kind::News),
        PostedKind::Notification => ("⚠️ ", Kind::News),
        PostedKind::Result => ("✓ ", Kind::News),
    };
    let agent = word(&agent);
    let of = if agent.is_empty() { String::new() } else { format!("{agent}: ") };
    let line = if text.trim().is_empty() { String::new() } else { format!("{mark}{of}{text}") };
    Ok(Event { kind, line })
}

/// Returns which agent a hook belongs to: from the payload, from the file name of our hooks
/// (`<ns>-<pid>-<agent>-<Event>.json`), or by fields that only one agent writes.
fn agent(name: &[u8], fields: &Map<String, Value>) -> String {
    let said = fields.get("cli").and_then(Value::as_str).map(word).filter(|said| !said.is_empty());
    let named = || {
        let mut parts = name.split(|byte| *byte == b'-');
        let [time, process, agent] = [parts.next()?, parts.next()?, parts.next()?];
        let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
        let agent = word(&String::from_utf8_lossy(agent));
        (digits(time) && digits(process) && parts.next().is_some() && !agent.is_empty()).then_some(agent)
    };
    said.or_else(named).unwrap_or_else(|| {
        let qwen = fields.contains_key("permission_mode");
        (if qwen { "qwen" } else { "gemini" }).to_owned()
    })
}

/// Returns a name without characters that no agent's name has.
fn word(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')).take(AGENT).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn line(name: &str, text: &str) -> String {
        parse(name.as_bytes(), text.as_bytes()).unwrap().line
    }

    /// Every payload that was seen of both agents, with its line; details are marked with a dot.
    #[test]
    fn every_sample_is_a_line() {
        let mut lines = Vec::new();
        for agent in ["gemini", "qwen"] {
            let folder = format!("{}/tests/fixtures/hooks/{agent}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            for file in files {
                let hook = file.file_stem().unwrap().to_str().unwrap();
                let name = format!("1795229426191004000-17-{agent}-{hook}.json");
                let event = parse(name.as_bytes(), &fs::read(&file).unwrap()).unwrap();
                assert!(event.line.contains(agent), "{event:?}");
                let mark = if event.kind == Kind::News { ' ' } else { '.' };
                lines.push(format!("{mark} {hook}: {}", event.line));
            }
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn the_names_of_the_original_are_read() {
        let qwen = r#"{"cli":"qwen","exit_code":0,"timestamp":"2026-11-21T02:52:36"}"#;
        assert_eq!(line("event-result.json", qwen), "qwen ✓ finished (exit 0)");
        let failed = r#"{"cli":"qwen","exit_code":55}"#;
        assert_eq!(line("event-result.json", failed), "qwen ✗ finished (exit 55)");
        let gemini = r#"{"hook_event_name":"AfterAgent","prompt_response":"All done."}"#;
        assert_eq!(line("event-result.json", gemini), "gemini ✓ All done.");
        assert_eq!(line("event-progress.json", r#"{"tool_name":"write_file"}"#), "gemini ✓ write_file");
        let notification = r#"{"notification_type":"ToolPermission","message":"May I?","details":{"title":"Shell"}}"#;
        assert_eq!(line("notification.json", notification), "⚠️ gemini [ToolPermission]: May I?");
        assert_eq!(parse(b"other.json", qwen.as_bytes()), Err(Unreadable::Unknown));
    }

    #[test]
    fn our_own_shape_has_a_version() {
        let posted = |text: &str| parse(b"1-2-send-progress.json", text.as_bytes());
        let news = |line: &str| Ok(Event { kind: Kind::News, line: line.into() });
        assert_eq!(posted(r#"{"version":1,"kind":"progress","text":"half way","more":[1]}"#), news("half way"));
        assert_eq!(posted(r#"{"version":1,"kind":"result","agent":"codex","text":"done"}"#), news("✓ codex: done"));
        assert_eq!(posted(r#"{"version":1,"kind":"notification","text":"look"}"#), news("⚠️ look"));
        let canary = Event { kind: Kind::Canary, line: "abc".into() };
        assert_eq!(posted(r#"{"version":1,"kind":"canary","text":"abc"}"#), Ok(canary));
        assert_eq!(posted(r#"{"version":2,"kind":"progress","text":"x"}"#), Err(Unreadable::Newer(2)));
        assert_eq!(posted(r#"{"version":1,"kind":"poem","text":"x"}"#), Err(Unreadable::Unknown));
        assert_eq!(posted(r#"{"version":1,"kind":"progress","text":" \n"}"#), Err(Unreadable::Unknown));
    }

    #[test]
    fn what_nobody_doubts_is_taken() {
        let raw = b"{\"version\":1,\"kind\":\"progress\",\"text\":\"a\x1b[31mred\x1b[0m\r\nb \xff \x07c\"}";
        assert_eq!(parse(b"x.json", raw).unwrap().line, "ared b \u{fffd} c");
        let name = b"1-2-qw\xff\nen-Stop.json";
        assert_eq!(parse(name, br#"{"hook_event_name":"Stop"}"#).unwrap().line, "qwen ✓ finished");
    }

    #[test]
    fn what_is_cut_off_or_deep_is_refused() {
        for text in ["", "{", r#"{"version":1,"kind":"progress","text":"ha"#, "[]", "7", "null"] {
            assert_eq!(parse(b"x.json", text.as_bytes()), Err(Unreadable::NotJson), "{text}");
        }
        let deep = format!(r#"{{"hook_event_name":"Stop","x":{}}}"#, "[".repeat(500_000));
        assert_eq!(parse(b"x.json", deep.as_bytes()), Err(Unreadable::NotJson));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,400}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            prop::sample::select(vec![
                "cli",
                "tool_name",
                "tool_input",
                "file_path",
                "command",
                "error",
                "tool_response",
                "message",
                "notification_type",
                "exit_code",
                "tool_calls",
                "model",
                "agent_type",
                "prompt",
                "version",
                "kind",
                "text",
            ])
            .prop_map(str::to_owned),
            ".{0,8}",
        ];
        leaf.prop_recursive(3, 24, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn hook_name() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec![
                "BeforeTool",
                "AfterTool",
                "PostToolUseFailure",
                "PostToolBatch",
                "AfterAgent",
                "Stop",
                "SessionStart",
                "Notification",
                "SubagentStop",
                "BeforeModel",
                "MessageDisplay",
            ])
            .prop_map(str::to_owned),
            ".{0,40}",
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_one_clean_line(name in prop::collection::vec(any::<u8>(), 0..60), value in any_json(), hook in hook_name()) {
            let mut fields = value.as_object().cloned().unwrap_or_default();
            let _ = parse(&name, &serde_json::to_vec(&fields).unwrap());
            fields.insert("hook_event_name".into(), hook.into());
            if let Ok(event) = parse(&name, &serde_json::to_vec(&fields).unwrap()) {
                prop_assert!(!event.line.is_empty() && event.line.chars().count() <= LINE);
                prop_assert!(!event.line.chars().any(char::is_control), "{:?}", event.line);
            }
        }

        #[test]
        fn no_bytes_are_too_much(name in prop::collection::vec(any::<u8>(), 0..60), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&name, &bytes);
        }
    }
}
