//! `plan`, `implement`, `review`: a coding agent at work in the sandbox, followed by the room.
//!
//! Which agent serves which role, its command line and how its output is read, `coding_agents` knows; its way to its model
//! is the gateway's. What a task needs beyond one call (the plan, the agents' sessions) lies in the sandbox, where it
//! survives the server. What a call came to is told by the CLI's result and exit code together, and what it changed by the
//! files, before and after.

mod report;
mod task;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use self::task::{PLAN_FILE, held, keep, kept, session_file};
use super::{
    Access, Tool, ToolContext, ToolLimits, ToolProgress, ToolResult,
    error::ToolError,
    exec::{self, Follow},
    survey,
};
use crate::{
    coding_agents::{Assigned, Brief, Launch, Role, Run, Session, Tokens, Wire, prompt},
    gateway::models::{Grant, Pass, Seen},
    sandbox::{Captured, Ended, Exit, ProxyKind, Sandbox, Stdin},
    text,
};

/// How often the room sees the time of an agent that says nothing.
const TICK: Duration = Duration::from_secs(10);
/// The most bytes that are read of a whole output.
const LOG: u64 = 9 * 1024 * 1024;
pub(super) struct Plan;
pub(super) struct Implement;
pub(super) struct Review;

/// For the model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Task {
    /// With all it must know: it sees the files, not this chat.
    task: String,
}

/// For the model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskWithPlan {
    /// As for plan.
    task: String,
    /// Instead of the last plan.
    plan: Option<String>,
}

/// For the model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Focus {
    /// What to look at above all.
    focus: Option<String>,
}

impl Tool for Plan {
    const NAME: &'static str = "plan";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str = r#"{"task":"Add a login page to /workspace/site"}"#;
    const OWN_TIME: bool = true;
    type Arguments = Task;

    fn description(_limits: &ToolLimits, _vision: bool) -> String {
        "A coding agent reads the code and plans a larger task; it changes nothing.".to_owned()
    }

    fn label(arguments: &Task) -> String {
        label(Role::Plan, &arguments.task)
    }

    async fn run(context: &ToolContext, arguments: Task) -> Result<ToolResult, ToolError> {
        work(context, Role::Plan, &arguments.task, None).await
    }

    async fn resume(context: &ToolContext, _arguments: Task, boot_id: &str) -> Result<ToolResult, ToolError> {
        take_up(context, Role::Plan, boot_id).await
    }
}

impl Tool for Implement {
    const NAME: &'static str = "implement";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str = r#"{"task":"Add a login page to /workspace/site"}"#;
    const OWN_TIME: bool = true;
    type Arguments = TaskWithPlan;

    fn description(limits: &ToolLimits, _vision: bool) -> String {
        format!("A coding agent does a larger task by itself, with the last plan. Limit {} s.", limits.coding.as_secs())
    }

    fn label(arguments: &TaskWithPlan) -> String {
        label(Role::Implement, &arguments.task)
    }

    async fn run(context: &ToolContext, arguments: TaskWithPlan) -> Result<ToolResult, ToolError> {
        work(context, Role::Implement, &arguments.task, arguments.plan).await
    }

    async fn resume(context: &ToolContext, _arguments: TaskWithPlan, boot_id: &str) -> Result<ToolResult, ToolError> {
        take_up(context, Role::Implement, boot_id).await
    }
}

impl Tool for Review {
    const NAME: &'static str = "review";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str = r#"{"focus":"the session cookie"}"#;
    const OWN_TIME: bool = true;
    type Arguments = Focus;

    fn description(_limits: &ToolLimits, _vision: bool) -> String {
        "A coding agent reviews what was changed, with diff and plan.".to_owned()
    }

    fn label(arguments: &Focus) -> String {
        label(Role::Review, arguments.focus.as_deref().unwrap_or("what was changed"))
    }

