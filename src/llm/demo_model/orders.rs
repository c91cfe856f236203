//! Finds in a conversation the current order, and the results of the calls made for it.

use serde_json::Value;

/// How messages of the program itself to the model begin; they are no orders.
const PROGRAM: &str = "[matrix-agent]";
/// A part of what the program says when a turn has reached its limit.
const NO_MORE_CALLS: &str = "without calling a tool";

/// Something the demo model can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `run: COMMAND`
    Run(String),
    /// `write FILE: CONTENT`
    Write {
        /// The file.
        path: String,
        /// What goes into it.
        content: String,
    },
    /// `read FILE`
    Read(String),
    /// `test`, `test PATH`, `test: COMMAND`
    Test {
        /// The project.
        path: Option<String>,
        /// Its test command.
        command: Option<String>,
    },
    /// `screenshot URL`
    Screenshot(String),
    /// `demo`, `demo: JOB IN WORDS`
    Demo,
}

/// A call made for the order, with its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The tool's name.
    pub name: String,
    /// The call's result.
    pub result: String,
}

/// The state of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Situation {
    /// The order in the person's last message, if it is one.
    pub order: Option<Order>,
    /// The results since then.
    pub seen: Vec<Seen>,
    /// Whether the program allows no more calls.
    pub must_end: bool,
}

/// Reads a request's messages.
pub(super) fn read(messages: &Value) -> Situation {
    let mut situation = Situation::default();
    let mut names: Vec<(&str, &str)> = Vec::new();
    for message in messages.as_array().into_iter().flatten() {
        match message["role"].as_str() {
            Some("user") => texts(&message["content"]).for_each(|text| user(text, &mut situation)),
            Some("assistant") => {
                let calls = message["tool_calls"].as_array().into_iter().flatten();
                let named = calls.filter_map(|call| Some((call["id"].as_str()?, call["function"]["name"].as_str()?)));
                names.extend(named);
            }
            Some("tool") => {
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                let name = names.iter().rfind(|(known, _)| *known == id).map_or("", |(_, name)| name);
                let result = texts(&message["content"]).collect::<Vec<_>>().join("\n");
                situation.seen.push(Seen { name: name.to_owned(), result });
            }
            _ => {}
        }
    }
    situation
}

/// Returns everything that was said to the model.
pub(super) fn asked(messages: &Value) -> String {
    let users = messages.as_array().into_iter().flatten().filter(|message| message["role"] == "user");
    users.flat_map(|message| texts(&message["content"])).collect::<Vec<_>>().join("\n")
}

fn user(text: &str, situation: &mut Situation) {
    if text.starts_with(PROGRAM) {
        situation.must_end |= text.contains(NO_MORE_CALLS);
    } else {
        *situation = Situation { order: order(text), ..Situation::default() };
    }
}

fn texts(content: &Value) -> impl Iterator<Item = &str> {
    let parts = content.as_array().into_iter().flatten().filter_map(|part| part["text"].as_str());
    content.as_str().into_iter().chain(parts)
}

/// Finds the order in a person's message: at the start of a line, or after the `sender: ` that the program adds.
pub(super) fn order(text: &str) -> Option<Order> {
    let first_line = text.lines().next().unwrap_or_default();
    let behind_names = first_line.match_indices(": ").map(|(at, colon)| at + colon.len());
    let line_starts = text.match_indices('\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(behind_names).chain(line_starts).find_map(|at| order_at(text[at..].trim_start()))
}

fn order_at(text: &str) -> Option<Order> {
    let line = text.lines().next().unwrap_or_default().trim();
    let after = |word: &str| strip_word(text, word);
    if let Some(command) = after("run:").map(str::trim).filter(|command| !command.is_empty()) {
        return Some(Order::Run(command.to_owned()));
    }
    if let Some((path, content)) = after("write ").and_then(|rest| rest.split_once(':')) {
        let content = content.strip_prefix([' ', '\n']).unwrap_or(content);
        let content = if content.ends_with('\n') { content.to_owned() } else { format!("{content}\n") };
        return single(path).map(|path| Order::Write { path, content });
    }
    let argument = |word: &str| strip_word(line, word).and_then(|rest| single(rest.trim_start_matches(':')));
    if let Some(path) = argument("read") {
        return Some(Order::Read(path));
    }
    if let Some(url) = argument("screenshot") {
        return Some(Order::Screenshot(url));
    }
    if let Some(command) = strip_word(line, "test:").map(str::trim).filter(|command| !command.is_empty()) {
        return Some(Order::Test { path: None, command: Some(command.to_owned()) });
    }
    if let Some(path) = argument("test").filter(|path| path.contains(['/', '.'])) {
        return Some(Order::Test { path: Some(path), command: None });
    }
    // The job after the colon is for models that can read it.
    if strip_word(line, "demo:").is_some() {
        return Some(Order::Demo);
    }
    match line.trim_end_matches(['.', '!']).to_ascii_lowercase().as_str() {
        "test" => Some(Order::Test { path: None, command: None }),
        "demo" => Some(Order::Demo),
        _ => None,
    }
}

fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let head = text.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| &text[word.len()..])
}

