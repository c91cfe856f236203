//! Acts on the stored events: on those about one issue or pull request in the order in which they came, on others at the same time. One
//! that cannot be carried out now holds up those behind it that are about the same, since they may rest on it; after a day it is
//! given up.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Tasks, event::Event};
use crate::{
    backoff::Backoff,
    github::GitHubError,
    hub::{AccountHub, NotMade},
    ids::Address,
    rights::Repository,
    store::{StoreError, StoredHook},
};

/// How many events are acted on at the same time, and how many there may be for one to be tried again.
const AT_ONCE: usize = 8;
const AGAIN: usize = 4;
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

/// What is tried now, or waits to be tried again, by what it is about: of each the oldest event that is not done. Holds no more
/// than the store has waiting.
#[derive(Default)]
struct Line(HashMap<String, Held>);

struct Held {
    /// When it is tried again; `None`: it is being tried.
    until: Option<Instant>,
    pauses: Backoff,
}

impl Line {
    /// Returns of what no event is to be begun: what is tried or waits, and with `again` also what may be tried again.
    fn closed(&self, again: bool) -> Vec<String> {
        let now = Instant::now();
        let is_closed = |held: &Held| again || held.until.is_none_or(|until| until > now);
        self.0.iter().filter(|(_, held)| is_closed(held)).map(|(about, _)| about.clone()).collect()
    }

    /// Notes that one is being tried.
    fn begin(&mut self, about: &str) {
        let fresh = || Held { until: None, pauses: Backoff::new(PAUSE, LONGEST_PAUSE) };
        self.0.entry(about.to_owned()).or_insert_with(fresh).until = None;
    }

    /// Notes that one has to wait; returns whether it is the first time.
    fn wait(&mut self, about: &str) -> bool {
        let Some(held) = self.0.get_mut(about) else { return false };
        let pause = held.pauses.next_pause();
        held.until = Some(Instant::now() + pause);
        pause == PAUSE
    }

    /// Forgets those that may be tried again, if they could be: nothing of theirs waits any more.
    fn forget_due(&mut self, again: bool) {
        let now = Instant::now();
        self.0.retain(|_, held| !again || held.until.is_none_or(|until| until > now));
    }

    /// Returns when the next one is tried again.
    fn next(&self) -> Option<Instant> {
        self.0.values().filter_map(|held| held.until).min()
    }
}

impl Tasks {
    /// Acts on what comes until `cancel`.
    pub(super) async fn act(&self, cancel: &CancellationToken) {
        let _ = cancel.run_until_cancelled(self.act_on_all()).await; // what it does is begun anew by the next process
    }

    async fn act_on_all(&self) {
        let (mut line, mut trying) = (Line::default(), FuturesUnordered::new());
        let mut pauses = Backoff::new(PAUSE, LONGEST_PAUSE);
        loop {
            let came = self.came.notified();
            let mut failed = None;
            while trying.len() < AT_ONCE {
                match self.next(&line, trying.len() < AGAIN).await {
                    Ok(Some(hook)) => {
                        line.begin(&hook.about);
                        trying.push(Box::pin(self.act_on(hook)));
                    }
                    Ok(None) => {
                        line.forget_due(trying.len() < AGAIN);
                        break;
                    }
                    Err(error) => {
                        tracing::error!(%error, "GitHub's events cannot be read");
                        failed = Some(Instant::now() + pauses.next_pause());
                        break;
                    }
                }
            }
            if failed.is_none() {
                pauses.reset();
            }
            // With all places taken, it is the next one that ends who says what is begun.
            let next = failed.or(line.next().filter(|_| trying.len() < AGAIN));
            tokio::select! {
                () = came => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                Some((about, done)) = trying.next() => match done {
                    Ok(()) => drop(line.0.remove(&about)),
                    Err(why) if line.wait(&about) => {
                        tracing::warn!(about, why, "an event of GitHub cannot be acted on now; it is tried again");
                    }
                    Err(_) => {}
                },
            }
        }
    }

    /// Returns the event that is to be begun next: of what nothing is held up first, then, with `again`, what is to be tried again.
    async fn next(&self, line: &Line, again: bool) -> Result<Option<StoredHook>, StoreError> {
        match self.store.next_hook(line.closed(true)).await? {
            None if again => self.store.next_hook(line.closed(false)).await,
            next => Ok(next),
        }
    }

    /// Acts on one event. Returns what it is about, and why it is not done if it is to be tried again.
    async fn act_on(&self, hook: StoredHook) -> (String, Result<(), String>) {
        let StoredHook { seq, about, event, received } = hook;
        let carried_out = match serde_json::from_value(event) {
            Ok(event) => self.carry_out(event).await,
            Err(error) => Err(Undone::Never(format!("a newer version has stored it: {error}"))),
        };
        let clock = self.store.clock();
        let is_old = clock.is_believed() && clock.millis() - received >= TRIED;
        let done = match carried_out {
            Err(Undone::Later(why)) if !is_old => return (about, Err(why)),
            Err(error) => {
                tracing::error!(about, %error, "an event of GitHub is given up");
                self.store.hook_done(seq).await
            }
            Ok(()) => self.store.hook_done(seq).await,
        };
        (about, done.map_err(|error| error.to_string()))
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
