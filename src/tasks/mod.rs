//! Issues at GitHub that become tasks, and what GitHub tells of pull requests that were opened from rooms.
//!
//! GitHub's events come by the webhook, are stored before they are confirmed, and are acted on, those about one issue one after another and
//! each as often as it takes: whatever is done about one has a name, and is done once. What people write at GitHub goes into the rooms' journals like
//! what they write in chat; what the bot answers goes back to the issue as a comment. Knows no chat protocol and no model.

mod acting;
pub mod event;
mod issues;
mod pulls;
mod telling;
mod webhook;

use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::webhook::Secret;
use crate::{github::GitHub, http::Pages, hub::AccountHub, rights::Rights, store::Store};

/// What the operator has set.
#[derive(Clone, Debug)]
pub struct TaskRules {
    /// The webhook's secret.
    pub secret: SecretString,
    /// The label that makes an issue a task.
    pub label: String,
    /// Who is invited to tasks' rooms.
    pub people: Vec<String>,
    /// How many turns failed checks of a pull request begin.
    pub rounds: u32,
}

/// The tasks of a server.
pub struct Tasks {
    store: Store,
    github: GitHub,
    rights: Rights,
    /// The accounts, of which the first has the tasks' rooms.
    hubs: Vec<AccountHub>,
    secret: Secret,
    rules: TaskRules,
    /// Tells that an event was stored.
    came: Notify,
}

impl Tasks {
    /// Returns the tasks of these accounts; `None` without an account.
    pub fn new(
        store: Store,
        github: GitHub,
        rights: Rights,
        hubs: Vec<AccountHub>,
        rules: TaskRules,
    ) -> Option<Arc<Self>> {
        let secret = Secret::new(&rules.secret);
        (!hubs.is_empty()).then(|| Arc::new(Self { store, github, rights, hubs, secret, rules, came: Notify::new() }))
    }

    /// Returns the page at which GitHub's events come.
    pub fn pages(self: &Arc<Self>) -> Pages {
        webhook::pages(self.clone())
    }

    /// Acts on the events, those of an earlier process first, and tells issues what became of them, until `cancel`.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        tokio::join!(self.act(&cancel), self.tell_issues(&cancel));
    }

    /// Returns the account that has the tasks' rooms.
    fn hub(&self) -> Option<&AccountHub> {
        self.hubs.first()
    }
}
