//! Has the environment of a repository brought in behind a call that has brought the repository.
//!
//! Looking takes some milliseconds, so it is done after calls that name a clone or took long. Nothing here makes a call
//! fail.

use std::time::Duration;

use super::context::{ToolContext, ToolProgress};
use crate::{
    environments::{Environments, Place},
    strings::environments as words,
    text,
};

/// A call that took so long may have brought a repository.
const LONG: Duration = Duration::from_millis(500);
/// A turn has to be left some of its time.
const LIMIT: Duration = Duration::from_mins(15);

/// Returns what the model is told behind the result of a call with these arguments that took so long; empty if there is
/// nothing to tell.
pub(super) async fn brought(context: &ToolContext, arguments: &str, took: Duration) -> String {
    let Some(environments) = &context.environments else { return String::new() };
    if took < LONG && !arguments.contains("clone") {
        return String::new();
    }
    let work = async {
        let sandbox = context.sandboxes.running(&context.address).await.ok().flatten()?;
        let places = environments.look(&sandbox).await.ok()?;
        let mut told = String::new();
        for place in &places {
            told.push_str("\n\n[matrix-agent] ");
            told.push_str(&bring(context, environments, place).await);
        }
        Some(told)
    };
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => String::new(),
        told = work => told.unwrap_or_default(),
    }
}

async fn bring(context: &ToolContext, environments: &Environments, place: &Place) -> String {
    let (repository, script) = (place.repository(), place.script());
    let tell = |text: String| {
        // A full channel means that the room has not shown the last one yet.
        let _ = context.progress.try_send(ToolProgress::Notice(text));
    };
    let begins = || tell(words::begins(&repository, script));
    match environments.bring(&context.address, place, context.limits.longest.min(LIMIT), begins).await {
        Ok(brought) => {
            let size = text::human_bytes(brought.bytes);
            words::there(&repository, script, &size, brought.made, brought.seconds)
        }
        Err(error) => {
            let told = words::not_there(&repository, &error);
            tracing::info!(room = %context.address, %repository, %error, "a repository has no environment");
            tell(told.clone());
            told
        }
    }
}