    async fn run(context: &ToolContext, arguments: Focus) -> Result<ToolResult, ToolError> {
        work(context, Role::Review, arguments.focus.as_deref().unwrap_or_default(), None).await
    }

    async fn resume(context: &ToolContext, _arguments: Focus, boot_id: &str) -> Result<ToolResult, ToolError> {
        take_up(context, Role::Review, boot_id).await
    }
}

fn label(role: Role, about: &str) -> String {
    format!("{role}: {}", text::one_line(about, 70))
}

/// Has the agent of a role do a task, from the first look at the files to the last.
async fn work(context: &ToolContext, role: Role, task: &str, plan: Option<String>) -> Result<ToolResult, ToolError> {
    if role != Role::Review && task.trim().is_empty() {
        return Err(ToolError::Refused("task is empty. Say what is to be done. Nothing was run.".to_owned()));
    }
    let assigned = context.agents.of(role);
    let Some(model) = assigned.model.as_deref() else {
        let name = assigned.agent.name;
        return Err(ToolError::Refused(format!(
            "There is no model for {name} here: the operator has to set a key for it. Nothing was run; do it yourself."
        )));
    };
    let sandbox = context.sandbox().await?;
    sandbox.require(ProxyKind::Models)?;
    if let Some(told) = context.agents.instead(&context.address, assigned) {
        let _ = context.progress.try_send(ToolProgress::Notice(told));
    }
    survey::begin(context, &sandbox).await?;
    let plan = match (role, plan) {
        (Role::Plan, _) => None,
        (_, Some(plan)) => Some(plan),
        (_, None) => kept(context, &sandbox, PLAN_FILE).await?,
    };
    let diff = if role == Role::Review { survey::diff(context, &sandbox).await? } else { String::new() };
    let asked = prompt(role, &Brief { task, plan: plan.as_deref(), diff: &diff });
    let before = kept(context, &sandbox, &session_file(role, assigned)).await?;
    let session =
        before.and_then(|id| Session::continued(&id)).unwrap_or_else(|| Session::of_call(context.call.as_str()));

    let pass = context.agents.open(grant(context, assigned));
    let launch = Launch { role, model, session: &session, key: pass.token() };
    let argv = assigned.agent.command(&launch);
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let mut command = context.command(&argv, context.limits.coding);
    command.env = assigned.agent.environment(&launch);
    if !role.may_write() {
        let held = held(context, &sandbox, role).await?;
        command.env.extend(held.environment);
        command.writable = Some(held.writable);
    }
    command.stdin = Stdin::Bytes(asked.into());
    let mut follower = Follower::new(context, assigned, &pass);
    let ended = exec::follow(context, &sandbox, command, &mut follower).await?;
    drop(pass);
    let elapsed = Some(follower.run.elapsed(Instant::now()));
    report(context, &sandbox, role, follower, &ended, elapsed).await
}

/// Takes up a run that was under way when the server crashed.
async fn take_up(context: &ToolContext, role: Role, boot_id: &str) -> Result<ToolResult, ToolError> {
    let assigned = context.agents.of(role);
    let pass = context.agents.open(grant(context, assigned));
    let mut follower = Follower::new(context, assigned, &pass);
    let (sandbox, ended) = exec::resume_following(context, context.call.as_str(), boot_id, &mut follower).await?;
    drop(pass);
    if !follower.followed {
        // It ended while nobody was there: what it wrote is read now.
        for piece in whole(&sandbox, &ended.output).await {
            follower.take(&piece);
        }
    }
    report(context, &sandbox, role, follower, &ended, None).await
}

fn grant(context: &ToolContext, assigned: &Assigned) -> Grant {
    Grant {
        address: context.address.clone(),
        turn: context.turn.clone(),
        person: None,
        agent: assigned.agent.program.to_owned(),
        run: context.call.to_string(),
    }
}

/// Follows a run and shows it to the room.
struct Follower {
    run: Run,
    seen: watch::Receiver<Seen>,
    tick: Instant,
    shown: String,
    /// Whether it was there while the run went on.
    followed: bool,
    assigned: Assigned,
    silence: Duration,
}

