//! A model that sends garbage: each turn ends with exactly one answer, and the next question in the same room works.

mod support;

use serde_json::{Value, json};
use support::{
    rig::{BARE, Rig, answers, block_on},
    scripted_llm::{End, Reply, ScriptedLlm, results, user_texts},
};

/// What the rig configures, and what no frame and no log may hold.
const KEY: &str = "sk-scripted-secret";
/// The question that gets garbage; no log may hold it.
const PROMPT: &str = "please bake the blue cake of my grandmother";
/// A call as a model writes it whose server knows no tools.
const IN_TEXT: &str =
    "I look.\n<tool_call>\n{\"name\": \"run_command\", \"arguments\": {\"command\": \"touch ran\"}}\n</tool_call>";
/// The question after the garbage.
const NEXT: &str = "and now?";

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn text(piece: &str) -> String {
    event(&json!({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": null}]}))
}

/// A whole stream of these events.
fn stream(events: Vec<String>) -> Reply {
    Reply::Stream(events, End::Closed)
}

/// A call of `run_command` with this text as its arguments.
fn call(arguments: &str) -> Reply {
    Reply::calls(&[("run_command", json!(arguments))])
}

/// The same reply with another reason for its end.
fn finished(reply: Reply, reason: &str) -> Reply {
    let Reply::Stream(events, end) = reply else { return reply };
    let marked =
        |event: String| event.replace(r#""finish_reason":"tool_calls""#, &format!(r#""finish_reason":"{reason}""#));
    Reply::Stream(events.into_iter().map(marked).collect(), end)
}

/// The same reply, cut after `count` events.
fn cut(reply: Reply, count: usize) -> Reply {
    let Reply::Stream(events, _) = reply else { return reply };
    Reply::Stream(events.into_iter().take(count).collect(), End::Cut)
}

fn status(status: u16, headers: &[(&'static str, &str)]) -> Reply {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let body = json!({"error": {"message": format!("no good: the key {KEY} and '{PROMPT}' were sent")}});
    Reply::Status(status, headers, body.to_string())
}

/// Asserts that a strict provider takes this conversation: each call has its one result right after its message, and
/// arguments that parse; nothing is empty; nobody answers a call that was not made.
fn unbroken(request: &Value) {
    let messages = request["messages"].as_array().unwrap();
    let mut open: Vec<&Value> = Vec::new();
    for message in messages {
        if message["role"] == "tool" {
            let at = open.iter().position(|id| **id == message["tool_call_id"]).expect("a result without its call");
            open.remove(at);
            assert!(!message["content"].as_str().unwrap().is_empty());
            continue;
        }
        assert!(open.is_empty(), "calls without results: {open:?}");
        let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        for call in calls {
            let function = &call["function"];
            let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
            assert!(arguments.is_object(), "{call}");
            let name = function["name"].as_str().unwrap();
            let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            assert!(!name.is_empty() && name.len() <= 64 && name.chars().all(good), "{name}");
            open.push(&call["id"]);
        }
        let said = message["content"].as_str().is_some_and(|text| !text.trim().is_empty());
        assert!(said || message["content"].is_array() || !calls.is_empty(), "an empty message: {message}");
    }
    assert!(open.is_empty(), "calls without results: {open:?}");
}

/// What a turn with garbage came to.
struct Came {
    ending: String,
    text: String,
    /// Requests of the turn.
    requests: Vec<Value>,
}

/// Has the model answer all of a turn with `garbage`, then asks again in the same room, and checks what always holds.
fn after(garbage: impl Fn() -> Reply + Send + Sync + 'static) -> Came {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(move |request| {
        let next = user_texts(request).iter().any(|text| text.contains(NEXT));
        if next { Reply::text("All is well again.") } else { garbage() }
    });
    let mut rig = Rig::new(BARE, llm.base_url());
    rig.set("RUST_LOG", "debug");
    let server = rig.serve();
    let (code, frames) = rig.ask("one", PROMPT).finish();
    let requests = llm.requests();
    let told = answers(&frames);
    assert_eq!((code, told.len()), (1, 1), "{told:#?}");
    let (ending, text) = (told[0]["ending"].as_str().unwrap().to_owned(), told[0]["text"].as_str().unwrap().to_owned());
    let (code, later) = rig.ask("one", NEXT).finish();
    assert_eq!((code, answers(&later).len()), (0, 1), "{later:#?}");
    assert_eq!(answers(&later)[0]["text"], "All is well again.");
    llm.requests().iter().for_each(unbroken);
    let shown = json!([frames, later]).to_string();
    let log = server.log();
    assert!(!shown.contains(KEY) && !log.contains(KEY), "the key came out");
    assert!(!log.contains("grandmother"), "the prompt came out");
    Came { ending, text, requests }
}

macro_rules! garbage {
    ($($name:ident: $reply:expr => $ending:literal $requests:literal $words:literal)*) => {$(
        #[test]
        fn $name() {
            let came = after(|| $reply);
            assert_eq!((came.ending.as_str(), came.requests.len()), ($ending, $requests), "{}", came.text);
            assert!(came.text.contains($words), "{}", came.text);
        }
    )*};
}

// Each reply is given again and again: how the turn ends, after how many requests, and what the person reads.
garbage! {
    arguments_that_are_no_json: call(r#"{"command": "ls"#) => "limit" 6 "calls in a row that could not run"
    arguments_that_are_no_object: call(r#"["ls"]"#) => "limit" 6 "calls in a row that could not run"
    an_unknown_tool: Reply::calls(&[("rm -rf\n/", json!({"path": "x"}))]) => "limit" 6 "calls in a row that could not run"
    a_tool_with_a_name_of_a_megabyte: Reply::calls(&[(&"x".repeat(1 << 20), json!({}))]) => "limit" 6 "could not run"
    empty_answers: Reply::text("") => "failed" 3 "gave no answer"
    answers_of_blanks: Reply::text(" \n\t\u{1b}[0m ") => "failed" 3 "gave no answer"
    a_stream_cut_in_the_text: cut(Reply::text("Half of it."), 1) => "failed" 5 "broke off"
    a_megabyte_of_one_token: Reply::text(&"ha".repeat(512 << 10)) => "failed" 3 "gave no answer"
    a_megabyte_of_one_token_in_pieces: stream(vec![text("ha"); 512 << 10]) => "failed" 3 "gave no answer"
    trouble_for_ever: status(500, &[("retry-after-ms", "1")]) => "failed" 5 "has trouble (500)"
    a_rate_limit_that_nobody_waits_for: status(429, &[("retry-after", "3600")]) => "failed" 1 "wait 60 minutes"
    a_key_that_is_refused: status(401, &[]) => "failed" 1 "LLM_API_KEY"
    calls_cut_off_at_the_output_limit:
        finished(call(r#"{"command": "touch /workspace/x"}"#), "length") => "limit" 6 "calls in a row that could not run"
    an_error_in_the_stream:
        stream(vec![text("Well"), event(&json!({"error": {"code": 401, "message": format!("lost {KEY}")}}))])
        => "failed" 1 "refused the key"
    an_error_labelled_as_a_stream:
        Reply::labelled("text/event-stream", r#"{"error":{"message":"no such model here","code":404}}"#)
        => "failed" 1 "no such model here"
    calls_written_as_text: Reply::text(IN_TEXT) => "failed" 2 "LLM_MODEL"
    calls_that_the_provider_cannot_read:
        Reply::Status(400, vec![], json!({"error": {"code": "tool_use_failed", "message": "Failed to call a function.",
            "failed_generation": "<function=run_command"}}).to_string())
        => "failed" 3 "LLM_MODEL"
    a_web_page_in_place_of_an_answer:
        Reply::Status(200, vec![("content-type", "text/html".to_owned())], "<h1>Log in</h1>".to_owned())
        => "failed" 1 "LLM_BASE_URL"
}

/// As many as run at once do, in order; each of the others is told that it did not.
#[test]
fn fifty_parallel_calls_each_have_a_result() {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    let calls: Vec<_> =
        (0..50).map(|n| ("run_command", json!({"command": format!("echo {n} | tee -a all")}))).collect();
    llm.reply_calls(&calls).reply_calls(&[("run_command", json!({"command": "cat all"}))]).reply_text("Sixteen ran.");
    let (code, frames) = rig.ask("one", PROMPT).finish();
    assert_eq!((code, answers(&frames).len()), (0, 1));
    let requests = llm.requests();
    requests.iter().for_each(unbroken);
    let told = results(&requests[2]);
    assert_eq!(told.len(), 51);
    for (n, told) in told[..50].iter().enumerate() {
        let expected = if n < 16 { format!("exit code: 0\n{n}") } else { "Not run: too many calls at once".to_owned() };
        assert!(told.starts_with(&expected), "{n}: {told}");
    }
    let order = (0..16).fold(String::new(), |text, n| format!("{text}\n{n}"));
    assert_eq!(told[50], format!("exit code: 0{order}"));
}

/// What fits into no command line and no frame is refused as the one call it is; the sandbox goes on.
#[test]
fn a_command_of_megabytes_is_refused_and_the_next_runs() {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    for size in [200 << 10, 1 << 20, 3 << 20] {
        llm.reply_calls(&[("run_command", json!({"command": format!("echo {}", "x".repeat(size))}))]);
    }
    llm.reply_calls(&[("run_command", json!({"command": "echo usable"}))]).reply_text("The last one ran.");
    let (code, frames) = rig.ask("one", PROMPT).finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{:#?}", answers(&frames));
    let requests = llm.requests();
    requests.iter().for_each(unbroken);
    let told = results(requests.last().unwrap());
    assert_eq!(told.last(), Some(&"exit code: 0\nusable"));
    for told in &told[..3] {
        let told = told[..told.len().min(500)].to_lowercase();
        assert!(told.starts_with("not run: ") || told.starts_with("not started: "), "{told}");
    }
}

/// A slip is told to the model, which mends it: the person sees the answer alone.
#[test]
fn slips_that_the_model_mends_are_not_the_persons() {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    llm.reply(call(r#"{"command": "echo"#)).reply_calls(&[("shell", json!({}))]).reply_text("");
    llm.reply(call(r#"{"command": "echo mended"}"#)).reply_text("Mended.");
    let (code, frames) = rig.ask("one", PROMPT).finish();
    assert_eq!((code, answers(&frames).len()), (0, 1));
    assert_eq!(answers(&frames)[0]["text"], "Mended.");
    let requests = llm.requests();
    requests.iter().for_each(unbroken);
    let told = results(&requests[4]);
    assert!(told[0].contains("no JSON object") && told[0].ends_with(r#"for example {"command":"ls -la"}"#), "{told:?}");
    assert!(told[1].contains("no tool `shell`. The tools are: run_command"), "{told:?}");
    assert_eq!(told[2], "exit code: 0\nmended");
}

/// What was shown of an answer that breaks off is void: the next try takes its place, and the answer is said once.
#[test]
fn an_answer_that_breaks_off_is_asked_for_again_and_said_once() {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    let whole = "Here is the whole answer.";
    let overloaded = event(&json!({"error": {"type": "overloaded_error", "message": "Overloaded"}}));
    llm.reply(cut(call(r#"{"command": "touch ran"}"#).saying("Here is"), 4));
    llm.reply(stream(vec![text("Here is the wh"), overloaded])).reply_text(whole);
    let (code, frames) = rig.ask("one", PROMPT).finish();
    assert_eq!((code, answers(&frames).len(), llm.requests().len()), (0, 1, 3), "{frames:#?}");
    assert_eq!(answers(&frames)[0]["text"], whole);
    assert!(frames.iter().all(|frame| frame["kind"] != "tool_started"), "a call of a broken answer has run");
    // A program that adds up what follows the last "thinking" has the answer.
    let thinking = frames.iter().rposition(|frame| frame["kind"] == "thinking").expect("a new try");
    let said: String = frames[thinking..].iter().filter_map(|frame| frame["delta"].as_str()).collect();
    assert_eq!(said, whole);

    llm.reply(cut(Reply::text(whole), 1)).reply_text(whole);
    let plain = rig.run(&["chat", "--room", "two", "-p", PROMPT]);
    assert_eq!(String::from_utf8_lossy(&plain.stdout), format!("{whole}\n"));
}

/// What other clients read as a call is run, once; the history holds it as strict providers want it.
#[test]
fn calls_are_read_as_other_clients_read_them() {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    let ls = |n: usize| format!(r#"{{"command":"echo {n} >> ran; tail -1 ran"}}"#);
    let odd = [
        ("functions.run_command", ls(0)),
        ("run_command<|channel|>commentary", ls(1)),
        ("default_api.Run_Command ", ls(2)),
        ("run_command", format!("{{}}{}", ls(3))),
        ("run_command", ls(4).repeat(2)),
        ("run_command", json!(ls(5)).to_string()),
        ("run_command", "{\"command\":\"echo 6 >> ran\n\ttail -1 ran\"}".to_owned()),
        ("run_command", format!("{}<|call|>", ls(7))),
        ("run_command", r#"{"command":"echo 8 >> ran; tail -1 ran # \ud83d"}"#.to_owned()),
    ];
    for (name, arguments) in &odd {
        llm.reply(Reply::calls(&[(*name, json!(arguments))]));
    }
    // Deltas, and then the whole message once more.
    let whole = json!({"content": "I look.", "tool_calls": [{"id": "c", "type": "function",
        "function": {"name": "run_command", "arguments": ls(odd.len())}}]});
    let delta = |delta: Value| event(&json!({"choices": [{"index": 0, "delta": delta}]}));
    let begin = json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "run_command", "arguments": ls(odd.len())}}]});
    let last = event(&json!({"choices": [{"index": 0, "delta": {}, "message": whole, "finish_reason": "tool_calls"}]}));
    llm.reply(stream(vec![text("I "), text("look."), delta(begin), last]));
    llm.reply_calls(&[("run_command", json!({"command": "wc -l < ran"}))]).reply_text("Done.");
    let (code, frames) = rig.ask("one", PROMPT).finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    requests.iter().for_each(unbroken);
    let told = results(requests.last().unwrap());
    let mut expected: Vec<_> = (0..=odd.len()).map(|n| format!("exit code: 0\n{n}")).collect();
    expected.push(format!("exit code: 0\n{}", odd.len() + 1));
    assert_eq!(told, expected);
    let said = &requests.last().unwrap()["messages"];
    let said: Vec<_> = said.as_array().unwrap().iter().filter(|message| message["content"] == "I look.").collect();
    assert_eq!(said.len(), 1, "said once");
    assert_eq!(said[0]["tool_calls"].as_array().unwrap().len(), 1);
}

/// It is told once to use the tools' interface; if it then does, nobody hears of it.
#[test]
fn a_call_written_as_text_is_never_run_and_sent_back_once() {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    llm.reply_text(IN_TEXT).reply(call(r#"{"command": "ls ran"}"#)).reply_text("There is none.");
    let (code, frames) = rig.ask("one", PROMPT).finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    assert_eq!(answers(&frames)[0]["text"], "There is none.");
    let requests = llm.requests();
    assert!(user_texts(&requests[1]).last().unwrap().contains("Call the tool through the tool interface"));
    assert!(results(&requests[2])[0].contains("No such file"), "{:?}", results(&requests[2]));
}

#[test]
fn an_answer_that_is_only_reasoning_is_shown_as_what_it_is() {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    let thought = |delta: Value| event(&json!({"choices": [{"index": 0, "delta": delta}]}));
    let end = || event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    let ways = [
        vec![thought(json!({"reasoning_content": "It is "})), thought(json!({"reasoning_content": "forty-two."}))],
        vec![thought(
            json!({"reasoning": "It is forty-two.", "reasoning_details": [{"type": "reasoning.text", "text": "It is forty-two."}]}),
        )],
        vec![text("<think>It is "), text("forty-two.</think>\n")],
        vec![text("<think>It is forty-two.")],
    ];
    for (n, way) in ways.into_iter().enumerate() {
        llm.reply(stream([way, vec![end()]].concat()));
        let (code, frames) = rig.ask(&format!("room-{n}"), PROMPT).finish();
        assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
        assert_eq!(answers(&frames)[0]["text"], "(The model gave no answer, only its reasoning:)\n\nIt is forty-two.");
    }
    // The mark is the program's word, and the model does not read it as its own.
    llm.reply_text("Yes.");
    rig.ask("room-0", NEXT).finish();
    let history = llm.requests().pop().unwrap()["messages"].to_string();
    assert!(history.contains("It is forty-two.") && !history.contains("only its reasoning"), "{history}");
}
