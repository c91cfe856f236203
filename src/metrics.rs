//! What is counted about the server, for Prometheus: whoever does something notes it here, and [`text`] writes all of it out.
//!
//! Where OpenTelemetry's conventions for generative AI have a name (`gen_ai.…`), it is that one, as Prometheus writes it. A label has
//! few values, which are known beforehand: names that people outside choose (rooms, persons, what a sandbox says that its model is)
//! are none, and a name that is not in its [`Closed`] set counts as `other`.
//!
//! One for the process, as its memory is. Must not know who counts.

use std::{
    collections::BTreeSet,
    sync::{
        LazyLock, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, prometheus_text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::clock::Clock;

/// What [`text`] returns, as HTTP names it.
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The value of a label for what is in no closed set.
const OTHER: &str = "other";
/// The most names of a closed set: what is set up after that is `other`, too.
const NAMES: usize = 64;

/// The models that the operator has set up.
pub(crate) static MODELS: Closed = Closed::new();
/// The bots that are served.
static BOTS: Closed = Closed::new();
/// The orchestrator, the programs of the coding agents, and the bots that only chat.
pub(crate) static AGENTS: Closed = Closed::new();

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// Seconds of requests to models, of tools and of turns: from a file that is read to a coding agent's hours.
const SECONDS: [f64; 15] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0];
/// Seconds between an event's file and whoever watches its room.
const LAGS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];
/// Tokens of a request, as OpenTelemetry's conventions advise.
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Names that a label may have.
#[derive(Debug)]
pub(crate) struct Closed(RwLock<BTreeSet<String>>);

impl Closed {
    const fn new() -> Self {
        Self(RwLock::new(BTreeSet::new()))
    }

