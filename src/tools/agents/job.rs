//! One call of a coding agent, from the first look at the files to the last: which agents of the role work, one after the other
//! where one gives way, and what it all came to.
//!
//! What a call came to is told by the CLI's result and exit code together, and what it changed by the files, before and after.
//! Called by the parent alone.

use std::{mem, time::Duration};

use tokio::time::Instant;

use super::{
    super::{ToolContext, ToolProgress, ToolResult, error::ToolError, exec, memory, survey},
    follower::{self, Follower, wire},
    process::{self, Worker},
    report, staying,
    task::{PLAN_FILE, gave_way_file, given_way_file, keep, kept, session_file},
};
use crate::{
    coding_agents::{Assigned, Begun, Brief, Outcome, Role, Session, asking, prompt},
    gateway::models::{Grant, Seen},
    ledger,
    sandbox::{Ended, Exit, Sandbox},
};

/// How long the room may take to see that an agent gives way.
const NOTICE: Duration = Duration::from_secs(1);
/// How long an agent that has given way is left out in its task, where others serve its role.
const REMEMBERED: Duration = Duration::from_mins(10);

/// What a call is to do.
pub(super) struct Job<'a> {
    pub(super) role: Role,
    /// The task, or what a review is to look at.
    pub(super) task: &'a str,
    /// The plan, if one was given in place of the last.
    pub(super) plan: Option<&'a str>,
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
    /// What was told of it when it gave way, before the server crashed.
    gave_way: Option<String>,
}

