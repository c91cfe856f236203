//! What real CLIs wrote (`tests/fixtures/streams/`, one file a case), and what nobody should write.

use std::{fs, path::Path};

use proptest::{prelude::*, sample::Index};

use super::*;

const ALL: [Dialect; 5] = [Dialect::Gemini, Dialect::Qwen, Dialect::Claude, Dialect::Codex, Dialect::OpenCode];

fn samples() -> Vec<(String, Dialect, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/streams");
    let mut samples: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let dialect = match name.split('-').next() {
                Some("qwen") => Dialect::Qwen,
                Some("claude") => Dialect::Claude,
                Some("codex") => Dialect::Codex,
                Some("opencode") => Dialect::OpenCode,
                _ => Dialect::Gemini,
            };
            (name, dialect, fs::read(path).unwrap())
        })
        .collect();
    samples.sort_by(|one, other| one.0.cmp(&other.0));
    samples
}

/// Feeds `bytes` in pieces that end at `cuts`.
fn read(dialect: Dialect, bytes: &[u8], cuts: &[usize]) -> Vec<AgentEvent> {
    let mut stream = Stream::new(dialect);
    let mut events = Vec::new();
    let mut at = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        events.extend(stream.feed(&bytes[at..cut]));
        at = cut;
    }
    events.extend(stream.end());
    events
}

/// An event in a few words.
fn told(event: &AgentEvent) -> String {
    let mark = |ok: &bool| if *ok { '✓' } else { '✗' };
    match event {
        AgentEvent::Started { session, model } => format!("started {} {model}", &session[..8.min(session.len())]),
        AgentEvent::Said(_) => "said".to_owned(),
        AgentEvent::ToolUsed { name, target, .. } => format!("{name}({target})"),
        AgentEvent::ToolEnded { ok, .. } => mark(ok).to_string(),
        AgentEvent::Todo(steps) => {
            steps.iter().map(|step| format!("{}: {:?}", step.text, step.state)).collect::<Vec<_>>().join(", ")
        }
        AgentEvent::Retry { reason } => format!("retry {reason}"),
        AgentEvent::Used(tokens) => format!("+{}", tokens.total()),
        AgentEvent::Ended { ok, summary, tokens } => {
            format!("ended {} “{summary}” {:?}", mark(ok), tokens.map(|it| (it.input, it.output)))
        }
        AgentEvent::Noise(line) => format!("noise {line}"),
    }
}

