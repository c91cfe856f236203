//! What the `/lb` commands reply, and why an inference server does not answer.

use std::time::Duration;

/// The reply to `/lbh`.
pub(crate) const HELP: &str = "\
🤖 LocalBot Commands

`/lbs` — status: active endpoint, model, sessions
`/lbm` — list the models
`/lbm <alias>` — switch to a model
`/lbn <room>` — begin a room's session anew
`/lbe` — endpoints and whether they are online
`/lbp` — measure the active endpoint
`/lbl` — last lines of the inference server's log
`/lbq` — requests that are answered and that wait
`/lbh` — this

`!lbs` and so on mean the same.";

/// How a command is written.
pub(crate) fn written_so(command: &str) -> String {
    format!("❌ Write `{command}` and nothing else; `/lbh` lists the commands.")
}

/// The head of the reply to `/lbs`.
pub(crate) const STATUS: &str = "🤖 LocalBot Status";
/// The head of the reply to `/lbm`.
pub(crate) const MODELS: &str = "📦 LocalBot Models";
/// The head of the reply to `/lbe`.
pub(crate) const ENDPOINTS: &str = "🔌 Inference Endpoints";

/// Behind the mistakes of a file of the registry.
pub(crate) const KEPT: &str = "what it said before holds until that is mended";

/// No endpoint is in the registry.
pub(crate) fn no_endpoints(folder: &str) -> String {
    format!("❌ No endpoints are set up. Write them into `{folder}/inference-endpoints.json`.")
}

/// No model is in the registry.
pub(crate) fn no_models(folder: &str) -> String {
    format!("❌ No models are set up. Write them into `{folder}/localbot-models.json`.")
}

/// A mistake in the registry, in a line of its own.
pub(crate) fn mistake(mistake: &str) -> String {
    format!("⚠️ {mistake}")
}

/// None of the endpoints is online.
pub(crate) fn none_online(count: usize) -> String {
    match count {
        1 => "❌ The only endpoint is not online. Use /lbe to see why.".to_owned(),
        _ => format!("❌ None of {count} endpoints is online. Use /lbe to see why."),
    }
}

/// The active endpoint.
pub(crate) fn active(name: &str) -> String {
    format!("✅ Active: {name}")
}

/// The model with its alias.
pub(crate) fn model(name: &str, alias: Option<&str>) -> String {
    let alias = alias.map(|alias| format!(" ({alias})")).unwrap_or_default();
    format!("📦 Model: {name}{alias}")
}

/// A context and how it fits.
pub(crate) fn context(size: &str, fit: Option<&str>) -> String {
    let fit = fit.map(|fit| format!(" | {fit} VRAM")).unwrap_or_default();
    format!("📐 Context: {size}{fit}")
}

/// Speeds, as `speeds` writes them.
pub(crate) fn speed(speeds: &str) -> String {
    format!("⚡ Speed: {speeds} tok/s")
}

/// The sessions and their tokens.
pub(crate) fn sessions(count: usize, tokens: &str) -> String {
    format!("📊 Sessions: {count} | {tokens} tokens")
}

/// Speeds with an empty and with a full context.
pub(crate) fn speeds(generation: Option<(f64, f64)>, prompt: Option<(f64, f64)>) -> Option<String> {
    let pair = |what: &str, (fresh, filled): (f64, f64)| format!("{what} {}→{}", rounded(fresh), rounded(filled));
    let parts: Vec<_> = [generation.map(|rates| pair("gen", rates)), prompt.map(|rates| pair("pp", rates))]
        .into_iter()
        .flatten()
        .collect();
    (!parts.is_empty()).then(|| parts.join(" | "))
}

fn rounded(rate: f64) -> String {
    if rate < 10.0 && rate.fract() != 0.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// A model in the list.
pub(crate) fn listed(alias: &str, name: &str, active: bool) -> String {
    format!("▸ {alias} — {name}{}", if active { " ⬅ active" } else { "" })
}

/// What is told of a model in the list; `None` if nothing is known.
pub(crate) fn listed_facts(context: Option<&str>, speeds: Option<&str>) -> Option<String> {
    let parts: Vec<_> =
        [context.map(|size| format!("{size} ctx")), speeds.map(str::to_owned)].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("  {}", parts.join(" | ")))
}

/// No model has that alias.
pub(crate) fn unknown_model(said: &str) -> String {
    format!("❌ Unknown model: {said}. Use /lbm to list.")
}

/// Several models' aliases begin so.
pub(crate) fn several_models(said: &str, aliases: &[String]) -> String {
    format!("❌ {said} could be {}. Use /lbm with one of these.", aliases.join(" or "))
}