impl Job<'_> {
    /// Has the agents of the role do it, from the first look at the files to the last.
    pub(super) async fn work(&self, context: &ToolContext) -> Result<ToolResult, ToolError> {
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
        let (place, before) = self.first_to_try(context, &sandbox, first).await?;
        let attempt = Box::pin(self.attempt(context, &sandbox, place, None)).await?;
        self.end(context, &sandbox, place, attempt, before).await
    }

    /// Returns who begins, from a place in the role's line on: not those that have given way in this task a short while ago,
    /// of whom a line each is returned, unless nobody else is left.
    async fn first_to_try(
        &self,
        context: &ToolContext,
        sandbox: &Sandbox,
        first: usize,
    ) -> Result<(usize, Vec<String>), ToolError> {
        let line = context.agents.of(self.role);
        let mut left_out = Vec::new();
        for (place, assigned) in line.iter().enumerate().skip(first) {
            if place + 1 == line.len() {
                break;
            }
            let since = kept(context, sandbox, &gave_way_file(assigned)).await?;
            let since = since.and_then(|since| since.trim().parse::<i64>().ok());
            let ago = since.map(|since| context.store.clock().millis().saturating_sub(since));
            match ago.and_then(|ago| u64::try_from(ago).ok()).map(Duration::from_millis) {
                Some(ago) if ago < REMEMBERED => left_out.push(report::left_out(assigned, ago)),
                _ => return Ok((place, left_out)),
            }
        }
        // All but the last have given way: that one has not, or it is as good as any.
        if line.len() > first + 1 { Ok((line.len() - 1, left_out)) } else { Ok((first, Vec::new())) }
    }

    /// Takes up what was under way when the server crashed: the last run that was begun.
    pub(super) async fn take_up(&self, context: &ToolContext, boot_id: &str) -> Result<ToolResult, ToolError> {
        let line = context.agents.of(self.role);
        let Some(mut place) = line.len().checked_sub(1) else { return Err(ToolError::NotRun) };
        let stored = follower::kept(context).await;
        let (sandbox, mut ended, mut follower, pass) = 'found: loop {
            let (assigned, run) = (&line[place], run_id(context, place));
            let stored = stored.as_ref().filter(|stored| stored.id == run);
            // Of an agent before the last one nothing is stored any more.
            let firsts =
                stored.map_or_else(|| staying::possible(assigned, &run), |stored| vec![stored.clone().first()]);
            for first in firsts {
                let pass = context.agents.open(grant(context, assigned, &first.key));
                match Box::pin(process::find(context, boot_id, assigned, &pass, (&run, first, stored))).await {
                    Err(ToolError::NotRun) => {}
                    found => {
                        let (sandbox, ended, follower) = found?;
                        break 'found (sandbox, ended, follower, pass);
                    }
                }
            }
            place = place.checked_sub(1).ok_or(ToolError::NotRun)?;
        };
        let worker = Worker { context, sandbox: &sandbox, role: self.role, assigned: &line[place], key: pass.token() };
        ended = Box::pin(worker.tell(None, ended, &mut follower)).await?;
        drop(pass);
        let mut before = Vec::new();
        for place in 0..place {
            before.extend(kept(context, &sandbox, &given_way_file(&run_id(context, place))).await?);
        }
        let mut attempt = self.conclude(context, &sandbox, &line[place], follower, ended).await?;
        // It had given way already, and the next one has not begun.
        attempt.gave_way = kept(context, &sandbox, &given_way_file(&run_id(context, place))).await?;
        attempt.outcome.stalled |= attempt.gave_way.is_some() && !attempt.stopped && !attempt.outcome.ok;
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

        if begun.is_none() {
            let question = asking::next(&asked);
            if let Some(left) = staying::find(context, sandbox, role, assigned, &question).await? {
                let pass = context.agents.open(grant(context, assigned, &left.first.key));
                let worker = Worker { context, sandbox, role, assigned, key: pass.token() };
                let mut follower = Follower::new(context, assigned, &pass, id.clone(), left.first.clone());
                let ended = worker.ask_left(left, question, &mut follower).await?;
                if !follower.unasked() {
                    let ended = worker.tell(Some((&session, &asked)), ended, &mut follower).await?;
                    drop(pass);
                    return self.conclude(context, sandbox, assigned, follower, ended).await;
                }
            }
        }
        let first = staying::first(context, sandbox, role, assigned, &id);
        let pass = context.agents.open(grant(context, assigned, &id));
        let worker = Worker { context, sandbox, role, assigned, key: pass.token() };
        let mut follower = Follower::new(context, assigned, &pass, id, first);
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
        ended: Option<Ended>,
    ) -> Result<Attempt, ToolError> {
        match &ended {
            Some(ended) if !context.cancel.is_cancelled() => follower.complete(sandbox, &ended.output).await,
            Some(_) => {}
            None => staying::leave(context, sandbox, self.role, assigned, &follower).await?,
        }
        let elapsed = follower.elapsed();
        let Follower { mut run, seen, process, mut logs, .. } = follower;
        let now = Instant::now();
        run.look(wire(&seen.borrow()), now);
        let Seen { refusal, by_model, .. } = seen.borrow().clone();
        let exit = ended.as_ref().map(|ended| &ended.exit);
        let stopped = context.cancel.is_cancelled() && exit == Some(&Exit::Killed);
        let mut outcome = run.outcome(exit, stopped, now);
        if self.role != Role::Implement {
            outcome.must_say_something();
        }
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
            logs.extend(match &ended {
                Some(ended) => exec::whole(context, sandbox, &process, &ended.output).await,
                None => Some(staying::log(&process)),
            });
        }
        Ok(Attempt { outcome, stopped, logs, used: by_model.into_iter().collect(), elapsed, gave_way: None })
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
            let told = attempt.gave_way.take();
            let told = told.unwrap_or_else(|| report::of_one(&line[place], &attempt.outcome, attempt.elapsed));
            keep(context, sandbox, &given_way_file(&run_id(context, place)), &told).await?;
            let now = context.store.clock().millis().to_string();
            keep(context, sandbox, &gave_way_file(&line[place]), &now).await?;
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
            attempt = Box::pin(self.attempt(context, sandbox, place, Some(&begun))).await?;
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

/// Returns what an agent needs to reach its model, with the key that is named after a run.
fn grant(context: &ToolContext, assigned: &Assigned, run: &str) -> Grant {
    Grant {
        address: context.address.clone(),
        turn: context.turn.clone(),
        person: Some(context.person.clone()),
        agent: assigned.agent.program.clone(),
        run: run.to_owned(),
    }
}
