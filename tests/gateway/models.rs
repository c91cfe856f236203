//! The way to models through real sockets, with a scripted model behind it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use matrix_agent::{
    clock::Clock,
    gateway::{
        GatewayLimits, ProxyKind,
        models::{Choice, Chosen, Failure, Grant, ModelDoor, Pass, Protocol, Seen, Server, Servers, Tokens, Upstream},
    },
    ids::{Address, random},
    ledger::{DayLimits, Ledger, Rules},
    store::{Durability, Store},
};
use reqwest::Url;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::UnixStream, sync::watch};

use crate::{
    door::{Door, ask, rest, soon, until},
    limits::Log,
    support::{
        rig::free_port,
        scripted_llm::{Reply, ScriptedLlm},
    },
};

/// What must never be seen inside.
const KEY: &str = "the-operators-own-key";

fn upstream(protocol: Protocol, base: &str, models: &[&str]) -> Upstream {
    let models = models.iter().map(|&model| model.to_owned()).collect();
    Upstream::new(protocol, &Url::parse(base).unwrap(), Some(SecretString::from(KEY)), models).unwrap()
}

fn grant(room: &str) -> Grant {
    let (turn, agent) = ("t1".into(), "qwen".to_owned());
    Grant { address: Address::of_first(room), turn, person: Some("@ann:a.org".into()), agent, run: random(4) }
}

/// A door to a scripted model, which speaks both protocols, and a pass for `!room`.
struct House {
    llm: ScriptedLlm,
    models: ModelDoor,
    door: Door,
    pass: Pass,
}

impl House {
    async fn new() -> Self {
        Self::with(GatewayLimits::default(), false).await
    }

    async fn with(limits: GatewayLimits, web: bool) -> Self {
        let llm = ScriptedLlm::start().await;
        let upstreams = vec![
            upstream(Protocol::OpenAi, llm.base_url(), &["qwen-x", "qwen-y"]),
            upstream(Protocol::Gemini, llm.gemini_url(), &["gemini-x"]),
            upstream(Protocol::Responses, llm.base_url(), &["gpt-x"]),
            upstream(Protocol::Messages, llm.base_url(), &["claude-x"]),
        ];
        Self::through(llm, &ModelDoor::new(upstreams, web, None), limits)
    }

    fn through(llm: ScriptedLlm, models: &ModelDoor, limits: GatewayLimits) -> Self {
        let mut door = Door::new(&["none.org"], limits);
        door.gateway = door.gateway.clone().with_models(models.clone());
        let pass = models.open(grant("!room"));
        Self { llm, models: models.clone(), door, pass }
    }

    fn open(&mut self) -> UnixStream {
        self.door.open(ProxyKind::Models)
    }

    /// Asks with the pass's token, and for the end of the connection; returns status and body.
    async fn post(&mut self, path: &str, body: &Value) -> (u16, String) {
        let request = post(path, self.pass.token(), body, "Connection: close\r\n");
        answer(&ask(&mut self.open(), request.as_bytes()).await)
    }

    async fn chat(&mut self) -> (u16, String) {
        self.post("/v1/chat/completions", &chat("qwen-x")).await
    }

    async fn seen(&self, such: impl Fn(&Seen) -> bool) -> Seen {
        wait(self.pass.seen(), such).await
    }
}

async fn wait(mut seen: watch::Receiver<Seen>, such: impl Fn(&Seen) -> bool) -> Seen {
    let found = soon(seen.wait_for(|seen| such(seen))).await.expect("a pass");
    found.clone()
}

fn post(path: &str, token: &str, body: &Value, lines: &str) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:3130\r\nAuthorization: Bearer {token}\r\nCookie: c=1\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n{lines}\r\n{body}"
    )
}

/// Splits an answer into its status and its body, chunks put together.
fn answer(text: &str) -> (u16, String) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if !head.contains("transfer-encoding: chunked") {
        return (status, body.to_owned());
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    (status, whole)
}

