//! `plan`, `implement`, `review`: a coding agent at work in the sandbox, followed by the room.
//!
//! Which agent serves which role, its command line and how its output is read, `coding_agents` knows; its way to its model
//! is the gateway's. What a task needs beyond one call (the plan, the agents' sessions) lies in the sandbox, where it
//! survives the server. What a call came to is told by the CLI's result and exit code together, and what it changed by the
//! files, before and after. An agent that is silent or whose model refuses gives way to the next of its role, who is told where
//! it stands.

mod follower;
mod process;
mod report;
mod task;

use std::{mem, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

pub(super) use self::follower::run_under_way;
use self::{
    follower::{Follower, wire},
    process::Worker,
    task::{PLAN_FILE, given_way_file, keep, kept, session_file},
};
use super::{Access, Tool, ToolContext, ToolLimits, ToolProgress, ToolResult, error::ToolError, exec, memory, survey};
use crate::{
    coding_agents::{Assigned, Begun, Brief, Outcome, Role, Session, prompt},
    gateway::models::{Grant, Seen},
    ledger,
    sandbox::{Ended, Exit, Sandbox},
    text,
};

/// How long the room may take to see that an agent gives way.
const NOTICE: Duration = Duration::from_secs(1);
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

impl TaskWithPlan {
    fn job(&self) -> Job<'_> {
        Job { role: Role::Implement, task: &self.task, plan: self.plan.as_deref() }
    }
}

impl Focus {
    fn job(&self) -> Job<'_> {
        Job { role: Role::Review, task: self.focus.as_deref().unwrap_or_default(), plan: None }
    }
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
        Job { role: Role::Plan, task: &arguments.task, plan: None }.work(context).await
    }

    async fn resume(context: &ToolContext, arguments: Task, boot_id: &str) -> Result<ToolResult, ToolError> {
        Job { role: Role::Plan, task: &arguments.task, plan: None }.take_up(context, boot_id).await
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
        arguments.job().work(context).await
    }

    async fn resume(context: &ToolContext, arguments: TaskWithPlan, boot_id: &str) -> Result<ToolResult, ToolError> {
        arguments.job().take_up(context, boot_id).await
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
        arguments.job().work(context).await
    }

    async fn resume(context: &ToolContext, arguments: Focus, boot_id: &str) -> Result<ToolResult, ToolError> {
        arguments.job().take_up(context, boot_id).await
    }
}

fn label(role: Role, about: &str) -> String {
    format!("{role}: {}", text::one_line(about, 70))
}

/// What a call is to do.
struct Job<'a> {
    role: Role,
    /// The task, or what a review is to look at.
    task: &'a str,
    /// The plan, if one was given in place of the last.
    plan: Option<&'a str>,
}

/// What one agent has come to in a call.
struct Attempt {
    outcome: Outcome,
    /// Whether a person wanted it to end.
    stopped: bool,
    /// Files in the sandbox with all that it wrote.
    logs: Vec<String>,
    /// What it has used, by model.
    used: Vec<(String, ledger::Tokens)>,
    /// How long it took, if somebody was there to see.
    elapsed: Option<Duration>,
}