/// A model is being switched to, and is loaded.
pub(crate) fn switched(said: &str, file: &str, context: Option<&str>) -> String {
    let context = context.map(|size| format!("\n📐 Context: {size} tokens")).unwrap_or_default();
    format!("{}\n✅ Model loaded: {file}{context}", switching(said))
}

/// A model is being switched to.
pub(crate) fn switching(said: &str) -> String {
    format!("🔄 Switching to {said}...")
}

/// The server of a model is not reached.
pub(crate) fn no_server(kind: &str, why: &str) -> String {
    format!("❌ Could not connect to {kind} server\n   {why}")
}

/// A model is not loaded; which one serves on.
pub(crate) fn not_switched(why: &str, serving: Option<&str>) -> String {
    let serving = serving.map(|model| format!("\n   {model} keeps serving.")).unwrap_or_default();
    format!("❌ Model failed to load: {why}{serving}")
}

/// A server does not have the model and cannot load it.
pub(crate) fn not_served(endpoint: &str) -> String {
    format!(
        "{endpoint} does not have it, and can load no other: set `ssh` and `unit` in inference-endpoints.json, or run llama-server as a router"
    )
}

/// There is no endpoint for a model.
pub(crate) fn no_endpoint_for(alias: &str, kind: &str) -> String {
    format!("❌ No {kind} endpoint is set up for {alias}. Add one to inference-endpoints.json.")
}

/// A model does not fit.
pub(crate) const NO_ROOM: &str = "it does not fit beside the models that are pinned";
/// A model's turn did not come.
pub(crate) const WAITED: &str = "the models before it were in use for too long";
/// A server of one model.
pub(crate) fn only_its_own(endpoint: &str) -> String {
    format!("{endpoint} serves only what it was started with")
}
/// A server's unit serves another file than it was to.
pub(crate) const SERVES_ANOTHER: &str = "it serves another model; does its unit set the model by itself?";
/// A load goes on and on.
pub(crate) const STILL_LOADING: &str = "it is still being loaded";
/// A load has failed by the server's own word.
pub(crate) const LOAD_FAILED: &str = "the server could not load it; its log says why";
/// A path in the registry could mean something to a shell.
pub(crate) const BAD_PATH: &str = "the file's name has characters that are not passed on to a shell";
/// An endpoint has no way to its machine.
pub(crate) const NO_SSH: &str = "it has no `ssh` and `unit` in inference-endpoints.json";
/// `ssh` does not reach an endpoint's machine, in its own words.
pub(crate) fn ssh_away(words: &str) -> String {
    let words = if words.is_empty() { "it does not say why" } else { words };
    format!("SSH does not reach its machine: {words}")
}
/// A command on an endpoint's machine has failed without a word.
pub(crate) fn silent(code: i32) -> String {
    format!("the command there ended with code {code} and said nothing")
}
/// `ssh` is not there.
pub(crate) fn ssh_not_started(cause: &str) -> String {
    format!("`ssh` could not be started: {cause}")
}

/// A model does not answer in time.
pub(crate) fn not_ready(limit: Duration, last: &str) -> String {
    format!("it did not answer within {} s ({last})", limit.as_secs())
}

/// The head of the reply to `/lbq`.
pub(crate) const QUEUE: &str = "⏳ LocalBot Queue";

/// A model in the queue.
pub(crate) fn queued(model: &str, answering: usize, waiting: Option<(usize, u64)>, loading: bool) -> String {
    let loading = if loading { ", loading" } else { "" };
    let waiting =
        waiting.map(|(count, seconds)| format!(", {count} waiting (the first for {seconds} s)")).unwrap_or_default();
    format!("   {model}: {answering} answering{waiting}{loading}")
}

/// Nothing is asked of an endpoint.
pub(crate) const QUEUE_EMPTY: &str = "   nothing is asked";

/// What a server itself says of its slots.
pub(crate) fn slots(busy: usize, all: usize) -> String {
    format!("   {busy} of {all} slots busy")
}

/// The last lines of a server's log.
pub(crate) fn log(endpoint: &str, lines: &str) -> String {
    // A fence in the log must not end the block.
    format!("📜 Log: {endpoint}\n\n~~~~\n{}\n~~~~", lines.replace("~~~~", "~~~"))
}

/// A server's log is not to be had.
pub(crate) fn no_log(endpoint: &str, why: &str) -> String {
    format!("❌ The log of {endpoint} cannot be read: {why}")
}

