//! A configured model: sends requests, streams the answers, and tries again where that helps. Knows no rooms and
//! keeps no history. Used by the orchestrator, and by `doctor` for its probe.
//!
//! Dropping the future of [`Model::complete`] closes the connection, upon which providers stop generating.

use std::{
    collections::BTreeMap,
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_openai::{Client, config::Config, error::OpenAIError, types::stream::StreamResponse};
use futures_util::{
    StreamExt,
    future::{self, Either},
};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::{
    assemble::Assembler,
    clean::Asked,
    endpoint::{Endpoint, SettingError, parse_model},
    error::{LlmError, ProviderWords, Stage, ToldTokens},
    guard::{self, NoStream},
    limits::ModelLimits,
    message::{AssistantMessage, Chunk, Completion, Finish, Message, Part, ToolSpec},
    meter::Meter,
    refusal,
    request::{
        self, Request,
        fields::{self, RefusedFields},
    },
    retry::Schedule,
    servers::{self, Listed},
    watch::{Fault, Watch},
    window::{self, Window},
    wire::StreamChunk,
};
use crate::{
    clock::Clock,
    metrics::{self, MODELS},
    net, text,
};

/// The settings of a [`Model`](super::Model).
#[derive(Clone, Debug)]
pub struct ModelSettings {
    /// LiteLLM's model string.
    pub model: String,
    /// Replaces the provider's own address.
    pub base_url: Option<String>,
    /// The provider's key; empty if none is needed.
    pub key: SecretString,
    /// Whether it sees pictures; `None` leaves that to its name.
    pub vision: Option<bool>,
    /// The size of its context in tokens; `None` leaves that to its name and its server.
    pub context_window: Option<u64>,
    /// The sampling temperature; `None` leaves that to the provider.
    pub temperature: Option<f64>,
    /// Headers that requests carry besides, by their names in small letters. None may be one that the client makes itself.
    pub headers: BTreeMap<String, SecretString>,
    /// Time limits and retries.
    pub limits: ModelLimits,
    /// The clock for dates in `Retry-After`.
    pub clock: Clock,
}

impl ModelSettings {
    /// Returns settings with defaults for everything but model and key.
    pub fn new(model: impl Into<String>, key: SecretString) -> Self {
        Self {
            model: model.into(),
            base_url: None,
            key,
            vision: None,
            context_window: None,
            temperature: None,
            headers: BTreeMap::new(),
            limits: ModelLimits::default(),
            clock: Clock::default(),
        }
    }
}

/// How long the usage may take after the model has ended its answer.
const TAIL: Duration = Duration::from_secs(2);
const NO_JSON: LlmError = LlmError::Broken("an event that is no JSON");
/// The time limit of [`One::probe`], shorter because `doctor` has more to check.
const PROBE_WITHIN: Duration = Duration::from_secs(30);

/// A model at its address. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub(super) struct One {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    http: reqwest::Client,
    target: Arc<dyn Config>,
    vision: bool,
    /// Set once its provider has said that it sees no pictures, whatever its name suggests.
    blind: AtomicBool,
    window: window::KnownWindow,
    refused_fields: RefusedFields,
    temperature: Option<f64>,
    limits: ModelLimits,
    clock: Clock,
}