impl Job<'_> {
    /// Has the agents of the role do it, from the first look at the files to the last.
    async fn work(&self, context: &ToolContext) -> Result<ToolResult, ToolError> {
        if self.role != Role::Review && self.task.trim().is_empty() {
            return Err(ToolError::Refused("task is empty. Say what is to be done. Nothing was run.".to_owned()));
        }
        let line = context.agents.of(self.role);
        let Some(first) = line.iter().position(|assigned| assigned.model.is_some()) else {
            let name = line.first().map_or("a coding agent", |assigned| &assigned.agent.name);
            return Err(ToolError::Refused(format!(
                "There is no model for {name} here: the operator has to set a key for it. Nothing was run; do it yourself."
            )));
        };
        let sandbox = context.sandbox().await?;
        if let Some(told) = context.agents.instead(&context.address, &line[first]) {
            let _ = context.progress.try_send(ToolProgress::Notice(told));
        }
        memory::prepare(context, &sandbox).await?;
        survey::begin(context, &sandbox).await?;
        let attempt = self.attempt(context, &sandbox, first, None).await?;
        self.end(context, &sandbox, first, attempt, Vec::new()).await
    }

    /// Takes up what was under way when the server crashed: the last run that was begun.
    async fn take_up(&self, context: &ToolContext, boot_id: &str) -> Result<ToolResult, ToolError> {
        let line = context.agents.of(self.role);
        let Some(mut place) = line.len().checked_sub(1) else { return Err(ToolError::NotRun) };
        let (sandbox, mut ended, mut follower, pass) = loop {
            let assigned = &line[place];
            let pass = context.agents.open(grant(context, assigned, place));
            match process::find(context, boot_id, assigned, &pass, &run_id(context, place)).await {
                Err(ToolError::NotRun) if place > 0 => place -= 1,
                found => {
                    let (sandbox, ended, follower) = found?;
                    break (sandbox, ended, follower, pass);
                }
            }
        };
        let worker = Worker { context, sandbox: &sandbox, role: self.role, assigned: &line[place], key: pass.token() };
        ended = worker.tell(None, ended, &mut follower).await?;
        drop(pass);
        let mut before = Vec::new();
        for place in 0..place {
            before.extend(kept(context, &sandbox, &given_way_file(&run_id(context, place))).await?);
        }
        let attempt = self.conclude(context, &sandbox, &line[place], follower, ended).await?;
        self.end(context, &sandbox, place, attempt, before).await
    }

    /// Has one agent of the role work, from its prompt to what it came to.
    async fn attempt(
        &self,
        context: &ToolContext,
        sandbox: &Sandbox,
        place: usize,
        begun: Option<&Begun>,
    ) -> Result<Attempt, ToolError> {
        let role = self.role;
        let assigned = &context.agents.of(role)[place];
        let plan = match (role, self.plan) {
            (Role::Plan, _) => None,
            (_, Some(plan)) => Some(plan.to_owned()),
            (_, None) => kept(context, sandbox, PLAN_FILE).await?,
        };
        let diff = if role == Role::Review { survey::diff(context, sandbox, place).await? } else { String::new() };
        let asked = prompt(role, &Brief { task: self.task, plan: plan.as_deref(), diff: &diff, begun });
        let id = run_id(context, place);
        // Whoever goes on begins anew: it may be the same program, whose session its model has refused.
        let before = match begun {
            None => kept(context, sandbox, &session_file(role, assigned)).await?,
            Some(_) => None,
        };
        let session = before.and_then(|id| Session::continued(&id)).unwrap_or_else(|| Session::of_call(&id));

        let pass = context.agents.open(grant(context, assigned, place));
        let worker = Worker { context, sandbox, role, assigned, key: pass.token() };
        let mut follower = Follower::new(context, assigned, &pass, id);
        let ended = worker.ask(&session, asked.clone(), &mut follower).await?;
        let ended = worker.tell(Some((&session, &asked)), ended, &mut follower).await?;
        drop(pass);
        self.conclude(context, sandbox, assigned, follower, ended).await
    }

    /// Says what a run came to, and keeps its session.
    async fn conclude(
        &self,
        context: &ToolContext,
        sandbox: &Sandbox,
        assigned: &Assigned,
        mut follower: Follower,
        ended: Ended,
    ) -> Result<Attempt, ToolError> {
        if !context.cancel.is_cancelled() {
            follower.complete(sandbox, &ended.output).await;
        }
        let elapsed = follower.elapsed();
        let Follower { mut run, seen, process, mut logs, .. } = follower;
        let now = Instant::now();
        run.look(wire(&seen.borrow()), now);
        let Seen { refusal, by_model, .. } = seen.borrow().clone();
        let stopped = context.cancel.is_cancelled() && ended.exit == Exit::Killed;
        let mut outcome = run.outcome(&ended.exit, stopped, now);
        if !outcome.ok {
            outcome.noise.extend(refusal.map(|refusal| format!("The gateway: {refusal}")));
        }
        context.sandboxes.run_ended(&context.address, report::ended(assigned, &outcome));
        if !stopped {
            // A session that could not be gone on with is begun anew the next time.
            let session = outcome.session.as_deref().unwrap_or_default();
            keep(context, sandbox, &session_file(self.role, assigned), session).await?;
        }
        if !stopped {
            logs.extend(exec::whole(context, sandbox, &process, &ended.output).await);
        }
        Ok(Attempt { outcome, stopped, logs, used: by_model.into_iter().collect(), elapsed })
    }

    /// Hands on to the next agent as long as one gives way, then tells what it all came to and keeps what the task needs
    /// of it. `before`: who has given way, a line each.
    async fn end(
        &self,
        context: &ToolContext,
        sandbox: &Sandbox,
        mut place: usize,
        mut attempt: Attempt,
        mut before: Vec<String>,
    ) -> Result<ToolResult, ToolError> {
        let role = self.role;
        let line = context.agents.of(role);
        let mut used = mem::take(&mut attempt.used);
        while attempt.outcome.stalled
            && let Some(next) = line.get(place + 1)
        {
            let told = report::of_one(&line[place], &attempt.outcome, attempt.elapsed);
            keep(context, sandbox, &given_way_file(&run_id(context, place)), &told).await?;
            let notice = report::gives_way(&line[place], &attempt.outcome, next);
            // The result tells it too, where the room does not look.
            let _ = context.progress.send_timeout(ToolProgress::Notice(notice), NOTICE).await;
            before.push(told);
            let begun = Begun {
                by: before.join("\n"),
                todo: attempt.outcome.todo,
                diff: survey::so_far(context, sandbox, place).await?,
            };
            place += 1;
            attempt = self.attempt(context, sandbox, place, Some(&begun)).await?;
            used.append(&mut attempt.used);
        }
        let assigned = &line[place];
        let Attempt { outcome, stopped, logs, elapsed, .. } = attempt;
        if stopped {
            let name = &assigned.agent.name;
            let mut result =
                ToolResult::bad(format!("{role}: {name} stopped"), format!("{name} was {}.", outcome.verdict));
            result.facts.used = used;
            return Ok(result);
        }
        let edits = survey::changes(context, sandbox).await?;
        if role == Role::Plan && outcome.ok {
            keep(context, sandbox, PLAN_FILE, &outcome.summary).await?;
        }
        memory::add(context, sandbox, &report::remembered(role, self.task, assigned, &outcome, edits.as_deref()))
            .await?;
        let mut result = report::told(role, assigned, &outcome, &before, edits, elapsed, &logs);
        result.facts.used = used;
        Ok(result)
    }
}

/// Returns the id of the run of the agent at a place in its role's line.
fn run_id(context: &ToolContext, place: usize) -> String {
    match place {
        0 => context.call.to_string(),
        place => format!("{}-{place}", context.call),
    }
}

fn grant(context: &ToolContext, assigned: &Assigned, place: usize) -> Grant {
    Grant {
        address: context.address.clone(),
        turn: context.turn.clone(),
        person: Some(context.person.clone()),
        agent: assigned.agent.program.clone(),
        run: run_id(context, place),
    }
}
