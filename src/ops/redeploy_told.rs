//! Tells rooms what becomes of an update: that the new version is built, and how it ended. Each once, also across the restart
//! between the two: what was said stands beside what it is about.

use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    hub::AccountHub,
    ids,
    store::StoreError,
    strings::updates as words,
    updates::{Outcome, Record, Said, Step, Tell, UpdateError, Updates, Wanted},
};

/// How often it is looked how far an update has come.
const LOOK: Duration = Duration::from_millis(500);

/// Why something could not be told.
#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error(transparent)]
    Files(#[from] UpdateError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Tells rooms of these accounts until `cancel`.
pub(super) async fn run(updates: Updates, accounts: Vec<AccountHub>, cancel: CancellationToken) {
    let mut failed = false;
    while cancel.run_until_cancelled(time::sleep(LOOK)).await.is_some() {
        match look(&updates, &accounts).await {
            Ok(()) => failed = false,
            Err(error) if !failed => {
                failed = true;
                tracing::error!(%error, "rooms cannot be told of an update");
            }
            Err(_) => {}
        }
    }
}

async fn look(updates: &Updates, accounts: &[AccountHub]) -> Result<(), TellError> {
    let Some(record) = updates.record()? else { return Ok(()) };
    let id = &record.request.id;
    // What cannot be read any more was said, or the outbox takes it once.
    let said = updates.said().ok().flatten().filter(|said| said.id == *id).unwrap_or_default();
    let (built, ended) = due(&record);
    let now = Said { id: id.clone(), built: built.is_some(), ended: ended.is_some() };
    if now == said || record.request.tell.is_empty() {
        return Ok(());
    }
    let mut unsent = false;
    for (what, text, is_said) in [("built", built, said.built), ("ended", ended, said.ended)] {
        let Some(text) = text.filter(|_| !is_said) else { continue };
        for Tell { account, room, thread } in &record.request.tell {
            let Some(hub) = accounts.iter().find(|hub| hub.account() == account) else {
                tracing::warn!(%account, %room, "a room of an account that is not served cannot be told of an update");
                continue;
            };
            let txn = ids::digest(&["update", id, what, account, room.as_str()], 16);
            hub.tell_in_thread(room, thread.clone(), txn.clone(), text.clone()).await?;
            unsent |= hub.is_undelivered(&txn).await?;
        }
    }
    // Whoever replaces this server waits a moment for this word, for what is still in the outbox then comes after the restart.
    if unsent && !now.ended {
        return Ok(());
    }
    updates.keep_said(&now)?;
    Ok(())
}

/// Returns what is to be said by now: that it is built, and how it ended.
fn due(record: &Record) -> (Option<String>, Option<String>) {
    let version = match record.request.wanted {
        Wanted::Back => words::THE_ONE_BEFORE.to_owned(),
        _ => words::version(&record.commit, &record.subject),
    };
    let outcome = record.outcome.as_ref();
    let is_built = match outcome {
        None => record.step > Step::Try,
        Some(outcome) => !matches!(outcome, Outcome::Kept { .. }),
    };
    let ended = outcome.map(|outcome| match outcome {
        Outcome::Done { note } => words::done(&version, note.as_deref()),
        Outcome::Kept { why } => words::kept(&version, why),
        Outcome::Back { why } => words::back(&version, why),
        Outcome::Stuck { why } => words::stuck(&version, why),
    });
    (is_built.then(|| words::built(&version)), ended)
}
