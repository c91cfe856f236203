//! Asks the room whether a plan may be carried out, where the operator wants that (`PLAN_APPROVAL`).
//!
//! The yes is for this very plan in this turn. Whoever would have it changed says so in their own words: the question ends, and
//! the model is shown them. Called by the parent alone.

use std::time::Duration;

use super::{
    super::{ToolContext, error::ToolError},
    task::{PLAN_FILE, kept},
};
use crate::{
    ids,
    rights::{Act, Answerer, DETAILS, Question, Refusal},
    strings, text,
};

/// How long somebody has to answer. The turn waits meanwhile.
const ANSWER: Duration = Duration::from_hours(1);
/// How often the same plan may be asked about in a turn, after words in place of an answer.
const TIMES: usize = 8;
/// Characters of a plan's first line that name it.
const TITLE: usize = 100;

/// Returns the plan, which `answerer` has approved; `given` is the one that the model wrote in place of the task's.
pub(super) async fn approved(
    context: &ToolContext,
    given: Option<&str>,
    answerer: Answerer,
) -> Result<String, ToolError> {
    let plan = match given {
        Some(plan) => Some(plan.to_owned()),
        None => kept(context, &context.sandbox().await?, PLAN_FILE).await?,
    };
    let Some(plan) = plan.filter(|plan| !plan.trim().is_empty()) else {
        return Err(ToolError::Refused(
            "Nothing was run: here a person approves a plan before it is carried out, and there is none. Call plan first."
                .to_owned(),
        ));
    };
    if plan.len() > DETAILS {
        return Err(ToolError::Refused(format!(
            "Nothing was run: a person approves a plan before it is carried out, and this one is too long to be shown whole. Have it \
             written in {DETAILS} bytes at most, or in parts."
        )));
    }
    let first = plan.lines().map(|line| line.trim_matches(['#', '*', ' '])).find(|line| !line.is_empty());
    let question = Question {
        for_task: false,
        key: ids::digest(&[&plan], 16),
        act: Act::Implement,
        what: strings::rights::carry_out(&text::one_line(first.unwrap_or_default(), TITLE)),
        why: String::new(),
        details: plan.clone(),
        answerer,
    };
    for time in 0..TIMES {
        let again = Question { key: format!("{} {time}", question.key), ..question.clone() };
        // A word of somebody ends the wait, a stop ends everything.
        let end = context.cancel.child_token();
        let permit = context.rights.permit(&context.address, again, ANSWER, &end);
        tokio::pin!(permit);
        let answer = tokio::select! {
            biased;
            answer = &mut permit => answer,
            () = context.heard.cancelled() => {
                end.cancel();
                permit.await
            }
        };
        match answer {
            Ok(()) => return Ok(plan),
            Err(Refusal::Stopped(_)) if context.cancel.is_cancelled() => return Err(ToolError::Stopped),
            Err(Refusal::Stopped(_)) if end.is_cancelled() => {
                return Err(ToolError::Refused(
                    "Nothing was run: in place of a yes to the plan somebody has said something, which you are shown next. \
                     If it asks for changes, call plan again with them; else call implement again."
                        .to_owned(),
                ));
            }
            // It ended without an answer before, by words that the model has seen since.
            Err(Refusal::Stopped(_)) => {}
            Err(Refusal::Denied(_)) => {
                return Err(ToolError::Refused(
                    "Nothing was run: the plan was not approved. Ask what should be different, and wait for the answer."
                        .to_owned(),
                ));
            }
            Err(Refusal::Unanswered(_)) => {
                return Err(ToolError::Refused(
                    "Nothing was run: nobody has approved the plan within an hour. Say that it waits for that; do not try again by \
                     yourself."
                        .to_owned(),
                ));
            }
            Err(refusal) => return Err(ToolError::Refused(refusal.to_string())),
        }
    }
    Err(ToolError::Refused("Nothing was run: this plan was asked about often enough. Say that, and end.".to_owned()))
}
