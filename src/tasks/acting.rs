//! Acts on the stored events in the order in which they came. One that cannot be carried out now holds up those behind it, since they
//! may rest on it; after a day it is given up.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Tasks, event::Event};
use crate::{
    backoff::Backoff,
    github::GitHubError,
    hub::{AccountHub, NotMade},
    ids::Address,
    rights::Repository,
    store::StoreError,
};

/// The pauses between tries.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// How long an event is tried, in milliseconds.
const TRIED: i64 = 24 * 60 * 60 * 1000;

/// Why an event was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undone {
    /// It is tried again.
    #[error("{0}")]
    Later(String),
    /// Nothing will change that.
    #[error("{0}")]
    Never(String),
}

impl From<StoreError> for Undone {
    fn from(error: StoreError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<NotMade> for Undone {
    fn from(error: NotMade) -> Self {
        match error {
            NotMade::Away => Self::Later(error.to_string()),
            NotMade::Refused(_) | NotMade::Nowhere => Self::Never(error.to_string()),
        }
    }
}

impl From<GitHubError> for Undone {
    fn from(error: GitHubError) -> Self {
        match error {
            GitHubError::Lost(_) | GitHubError::Limited(_) | GitHubError::BadKey | GitHubError::Strange => {
                Self::Later(error.to_string())
            }
            _ => Self::Never(error.to_string()),
        }
    }
}

impl Tasks {
    /// Acts on what comes until `cancel`.
    pub(super) async fn act(&self, cancel: &CancellationToken) {
        let mut pauses = Backoff::new(PAUSE, LONGEST_PAUSE);
        let mut told = 0;
        loop {
            let came = self.came.notified();
            let (seq, event, received) = match self.store.next_hook().await {
                Ok(Some(next)) => next,
                Ok(None) => match cancel.run_until_cancelled(came).await {
                    Some(()) => continue,
                    None => return,
                },
                Err(error) => {
                    tracing::error!(%error, "GitHub's events cannot be read");
                    match cancel.run_until_cancelled(tokio::time::sleep(pauses.next_pause())).await {
                        Some(()) => continue,
                        None => return,
                    }
                }
            };
            let carried_out = match serde_json::from_value(event) {
                Ok(event) => match cancel.run_until_cancelled(Box::pin(self.carry_out(event))).await {
                    Some(carried_out) => carried_out,
                    None => return,
                },
                Err(error) => Err(Undone::Never(format!("a newer version has stored it: {error}"))),
            };
            let age = self.store.clock().millis() - received;
            match carried_out {
                Err(Undone::Later(why)) if age < TRIED => {
                    if told != seq {
                        tracing::warn!(why, "an event of GitHub cannot be acted on now; it is tried again");
                        told = seq;
                    }
                    if cancel.run_until_cancelled(tokio::time::sleep(pauses.next_pause())).await.is_none() {
                        return;
                    }
                    continue;
                }
                Err(error) => tracing::error!(%error, "an event of GitHub is given up"),
                Ok(()) => {}
            }
            pauses.reset();
            if let Err(error) = self.store.hook_done(seq).await {
                tracing::error!(%error, "that an event of GitHub was acted on cannot be noted");
            }
        }
    }

    async fn carry_out(&self, event: Event) -> Result<(), Undone> {
        let Some(repository) = Repository::parse(event.repository()) else {
            return Err(Undone::Never("its repository has no name".to_owned()));
        };
        match event {
            Event::Labeled { issue, title, text, author, by, .. } => {
                self.labeled(&repository, issue, &title, &text, &author, &by).await
            }
            Event::Commented { issue, comment, text, author, .. } => {
                self.commented(&repository, issue, comment, &text, &author).await
            }
            Event::Failed { branch, commit, check, .. } => self.failed(&repository, &branch, &commit, &check).await,
            Event::Reviewed { pull, review, text, author, .. } => {
                self.reviewed(&repository, pull, review, &text, &author).await
            }
        }
    }

    /// Returns the account to which a room belongs, if it is served.
    pub(super) fn hub_of(&self, at: &Address) -> Result<&AccountHub, Undone> {
        let found = self.hubs.iter().find(|hub| hub.account() == at.account);
        found.ok_or_else(|| Undone::Never(format!("the account {} is not served any more", at.account)))
    }
}
