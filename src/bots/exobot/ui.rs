//! A small page on which somebody chats with exobot's model. It has no login of its own: who reaches it may ask. What is said
//! stays in the page and is gone with it.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response, StatusCode},
    routing::{get, post},
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time,
};
use tokio_util::task::AbortOnDropHandle;

use super::{SYSTEM_PROMPT, modes};
use crate::{
    bots::chat::{Mode, failed, request, without_thinking},
    http::{Pages, part_of_page, told},
    inference::engine::{CONTEXT, Engine, Standing},
    llm::{Chunk, Finish, Message, Meter},
    strings, text,
};

/// The most bytes of a request: a conversation as long as the model's context has room in it many times.
const LARGEST: usize = 64 << 10;
/// The most bytes of a question.
const LONGEST: usize = 6_000;
/// Questions that are answered or wait at the same time.
const AT_ONCE: usize = 4;
/// Events of an answer that wait for a slow reader: more than an answer has tokens.
const EVENTS: usize = 1_024;
/// After so long without an event a comment is sent, so that no proxy takes the stream for dead.
const ALIVE: Duration = Duration::from_secs(10);
/// Tokens of the context that are kept free, since how many a text has is guessed.
const SPARE: u64 = 256;
/// How long a wake that nobody has asked anything yet is followed.
const WAKE: Duration = Duration::from_millis(500);

struct Ui {
    engine: Engine,
    modes: Vec<Mode>,
    places: Arc<Semaphore>,
}

/// What the page sends.
#[derive(Debug, Deserialize)]
struct Asked {
    /// The word of a mode.
    #[serde(default)]
    mode: String,
    /// What is asked.
    question: String,
    /// What was said before, oldest first: question and answer.
    #[serde(default)]
    before: Vec<(String, String)>,
}

/// Returns the pages for a server of their own.
pub fn pages(engine: Engine) -> Pages {
    let ui = Arc::new(Ui { engine, modes: modes(), places: Arc::new(Semaphore::new(AT_ONCE)) });
    let router = Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", include_str!("ui/page.html")) }))
        .route("/page.css", get(|| async { file("text/css; charset=utf-8", include_str!("ui/page.css")) }))
        .route("/page.js", get(|| async { file("text/javascript; charset=utf-8", include_str!("ui/page.js")) }))
        .route("/icon.svg", get(|| async { file("image/svg+xml", include_str!("ui/icon.svg")) }))
        .route("/status", get(|State(ui): State<Arc<Ui>>| async move { standing(&ui) }))
        .route("/wake", post(wake))
        .route(
            "/chat",
            post(|State(ui): State<Arc<Ui>>, headers: HeaderMap, body: Bytes| async move { chat(ui, &headers, &body) }),
        )
        .with_state(ui);
    Pages { path: "/", private: false, largest: LARGEST, router }
}

fn file(kind: &'static str, text: &'static str) -> Response<Body> {
    part_of_page(StatusCode::OK, kind, Body::from(text))
}

/// Tells how the model stands: 200 if it answers, else 202.
fn standing(ui: &Ui) -> Response<Body> {
    let standing = ui.engine.standing();
    let (status, word, why) = match &standing {
        Standing::Up => (StatusCode::OK, "up", None),
        Standing::Asleep(_) => (StatusCode::ACCEPTED, "asleep", None),
        Standing::Waking(_) => (StatusCode::ACCEPTED, "starting", None),
        Standing::Failed(failure) => (StatusCode::ACCEPTED, "failed", Some(failure.told())),
    };
    let value = json!({
        "status": word,
        "why": why,
        "expected_ms": standing.expected().map(|expected| expected.as_millis() as u64),
        "model": ui.engine.label(),
    });
    part_of_page(status, "application/json", Body::from(value.to_string()))
}

/// Begins to wake the model, and tells how it stands.
async fn wake(State(ui): State<Arc<Ui>>, headers: HeaderMap) -> Response<Body> {
    if let Some(refused) = foreign(&headers) {
        return refused;
    }
    // The child goes on starting when nobody waits for it any more.
    let _ = time::timeout(WAKE, ui.engine.wake(&|_| {})).await;
    standing(&ui)
}

