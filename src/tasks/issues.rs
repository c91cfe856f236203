//! An issue becomes a task, and what is written at it, or at a pull request, later reaches its room. Whoever may not write to the repository is not heard.

use super::{Tasks, acting::Undone, event::Person};
use crate::{
    bots::Addressed,
    crash,
    github::GitHub,
    hub::{AccountHub, Body, Inbound},
    ids::{Address, EventId, at_github, digest},
    rights::{Repository, Task},
    store::{StoreError, StoredTask},
    strings::tasks,
};

impl Tasks {
    /// Makes an issue a task, unless it is one.
    pub(super) async fn labeled(
        &self,
        repository: &Repository,
        issue: u64,
        title: &str,
        text: &str,
        author: &Person,
        by: &Person,
    ) -> Result<(), Undone> {
        if !author.belongs || !self.github.may_write(repository, &by.login).await? {
            let (author, by) = (&author.login, &by.login);
            tracing::warn!(%repository, issue, author, by, "an issue was labelled by, or is of, somebody who may not");
            return Ok(());
        }
        let stored = self.store.task(repository.as_str(), issue).await?;
        let task = match stored {
            Some(task) => task,
            None => self.make(repository, issue, title, &by.login).await?,
        };
        crash::point("task-made");
        let purpose = Task { repository: repository.clone(), issue };
        let branch = purpose.branch();
        self.rights.add_task(&task.at, purpose);
        let hub = self.hub_of(&task.at)?;
        let name = |part: &str| digest(&["task", repository.as_str(), &issue.to_string(), part], 16);
        let opened = tasks::opened(repository.as_str(), issue, title, &author.login, &task.labeller, text);
        hub.tell(&task.at.room, name("opened"), opened).await?;
        let order = tasks::order(repository.as_str(), issue, &branch, title, &author.login, text);
        say(hub, &task.at, &name("order"), &at_github(&author.login), order, None).await?;
        crash::point("task-begun");
        self.github.comment(repository, issue, tasks::BEGUN, &name("begun")).await?;
        Ok(())
    }

    /// Makes the room of a task.
    async fn make(&self, repository: &Repository, issue: u64, title: &str, by: &str) -> Result<StoredTask, Undone> {
        let hub = self.hub().ok_or_else(|| Undone::Never("no account is served".to_owned()))?;
        let name = tasks::room(repository.as_str(), issue, title);
        // An issue of the same number in another repository may have the short name at this machine.
        let long = format!("gh-{issue}-{}-{}", repository.owner(), repository.name());
        for key in [format!("gh-{issue}"), long] {
            let room = hub.make_room(&key, &self.key(repository, issue), &name, &self.rules.people).await?;
            let task = StoredTask {
                repository: repository.to_string(),
                issue,
                at: hub.address(room),
                labeller: by.to_owned(),
                told: 0,
            };
            if let Some(task) = self.store.add_task(task).await? {
                tracing::info!(%repository, issue, by, room = %task.at, "an issue is a task now");
                return Ok(task);
            }
        }
        Err(Undone::Never("another task has its room".to_owned()))
    }

    /// Returns the name of a task's room that nobody can guess.
    fn key(&self, repository: &Repository, issue: u64) -> String {
        digest(&["room", self.store.instance(), repository.as_str(), &issue.to_string()], 16)
    }

    /// Passes a comment on to the task of its issue, or to where its pull request comes from.
    pub(super) async fn commented(
        &self,
        repository: &Repository,
        issue: u64,
        comment: u64,
        text: &str,
        author: &Person,
    ) -> Result<(), Undone> {
        // GitHub counts both together, and calls both issues here.
        let task = self.store.task(repository.as_str(), issue).await?;
        let pull = self.store.pull(repository.as_str(), issue).await?;
        let by = &author.login;
        let (at, thread, told, said) = match (task, pull) {
            (Some(task), _) => (task.at, None, tasks::commented(by, text), tasks::comment(issue, by, text)),
            (None, Some(pull)) => {
                let said = tasks::pull_comment(repository.as_str(), issue, &pull.branch, by, text);
                (pull.at, pull.thread, tasks::commented_on(issue, by, text), said)
            }
            (None, None) => return Ok(()),
        };
        if GitHub::wrote(text) || text.is_empty() {
            return Ok(());
        }
        if !author.belongs || !self.github.may_write(repository, by).await? {
            tracing::warn!(%repository, issue, author = by, "a comment is of somebody who may not");
            return Ok(());
        }
        let hub = self.hub_of(&at)?;
        let name = digest(&["comment", repository.as_str(), &comment.to_string()], 16);
        hub.tell(&at.room, format!("{name}-told"), told).await?;
        say(hub, &at, &name, &at_github(by), said, thread).await?;
        Ok(())
    }
}

/// Says something in a room in somebody's name at GitHub, once for each `name`.
pub(super) async fn say(
    hub: &AccountHub,
    at: &Address,
    name: &str,
    sender: &str,
    text: String,
    thread: Option<EventId>,
) -> Result<(), StoreError> {
    let inbound = Inbound {
        room: at.room.clone(),
        event: EventId(at_github(name)),
        sender: sender.to_owned(),
        body: Body::Said { text, thread, about: None, addressed: Addressed::default() },
        sealed: None,
    };
    hub.admit(vec![inbound], None).await.map(drop)
}
