//! What a provider refuses: the room finds back by itself, or is told what to do.

mod support;

use serde_json::{Value, json};
use support::{
    rig::{BARE, Rig, answers, block_on},
    scripted_llm::{Reply, ScriptedLlm, user_texts},
};

fn rig() -> (ScriptedLlm, Rig) {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    (llm, rig)
}

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
        let (llm, rig) = rig();
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
    let (llm, rig) = rig();
    let words = "Rate limit reached on tokens per minute (TPM): Limit 6000, Used 5500, Requested 1200";
    llm.status(429, &[("retry-after-ms", "1")], &json!({"error": {"message": words}}).to_string());
    llm.reply_text("Here I am.");
    assert_eq!(ask(&rig, "hello"), ("done".to_owned(), "Here I am.".to_owned()));
    assert_eq!(llm.requests()[0], llm.requests()[1]);
}

#[test]
fn a_failure_is_not_the_models_word_and_its_cause_is_read_each_time() {
    let (llm, rig) = rig();
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
    let (llm, rig) = rig();
    let words = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade.";
    llm.reply(refusal(400, words));
    let (ending, text) = ask(&rig, "hello");
    assert_eq!(ending, "failed");
    assert!(text.starts_with("The account at the model's provider has no credit left. Top it up"), "{text}");
    assert_eq!(llm.requests().len(), 1);
}

#[test]
fn a_refusal_that_nothing_helps_against_names_the_way_out() {
    let (llm, rig) = rig();
    llm.otherwise(|_| refusal(400, "no"));
    let (ending, text) = ask(&rig, "hello");
    assert_eq!(ending, "failed");
    assert!(text.contains("`!new`"), "{text}");
}