fn chat(model: &str) -> Value {
    json!({"model": model, "stream": true, "messages": [{"role": "user", "content": "hello"}]})
}

fn generate() -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_pass_with_the_real_key_and_their_tokens_are_counted() {
    let mut house = House::new().await;
    house.llm.reply_text("Hello there.").reply(Reply::gemini_text("Good day.")).reply(Reply::gemini_text("Whole."));
    let (status, body) = house.chat().await;
    assert!(status == 200 && body.contains("Hell") && body.ends_with("data: [DONE]\n\n"), "{body}");
    let headers = house.llm.headers(1);
    assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
    assert!(!headers.contains_key("cookie"), "{headers:?}");
    let sent = house.llm.requests()[0].clone();
    assert_eq!(sent, chat("qwen-x"), "the body goes on as it came");

    let path = "/v1beta/models/gemini-x:streamGenerateContent?alt=sse";
    let (status, body) = house.post(path, &generate()).await;
    assert!(status == 200 && body.contains("usageMetadata"), "{body}");
    assert_eq!(house.llm.path(2), path);
    let headers = house.llm.headers(2);
    assert_eq!(headers["x-goog-api-key"], KEY);
    assert!(!headers.contains_key("authorization"), "{headers:?}");

    let (status, body) = house.post("/v1beta/models/gemini-x:generateContent", &generate()).await;
    assert!(status == 200 && body.contains("Who"), "{body}");
    let (status, body) = house.post("/v1beta/models/gemini-x:countTokens", &generate()).await;
    assert_eq!((status, body.as_str()), (200, r#"{"totalTokens":31}"#));

    let seen = house.seen(|seen| seen.requests == 4 && seen.tokens.input == 300).await;
    assert_eq!(seen.tokens, Tokens { input: 300, cached: 0, output: 30 });
    assert_eq!((seen.failures, seen.failure, seen.refusal), (0, None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_and_messages_pass_with_the_real_key_and_their_tokens_are_counted() {
    let mut house = House::new().await;
    house.llm.reply(Reply::response("Hello.", &[])).reply(Reply::message("Good day.", &[]));
    let asked = json!({"model": "gpt-x", "stream": true, "store": false,
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}]});
    let (status, body) = house.post("/v1/responses", &asked).await;
    assert!(status == 200 && body.contains("event: response.completed"), "{body}");
    assert_eq!((house.llm.path(1).as_str(), &house.llm.requests()[0]), ("/v1/responses", &asked));
    assert_eq!(house.llm.headers(1)["authorization"], format!("Bearer {KEY}"));
    house.seen(|seen| seen.requests == 1 && seen.tokens == Tokens { input: 100, cached: 0, output: 10 }).await;

    let asked = json!({"model": "claude-x", "max_tokens": 9, "stream": true,
        "messages": [{"role": "user", "content": "hello"}]});
    let lines = "anthropic-version: 2023-06-01\r\nConnection: close\r\n";
    let request = post("/v1/messages?beta=true", house.pass.token(), &asked, lines);
    let request = request.replace("Authorization: Bearer ", "x-api-key: ");
    let (status, body) = answer(&ask(&mut house.open(), request.as_bytes()).await);
    assert!(status == 200 && body.contains("event: message_stop"), "{body}");
    let headers = house.llm.headers(2);
    assert_eq!(
        (house.llm.path(2).as_str(), &headers["anthropic-version"]),
        ("/v1/messages", &"2023-06-01".parse().unwrap())
    );
    assert!(headers["authorization"] == format!("Bearer {KEY}") && !headers.contains_key("x-api-key"), "{headers:?}");
    house.seen(|seen| seen.tokens == Tokens { input: 200, cached: 0, output: 20 }).await;

    // Each protocol has models of its own, and what is refused is told in its shape.
    let (status, body) = house.post("/v1/messages", &json!({"model": "gpt-x", "messages": []})).await;
    assert!(status == 404 && body.starts_with(r#"{"error":{"message":"There is no model `gpt-x` here."#), "{body}");
    assert!(body.ends_with(r#""type":"error"}"#) && body.contains("claude-x"), "{body}");
    assert_eq!(house.post("/v1/responses", &json!({"model": "gpt-x", "previous_response_id": "r"})).await.0, 400);
    assert_eq!(house.llm.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_as_they_are_said_and_a_connection_serves_many_requests() {
    let mut house = House::new().await;
    house.llm.hang_after(1, Reply::text("Hello there.")).reply_text("again");
    let mut stream = house.open();
    let token = house.pass.token().to_owned();
    let request = post("/v1/chat/completions", &token, &chat("qwen-x"), "");
    stream.write_all(request.as_bytes()).await.unwrap();
    // The model has said one word and goes on thinking: the word is here.
    let begun = until(&mut stream, "Hell\"").await;
    // Whoever watches the run sees that it lives, long before anything is counted.
    let seen = house.seen(|seen| seen.heard > 0).await;
    assert_eq!((seen.requests, seen.tokens), (1, Tokens::default()));
    assert!(begun.starts_with("HTTP/1.1 200 OK\r\n") && begun.contains("text/event-stream"), "{begun}");
    // Whoever asked goes away, and the model is told.
    drop(stream);
    soon(house.llm.cancelled(1)).await;

    let mut stream = house.open();
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(until(&mut stream, "0\r\n\r\n").await.contains("[DONE]"));
    let list = format!("GET /v1beta/models HTTP/1.1\r\nx-goog-api-key: {token}\r\n\r\n");
    stream.write_all(list.as_bytes()).await.unwrap();
    assert!(until(&mut stream, "}]}").await.contains("models/gemini-x"));
    let list = format!("GET /v1/models?key={token} HTTP/1.1\r\nConnection: close\r\n\r\n");
    let (status, body) = answer(&ask(&mut stream, list.as_bytes()).await);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["data"][1]["id"]), (200, &json!("qwen-y")));
    // What was cut is counted by what was asked and what came.
    let seen = house.seen(|seen| seen.tokens.output == 11).await;
    assert_eq!(seen.tokens.input, 100 + request_bytes() / 4);
}

fn request_bytes() -> u64 {
    chat("qwen-x").to_string().len() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_worth_something_in_its_room_and_until_it_is_dropped() {
    let mut house = House::new().await;
    house.llm.hang_after(1, Reply::text("Hello there."));
    let path = "/v1/chat/completions";
    let token = house.pass.token().to_owned();
    assert!(token.starts_with("sandbox-") && token.len() >= 8 + 32, "{token}");
    for (room, key) in [("!room", "sandbox-0"), ("!room", KEY), ("!other", token.as_str())] {
        let request = post(path, key, &chat("qwen-x"), "");
        let told = answer(&ask(&mut house.door.open_in(room, ProxyKind::Models), request.as_bytes()).await);
        assert!(told.0 == 401 && told.1.contains("\"code\":\"invalid_api_key\""), "{room}: {told:?}");
    }
    let request = format!("POST {path} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}");
    assert_eq!(answer(&ask(&mut house.open(), request.as_bytes()).await).0, 401);
    assert_eq!(house.llm.requests().len(), 0, "nothing went out");

    // What is under way is cut, and a connection that is open is of no more use.
    let (mut cut, mut idle) = (house.open(), house.open());
    let list = format!("GET /v1/models HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n");
    idle.write_all(list.as_bytes()).await.unwrap();
    until(&mut idle, "\"list\"}").await;
    cut.write_all(post(path, &token, &chat("qwen-x"), "").as_bytes()).await.unwrap();
    until(&mut cut, "Hell\"").await;
    let seen = house.pass.seen();
    drop(house.pass);
    assert!(!rest(&mut cut).await.contains("0\r\n\r\n"), "it does not look like an end");
    soon(house.llm.cancelled(1)).await;
    assert_eq!(answer(&ask(&mut idle, list.as_bytes()).await).0, 401);
    assert!(seen.borrow().tokens.input > 0, "what was cut is counted");
}

/// An agent that has gone on while there was no server asks before its turn is taken up again.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_run_from_before_a_restart_is_waited_for_and_no_other_is() {
    let mut house = House::new().await;
    let models = house.models.clone();
    let before = grant("!room");
    models.expect(&before.address, &before.run);
    let token = models.open(before.clone()).token().to_owned();
    models.expect(&before.address, &before.run);
    house.llm.reply_text("Hello.");
    let request = post("/v1/chat/completions", &token, &chat("qwen-x"), "Connection: close\r\n");
    let mut stream = house.open();
    let asked = tokio::spawn(async move { answer(&ask(&mut stream, request.as_bytes()).await) });
    let other = post("/v1/chat/completions", &format!("{token}0"), &chat("qwen-x"), "Connection: close\r\n");
    assert_eq!(answer(&ask(&mut house.open(), other.as_bytes()).await).0, 401);
    assert!(!asked.is_finished() && house.llm.requests().is_empty());
    let _pass = models.open(before);
    assert_eq!(asked.await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_goes_nowhere_and_is_told_in_the_protocols_own_shape() {
    let mut house = House::new().await;
    let (status, body) = house.post("/v1/chat/completions", &chat("gpt-9")).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(body["error"]["message"], "There is no model `gpt-9` here. Those that can be asked: qwen-x, qwen-y.");
    let (status, body) = house.post("/v1beta/models/gemini-9:generateContent", &generate()).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["error"]["code"], &body["error"]["status"]), (404, &json!(404), &json!("NOT_FOUND")));

    let mut search = generate();
    search["tools"] = json!([{"googleSearch": {}}]);
    let stream = "/v1beta/models/gemini-x:streamGenerateContent?alt=sse";
    let picture = json!([{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]);
    let mut remote = chat("qwen-x");
    remote["messages"][0]["content"] = picture;
    for (path, body, status, words) in [
        (stream, &search, 403, "SANDBOX_WEB_SEARCH"),
        ("/v1/chat/completions", &remote, 403, "SANDBOX_WEB_SEARCH"),
        ("/v1/chat/completions", &json!({"model": "qwen-x", "plugins": []}), 400, "plugins"),
        ("/v1/chat/completions", &json!({"messages": []}), 400, "names no model"),
        ("/v1beta/models/gemini-x:generateContent", &json!({"model": "models/gemini-y"}), 400, "another model"),
        ("/v1/embeddings", &chat("qwen-x"), 404, "generate"),
        ("/v1beta/files", &generate(), 404, "generate"),
    ] {
        let (found, told) = house.post(path, body).await;
        assert!(found == status && told.contains(words), "{path}: {found} {told}");
    }
    for (lines, status) in [("Content-Encoding: gzip\r\n", 400), ("Transfer-Encoding: gzip\r\n", 400)] {
        let request = post("/v1/chat/completions", house.pass.token(), &chat("qwen-x"), lines);
        assert_eq!(answer(&ask(&mut house.open(), request.as_bytes()).await).0, status, "{lines}");
    }
    let token = house.pass.token().to_owned();
    let huge = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Length: 999999999999\r\n\r\n"
    );
    let told = answer(&ask(&mut house.open(), huge.as_bytes()).await);
    assert!(told.0 == 413 && told.1.contains("32 MiB"), "{told:?}");
    assert_eq!(house.llm.requests().len(), 0, "nothing went out");
    let seen = house.seen(|seen| seen.refusal.as_ref().is_some_and(|told| told.contains("32 MiB"))).await;
    assert_eq!((seen.requests, seen.failures), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_may_search_the_web_where_the_operator_wants_it() {
    let mut house = House::with(GatewayLimits::default(), true).await;
    house.llm.reply(Reply::gemini_text("Found."));
    let mut search = generate();
    search["tools"] = json!([{"googleSearch": {}}]);
    assert_eq!(house.post("/v1beta/models/gemini-x:generateContent", &search).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_upstream_are_passed_on_and_seen() {
    let mut house = House::new().await;
    let said = format!("{{\"error\":{{\"message\":\"slow\\ndown, {KEY}\"}}}}");
    house.llm.status(429, &[("retry-after", "7"), ("set-cookie", "x")], &said).status(503, &[], "busy");
    house.llm.cut_after(1, Reply::text("Hello there.")).reply_text("fine");
    let request = post("/v1/chat/completions", house.pass.token(), &chat("qwen-x"), "Connection: close\r\n");
    let told = ask(&mut house.open(), request.as_bytes()).await;
    assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("retry-after: 7"), "{told}");
    assert!(!told.contains("set-cookie") && !told.contains(KEY) && told.contains("slow\\ndown, [key]"), "{told}");
    let seen = house.seen(|seen| seen.failures == 1).await;
    assert_eq!(seen.failure, Some(Failure { status: 429, cause: "slow down, [key]".into() }));
    assert_eq!(house.chat().await, (503, "busy".into()));
    let seen = house.seen(|seen| seen.failures == 2).await;
    assert_eq!(seen.failure, Some(Failure { status: 503, cause: "busy".into() }));
    let broken = ask(&mut house.open(), request.as_bytes()).await;
    assert!(broken.contains("Hell") && !broken.ends_with("0\r\n\r\n"), "{broken}");
    let seen = house.seen(|seen| seen.failures == 3).await;
    assert!(seen.failure.unwrap().cause.contains("ended the connection"));
    assert_eq!(house.chat().await.0, 200);
    let seen = house.seen(|seen| seen.failures == 0).await;
    assert!(seen.requests == 4 && seen.failure.is_some(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_the_upstream_does_not_know_is_told_with_those_that_it_knows() {
    let mut house = House::new().await;
    let missing = || Reply::Status(404, Vec::new(), r#"{"error":{"message":"no such model"}}"#.to_owned());
    house.llm.reply(missing()).reply(missing()).reply(missing()).reply(missing());
    let (status, body) = house.chat().await;
    assert!(status == 404 && body.contains("no such model"), "where it has no list, its own words are told: {body}");

    house.llm.lists(&["embed-1", "qwen-z", "gemini-y"]);
    for (path, body, asked, like) in [
        ("/v1/chat/completions", chat("qwen-x"), "qwen-x", "qwen-z, embed-1, gemini-y"),
        ("/v1beta/models/gemini-x:generateContent", generate(), "gemini-x", "gemini-y, embed-1, qwen-z"),
    ] {
        let (status, told) = house.post(path, &body).await;
        let words = format!("127.0.0.1 knows no model `{asked}`. It knows {like}.");
        assert_eq!((status, told.contains(&words)), (404, true), "{told}");
        let seen = house.seen(|seen| seen.failure.as_ref().is_some_and(|failure| failure.cause == words)).await;
        assert_eq!(seen.failures, 0, "to ask again helps nobody");
    }

    house.llm.lists(&["qwen-x"]);
    let (status, body) = house.chat().await;
    assert!(status == 404 && body.contains("no such model"), "it is there, so this is about something else: {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_silent_away_or_elsewhere_is_told() {
    // Nobody listens there any more.
    let away = format!("127.0.0.1:{}", free_port());
    let elsewhere = wiremock::MockServer::start().await;
    let redirect = wiremock::ResponseTemplate::new(302).insert_header("location", "http://127.0.0.1:1/");
    wiremock::Mock::given(wiremock::matchers::any()).respond_with(redirect).mount(&elsewhere).await;
    let llm = ScriptedLlm::start().await;
    llm.hang();
    let models = ModelDoor::new(
        vec![
            upstream(Protocol::OpenAi, &format!("http://{away}/v1"), &["away"]),
            upstream(Protocol::OpenAi, &elsewhere.uri(), &["elsewhere"]),
            upstream(Protocol::OpenAi, llm.base_url(), &["silent"]),
        ],
        false,
        None,
    );
    let limits = GatewayLimits { idle: Duration::from_secs(2), ..GatewayLimits::default() };
    let mut house = House::through(llm, &models, limits);
    for (model, status, words) in
        [("away", 502, "does not answer"), ("elsewhere", 502, "redirect"), ("silent", 504, "too long")]
    {
        let (found, told) = house.post("/v1/chat/completions", &chat(model)).await;
        assert!(found == status && told.contains(words), "{model}: {found} {told}");
    }
    let seen = house.seen(|seen| seen.failures == 3).await;
    assert_eq!(seen.failure.map(|failure| failure.status), Some(504));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_has_so_many_connections_and_large_requests_and_no_more() {
    let mut house = House::with(GatewayLimits { per_room: 1, ..GatewayLimits::default() }, false).await;
    let mut first = house.open();
    let list = format!("GET /v1/models HTTP/1.1\r\nAuthorization: Bearer {}\r\n\r\n", house.pass.token());
    first.write_all(list.as_bytes()).await.unwrap();
    until(&mut first, "\"list\"}").await;
    assert!(rest(&mut house.open()).await.starts_with("HTTP/1.1 503 "));

    let mut house = House::new().await;
    let mut held = Vec::new();
    // Two that are not whole yet take all the room that one run has.
    for _ in 0..2 {
        let mut stream = house.open();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
            house.pass.token(),
            32 << 20
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        soon(stream.write_all(&vec![b' '; (32 << 20) - 1])).await.unwrap();
        held.push(stream);
    }
    let told = soon(async {
        loop {
            let told = house.chat().await;
            if told.0 != 400 && told.0 != 200 {
                break told;
            }
        }
    });
    assert!(told.await.1.contains("Too many large requests"));
    drop(held);
    house.llm.otherwise(|_| Reply::text("fine"));
    soon(async { while house.chat().await.0 != 200 {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_for_good_by_room_also_of_what_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::default()).unwrap();
    let llm = ScriptedLlm::start().await;
    llm.reply_text("Hello there.").hang_after(1, Reply::text("Hello there."));
    let upstreams = vec![upstream(Protocol::OpenAi, llm.base_url(), &["qwen-x"])];
    let models = ModelDoor::new(upstreams, false, Some(Ledger::new(store.clone(), Rules::default())));
    let mut house = House::through(llm, &models, GatewayLimits::default());
    assert_eq!(house.chat().await.0, 200);
    let request = post("/v1/chat/completions", house.pass.token(), &chat("qwen-x"), "");
    let mut stream = house.open();
    stream.write_all(request.as_bytes()).await.unwrap();
    until(&mut stream, "Hell\"").await;
    // The server ends: what is under way is dropped where it stands.
    house.door.cancel.cancel();
    rest(&mut stream).await;
    store.take_turn().await.unwrap();
    let spent = store.spending(&Address::of_first("!room"), 7).await.unwrap();
    let names = (spent[0].person.as_str(), spent[0].agent.as_str(), spent[0].model.as_str());
    assert_eq!((spent.len(), names), (1, ("@ann:a.org", "qwen", "qwen-x")));
    let tokens = Tokens { input: 100 + request_bytes() / 4, cached: 0, output: 10 + 1 };
    assert_eq!((spent[0].tokens, spent[0].requests), (tokens, 2));
    assert_eq!(store.spending(&Address::of_first("!other"), 7).await.unwrap(), []);
    let sums = store.day_sums(&Address::of_first("!room"), "@ann:a.org").await.unwrap();
    assert_eq!([sums.room, sums.person].map(|sum| (sum.used, sum.held)), [(tokens.total(), 0); 2], "nothing is held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_has_so_many_tokens_for_a_room_and_for_a_person_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::fixed_at(1_800_000_000_000);
    let store = Store::open(&folder.path().join("db"), Durability::Normal, clock.clone()).unwrap();
    for (room, person, setting) in [(Some(150), None, "ROOM_DAILY_TOKENS"), (None, Some(150), "USER_DAILY_TOKENS")] {
        let llm = ScriptedLlm::start().await;
        llm.otherwise(|_| Reply::text("Hello there."));
        let upstreams = vec![upstream(Protocol::OpenAi, llm.base_url(), &["qwen-x"])];
        let rules = Rules { limits: DayLimits { room, person }, ..Rules::default() };
        let models = ModelDoor::new(upstreams, false, Some(Ledger::new(store.clone(), rules)));
        let mut house = House::through(llm, &models, GatewayLimits::default());
        // Of another room what it has used is another's; a person has it everywhere.
        let elsewhere = models.open(grant("!other"));
        for sent in 1..=2 {
            assert_eq!(house.chat().await.0, 200, "{setting}");
            house.seen(|seen| seen.tokens.output == 10 * sent).await;
        }
        assert_eq!(house.seen(|_| true).await.warning, None, "73 % is far from the end");
        let (status, told) = house.chat().await;
        assert!(status == 403 && told.contains(setting) && told.contains("150 tokens"), "{status} {told}");
        let seen = house.seen(|seen| seen.over.is_some()).await;
        assert!(seen.over == seen.refusal && told.contains(&seen.over.unwrap()), "whoever runs the agent is told, too");
        let request = post("/v1/chat/completions", elsewhere.token(), &chat("qwen-x"), "Connection: close\r\n");
        let status = answer(&ask(&mut house.door.open_in("!other", ProxyKind::Models), request.as_bytes()).await).0;
        assert_eq!(status, if person.is_some() { 403 } else { 200 });
        assert_eq!(house.llm.requests().len(), if person.is_some() { 2 } else { 3 }, "what is refused is not sent");
        clock.advance(24 * 60 * 60 * 1000);
        assert_eq!(house.chat().await.0, 200, "a day later");
        clock.advance(24 * 60 * 60 * 1000);
    }
}

#[tokio::test]
async fn the_log_tells_whose_request_it_was_and_nothing_that_was_said() {
    let (log, guard) = Log::collect();
    let mut house = House::new().await;
    house.llm.reply_text("SECRET answer");
    let mut request = chat("qwen-x");
    request["messages"][0]["content"] = json!("SECRET prompt");
    assert_eq!(house.post("/v1/chat/completions", &request).await.0, 200);
    request["SECRET"] = json!(1);
    assert_eq!(house.post("/v1/chat/completions?SECRET", &request).await.0, 400);
    assert_eq!(house.post("/v1/chat/completions", &request).await.0, 400);
    let token = house.pass.token().to_owned();
    drop((house, guard));
    let log = log.text();
    assert!(!log.contains("SECRET") && !log.contains(KEY) && !log.contains(&token), "{log}");
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 3, "{log}");
    for part in ["room=!room", "kind=models", "turn=t1", "agent=\"qwen\"", "model=\"qwen-x\"", "input=100", "output=10"]
    {
        assert!(lines[0].contains(part), "{part} in {log}");
    }
    assert!(lines[2].contains("verdict=\"denied\"") && lines[2].contains("turn=t1"), "{log}");
}

#[tokio::test]
async fn a_run_has_the_same_token_again_after_a_restart_and_no_other_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::default()).unwrap();
    let token = |grant: Grant| {
        let ledger = Ledger::new(store.clone(), Rules::default());
        ModelDoor::new(Vec::new(), false, Some(ledger)).open(grant).token().to_owned()
    };
    let first = grant("!room");
    let same = token(first.clone());
    assert_eq!(token(first.clone()), same);
    assert_ne!(token(Grant { run: "another".to_owned(), ..first.clone() }), same);
    assert_ne!(token(Grant { address: Address::of_first("!other"), ..first }), same);
}

/// Servers that are asked in their order, each with a name of its own for the model; what became of each is noted.
struct InOrder {
    servers: Vec<(&'static str, String)>,
    noted: Arc<Mutex<Vec<String>>>,
}

struct Left<'a> {
    of: &'a InOrder,
    next: usize,
}

struct Held(Arc<Mutex<Vec<String>>>, &'static str);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(format!("{} is let go", self.1));
    }
}

impl Servers for InOrder {
    fn begin(&self) -> Box<dyn Choice + '_> {
        Box::new(Left { of: self, next: 0 })
    }
}

impl Choice for Left<'_> {
    fn next<'a>(&'a mut self, failed: Option<&'a str>) -> BoxFuture<'a, Option<Result<Server, String>>> {
        let noted = &self.of.noted;
        noted.lock().unwrap().extend(failed.map(|why| format!("failed: {why}")));
        let Some((model, base)) = self.of.servers.get(self.next) else {
            let nobody = failed.is_none().then(|| Err("Nobody is at home.".to_owned()));
            return async move { nobody }.boxed();
        };
        self.next += 1;
        let guard = Box::new(Held(noted.clone(), model));
        let server =
            Server { base: Url::parse(base).unwrap(), key: Some(KEY.into()), model: (*model).to_owned(), guard };
        async move { Some(Ok(server)) }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_servers_are_chosen_the_next_one_answers_for_one_that_does_not() {
    let away = format!("127.0.0.1:{}", free_port());
    let (busy, good) = (ScriptedLlm::start().await, ScriptedLlm::start().await);
    busy.status(503, &[], r#"{"error": {"message": "loading"}}"#).status(400, &[], r#"{"error": "no"}"#);
    good.reply_text("Hello.");
    let noted = Arc::new(Mutex::new(vec![]));
    let servers = vec![
        ("away.gguf", format!("http://{away}/v1")),
        ("busy.gguf", busy.base_url().to_owned()),
        ("good.gguf", good.base_url().to_owned()),
    ];
    let servers = Arc::new(InOrder { servers, noted: noted.clone() });
    let none = Arc::new(InOrder { servers: vec![], noted: Arc::default() });
    let chosen = vec![
        Chosen::new(Protocol::OpenAi, "localbot/any".to_owned(), servers),
        Chosen::new(Protocol::OpenAi, "localbot/none".to_owned(), none),
    ];
    let models = ModelDoor::new(vec![], false, None).with_chosen(chosen);
    assert_eq!(models.models(Protocol::OpenAi), ["localbot/any", "localbot/none"]);
    let mut house = House::through(busy, &models, GatewayLimits::default());
    let (status, told) = house.post("/v1/chat/completions", &chat("localbot/any")).await;
    assert!(status == 200 && told.contains("llo."), "{status} {told}");
    assert_eq!([&house.llm, &good].map(|llm| llm.requests()[0]["model"].clone()), ["busy.gguf", "good.gguf"]);
    assert_eq!(good.headers(1)["authorization"], format!("Bearer {KEY}"));
    let seen = house.seen(|seen| seen.tokens.output > 0).await;
    assert_eq!((seen.requests, seen.failures, seen.by_model.len()), (1, 0, 1), "{seen:?}");
    // Each lets go what it holds before the next one is asked for.
    let noted = std::mem::take(&mut *noted.lock().unwrap());
    let told = noted.iter().map(String::as_str).collect::<Vec<_>>();
    let [first, why, second, "failed: loading", "good.gguf is let go"] = told[..] else { panic!("{told:?}") };
    assert!(why.contains("does not answer"), "{why}");
    assert_eq!([first, second], ["away.gguf is let go", "busy.gguf is let go"]);

    // What the next server would refuse, too, is the answer.
    assert_eq!(house.post("/v1/chat/completions", &chat("localbot/any")).await.0, 400);
    assert_eq!(good.requests().len(), 1);
    let (status, told) = house.post("/v1/chat/completions", &chat("localbot/none")).await;
    assert!(status == 502 && told.contains("Nobody is at home."), "{status} {told}");
    assert_eq!(house.seen(|seen| seen.failures == 1).await.failure.unwrap().status, 502);
}