    /// Adds a name that the operator has chosen.
    pub(crate) fn add(&self, name: &str) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() < NAMES {
            names.insert(name.to_owned());
        }
    }

    /// Returns the label's value for a name.
    fn label(&self, name: &str) -> String {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).contains(name);
        if known { name } else { OTHER }.to_owned()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBot {
    bot: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    bot: String,
    ending: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Called {
    gen_ai_tool_name: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    gen_ai_operation_name: &'static str,
    gen_ai_request_model: String,
    /// Empty if there was none, which Prometheus takes for no label.
    error_type: &'static str,
}

#[expect(clippy::struct_field_names, reason = "they are the labels' names")]
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Used {
    gen_ai_token_type: &'static str,
    gen_ai_request_model: String,
    gen_ai_agent_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Spent {
    gen_ai_request_model: String,
    gen_ai_agent_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

type Whole = Gauge<i64, AtomicI64>;
type Seconds<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

struct Metrics {
    registry: Registry,
    turns_running: Family<OfBot, Whole>,
    turns: Seconds<Ended>,
    tools: Seconds<Called>,
    requests: Seconds<Asked>,
    tokens: Family<Used, Histogram, fn() -> Histogram>,
    cached: Family<Spent, Counter>,
    cost: Family<Spent, Counter<f64, AtomicU64>>,
    sandboxes: Family<State, Whole>,
    messages: Whole,
    answers: Whole,
    edits_held: Counter,
    sends_refused: Counter,
    ipc_lag: Histogram,
    ready: Whole,
    memory: Whole,
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn tokens() -> Histogram {
    Histogram::new(TOKENS)
}

impl Default for Metrics {
    fn default() -> Self {
        let all = Self {
            registry: Registry::default(),
            turns_running: Family::default(),
            turns: Family::new_with_constructor(seconds),
            tools: Family::new_with_constructor(seconds),
            requests: Family::new_with_constructor(seconds),
            tokens: Family::new_with_constructor(tokens),
            cached: Family::default(),
            cost: Family::default(),
            sandboxes: Family::default(),
            messages: Gauge::default(),
            answers: Gauge::default(),
            edits_held: Counter::default(),
            sends_refused: Counter::default(),
            ipc_lag: Histogram::new(LAGS),
            ready: Gauge::default(),
            memory: Gauge::default(),
        };
        let mut registry = Registry::default();
        let build = Family::<Build, Whole>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        let started: Whole = Gauge::default();
        started.set(Clock::default().millis() / 1000);
        registry.register("matrix_agent_build_info", "The program's version", build);
        registry.register("process_start_time_seconds", "When the server started, since 1970", started);
        registry.register("process_resident_memory_bytes", "Memory of the server's process", all.memory.clone());
        registry.register("matrix_agent_ready", "Whether /readyz says so (1) or not (0)", all.ready.clone());
        registry.register("matrix_agent_turns_running", "Turns that are worked on", all.turns_running.clone());
        registry.register(
            "matrix_agent_turn_duration_seconds",
            "Ended turns, from their message on",
            all.turns.clone(),
        );
        registry.register("matrix_agent_tool_duration_seconds", "Ended calls of tools", all.tools.clone());
        registry.register(
            "gen_ai_client_operation_duration_seconds",
            "Requests to models by bots and the orchestrator, with their retries",
            all.requests.clone(),
        );
        registry.register(
            "gen_ai_client_token_usage",
            "Tokens of each request by the orchestrator, coding agents and bots that only chat",
            all.tokens.clone(),
        );
        registry.register("matrix_agent_cached_tokens", "Input tokens that were cached", all.cached.clone());
        registry.register("matrix_agent_cost_dollars", "What tokens cost, as far as prices are set", all.cost.clone());
        registry.register("matrix_agent_sandboxes", "Sandboxes by state", all.sandboxes.clone());
        registry.register("matrix_agent_messages_waiting", "Messages that nobody works on yet", all.messages.clone());
        registry.register("matrix_agent_answers_unsent", "Rows of the outbox that are not sent", all.answers.clone());
        registry.register(
            "matrix_agent_edits_held_back",
            "States of progress that gave way to a newer one before they were sent",
            all.edits_held.clone(),
        );
        registry.register(
            "matrix_agent_sends_refused",
            "Sends that the homeserver refused for their rate",
            all.sends_refused.clone(),
        );
        registry.register(
            "matrix_agent_ipc_lag_seconds",
            "Time from the writing of an event in a sandbox until it was passed on",
            all.ipc_lag.clone(),
        );
        Self { registry, ..all }
    }
}

/// Returns all of it as Prometheus reads it.
pub(crate) fn text() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_text::encode(&mut text, &METRICS.registry);
    text
}

/// Names a bot that is served. Its turns count from zero on, so that a rate can be told of the first one, too.
pub(crate) fn serves(bot: &str, endings: impl IntoIterator<Item = &'static str>) {
    BOTS.add(bot);
    let bot = BOTS.label(bot);
    drop(METRICS.turns_running.get_or_create(&OfBot { bot: bot.clone() }));
    for ending in endings {
        drop(METRICS.turns.get_or_create(&Ended { bot: bot.clone(), ending }));
    }
}

/// A turn that is worked on, as long as this lives.
#[derive(Debug)]
pub(crate) struct Running(OfBot);

impl Running {
    /// Counts a turn of a bot.
    pub(crate) fn of(bot: &str) -> Self {
        let labels = OfBot { bot: BOTS.label(bot) };
        METRICS.turns_running.get_or_create(&labels).inc();
        Self(labels)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        METRICS.turns_running.get_or_create(&self.0).dec();
    }
}

/// Notes a turn that has ended; `ending` is a word of a few.
pub(crate) fn turn_ended(bot: &str, ending: &'static str, took: Duration) {
    METRICS.turns.get_or_create(&Ended { bot: BOTS.label(bot), ending }).observe(took.as_secs_f64());
}

/// Notes a call that has ended; `tool` is the name of a tool that there is.
pub(crate) fn call_ended(tool: Option<&'static str>, ok: bool, took: Duration) {
    let (gen_ai_tool_name, outcome) = (tool.unwrap_or(OTHER), if ok { "done" } else { "failed" });
    METRICS.tools.get_or_create(&Called { gen_ai_tool_name, outcome }).observe(took.as_secs_f64());
}

/// Notes a request to a model that has ended; `error` is a word of a few.
pub(crate) fn asked(model: &str, error: Option<&'static str>, took: Duration) {
    let labels = Asked {
        gen_ai_operation_name: "chat",
        gen_ai_request_model: MODELS.label(model),
        error_type: error.unwrap_or_default(),
    };
    METRICS.requests.get_or_create(&labels).observe(took.as_secs_f64());
}

/// What a request has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use<'a> {
    /// Who asked.
    pub(crate) agent: &'a str,
    /// The model.
    pub(crate) model: &'a str,
    /// Tokens of the prompt.
    pub(crate) input: u64,
    /// Those of them that were cached.
    pub(crate) cached: u64,
    /// Tokens of the answer.
    pub(crate) output: u64,
    /// Dollars, if there is a price.
    pub(crate) cost: Option<f64>,
}

/// Notes the tokens of a request.
pub(crate) fn used(Use { agent, model, input, cached, output, cost }: Use<'_>) {
    let (gen_ai_request_model, gen_ai_agent_name) = (MODELS.label(model), AGENTS.label(agent));
    for (gen_ai_token_type, tokens) in [("input", input), ("output", output)] {
        let labels = Used {
            gen_ai_token_type,
            gen_ai_request_model: gen_ai_request_model.clone(),
            gen_ai_agent_name: gen_ai_agent_name.clone(),
        };
        METRICS.tokens.get_or_create(&labels).observe(tokens as f64);
    }
    let labels = Spent { gen_ai_request_model, gen_ai_agent_name };
    METRICS.cached.get_or_create(&labels).inc_by(cached);
    if let Some(cost) = cost {
        METRICS.cost.get_or_create(&labels).inc_by(cost);
    }
}

/// Notes a state of progress that a newer one has replaced before it was sent.
pub(crate) fn edit_held_back() {
    METRICS.edits_held.inc();
}

/// Notes a send that was refused for its rate.
pub(crate) fn send_refused() {
    METRICS.sends_refused.inc();
}

/// Notes an event that was passed on so long after it was written.
pub(crate) fn ipc_lag(lag: Duration) {
    METRICS.ipc_lag.observe(lag.as_secs_f64());
}

/// What is looked at when somebody asks; what could not be told stays as it was.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looked {
    /// Whether the server is ready.
    pub(crate) ready: bool,
    /// Bytes of the process's memory.
    pub(crate) memory: Option<u64>,
    /// Messages that wait, and answers that were not sent.
    pub(crate) waiting: Option<(u64, u64)>,
}

/// Notes how it stands now.
pub(crate) fn look(Looked { ready, memory, waiting }: Looked) {
    METRICS.ready.set(i64::from(ready));
    if let Some(bytes) = memory {
        METRICS.memory.set(bytes as i64);
    }
    if let Some((messages, answers)) = waiting {
        METRICS.messages.set(messages as i64);
        METRICS.answers.set(answers as i64);
    }
}

/// Notes how many sandboxes are in each state.
pub(crate) fn sandboxes(states: impl IntoIterator<Item = (&'static str, usize)>) {
    for (state, number) in states {
        METRICS.sandboxes.get_or_create(&State { state }).set(number as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_has_set_up_is_other_and_a_set_is_bounded() {
        let set = Closed::new();
        set.add("a");
        assert_eq!((set.label("a"), set.label("!room:example.org")), ("a".to_owned(), OTHER.to_owned()));
        for number in 0..1000 {
            set.add(&format!("model-{number}"));
        }
        assert_eq!((set.label("model-1"), set.label("model-999")), ("model-1".to_owned(), OTHER.to_owned()));
    }
}
