//! What a provider refuses: the room finds back by itself, or is told what to do.

mod support;

use std::os::unix::fs::PermissionsExt;

use base64::{Engine, prelude::BASE64_STANDARD};
use image::{
    ImageEncoder,
    codecs::png::{CompressionType, FilterType, PngEncoder},
};
use serde_json::{Value, json};
use support::{
    rig::{Rig, answers},
    scripted,
    scripted_llm::{Reply, ScriptedLlm, results, user_texts},
};

/// Asks in the room and returns how the turn ended, and its answer.
fn ask(rig: &Rig, words: &str) -> (String, String) {
    let (_, frames) = rig.ask("one", words).finish();
    let told = answers(&frames);
    assert_eq!(told.len(), 1, "{frames:#?}");
    (told[0]["ending"].as_str().unwrap().to_owned(), told[0]["text"].as_str().unwrap().to_owned())
}

fn refusal(status: u16, words: &str) -> Reply {
    Reply::Status(status, Vec::new(), json!({"error": {"message": words}}).to_string())
}

fn summarises(request: &Value) -> bool {
    request["messages"][0]["content"].as_str().is_some_and(|text| text.starts_with("You summarise"))
}

/// A server that refuses conversations of more than 60 KB in these words.
fn small_server(llm: &ScriptedLlm, status: u16, words: &'static str) {
    llm.otherwise(move |request| match request.to_string().len() {
        _ if summarises(request) => Reply::text("## Goal\nlook at the logs"),
        size if size > 60_000 => refusal(status, words),
        _ => Reply::text("Looked at it."),
    });
}

#[test]
fn a_conversation_that_is_too_long_is_compacted_whatever_words_say_so() {
    for (status, words) in [
        (400, "The prompt tokens exceed what this deployment was sized for"),
        (422, "input is longer than the context"),
        (429, "Request too large for model `x` on tokens per minute (TPM): Limit 20000, Requested 24000"),
        (400, "no"),
    ] {
        let (llm, rig) = scripted();
        small_server(&llm, status, words);
        let _server = rig.serve();
        for n in 0..4 {
            let log = format!("log {n}: {}", "all is well here. ".repeat(1700));
            let (ending, text) = ask(&rig, &log);
            assert_eq!((ending.as_str(), text.as_str()), ("done", "Looked at it."), "{words}, message {n}");
        }
        assert!(llm.requests().iter().any(summarises), "{words}");
    }
}

#[test]
fn a_rate_limit_is_waited_for_and_not_taken_for_a_long_conversation() {
    let (llm, rig) = scripted();
    let words = "Rate limit reached on tokens per minute (TPM): Limit 6000, Used 5500, Requested 1200";
    llm.status(429, &[("retry-after-ms", "1")], &json!({"error": {"message": words}}).to_string());
    llm.reply_text("Here I am.");
    assert_eq!(ask(&rig, "hello"), ("done".to_owned(), "Here I am.".to_owned()));
    assert_eq!(llm.requests()[0], llm.requests()[1]);
}

#[test]
fn a_failure_is_not_the_models_word_and_its_cause_is_read_each_time() {
    let (llm, rig) = scripted();
    let cause = "Incorrect API credentials were provided, find yours at the provider's console";
    for _ in 0..3 {
        llm.reply(refusal(401, cause));
    }
    llm.reply_text("Now it works.");
    let _server = rig.serve();
    for _ in 0..3 {
        let (ending, text) = ask(&rig, "please look at the login");
        assert_eq!(ending, "failed");
        assert!(text.ends_with(&format!("It said: “{cause}”")), "{text}");
    }
    assert_eq!(ask(&rig, "and now?").1, "Now it works.");
    let last = llm.requests().pop().unwrap();
    let roles: Vec<_> = last["messages"].as_array().unwrap().iter().map(|message| message["role"].clone()).collect();
    assert!(!roles.contains(&json!("assistant")), "{last}");
    assert!(!last["messages"].to_string().contains("Incorrect API"), "{last}");
    assert!(user_texts(&last).join("\n").contains("[matrix-agent] The turn above ended without an answer"), "{last}");
}

#[test]
fn an_empty_account_is_told_as_such() {
    let (llm, rig) = scripted();
    let words = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade.";
    llm.reply(refusal(400, words));
    let (ending, text) = ask(&rig, "hello");
    assert_eq!(ending, "failed");
    assert!(text.starts_with("The account at the model's provider has no credit left. Top it up"), "{text}");
    assert_eq!(llm.requests().len(), 1);
}

#[test]
fn a_refusal_that_nothing_helps_against_names_the_way_out() {
    let (llm, rig) = scripted();
    llm.otherwise(|_| refusal(400, "no"));
    let (ending, text) = ask(&rig, "hello");
    assert_eq!(ending, "failed");
    assert!(text.contains("`!new`"), "{text}");
}

/// Writes a picture of these bytes into the room's workspace, in base64 through the shell.
fn write(name: &str, bytes: &[u8]) -> (&'static str, Value) {
    let base64 = BASE64_STANDARD.encode(bytes);
    ("run_command", json!({"command": format!("printf %s {base64} | base64 -d > {name}")}))
}

fn read(name: &str) -> (&'static str, Value) {
    ("read_file", json!({"path": name}))
}

