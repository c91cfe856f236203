//! What GitHub tells of pull requests that were opened from rooms: a check that failed, a review. Each begins a turn in the room, and in
//! the thread, from which the pull request comes.

use super::{Tasks, acting::Undone, event::Person, issues::say};
use crate::{
    crash,
    github::GitHub,
    ids::{at_github, digest},
    rights::Repository,
    strings::tasks,
};

impl Tasks {
    /// Lets the room of a branch's pull request mend what a check says of its newest commit, as often as the operator allows it.
    pub(super) async fn failed(
        &self,
        repository: &Repository,
        branch: &str,
        commit: &str,
        check: &str,
    ) -> Result<(), Undone> {
        let Some(pull) = self.store.pull_of_branch(repository.as_str(), branch).await? else { return Ok(()) };
        if self.rules.rounds == 0 {
            return Ok(());
        }
        let hub = self.hub_of(&pull.at)?;
        let now = self.github.pull(repository, pull.number).await?;
        let number = pull.number.to_string();
        let name = |part: &str| digest(&["round", repository.as_str(), &number, part], 16);
        if !now.open {
            hub.tell(&pull.at.room, name("closed"), tasks::closed(pull.number, check)).await?;
            return Ok(());
        }
        // Of an older commit, or of somebody's fork.
        if now.head != commit {
            return Ok(());
        }
        let rounds = self.store.count_round(repository.as_str(), pull.number, commit).await?;
        crash::point("round-counted");
        if rounds > self.rules.rounds {
            hub.tell(&pull.at.room, name("enough"), tasks::enough(pull.number, check, self.rules.rounds)).await?;
            return Ok(());
        }
        hub.tell(&pull.at.room, name(&format!("{commit}-told")), tasks::failed_told(pull.number, check)).await?;
        let text = tasks::failed(repository.as_str(), pull.number, branch, check, rounds, self.rules.rounds);
        say(hub, &pull.at, &name(commit), &at_github(repository.as_str()), text, pull.thread).await?;
        crash::point("round-begun");
        Ok(())
    }

    /// Passes a review on, with all its comments at once.
    pub(super) async fn reviewed(
        &self,
        repository: &Repository,
        number: u64,
        review: u64,
        text: &str,
        author: &Person,
    ) -> Result<(), Undone> {
        let Some(pull) = self.store.pull(repository.as_str(), number).await? else { return Ok(()) };
        if !author.belongs || !self.github.may_write(repository, &author.login).await? {
            tracing::warn!(%repository, number, author = author.login, "a review is of somebody who may not");
            return Ok(());
        }
        let text = if GitHub::wrote(text) { "" } else { text };
        let comments = self.github.review_comments(repository, number, review).await?;
        if text.is_empty() && comments.is_empty() {
            return Ok(());
        }
        let hub = self.hub_of(&pull.at)?;
        let name = digest(&["review", repository.as_str(), &review.to_string()], 16);
        if !self.github.pull(repository, number).await?.open {
            hub.tell(&pull.at.room, format!("{name}-closed"), tasks::closed_for(number, &author.login)).await?;
            return Ok(());
        }
        hub.tell(&pull.at.room, format!("{name}-told"), tasks::reviewed_told(number, &author.login)).await?;
        let comments: Vec<_> = comments.into_iter().map(|comment| (comment.place, comment.text)).collect();
        let text = tasks::reviewed(repository.as_str(), number, &pull.branch, &author.login, text, &comments);
        say(hub, &pull.at, &name, &at_github(&author.login), text, pull.thread).await?;
        Ok(())
    }
}
