//! `self_update`: the newest version of the program takes the place of the one that serves, once an administrator has said yes to the
//! very commit. It is done by a process that is no part of the server (`updates`); here it is asked for, and its end waited for, which
//! comes when another server than the one that asked is there.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time;

use super::{Access, Tool, ToolContext, ToolLimits, ToolResult, context::ToolProgress, error::ToolError};
use crate::{
    crash,
    ids::{EventId, digest},
    rights::{Act, Answerer, Decision, Question, Refusal, Why},
    strings::updates as words,
    updates::{Found, Newer, Outcome, Record, Request, Step, Tell, UpdateError, Updates, Wanted},
};

/// How long it may take until somebody has looked what there is.
const LOOK: Duration = Duration::from_mins(3);
/// How long somebody has to say yes or no.
const ANSWER: Duration = Duration::from_mins(30);
/// How often it is looked what the other process has written.
const PAUSE: Duration = Duration::from_millis(300);

pub(super) struct SelfUpdate;

/// For the model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Why, in a sentence
    reason: String,
}

/// What a call has asked for, stored before it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    request: Request,
}

impl Tool for SelfUpdate {
    const NAME: &'static str = "self_update";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str = r#"{"reason":"Anna asked for the newest version"}"#;
    const OWN_TIME: bool = true;
    type Arguments = Arguments;

    fn description(_limits: &ToolLimits, _vision: bool) -> String {
        "Replace the server's own program by its branch's newest version and restart it, when an administrator asks for \
         that: they confirm the commit. Never for programs in the sandbox."
            .to_owned()
    }

    fn label(_arguments: &Arguments) -> String {
        "self_update".to_owned()
    }

    async fn run(context: &ToolContext, arguments: Arguments) -> Result<ToolResult, ToolError> {
        let updates = updates(context)?;
        if let Decision::Refused(Why::Asker(_)) = checked(context).await? {
            let asker = Refusal::Asker(words::REPLACE.to_owned());
            return Err(ToolError::Refused(asker.to_string()));
        }
        let newer = match look(context, updates).await? {
            Found::Newer(newer) => newer,
            Found::Newest { commit } => {
                let text =
                    format!("Nothing to do: {} serves, and there is nothing newer.", words::version(&commit, ""));
                return Ok(ToolResult::good("self_update: nothing newer", text));
            }
            Found::Refused { why } => return Err(ToolError::Refused(format!("Not updated. {why}"))),
        };
        permitted(context, &arguments.reason, &newer).await?;
        let id = digest(&["self_update", context.call.as_str()], 8);
        let wanted = Wanted::Commit { commit: newer.commit, named: false };
        let request = Request { id, wanted, tell: vec![place(context).await?] };
        let asked = serde_json::to_value(Asked { request: request.clone() }).unwrap_or_default();
        context.store.keep_call_state(&context.call, asked).await.map_err(|error| unstored(&error))?;
        crash::point("self-update-intended");
        updates.ask(&request).map_err(unasked)?;
        ended(context, updates, &request).await
    }

    async fn resume(context: &ToolContext, _arguments: Arguments, _boot_id: &str) -> Result<ToolResult, ToolError> {
        let updates = updates(context)?;
        let state = context.store.call_state(&context.call).await.map_err(|error| unstored(&error))?;
        let Some(Asked { request }) = state.and_then(|state| serde_json::from_value(state).ok()) else {
            return Err(ToolError::NotRun);
        };
        let is_known = mine(updates, &request).map_err(unasked)?.is_some()
            || updates.asked().map_err(unasked)?.is_some_and(|asked| asked.id == request.id);
        if !is_known {
            updates.ask(&request).map_err(unasked)?;
        }
        ended(context, updates, &request).await
    }
}

fn updates(context: &ToolContext) -> Result<&Updates, ToolError> {
    context.updates.as_ref().ok_or_else(|| {
        ToolError::Refused(
            "Not updated: only administrators may ask for that, on a server that was installed as a service."
                .to_owned(),
        )
    })
}

async fn checked(context: &ToolContext) -> Result<Decision, ToolError> {
    context.rights.check(&context.address, &Act::SelfUpdate).await.map_err(|error| unstored(&error))
}