/// Returns a name without spaces, with or without backticks.
fn single(text: &str) -> Option<String> {
    let text = text.trim().trim_matches('`');
    (!text.is_empty() && !text.contains(char::is_whitespace)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn orders_are_found_behind_names_and_on_any_line() {
        let run = |command: &str| Some(Order::Run(command.to_owned()));
        let test = |path: Option<&str>, command: Option<&str>| {
            Some(Order::Test { path: path.map(str::to_owned), command: command.map(str::to_owned) })
        };
        for (text, wanted) in [
            ("run: ls -la", run("ls -la")),
            ("@anna:example.org: Run: echo a: b", run("echo a: b")),
            ("terminal: please\nrun: cat <<E\nx\nE", run("cat <<E\nx\nE")),
            (
                "anna: write src/a.txt: hello",
                Some(Order::Write { path: "src/a.txt".into(), content: "hello\n".into() }),
            ),
            (
                "write a.py:\nx = 1\n\ny = 2",
                Some(Order::Write { path: "a.py".into(), content: "x = 1\n\ny = 2\n".into() }),
            ),
            ("read `a.txt`", Some(Order::Read("a.txt".into()))),
            ("Test", test(None, None)),
            ("test ./site", test(Some("./site"), None)),
            ("test: npm test", test(None, Some("npm test"))),
            ("screenshot http://localhost:3000/", Some(Order::Screenshot("http://localhost:3000/".into()))),
            ("anna: demo!", Some(Order::Demo)),
            ("anna: demo: write a module, run: nothing", Some(Order::Demo)),
            ("hello", None),
            ("run:", None),
            ("write a poem about: cats", None),
            ("read the file", None),
            ("test this", None),
            ("a demo of what?", None),
            ("", None),
        ] {
            assert_eq!(order(text), wanted, "{text}");
        }
    }

    #[test]
    fn only_a_persons_last_word_counts() {
        let call = json!({"id": "c", "function": {"name": "run_command", "arguments": "{}"}});
        let mut messages = vec![
            json!({"role": "system", "content": "x"}),
            json!({"role": "user", "content": "anna: run: old"}),
            json!({"role": "tool", "tool_call_id": "z", "content": "old"}),
            json!({"role": "assistant", "content": "done"}),
            json!({"role": "user", "content": [{"type": "text", "text": "[matrix-agent] pictures"}, {"type": "text", "text": "anna: run: ls"}]}),
            json!({"role": "assistant", "content": null, "tool_calls": [call]}),
            json!({"role": "tool", "tool_call_id": "c", "content": "a.txt"}),
            json!({"role": "user", "content": "[matrix-agent] Your last message was empty."}),
        ];
        let mut wanted = Situation {
            order: Some(Order::Run("ls".into())),
            seen: vec![Seen { name: "run_command".into(), result: "a.txt".into() }],
            must_end: false,
        };
        assert_eq!(read(&json!(messages)), wanted);
        messages.push(
            json!({"role": "user", "content": "[matrix-agent] Answer now, without calling a tool: what is done?"}),
        );
        wanted.must_end = true;
        assert_eq!(read(&json!(messages)), wanted);
        messages.push(json!({"role": "user", "content": "anna: thanks"}));
        assert_eq!(read(&json!(messages)), Situation::default());
        assert_eq!(read(&json!("garbage")), Situation::default());
    }
}
