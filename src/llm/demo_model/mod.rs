//! The demo model: an OpenAI-compatible endpoint in this process, to try the program without a key. It is a script
//! that understands a few plain orders and says so. Coding agents can use it as their model too.
//!
//! Stateless: each answer is computed from the conversation in the request, so that a turn survives a restart as with
//! a real model. Started by `demo`, and by `chat` and `run` only with `--demo-model`.

mod agent;
mod answer;
mod job;
mod moves;
mod orders;

use std::{convert::Infallible, io, net::Ipv4Addr};

use axum::{
    Json, Router,
    body::Body,
    extract::DefaultBodyLimit,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::moves::Move;

/// The largest request in bytes: a conversation with pictures.
const MAX_REQUEST: usize = 64 * 1024 * 1024;

/// The running endpoint.
#[derive(Debug)]
pub struct DemoModel {
    base_url: String,
    server: JoinHandle<io::Result<()>>,
}

impl DemoModel {
    /// The model string of the demo model, for use with [`DemoModel::base_url`].
    pub const MODEL: &str = "demo-model";

    /// Starts the endpoint on a free port of 127.0.0.1; it ends with `cancel`.
    ///
    /// # Errors
    ///
    /// The system gives no port.
    pub async fn start(cancel: CancellationToken) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let base_url = format!("http://{}/v1", listener.local_addr()?);
        let app = Router::new().route("/v1/chat/completions", post(answer)).layer(DefaultBodyLimit::max(MAX_REQUEST));
        let server = axum::serve(listener, app).with_graceful_shutdown(cancel.cancelled_owned());
        Ok(Self { base_url, server: tokio::spawn(server.into_future()) })
    }

    /// Returns its address for `LLM_BASE_URL`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Waits until the endpoint has ended.
    pub async fn stopped(self) {
        if !matches!(self.server.await, Ok(Ok(()))) {
            tracing::warn!("the demo model ended badly");
        }
    }
}

async fn answer(Json(request): Json<Value>) -> Response {
    let situation = orders::read(&request["messages"]);
    let answer = if agent::asks(&request) {
        agent::answer(&orders::asked(&request["messages"]), &situation.seen)
    } else {
        answer::answer(&situation)
    };
    let read = request["messages"].to_string().len();
    if request["stream"] != true {
        return Json(json!({"error": {"message": "the demo model only streams", "code": 400}})).into_response();
    }
    let pieces = stream::iter(events(&answer, read).into_iter().map(Ok::<_, Infallible>));
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// Returns an answer as a stream: its text in words, each call's arguments in pieces, and its usage (four characters
/// a token).
fn events(answer: &Move, read: usize) -> Vec<String> {
    let event = |value: Value| format!("data: {value}\n\n");
    let delta = |delta: Value| event(json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}));
    let mut events = vec![delta(json!({"role": "assistant", "content": ""}))];
    events.extend(answer.text.split_inclusive(' ').map(|word| delta(json!({"content": word}))));
    let mut written = answer.text.len();
    for (index, (name, arguments)) in answer.calls.iter().enumerate() {
        let arguments = arguments.to_string();
        written += arguments.len();
        let id = format!("call_{}", crate::ids::random(8));
        let begin = json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}});
        events.push(delta(json!({"tool_calls": [begin]})));
        let mut rest = arguments.as_str();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(200));
            rest = after;
            events.push(delta(json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})));
        }
    }
    let reason = if answer.calls.is_empty() { "stop" } else { "tool_calls" };
    events.push(event(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})));
    events.push(event(json!({"choices": [], "usage": {"prompt_tokens": read / 4, "completion_tokens": written / 4}})));
    events.push("data: [DONE]\n\n".to_owned());
    events
}