impl Follower {
    fn new(context: &ToolContext, assigned: &Assigned, pass: &Pass) -> Self {
        let (now, silence) = (Instant::now(), context.limits.coding_idle);
        Self {
            run: Run::new(assigned.agent, silence, now),
            seen: pass.seen(),
            tick: now + TICK,
            shown: String::new(),
            followed: false,
            assigned: assigned.clone(),
            silence,
        }
    }
}

impl Follow for Follower {
    fn anew(&mut self) {
        self.followed = true;
        self.run = Run::new(self.assigned.agent, self.silence, Instant::now());
    }

    fn take(&mut self, piece: &[u8]) {
        self.run.take(piece, Instant::now());
    }

    fn show(&mut self) -> Option<String> {
        let lines = self.run.lines(Instant::now());
        if lines == self.shown {
            return None;
        }
        self.shown.clone_from(&lines);
        Some(lines)
    }

    async fn wake(&mut self) {
        let now = self.run.deadline().map_or(self.tick, |deadline| self.tick.min(deadline));
        tokio::select! {
            () = sleep_until(now) => self.tick = Instant::now() + TICK,
            Ok(()) = self.seen.changed() => {
                let seen = wire(&self.seen.borrow_and_update());
                self.run.look(seen, Instant::now());
            }
        }
    }

    fn give_up(&mut self) -> bool {
        self.run.give_up(Instant::now())
    }
}

fn wire(seen: &Seen) -> Wire {
    let failure = seen.failure.as_ref().filter(|_| seen.failures > 0);
    Wire {
        requests: seen.requests,
        tokens: Tokens { input: seen.tokens.input, output: seen.tokens.output },
        refused: seen.failures,
        cause: failure.map(|failure| format!("{}: {}", failure.status, failure.cause)).unwrap_or_default(),
    }
}

/// Tells what a run came to, and keeps what the task needs of it.
async fn report(
    context: &ToolContext,
    sandbox: &Sandbox,
    role: Role,
    follower: Follower,
    ended: &Ended,
    elapsed: Option<Duration>,
) -> Result<ToolResult, ToolError> {
    let Follower { run, seen, .. } = follower;
    let refusal = seen.borrow().refusal.clone();
    let assigned = context.agents.of(role);
    let stopped = context.cancel.is_cancelled() && ended.exit == Exit::Killed;
    let mut outcome = run.outcome(&ended.exit, stopped, Instant::now());
    if !outcome.ok {
        outcome.noise.extend(refusal.map(|refusal| format!("The gateway: {refusal}")));
    }
    if stopped {
        let name = assigned.agent.name;
        return Ok(ToolResult::bad(format!("{role}: {name} stopped"), format!("{name} was {}.", outcome.verdict)));
    }
    let edits = survey::changes(context, sandbox).await?;
    // A session that could not be gone on with is begun anew the next time.
    let session = outcome.session.as_deref().unwrap_or_default();
    keep(context, sandbox, &session_file(role, assigned), session).await?;
    if role == Role::Plan && outcome.ok {
        keep(context, sandbox, PLAN_FILE, &outcome.summary).await?;
    }
    let log = exec::whole(context, sandbox, context.call.as_str(), &ended.output).await;
    Ok(report::told(role, assigned, &outcome, edits, elapsed, log.as_deref()))
}

/// Reads what was kept of an output, whole if there is a file of it.
async fn whole(sandbox: &Sandbox, captured: &Captured) -> Vec<bytes::Bytes> {
    let log = match &captured.log {
        Some(log) => sandbox.read_file(log, 0, LOG).await.ok(),
        None => None,
    };
    // The file holds the beginning, however long the output was.
    let head = log.map_or_else(|| captured.head.clone(), |file| file.bytes);
    vec![head, bytes::Bytes::from_static(b"\n"), captured.tail.clone()]
}
