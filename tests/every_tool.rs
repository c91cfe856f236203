//! One piece of work in which a scripted model uses every tool: a program is written, tested red, mended, tested green,
//! served, photographed and sent.

mod support;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use support::{
    rig::{FULL, Rig, answers, block_on},
    scripted_llm::{Reply, ScriptedLlm, results},
};

const TEST: &str = "from app import double\n\n\ndef test_double():\n    assert double(2) == 4\n";
const SERVER: &str = "python3 -u -m http.server 8123";

/// The calls, a message each; `$JOB` stands for the job that the server runs as.
fn steps() -> Vec<(&'static str, Value)> {
    vec![
        ("write_file", json!({"path": "app.py", "content": "def double(n):\n    return n\n"})),
        ("write_file", json!({"path": "test_app.py", "content": TEST})),
        ("run_tests", json!({})),
        ("edit_file", json!({"path": "app.py", "old_text": "return n", "new_text": "return 2 * n"})),
        ("run_tests", json!({})),
        ("read_file", json!({"path": "app.py"})),
        ("write_file", json!({"path": "index.html", "content": "<title>Doubled</title><h1>4</h1>"})),
        ("run_command", json!({"command": SERVER, "background": true})),
        ("take_screenshot", json!({"url": "8123", "width": 320, "height": 200})),
        ("run_command", json!({"job": "$JOB"})),
        ("run_command", json!({"job": "$JOB", "stop": true})),
        ("run_command", json!({"command": "id -u; printf 'all\\0bytes\\377' > /workspace/blob.bin", "as_root": true})),
        ("send_file", json!({"path": "blob.bin"})),
        ("run_command", json!({"command": "curl -s -m 2 http://localhost:8123/ || echo closed"})),
    ]
}

/// What each result holds, in the order of the steps.
const TOLD: &[&[&str]] = &[
    &["app.py"],
    &["test_app.py"],
    &["[FAIL] lint passed, tests failed (exit code 1)", "1 failed"],
    &["app.py", "return 2 * n"],
    &["[PASS] lint passed, tests passed", "1 passed"],
    &["return 2 * n"],
    &["index.html"],
    &["Running in the background as job-"],
    &["http://localhost:8123/ “Doubled”, 320×200 pixels"],
    &["is running", "GET / HTTP/1.1\" 200"],
    &["has ended"],
    &["exit code: 0\n0"],
    &["goes to the room as blob.bin"],
    &["closed"],
];

/// The next step of a conversation, by what was told so far.
fn next(request: &Value) -> Reply {
    let told = results(request);
    let Some((name, arguments)) = steps().into_iter().nth(told.len()) else {
        return Reply::text("Doubled, tested and sent.");
    };
    let job = told.iter().find_map(|told| told.split_once("as job-")).map(|(_, rest)| &rest[..8]);
    let arguments = arguments.to_string().replace("$JOB", &format!("job-{}", job.unwrap_or_default()));
    Reply::calls(&[(name, json!(arguments))])
}

#[test]
fn a_whole_piece_of_work_uses_every_tool_and_its_files_arrive() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(next);
    let mut rig = Rig::new(FULL, llm.base_url());
    rig.set("LLM_MODEL", "openai/gpt-4o"); // one that is known to see pictures
    let (code, frames) = rig.ask("one", "Double it, show me, and send me the bytes.").finish();
    let told = answers(&frames);
    assert_eq!((code, told.len()), (0, 1), "{frames:#?}");
    assert_eq!((&told[0]["ending"], &told[0]["text"]), (&json!("done"), &json!("Doubled, tested and sent.")));

    let requests = llm.requests();
    let last = requests.last().unwrap();
    let told = results(last);
    assert_eq!(told.len(), TOLD.len(), "{told:#?}");
    for (index, (told, words)) in told.iter().zip(TOLD).enumerate() {
        for word in *words {
            assert!(told.contains(word), "step {index}, {word}: {told}");
        }
    }
    let offered: Vec<_> = last["tools"].as_array().unwrap().iter().map(|tool| &tool["function"]["name"]).collect();
    // Coding agents are tried in `coding_agents.rs`, where they have models of their own.
    for tool in offered.iter().filter(|tool| !["plan", "implement", "review"].map(Value::from).contains(tool)) {
        assert!(steps().iter().any(|(name, _)| name == *tool), "{tool} is not tried here");
    }
    let started = frames.iter().filter(|frame| frame["kind"] == "tool_started").count();
    assert_eq!(started, TOLD.len(), "each call is shown to the room");

    let files: Vec<_> = frames.iter().filter(|frame| frame["event"] == "file").collect();
    assert_eq!(files.len(), 2, "{files:#?}");
    let saved = |file: &Value| std::fs::read(file["data"].as_str().unwrap()).unwrap();
    let picture = saved(files[0]);
    assert_eq!(files[0]["mime"], "image/png");
    assert_eq!(size_of_png(&picture), (320, 200));
    assert_eq!(files[1]["name"], "blob.bin");
    assert_eq!(saved(files[1]), b"all\0bytes\xff");

    let shown =
        last["messages"].as_array().unwrap().iter().filter_map(|message| message["content"].as_array()).flatten();
    let shown: Vec<_> = shown.filter_map(|part| part["image_url"]["url"].as_str()).collect();
    let expected = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&picture));
    assert!(shown.contains(&expected.as_str()), "the model saw the room's picture: {} pictures", shown.len());
}

/// Walks through a PNG to its very end, each chunk with its checksum; returns width and height.
fn size_of_png(bytes: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    let (mut at, mut kinds) = (8, Vec::new());
    while at < bytes.len() {
        let end = at + 8 + number(at) as usize;
        assert_eq!(crc(&bytes[at + 4..end]), number(end), "the checksum of chunk {}", kinds.len());
        kinds.push(&bytes[at + 4..at + 8]);
        at = end + 4;
    }
    assert_eq!((kinds.first(), kinds.last()), (Some(&&b"IHDR"[..]), Some(&&b"IEND"[..])));
    assert!(kinds.contains(&&b"IDAT"[..]));
    (number(16), number(20))
}

/// The checksum of PNG and zlib, bit by bit: a picture is small.
fn crc(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}
