//! What a run of a coding agent came to, as a result: for the model in sections, for the room in a line.
//!
//! Pure; called by the parent alone.

use std::time::Duration;

use crate::{
    coding_agents::{Assigned, Outcome, Role},
    ipc::{Event, Kind, RunEnded},
    strings, text,
    tools::{Edit, ToolResult},
};

/// The most bytes of an agent's last words that the model is shown.
const SAID: usize = 12 * 1024;
/// Characters of what people said to it.
const WORD: usize = 1000;
/// Changed files that are named.
const NAMED: usize = 30;

/// Puts the result together. `before`: what is told of those that have given way to this agent, a line each; `edits`: what they
/// all have changed, if that is known; `elapsed`: how long it took, if somebody was there to see; `logs`: the files in
/// the sandbox with all that it wrote.
pub(super) fn told(
    role: Role,
    assigned: &Assigned,
    outcome: &Outcome,
    before: &[String],
    edits: Option<Vec<Edit>>,
    elapsed: Option<Duration>,
    logs: &[String],
) -> ToolResult {
    let name = &assigned.agent.name;
    let is_changed = edits.as_ref().is_some_and(|edits| !edits.is_empty());
    let trespass = is_changed && !role.may_write();
    let mut sections = vec![of_one(assigned, outcome, elapsed)];
    if !before.is_empty() {
        sections.push(format!("Before it, and told to it:\n{}", before.join("\n")));
    }
    sections.push(text::cut_middle(&outcome.summary, SAID));
    if !outcome.noise.is_empty() {
        sections.push(format!("Its last lines:\n{}", outcome.noise.join("\n")));
    }
    match &edits {
        None => sections.push("[What it changed cannot be told: look with git.]".to_owned()),
        Some(edits) if is_changed => sections.push(list(edits, trespass)),
        Some(_) if role.may_write() => sections.push("No file was changed.".to_owned()),
        Some(_) => {}
    }
    if !logs.is_empty() {
        sections.push(format!("[the whole log: {}]", logs.join(", ")));
    }
    sections.retain(|section| !section.is_empty());
    let text = sections.join("\n\n");

    let did = match &edits {
        Some(edits) if trespass => format!(", changed {}", sum(edits)),
        Some(edits) if is_changed => format!(", {}", sum(edits)),
        _ => String::new(),
    };
    let how = if outcome.ok { String::new() } else { format!(" {}", text::one_line(&outcome.verdict, 90)) };
    let line = format!("{role}: {name}{how}{did}{}", took(outcome, elapsed, text::stopwatch));
    let mut result = if outcome.ok && !trespass { ToolResult::good(line, text) } else { ToolResult::bad(line, text) };
    result.log = (!outcome.record.is_empty()).then(|| format!("{}\n{}", result.summary, outcome.record));
    result.facts.edits = edits.unwrap_or_default();
    result
}

/// Returns how one agent's run ended, with its model, its time and its tokens, and what people told it meanwhile.
pub(super) fn of_one(assigned: &Assigned, outcome: &Outcome, elapsed: Option<Duration>) -> String {
    let (name, model) = (&assigned.agent.name, assigned.model.as_deref().unwrap_or("no model"));
    let took = took(outcome, elapsed, text::human_duration);
    format!("{}: {name}, {model}{took}.{}", outcome.verdict, told_words(&outcome.told))
}

/// Returns that an agent was not tried in a call, because it has given way to another one so long ago.
pub(super) fn left_out(assigned: &Assigned, ago: Duration) -> String {
    let (name, model) = (&assigned.agent.name, assigned.model.as_deref().unwrap_or("no model"));
    format!("not tried: {name}, {model}. It has given way to another one {} ago.", text::human_duration(ago))
}

/// Returns what people told an agent while it worked, a line each; nothing if they told it nothing.
fn told_words(told: &[String]) -> String {
    if told.is_empty() {
        return String::new();
    }
    let words = told.iter().map(|word| format!("\n- {}", text::one_line(word, WORD)));
    format!("\nWhile it worked it was told, and went on with:{}", words.collect::<String>())
}

/// Returns what agents after this one are told of a call, in a line.
pub(super) fn remembered(
    role: Role,
    task: &str,
    assigned: &Assigned,
    outcome: &Outcome,
    edits: Option<&[Edit]>,
) -> String {
    let task = text::one_line(task, 120);
    let task = if task.is_empty() { task } else { format!(" “{task}”") };
    let did = edits.filter(|edits| !edits.is_empty()).map(|edits| format!(", {}", sum(edits))).unwrap_or_default();
    let verdict = text::one_line(&outcome.verdict, 100);
    format!("{role}{task} by {}: {verdict}{did}", assigned.agent.name)
}

/// Returns the end of a run as an event beside those of the agent's hooks.
pub(super) fn ended(assigned: &Assigned, outcome: &Outcome) -> RunEnded {
    let (agent, mark) = (&assigned.agent.program, if outcome.ok { '✓' } else { '✗' });
    let line = text::one_line(&format!("{agent} {mark} {}", outcome.verdict), 200);
    RunEnded { agent: agent.clone(), session: outcome.session.clone(), event: Event { kind: Kind::News, line } }
}

/// Returns what the room reads when an agent gives way to the next.
pub(super) fn gives_way(assigned: &Assigned, outcome: &Outcome, next: &Assigned) -> String {
    let model = next.model.as_deref().unwrap_or_default();
    let verdict = text::one_line(&outcome.verdict, 160);
    format!("{} {verdict}. {} with {model} goes on from there.", assigned.agent.name, next.agent.name)
}

fn took(outcome: &Outcome, elapsed: Option<Duration>, time: fn(Duration) -> String) -> String {
    let tokens = outcome.tokens.total();
    let tokens = (tokens > 0).then(|| format!("{} tokens", text::short(tokens)));
    let parts: Vec<_> = elapsed.map(time).into_iter().chain(tokens).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// Names changed files, a line each.
fn list(edits: &[Edit], trespass: bool) -> String {
    let must = if trespass { " although it must not: look at them, and take back what is not wanted" } else { "" };
    let head = format!("{} changed{must}:", sum(edits));
    let files = edits.iter().take(NAMED).map(|edit| format!("{} +{} −{}", edit.path, edit.added, edit.removed));
    let more = (edits.len() > NAMED).then(|| format!("and {} more", edits.len() - NAMED));
    [head].into_iter().chain(files).chain(more).collect::<Vec<_>>().join("\n")
}

/// Returns changes in a few words: `2 files +12 −3`.
fn sum(edits: &[Edit]) -> String {
    let files = strings::counted(edits.len() as u64, "file");
    let (added, removed) = edits.iter().fold((0_u64, 0_u64), |(added, removed), edit| {
        (added + u64::from(edit.added), removed + u64::from(edit.removed))
    });
    format!("{files} +{added} −{removed}")
}