fn unstored(error: &crate::store::StoreError) -> ToolError {
    tracing::error!(%error, "what an update needs cannot be stored or read");
    ToolError::Refused("Not updated: the server's database does not work now. Try again later.".to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
fn unasked(error: UpdateError) -> ToolError {
    ToolError::Refused(format!("Not updated. {error}"))
}

/// Has the other process look what there is.
async fn look(context: &ToolContext, updates: &Updates) -> Result<Found, ToolError> {
    let id = digest(&["self_update look", context.call.as_str()], 8);
    updates.ask(&Request { id: id.clone(), wanted: Wanted::Look, tell: vec![] }).map_err(unasked)?;
    let plan = until(context, || Ok(updates.plan()?.filter(|plan| plan.id == id)));
    let Ok(plan) = time::timeout(LOOK, plan).await else {
        updates.answered().map_err(unasked)?;
        let why = "Not updated: nobody has looked what there is. On the server, `systemctl status \
                   matrix-agent-redeploy.path matrix-agent-redeploy.service` says why.";
        return Err(ToolError::Refused(why.to_owned()));
    };
    Ok(plan?.found)
}

/// Waits for something that the other process writes, or for the call's end.
async fn until<T>(context: &ToolContext, look: impl Fn() -> Result<Option<T>, UpdateError>) -> Result<T, ToolError> {
    let found = async {
        loop {
            if let Some(found) = look().map_err(unasked)? {
                return Ok(found);
            }
            time::sleep(PAUSE).await;
        }
    };
    stoppable(context, found).await
}

async fn stoppable<T>(context: &ToolContext, work: impl Future<Output = Result<T, ToolError>>) -> Result<T, ToolError> {
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(ToolError::Stopped),
        worked = work => worked,
    }
}

/// Asks for a yes to the very commit.
async fn permitted(context: &ToolContext, reason: &str, newer: &Newer) -> Result<(), ToolError> {
    let question = Question {
        key: context.call.to_string(),
        act: Act::SelfUpdate,
        what: words::to_replace(&newer.commit, &newer.subject, newer.count),
        why: crate::text::one_line(reason, 200),
        details: newer.commits.join("\n"),
        answerer: Answerer::Anybody,
        for_task: false,
    };
    context.rights.permit(&context.address, question, ANSWER, &context.cancel).await.map_err(|refusal| match refusal {
        Refusal::Stopped(_) => ToolError::Stopped,
        refusal => ToolError::Refused(refusal.to_string()),
    })
}

/// Returns where people are told what becomes of it: where it was asked for.
async fn place(context: &ToolContext) -> Result<Tell, ToolError> {
    let said = context.store.claimed(&context.turn).await.map_err(|error| unstored(&error))?;
    let thread = said.first().and_then(|said| said.body["thread"].as_str()).map(EventId::from);
    let (account, room) = (context.address.account.clone(), context.address.room.clone());
    Ok(Tell { account, room, thread })
}

fn mine(updates: &Updates, request: &Request) -> Result<Option<Record>, UpdateError> {
    Ok(updates.record()?.filter(|record| record.request.id == request.id))
}

/// Waits until it has ended, most likely as another server than the one that has asked.
async fn ended(context: &ToolContext, updates: &Updates, request: &Request) -> Result<ToolResult, ToolError> {
    let shown = Mutex::new(None);
    let outcome = until(context, || {
        let Some(record) = mine(updates, request)? else { return Ok(None) };
        let before = shown.lock().unwrap_or_else(PoisonError::into_inner).replace(record.step);
        if before != Some(record.step) && record.step < Step::Ended {
            // A full channel means that the room has not shown the last one yet.
            let line = words::step(record.step == Step::Build).to_owned();
            let _ = context.progress.try_send(ToolProgress::Output(line));
        }
        Ok(record.outcome.map(|outcome| (outcome, record.commit, record.subject)))
    });
    let (outcome, commit, subject) = outcome.await?;
    let version = words::version(&commit, &subject);
    // The room was told in the same words by the server itself.
    Ok(match outcome {
        Outcome::Done { note } => {
            ToolResult::good("self_update: the new version serves", words::done(&version, note.as_deref()))
        }
        Outcome::Kept { why } => ToolResult::bad("self_update: not replaced", words::kept(&version, &why)),
        Outcome::Back { why } => ToolResult::bad("self_update: went back", words::back(&version, &why)),
        Outcome::Stuck { why } => ToolResult::bad("self_update: stuck", words::stuck(&version, &why)),
    })
}