/// The pictures that a request shows, decoded.
fn shown(request: &Value) -> Vec<image::DynamicImage> {
    let parts = request["messages"].as_array().unwrap().iter().filter_map(|message| message["content"].as_array());
    let urls = parts.flatten().filter_map(|part| part["image_url"]["url"].as_str());
    urls.map(|url| {
        let (_, data) = url.split_once(";base64,").unwrap();
        image::load_from_memory(&BASE64_STANDARD.decode(data).unwrap()).unwrap()
    })
    .collect()
}

/// A grey picture, packed so well that it fits into a command.
fn picture(width: u32, height: u32) -> Vec<u8> {
    let mut data = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut data, CompressionType::Best, FilterType::NoFilter);
    let pixels = vec![90; (width * height) as usize];
    encoder.write_image(&pixels, width, height, image::ExtendedColorType::L8).unwrap();
    data
}

/// A rig whose model's name is one that is known to see pictures.
fn seeing() -> (ScriptedLlm, Rig) {
    let (llm, mut rig) = scripted();
    rig.set("LLM_MODEL", "openai/gpt-4o");
    (llm, rig)
}

#[test]
fn pictures_are_decoded_scaled_and_kept_in_files_before_they_are_shown() {
    let (llm, rig) = seeing();
    let whole = picture(300, 200);
    llm.reply_calls(&[write("good.png", &whole)])
        .reply_calls(&[write("tall.png", &picture(1280, 16_384))])
        .reply_calls(&[write("broken.png", &[&whole[..60], &[7; 200]].concat())])
        .reply_calls(&[read("good.png"), read("tall.png"), read("broken.png")])
        .reply_text("Seen.");
    llm.reply_text("Seen again.");
    assert_eq!(ask(&rig, "look at them").1, "Seen.");
    let request = llm.requests().pop().unwrap();
    let sizes: Vec<_> = shown(&request).iter().map(|image| (image.width(), image.height())).collect();
    assert_eq!(sizes, [(300, 200), (156, 2000)]);
    let told = results(&request);
    assert!(told[4].contains("scaled down from 1280×16384 to 156×2000 pixels"), "{}", told[4]);
    assert!(told[5].contains("it cannot be shown: it is broken"), "{}", told[5]);

    // In files of the room's own, read by nobody else; the database has their names.
    let folder = rig.path().join("s/pictures");
    let rooms: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(rooms.len(), 1);
    let files: Vec<_> = std::fs::read_dir(&rooms[0]).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|file| file.metadata().unwrap().permissions().mode() & 0o777 == 0o600));
    let database = rusqlite::Connection::open(rig.database()).unwrap();
    let longest: i64 = database.query_row("SELECT max(length(details)) FROM calls", [], |row| row.get(0)).unwrap();
    assert!(longest < 1000, "{longest} bytes of details");
    drop(database);

    // A later process shows them again; what is gone is a note, and a new conversation leaves nothing behind.
    let tall = files.iter().min_by_key(|file| file.metadata().unwrap().modified().unwrap()).unwrap().path();
    std::fs::remove_file(tall).unwrap();
    assert_eq!(ask(&rig, "and again?").1, "Seen again.");
    let request = llm.requests().pop().unwrap();
    assert_eq!(shown(&request).len(), 1);
    assert!(request.to_string().contains("no longer kept"), "{request}");
    rig.ask("one", "!new").finish();
    assert!(!rooms[0].exists());
}

#[test]
fn pictures_that_the_provider_refuses_are_taken_out_for_good() {
    for (status, words) in [
        (400, "Could not process image"),
        (400, "no"),
        (413, "Request Entity Too Large"),
        (404, "No endpoints found that support image input"),
        (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"),
    ] {
        let (llm, rig) = seeing();
        let refuses = move |request: &Value| !shown(request).is_empty();
        llm.matching(move |request| !refuses(request))
            .reply_calls(&[write("a.png", &picture(30, 20))])
            .reply_calls(&[read("a.png")]);
        llm.otherwise(move |request| if refuses(request) { refusal(status, words) } else { Reply::text("I go on.") });
        {
            let _server = rig.serve();
            assert_eq!(ask(&rig, "look at it"), ("done".to_owned(), "I go on.".to_owned()), "{words}");
        }
        let requests = llm.requests();
        assert_eq!(requests.iter().filter(|request| refuses(request)).count(), 1, "{words}: once with, once without");
        assert!(requests.last().unwrap().to_string().contains("A picture stood here"), "{words}");
        // After a restart too.
        assert_eq!(ask(&rig, "and now?").0, "done");
        assert_eq!(llm.requests().len(), requests.len() + 1, "{words}");
    }
}

#[test]
fn pictures_that_an_older_version_stored_in_the_database_are_shown_still() {
    let (llm, rig) = seeing();
    llm.reply_text("Begun.").reply_text("Seen.");
    assert_eq!(ask(&rig, "begin").1, "Begun.");
    let data = BASE64_STANDARD.encode(picture(30, 20));
    let line = json!({
        "message": {"role": "user", "parts": [{"type": "text", "text": "look"}, {"type": "image", "mime": "image/png", "data": data}]},
        "origin": {"from": "person", "event": "older"},
    });
    let database = rusqlite::Connection::open(rig.database()).unwrap();
    let sql = "INSERT INTO messages (bot, room, turn, body) SELECT bot, room, 'older', ?1 FROM messages LIMIT 1";
    assert_eq!(database.execute(sql, [line.to_string()]).unwrap(), 1);
    drop(database);
    assert_eq!(ask(&rig, "and now?").1, "Seen.");
    assert_eq!(shown(&llm.requests()[1]).len(), 1);
}