impl One {
    /// Makes a model from its settings; sends nothing yet.
    pub(super) fn new(settings: ModelSettings) -> Result<Self, LlmError> {
        let endpoint = parse_model(&settings.model, settings.base_url.as_deref())?;
        MODELS.add(endpoint.name());
        let mut http = net::client().connect_timeout(settings.limits.connect);
        if endpoint.is_loopback() {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|_| SettingError {
            key: "LLM_BASE_URL",
            problem: "TLS cannot be set up; install this machine's `ca-certificates`".to_owned(),
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                target: Arc::new(Target::new(endpoint.base_url(), &settings.key, &settings.headers)?),
                vision: settings.vision.unwrap_or_else(|| endpoint.vision()),
                blind: AtomicBool::new(false),
                refused_fields: RefusedFields::default(),
                temperature: settings.temperature,
                window: window::KnownWindow::new(settings.context_window, endpoint.window()),
                endpoint,
                http,
                limits: settings.limits,
                clock: settings.clock,
            }),
        })
    }

    /// Returns the model string as the operator wrote it.
    pub(super) fn name(&self) -> &str {
        self.inner.endpoint.name()
    }

    /// Returns whether it sees pictures.
    pub(super) fn vision(&self) -> bool {
        self.inner.vision && !self.inner.blind.load(Ordering::Relaxed)
    }

    /// Returns the size of its context, and where that is known from.
    pub(super) fn window(&self) -> Window {
        self.inner.window.window()
    }

    /// Asks its server for the size of its context, if it can be asked and was not asked lately. Takes at most two
    /// seconds; may be dropped.
    pub(super) async fn ask_window(&self) {
        let inner = &*self.inner;
        if inner.window.wants_to_ask() {
            let answer = servers::ask(&inner.http, &inner.endpoint, &inner.target.headers()).await;
            inner.window.answered(answer);
        }
    }

    /// As [`Model::complete`](super::Model::complete).
    pub(super) async fn complete(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        max_output: Option<u64>,
        meter: &Meter,
        on_chunk: &mut (dyn FnMut(Chunk) + Send),
    ) -> Result<Completion, LlmError> {
        let mut answer = pin!(self.ask_until_answered(messages, tools, max_output, meter, on_chunk));
        // Beside the request: a server that is slow to say how much it holds keeps nobody waiting.
        let asking = pin!(self.ask_window());
        let begun = Instant::now();
        let answered = match future::select(answer.as_mut(), asking).await {
            Either::Left((answered, _)) => answered,
            Either::Right(((), answer)) => answer.await,
        };
        metrics::asked(self.name(), answered.as_ref().err().map(LlmError::kind), begun.elapsed());
        answered
    }

    async fn ask_until_answered(
        &self,
        messages: &[Message],
        tools: &[ToolSpec],
        max_output: Option<u64>,
        meter: &Meter,
        on_chunk: &mut (dyn FnMut(Chunk) + Send),
    ) -> Result<Completion, LlmError> {
        let mut request = request::build(&self.inner.endpoint, self.vision(), messages, tools, max_output);
        request.temperature = self.inner.temperature;
        let refused_fields = &self.inner.refused_fields;
        fields::all()
            .filter(|field| refused_fields.contains(*field))
            .for_each(|field| request.leave_out(field, refused_fields));
        let limits = &self.inner.limits;
        let mut schedule = Schedule::new(limits);
        let end = Instant::now() + limits.whole;
        loop {
            let mut shown = false;
            let mut show = |chunk| {
                shown |= !matches!(chunk, Chunk::Reasoning);
                on_chunk(chunk);
            };
            let error = match self.attempt(&request, messages, limits, end, meter, &mut show).await {
                Err(LlmError::BadCall(said)) => return Ok(self.bad_call(said)),
                Err(error) => error,
                completion => return completion,
            };
            self.learn(&error);
            if let Some(field) = fields::refused(&error).filter(|field| request.has(*field)) {
                tracing::warn!(model = self.name(), ?field, "the model refuses a field, which is left out from now on");
                refused_fields.add(field);
                request.leave_out(field, refused_fields);
                if shown {
                    on_chunk(Chunk::Restart);
                }
                continue;
            }
            let wait = schedule.next(&error).filter(|wait| Instant::now() + *wait < end);
            let Some(wait) = wait else { return Err(error) };
            tracing::warn!(model = self.name(), %error, wait_ms = wait.as_millis() as u64, "asking the model again");
            if shown {
                on_chunk(Chunk::Restart);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Remembers what a refusal tells about the model, for all rooms and until the program ends.
    fn learn(&self, error: &LlmError) {
        match error {
            LlmError::Overflow { told: ToldTokens { limit: Some(limit), .. }, .. } => self.inner.window.refused(*limit),
            LlmError::Pictures { blind: true, .. } => self.inner.blind.store(true, Ordering::Relaxed),
            _ => {}
        }
    }

    fn bad_call(&self, said: ProviderWords) -> Completion {
        let message = AssistantMessage { text: said.0, model: self.name().to_owned(), ..AssistantMessage::default() };
        Completion { message, finish: Finish::BadCall, usage: None, reasoning: String::new() }
    }

    /// Looks whether its endpoint can be reached, takes the key and has the model, by its list of models, which costs nothing.
    pub(super) async fn look_up(&self) -> Listed {
        servers::look_up(&self.inner.http, &self.inner.endpoint, &self.inner.target.headers()).await
    }

    /// Asks for a single token, once, to check address, key and model. Returns how long it took.
    pub(super) async fn probe(&self) -> Result<Duration, LlmError> {
        let started = Instant::now();
        let messages = [Message::User { parts: vec![Part::Text { text: "ping".to_owned() }] }];
        let request = request::build(&self.inner.endpoint, false, &messages, &[], Some(1));
        let limits = ModelLimits { first_token: PROBE_WITHIN, whole: PROBE_WITHIN, ..self.inner.limits.clone() };
        let meter = Meter::new(1);
        match self.attempt(&request, &messages, &limits, started + limits.whole, &meter, &mut |_| {}).await {
            Ok(_) | Err(LlmError::AnswerTooLong { .. }) => {}
            // OpenAI's reasoning models complain that one token is too little; then address, key and model are right.
            Err(LlmError::Refused { status: 400, said }) if said.0.contains("max_tokens") => {}
            Err(error) => return Err(error),
        }
        Ok(started.elapsed())
    }

    async fn attempt(
        &self,
        request: &Request<'_>,
        messages: &[Message],
        limits: &ModelLimits,
        end: Instant,
        meter: &Meter,
        show: &mut (dyn FnMut(Chunk) + Send),
    ) -> Result<Completion, LlmError> {
        let inner = &*self.inner;
        let asked = Asked { key: inner.target.api_key().expose_secret(), model: inner.endpoint.model(), messages };
        let watch = Arc::new(Watch::default());
        let service = {
            let (http, clock, watch) = (inner.http.clone(), inner.clock.clone(), watch.clone());
            tower::service_fn(move |request| guard::send(request, http.clone(), clock.clone(), watch.clone()))
        };
        let client = Client::build(inner.http.clone(), inner.target.clone()).with_http_service(service);

        let first = Instant::now() + limits.first_token;
        let begin = LlmError::Slow { stage: Stage::Begin, limit: limits.first_token };
        meter.begin();
        let mut stream: StreamResponse<StreamChunk> =
            match timeout_at(first.min(end), client.chat().create_stream_byot(request)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    meter.told();
                    return Err(self.no_stream(error, &asked));
                }
                Err(_) => return Err(begin),
            };
        let mut answer = Assembler::new(inner.endpoint.quirks().echo);
        let (mut due, mut silence) = (first, begin);
        loop {
            match timeout_at(due.min(end), stream.next()).await {
                Ok(Some(Ok(chunk))) => {
                    meter.event();
                    answer.push(chunk, show).map_err(|error| refusal::from_stream(&error, &asked))?;
                }
                Ok(None) => break,
                Ok(Some(Err(_))) => match watch.fault() {
                    Some(Fault::WebPage) => return Err(LlmError::Garbled("a web page")),
                    Some(Fault::TooMuch) => return Err(LlmError::Garbled("more than any answer holds")),
                    Some(Fault::Garbled) if watch.words().is_none() => return Err(NO_JSON),
                    // What came before may be an answer. A lost connection does no harm if only the usage was
                    // missing.
                    Some(Fault::Garbled | Fault::Cut) | None => break,
                },
                Err(_) if answer.has_ended() => break,
                Err(_) if end <= due => return Err(LlmError::Slow { stage: Stage::End, limit: limits.whole }),
                Err(_) => {
                    // Comments, which `events.rs` does not pass on, are signs of life too.
                    let alive = watch.heard().map_or(due, |heard| heard + limits.idle);
                    if alive <= due {
                        return Err(silence);
                    }
                    due = alive;
                    continue;
                }
            }
            if answer.is_full() {
                tracing::warn!(model = self.name(), "the model's answer was cut off at its limit");
                break;
            }
            due = Instant::now() + if answer.has_ended() { TAIL.min(limits.idle) } else { limits.idle };
            silence = LlmError::Slow { stage: Stage::GoOn, limit: limits.idle };
        }
        match (answer.finish(watch.is_done(), self.name()), watch.words()) {
            // Plain text that came instead of events tells why there were none.
            (Err(_), Some(words)) => Err(refusal::from_stream(&json!({"error": {"message": words}}), &asked)),
            (Err(LlmError::Cut | LlmError::Broken(_)), None) if watch.has_passed_over() => Err(NO_JSON),
            (finished, _) => {
                if matches!(&finished, Ok(completion) if completion.usage.is_some_and(|usage| usage.input > 0)) {
                    meter.told();
                }
                finished
            }
        }
    }

    fn no_stream(&self, error: OpenAIError, asked: &Asked<'_>) -> LlmError {
        let unreachable = |why: &str| LlmError::Unreachable { host: self.inner.endpoint.host(), why: why.to_owned() };
        let OpenAIError::Boxed(error) = error else { return unreachable("the request could not be built") };
        match error.downcast::<NoStream>().map(|error| *error) {
            Ok(NoStream::Refused(refused)) => refusal::from_http(&refused, asked),
            Ok(NoStream::Transport(error)) => unreachable(&transport(&error)),
            Err(_) => unreachable("the request failed"),
        }
    }
}

/// Returns a few words for the innermost cause, the only informative one. They contain no URL and no body.
fn transport(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not accept the connection in time".to_owned();
    }
    text::root_cause(error).chars().filter(|c| !c.is_control()).take(120).collect()
}

