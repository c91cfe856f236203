//! Tells issues how their tasks go: a short comment for each turn that somebody's words at GitHub have begun, once.

use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{Tasks, acting::Undone};
use crate::{
    backoff::Backoff,
    crash,
    github::secrets,
    hub::{Ending, Live, Outbound},
    ids::is_at_github,
    rights::Repository,
    store::StoredTask,
    strings::tasks,
    text,
};

/// The most characters of an answer that are told.
const LONGEST: usize = 2000;
/// The pauses after a failure.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

impl Tasks {
    /// Tells what there is to tell, at the start and whenever a turn has ended, until `cancel`.
    pub(super) async fn tell_issues(&self, cancel: &CancellationToken) {
        let Some(hub) = self.hub() else { return };
        let mut live = hub.watch();
        let mut pauses = Backoff::new(PAUSE, LONGEST_PAUSE);
        loop {
            match cancel.run_until_cancelled(Box::pin(self.tell_all())).await {
                None => return,
                Some(Ok(())) => pauses.reset(),
                Some(Err(error)) => {
                    tracing::warn!(%error, "issues cannot be told now; it is tried again");
                    if cancel.run_until_cancelled(tokio::time::sleep(pauses.next_pause())).await.is_none() {
                        return;
                    }
                    continue;
                }
            }
            let ended = async {
                loop {
                    match live.recv().await {
                        Ok(live) if matches!(live.live, Live::Ended { .. }) => return true,
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => return true,
                        Err(RecvError::Closed) => return false,
                    }
                }
            };
            if cancel.run_until_cancelled(ended).await != Some(true) {
                return;
            }
        }
    }

    async fn tell_all(&self) -> Result<(), Undone> {
        for task in self.store.tasks_with_news().await? {
            match self.tell(&task).await {
                // Others can still be told.
                Err(Undone::Never(why)) => {
                    tracing::warn!(repository = task.repository, issue = task.issue, why, "an issue cannot be told");
                }
                told => told?,
            }
        }
        Ok(())
    }

    async fn tell(&self, task: &StoredTask) -> Result<(), Undone> {
        let Some(repository) = Repository::parse(&task.repository) else { return Ok(()) };
        for (seq, txn, payload) in self.store.answers_after(&task.at, task.told).await? {
            if let Ok(Outbound::Answer { text, ending, sender, .. }) = serde_json::from_value(payload)
                && is_at_github(&sender)
            {
                let pull = self.store.pull_of_room(&task.at).await?.filter(|pull| pull.repository == task.repository);
                let said =
                    tasks::ended(ending == Ending::Done, pull.as_ref().map(|pull| pull.url.as_str()), &shown(&text));
                let told = self.github.comment(&repository, task.issue, &said, &format!("{txn}-issue")).await;
                match told.map_err(Undone::from) {
                    Err(Undone::Never(why)) => {
                        tracing::warn!(%repository, issue = task.issue, why, "an issue cannot be told");
                    }
                    told => drop(told?),
                }
                crash::point("issue-told");
            }
            self.store.task_told(&task.repository, task.issue, seq).await?;
        }
        Ok(())
    }
}

/// Returns an answer as a comment may hold it: short, calling nobody, and without what looks like a secret.
fn shown(answer: &str) -> String {
    if secrets::find(answer.as_bytes()).is_some() {
        return tasks::IN_THE_ROOM.to_owned();
    }
    let cut = text::cut_middle(answer.trim(), LONGEST);
    // A word joiner keeps names from being called.
    cut.replace('@', "@\u{2060}").replace("<!--", "<\u{2060}!--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_short_calls_nobody_and_holds_no_secret() {
        assert_eq!(shown(" Done, @ann. "), "Done, @\u{2060}ann.");
        assert!(shown(&"x".repeat(10_000)).chars().count() < LONGEST + 200);
        let secret = format!("ghp_{}", ('a'..='z').chain('0'..='9').collect::<String>());
        assert_eq!(shown(&format!("The key is {secret}")), tasks::IN_THE_ROOM);
        assert!(!crate::github::GitHub::wrote(&shown("<!-- matrix-agent 12 -->")));
    }
}