/// An endpoint in the list, online or not.
pub(crate) fn endpoint(online: bool, name: &str, kind: &str, url: &str) -> String {
    format!("{} {name} ({kind})\n   {url}", if online { "✅" } else { "❌" })
}

/// What an endpoint has loaded.
pub(crate) fn endpoint_models(names: &[&str]) -> String {
    format!("   📦 {}", names.join(", "))
}

/// An endpoint has nothing loaded.
pub(crate) fn endpoint_idle(available: usize) -> String {
    format!("   📦 {available} available (none loaded)")
}

/// How fast an endpoint's model is.
pub(crate) fn endpoint_speed(speeds: &str) -> String {
    format!("   ⚡ {speeds} tok/s")
}

/// Why an endpoint is not online.
pub(crate) fn endpoint_fault(why: &str) -> String {
    format!("   ❌ {why}")
}

/// How many endpoints are online.
pub(crate) fn online(count: usize, all: usize) -> String {
    format!("{count}/{all} endpoints online")
}

/// The reply to `/lbp`.
pub(crate) fn measured(endpoint: &str, model: &str, generation: f64, prompt: Option<f64>, millis: u128) -> String {
    let prompt = prompt.map(|rate| format!("\n📥 Prompt: {rate:.1} tok/s")).unwrap_or_default();
    format!(
        "⚡ Benchmark: {endpoint}\n\n📦 Model: {model}\n📝 Generation: {generation:.1} tok/s{prompt}\n⏱️ Roundtrip: {millis}ms"
    )
}

/// An endpoint has nothing loaded that could be measured.
pub(crate) fn nothing_loaded(endpoint: &str) -> String {
    format!("❌ {endpoint} has no model loaded. Load one with /lbm <alias>.")
}

/// A measurement has failed.
pub(crate) fn not_measured(endpoint: &str, why: &str) -> String {
    format!("❌ {endpoint} did not answer the test question: {why}")
}

/// How `/lbn` is used, with the rooms that the sender may name.
pub(crate) fn usage(rooms: &[&str]) -> String {
    let rooms = rooms.iter().map(|room| format!("`{room}`")).collect::<Vec<_>>().join(", ");
    let rooms = if rooms.is_empty() { "none".to_owned() } else { rooms };
    format!("Usage: /lbn <room>\n\nRooms: {rooms}")
}

/// The sender may not reset that room.
pub(crate) const NOT_YOURS: &str = "❌ Only authorized users can reset this room";

/// A room's session was reset.
pub(crate) fn reset(room: &str, tokens: &str) -> String {
    format!("✅ LocalBot session reset ({room})\n   Cleared {tokens} tokens")
}

/// The room's bot is at work.
pub(crate) fn busy(room: &str) -> String {
    format!("❌ The bot is answering in {room}. Try again when it is done, or stop it there with `!stop`.")
}

/// The room's bot is not one of ours.
pub(crate) fn no_such_bot(room: &str, agent: &str, known: &str) -> String {
    format!("❌ localbot-rooms.json names `{agent}` for {room}, and there is no such bot here. The bots here: {known}")
}

/// A reset has failed.
pub(crate) fn not_reset(why: &str) -> String {
    format!("❌ The session could not be reset: {why}")
}

/// A server did not answer in time.
pub(crate) fn no_answer_within(limit: Duration) -> String {
    format!("No answer within {} s", limit.as_secs())
}

/// A server refuses.
pub(crate) fn status(status: u16, words: &str) -> String {
    let why = match status {
        401 | 403 => "The API key is refused",
        404 => "Not found",
        429 => "Too many requests",
        500.. => "The server has trouble",
        _ => "Refused",
    };
    let words = if words.is_empty() { String::new() } else { format!(": {words}") };
    format!("{why} ({status}){words}")
}

/// A server answers with a page.
pub(crate) const WEB_PAGE: &str = "A web page came instead of JSON; is that the inference server's address?";
/// A server answers with something else.
pub(crate) const NO_JSON: &str = "The answer is not what such a server sends";
/// A server's answer has no end.
pub(crate) const TOO_MUCH: &str = "The answer is larger than 4 MiB";
/// No connection came about.
pub(crate) const NO_CONNECTION: &str = "No connection in time";
/// A key cannot be sent.
pub(crate) const BAD_KEY: &str = "Its API key holds characters that no key has";

/// The reply to a guest's file.
pub(crate) const NO_FILES: &str = "Your file was not saved: I take files only from those who may give me work.";

/// Why a model of the registry cannot be asked: it names none.
pub(crate) const NOBODY: &str = "the registry has no such endpoint or model";
/// Why an endpoint cannot be asked.
pub(crate) const NOT_THERE: &str = "it does not have the model";