impl fmt::Debug for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({:?})", self.inner.endpoint)
    }
}

/// Where requests go, with which headers. async-openai's own configuration reads `OPENAI_*` from the environment and
/// panics on a key with a line break.
struct Target {
    base_url: String,
    headers: HeaderMap,
    key: SecretString,
}

impl Target {
    fn new(base_url: &str, key: &SecretString, more: &BTreeMap<String, SecretString>) -> Result<Self, SettingError> {
        let key = SecretString::from(key.expose_secret().trim());
        let mut headers = HeaderMap::new();
        for (name, value) in more {
            let pair =
                HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value.expose_secret()).ok());
            let (name, mut value) = pair.ok_or_else(|| SettingError {
                key: "EXTRA_HEADERS_JSON",
                problem: "a name or a value in it cannot be a header".to_owned(),
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        if !key.expose_secret().is_empty() {
            let bearer = format!("Bearer {}", key.expose_secret());
            let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| SettingError {
                key: "LLM_API_KEY",
                problem: "holds characters that no key has; copy it again".to_owned(),
            })?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(Self { base_url: base_url.to_owned(), headers, key })
    }
}

impl Config for Target {
    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    fn api_base(&self) -> &str {
        &self.base_url
    }

    fn api_key(&self) -> &SecretString {
        &self.key
    }
}