#[test]
fn every_sample_says_what_it_must() {
    let mut all = String::new();
    for (name, dialect, bytes) in samples() {
        let mut lines: Vec<String> = read(dialect, &bytes, &[]).iter().map(told).collect();
        lines.dedup();
        all.extend(["== ", &name, "\n", &lines.join("\n"), "\n"]);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn every_use_of_a_tool_ends_in_the_samples_that_have_a_result() {
    for (name, dialect, bytes) in samples() {
        let events = read(dialect, &bytes, &[]);
        let mut open: Vec<&str> = Vec::new();
        for event in &events {
            match event {
                AgentEvent::ToolUsed { id, .. } => open.push(id),
                AgentEvent::ToolEnded { id, .. } => open.retain(|known| known != id),
                AgentEvent::Ended { .. } => assert!(open.is_empty(), "{name}: {open:?}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_retry_is_told() {
    let line = br#"{"type":"system","subtype":"retry","data":{"reason":"429 too many","attempt":2,"maxRetries":7,"delayMs":900}}"#;
    assert_eq!(read(Dialect::Qwen, line, &[]), [AgentEvent::Retry { reason: "429 too many".to_owned() }]);
}

#[test]
fn what_is_not_whole_is_noise_and_what_is_too_long_is_left_out() {
    let half = br#"{"type":"result","status":"succ"#;
    assert_eq!(
        read(Dialect::Gemini, half, &[]),
        [AgentEvent::Noise(String::from_utf8_lossy(half).into_owned())],
        "half a line is no result"
    );
    let long =
        [&b"{\"type\":\"result\",\"status\":\"success\",\"x\":\""[..], &vec![b'a'; lines::LONGEST], b"\"}\nafter\n"]
            .concat();
    for cuts in [&[][..], &[1000], &[lines::LONGEST + 10, lines::LONGEST + 20]] {
        let events: Vec<_> = read(Dialect::Gemini, &long, cuts).iter().map(told).collect();
        let [left_out, after] = &events[..] else { panic!("{events:?}") };
        assert!(left_out.starts_with("noise (a line of more than 1 MiB, left out) {\"type\":\"result\""), "{left_out}");
        assert!(left_out.len() < 300 && after == "noise after", "{events:?}");
    }
    let behind = b"(node:7) Warning: x {\"type\":\"result\",\"status\":\"success\"}\n\n \n\x1b[31mError:\x1b[0m no\x07pe\n[1, 2]\n\"x\"\n7\n";
    let events: Vec<_> = read(Dialect::Gemini, behind, &[]).iter().map(told).collect();
    assert_eq!(events, ["ended ✓ “” None", "noise Error: nope", "noise \"x\"", "noise 7"]);
}

/// As Gemini CLI ends where it detects a loop.
#[test]
fn an_error_right_before_the_end_is_why_it_ended() {
    let error = r#"{"type":"error","severity":"warning","message":"Loop detected, stopping execution"}"#;
    let said = r#"{"type":"message","role":"assistant","content":"Go on.","delta":true}"#;
    let end = r#"{"type":"result","status":"success"}"#;
    let ended = |lines: &[&str]| told(read(Dialect::Gemini, lines.join("\n").as_bytes(), &[]).last().unwrap());
    assert_eq!(ended(&[said, error, end]), "ended ✗ “Loop detected, stopping execution” None");
    assert_eq!(ended(&[error, said, end]), "ended ✓ “Go on.” None");
}

#[test]
fn events_of_other_shapes_do_no_harm() {
    for dialect in ALL {
        for line in [
            "{}",
            r#"{"type":7}"#,
            r#"{"type":"assistant","message":{"content":"text"}}"#,
            r#"{"type":"assistant","message":{"content":[7,{"type":"tool_use","input":{"todos":[7,{}]}}]}}"#,
            r#"{"type":"tool_use","parameters":{"todos":"none","command":["a"]}}"#,
            r#"{"type":"item.completed","item":{"type":"todo_list","items":[7,{"text":[]}]}}"#,
            r#"{"type":"item.completed","item":"x"}"#,
            r#"{"type":"turn.failed","error":7}"#,
            r#"{"type":"step_finish","part":{"reason":7,"tokens":{"input":-1}}}"#,
            r#"{"type":"tool_use","part":{"state":{"input":[],"metadata":{"exit":"x"}}}}"#,
            r#"{"type":"result","stats":{"input_tokens":-1},"usage":{"input_tokens":1e99}}"#,
        ] {
            let events = read(dialect, line.as_bytes(), &[]);
            assert!(!events.iter().any(|event| matches!(event, AgentEvent::Ended { ok: true, .. })), "{line}");
        }
    }
}

/// Bytes as a CLI writes them, with what it should not write in between.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<Vec<u8>> = samples()
        .into_iter()
        .flat_map(|(_, _, bytes)| bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>())
        .collect();
    let line = prop_oneof![
        4 => (any::<Index>(), any::<Index>(), any::<u8>(), any::<u8>()).prop_map(move |(which, at, byte, kind)| {
            let mut line = which.get(&lines).clone();
            match (kind % 4, line.is_empty()) {
                (0, false) => { let at = at.index(line.len()); line[at] = byte; }
                (1, false) => line.truncate(at.index(line.len())),
                _ => {}
            }
            line
        }),
        1 => prop::collection::vec(any::<u8>(), 0..80),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join(&b'\n'))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_bounded_events(
        bytes in output(), cuts in prop::collection::vec(any::<Index>(), 0..20), dialect in prop::sample::select(&ALL[..]),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let events = read(dialect, &bytes, &[]);
        prop_assert_eq!(&read(dialect, &bytes, &cuts), &events);
        for event in events {
            let (brief, long) = match event {
                AgentEvent::Started { session, model } => (vec![session, model], String::new()),
                AgentEvent::ToolUsed { id, name, target } => (vec![id, name, target], String::new()),
                AgentEvent::ToolEnded { id, .. } => (vec![id], String::new()),
                AgentEvent::Todo(steps) => {
                    prop_assert!(steps.len() <= STEPS);
                    (steps.into_iter().map(|step| step.text).collect(), String::new())
                }
                AgentEvent::Retry { reason } => (vec![reason], String::new()),
                AgentEvent::Noise(line) => { prop_assert!(!line.is_empty()); (vec![line], String::new()) }
                AgentEvent::Ended { summary, .. } => (Vec::new(), summary),
                AgentEvent::Said(_) | AgentEvent::Used(_) => (Vec::new(), String::new()),
            };
            prop_assert!(brief.iter().all(|text| text.chars().count() <= BRIEF && !text.contains(char::is_control)));
            prop_assert!(long.len() <= SAID);
        }
    }
}