/// Returns why a request is not taken that another site's page has sent: a browser lets it send plain texts without asking.
fn foreign(headers: &HeaderMap) -> Option<Response<Body>> {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_json = value("content-type").is_some_and(|kind| kind.split(';').next() == Some("application/json"));
    let is_own = value("sec-fetch-site").is_none_or(|site| matches!(site, "same-origin" | "none"));
    match (is_json, is_own) {
        (true, true) => None,
        (false, _) => Some(told(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The request is no JSON.")),
        (true, false) => Some(told(StatusCode::FORBIDDEN, "Another site's page may not ask here.")),
    }
}

/// Begins to answer a question: the answer's body brings events until it is whole.
fn chat(ui: Arc<Ui>, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
    if let Some(refused) = foreign(headers) {
        return refused;
    }
    let Ok(asked) = serde_json::from_slice::<Asked>(body) else {
        return told(StatusCode::BAD_REQUEST, "The request is not what the page sends. Load the page again.");
    };
    if asked.question.trim().is_empty() {
        return told(StatusCode::BAD_REQUEST, "There is no question.");
    }
    if asked.question.len() > LONGEST {
        return told(StatusCode::PAYLOAD_TOO_LARGE, "The question is too long for the model.");
    }
    let Ok(place) = Arc::clone(&ui.places).try_acquire_owned() else {
        return told(StatusCode::SERVICE_UNAVAILABLE, strings::exobot::CROWDED);
    };
    let (events, sent) = mpsc::channel(EVENTS);
    // It ends with the stream: a page that is closed asks no more.
    let answering = AbortOnDropHandle::new(tokio::spawn(answer(ui, asked, events, place)));
    let stream = stream::unfold((sent, answering), |(mut sent, answering)| async move {
        let event = match time::timeout(ALIVE, sent.recv()).await {
            Ok(event) => event?,
            Err(_) => Bytes::from_static(b": it goes on\n\n"),
        };
        Some((Ok::<_, Infallible>(event), (sent, answering)))
    });
    part_of_page(StatusCode::OK, "text/event-stream", Body::from_stream(stream))
}

/// Returns an event as the page reads it. JSON has no line breaks of its own.
fn event(name: &str, value: &Value) -> Bytes {
    format!("event: {name}\ndata: {value}\n\n").into()
}

/// Answers a question, from waking the model to the last word.
async fn answer(ui: Arc<Ui>, asked: Asked, events: mpsc::Sender<Bytes>, _place: OwnedSemaphorePermit) {
    // A reader who is so slow that these do not fit loses some, and not the server its memory.
    let send = |name: &str, value: Value| drop(events.try_send(event(name, &value)));
    let lease = match ui.engine.wake(&|sentence| send("state", json!({ "text": sentence }))).await {
        Ok(lease) => lease,
        Err(why) => return send("failed", json!({ "text": why.to_string() })),
    };
    send("awake", json!({}));
    let Some(mode) = ui.modes.iter().find(|mode| mode.word == asked.mode).or(ui.modes.first()) else { return };
    let mut messages = messages(&asked, mode);
    if !mode.thinks {
        without_thinking(&mut messages, &lease.model);
    }
    let (meter, mut first) = (Meter::new(1), None);
    let mut on_chunk = |chunk| {
        first.get_or_insert_with(Instant::now);
        match chunk {
            Chunk::Text(text) => send("delta", json!({ "text": text })),
            Chunk::Restart => send("restart", json!({})),
            Chunk::Reasoning => send("thinking", json!({})),
            Chunk::CallStarted(_) => {}
        }
    };
    let asking = lease.model.complete(&messages, &[], Some(mode.max_tokens), &meter, &mut on_chunk);
    match time::timeout(mode.time, asking).await {
        Ok(Ok(completion)) => {
            let seconds = first.map_or(0.0, |first| first.elapsed().as_secs_f64()).max(0.001);
            let footer = completion.usage.map_or_else(
                || lease.label.clone(),
                |usage| {
                    let speed = usage.output as f64 / seconds;
                    strings::chat::footer(&lease.label, speed, usage.input, usage.input + usage.output)
                },
            );
            let mut text = completion.message.text;
            if completion.finish == Finish::Length {
                text.push_str(strings::chat::CUT);
            }
            send("done", json!({ "text": text, "footer": footer }));
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the model gave no answer to a page");
            send("failed", json!({ "text": failed(&error) }));
        }
        Err(_) => {
            let limit = text::human_duration(mode.time);
            let told = if first.is_some() { strings::chat::cut_off(&limit) } else { strings::chat::no_time(&limit) };
            send("failed", json!({ "text": told }));
        }
    }
}

/// Returns what the model is asked: as many turns as the mode tells it of, and as its context has room for.
fn messages(asked: &Asked, mode: &Mode) -> Vec<Message> {
    let room = CONTEXT.saturating_sub(mode.max_tokens + SPARE);
    request(SYSTEM_PROMPT, &asked.before, asked.question.trim(), mode.history_turns, room)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;
    use crate::llm::Part;

    #[test]
    fn the_model_is_told_of_as_many_turns_as_the_mode_says() {
        let before = (0..5).map(|at| (format!("q{at}"), format!("a{at}"))).collect();
        let asked = Asked { mode: String::new(), question: " now? ".to_owned(), before };
        let told = |word: &str| {
            let modes = modes();
            let mode = modes.iter().find(|mode| mode.word == word).unwrap();
            let of = |message: Message| match message {
                Message::System { .. } => "system".to_owned(),
                Message::Assistant(message) => message.text,
                Message::User { parts } => match &parts[..] {
                    [Part::Text { text }] => text.clone(),
                    other => panic!("{other:?}"),
                },
                Message::Tool { .. } => panic!("no tools"),
            };
            messages(&asked, mode).into_iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(told("normal"), ["system", "now?"]);
        assert_eq!(told("reason"), ["system", "q3", "a3", "q4", "a4", "now?"]);
        let before = vec![("q".repeat(9_000), "a".to_owned()), ("q".to_owned(), "a".to_owned())];
        let asked = Asked { mode: String::new(), question: "now?".to_owned(), before };
        assert_eq!(messages(&asked, &modes()[3]).len(), 4, "a turn that does not fit is left out");
    }

    #[test]
    fn the_page_offers_each_mode() {
        let page = include_str!("ui/page.html");
        for mode in modes() {
            assert!(page.contains(&format!(">{}</option>", mode.word)), "{}", mode.word);
        }
        assert_eq!(page.matches("<option").count(), modes().len());
    }

    #[test]
    fn only_the_page_itself_may_ask() {
        let headers = |all: &[(&'static str, &'static str)]| {
            let all = all.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            foreign(&all.collect()).map(|refused| refused.status().as_u16())
        };
        assert_eq!(headers(&[("content-type", "application/json")]), None);
        assert_eq!(
            headers(&[("content-type", "application/json; charset=utf-8"), ("sec-fetch-site", "same-origin")]),
            None
        );
        assert_eq!(headers(&[("content-type", "text/plain"), ("sec-fetch-site", "cross-site")]), Some(415));
        assert_eq!(headers(&[("content-type", "application/json"), ("sec-fetch-site", "cross-site")]), Some(403));
        assert_eq!(headers(&[]), Some(415));
    }

    #[test]
    fn an_event_is_one_line_of_data_whatever_it_says() {
        let event = event("delta", &json!({ "text": "a\n\nevent: failed\r\n" }));
        let lines: Vec<_> = std::str::from_utf8(&event).unwrap().lines().collect();
        assert_eq!(lines, ["event: delta", r#"data: {"text":"a\n\nevent: failed\r\n"}"#, ""]);
    }
}
