//! A bot that chats: it answers whoever calls it with what a model says, without tools and without a sandbox.
//!
//! It knows nothing of who serves the model ([`Source`]) and of how messages come. Each thread of a room is a conversation
//! of its own. Fail-closed: its [`Policy`] should list its rooms, and where it is not called it does nothing.

mod failure;
mod guard;
mod history;
mod line;
mod modes;
mod pictures;
mod source;
mod turn;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::Value;

pub(super) use failure::told as failed;
pub(super) use history::request;
pub(crate) use line::{Spoken, spoken};
pub use modes::Mode;
pub use source::{Fixed, Ready, Refused, Source};
pub(super) use turn::without_thinking;

use super::{
    Bot, Ending, Intent, Neighbours, Order, Outcome, People, Permits, Policy, Said, SentFile, TurnJob, Upload,
    UserMessage, names,
};
use crate::{
    ids::{Address, BotName, EventId},
    metrics::AGENTS,
    pictures::Gallery,
    store::{Ceilings, Conversation, Store, StoreError},
    strings,
};
use line::Line;

/// What makes a chat bot, beside its model.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name in the store, which must not change.
    pub name: BotName,
    /// Whom it hears, and where.
    pub policy: Policy,
    /// What people call it in their messages, in any case: the first of these is shown in its help. With `@` before it, each
    /// counts as well. What the chat protocol itself calls the account need not be among them.
    pub called: Vec<String>,
    /// What the model is told before every conversation; may be empty.
    pub system_prompt: String,
    /// How many turns of a conversation the model is told of, beside the question.
    pub history_turns: usize,
    /// The longest answer in tokens; `None` leaves that to the provider.
    pub max_tokens: Option<u64>,
    /// The modes in which it can be asked; the first is the usual one. A mode's limits take the place of the bot's own,
    /// which hold if there is none.
    pub modes: Vec<Mode>,
    /// How many answers may be under way at the same time, over all rooms; others wait in order.
    pub at_once: usize,
    /// Whether models that can leave out their thinking are told to.
    pub no_thinking: bool,
    /// How people are shown what the model has thought.
    pub thinking: Thinking,
    /// With which other bots it shares its ceilings: the name of a group, or a digest of the key that they ask with; never the
    /// key itself.
    pub quota: String,
    /// How often its model may be asked by all who share the quota.
    pub ceilings: Ceilings,
    /// How often one person may ask it, within that.
    pub ceilings_of_person: Ceilings,
    /// People who are surely no programs: what they ask ends the suspicion that two programs answer each other.
    pub listed: People,
}

/// How people are shown what a model has thought before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// Not at all.
    Hidden,
    /// Behind a spoiler.
    Spoiler,
    /// Folded away.
    Folded,
}

impl Settings {
    /// Returns the settings of a bot that is called `called`, with defaults for all else.
    pub fn new(name: impl Into<BotName>, policy: Policy, called: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            quota: name.to_string(),
            name,
            policy,
            called: vec![called.into()],
            system_prompt: String::new(),
            history_turns: 4,
            max_tokens: Some(600),
            modes: vec![],
            at_once: 1,
            no_thinking: false,
            thinking: Thinking::Spoiler,
            ceilings: Ceilings::default(),
            ceilings_of_person: Ceilings::default(),
            listed: People::Listed(vec![]),
        }
    }
}

/// What a chat bot works with.
#[derive(Clone, Debug)]
pub struct Means {
    /// Keeps its conversations.
    pub store: Store,
    /// Keeps the pictures that its model is shown.
    pub gallery: Gallery,
    /// The server's other bots.
    pub neighbours: Neighbours,
}

/// A bot that chats.
pub struct ChatBot {
    settings: Settings,
    /// All that it is called, with `@` and without.
    names: Vec<String>,
    permits: Permits,
    source: Arc<dyn Source>,
    means: Means,
}

/// What a message to the bot means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Help,
    Reset,
    Stop,
    Answer,
}

impl Wish {
    /// Reads what was said to the bot, without its name.
    fn of(words: &str) -> Self {
        let word = words.trim_matches(|c: char| c.is_whitespace() || matches!(c, '.' | '!' | '/' | '`')).to_lowercase();
        match &*word {
            "" | "help" | "?" | "h" => Self::Help,
            "reset" => Self::Reset,
            "stop" => Self::Stop,
            _ => Self::Answer,
        }
    }
}

impl ChatBot {
    /// Returns a bot that asks the models of a source.
    pub fn new(settings: Settings, source: Arc<dyn Source>, means: Means) -> Self {
        AGENTS.add(settings.name.as_str());
        let called = settings.called.iter().filter(|name| !name.is_empty());
        let names = called.flat_map(|name| [name.clone(), format!("@{}", name.trim_start_matches('@'))]).collect();
        let permits = Permits::new(settings.at_once.max(1));
        Self { settings, names, permits, source, means }
    }

    /// Returns whether a message is for it.
    fn is_called(&self, said: &Said<'_>) -> bool {
        let addressed = said.addressed;
        if addressed.mentioned || addressed.replied {
            return true;
        }
        let text = names::said(said.text);
        self.names.iter().any(|name| names::find(&text, name).is_some())
    }

    async fn obey(&self, order: Order) -> String {
        match Wish::of(&order.text) {
            Wish::Reset => match self.forget(&order).await {
                Ok(()) => strings::chat::RESET.to_owned(),
                Err(error) => {
                    tracing::error!(%error, "a conversation could not be forgotten");
                    strings::chat::NOT_RESET.to_owned()
                }
            },
            _ => self.help(),
        }
    }
}

impl ChatBot {
    fn help(&self) -> String {
        let name = self.settings.called.first().map_or("", String::as_str);
        let help = strings::chat::help(name);
        let words: Vec<_> = self.settings.modes.iter().map(|mode| format!("`{}`", mode.word)).collect();
        match words.first() {
            Some(usual) => format!("{help}\n\n{}", strings::chat::modes(name, &words.join(", "), usual)),
            None => help,
        }
    }

    /// Forgets what was said in the thread in which an order was given, or outside of all threads.
    async fn forget(&self, order: &Order) -> Result<(), StoreError> {
        let thread = order.thread.clone();
        self.keep(&order.at, move |mut lines| {
            lines.retain(|line| line.thread() != thread.as_ref());
            Some(lines)
        })
        .await
    }

    /// Keeps of a conversation what `kept` returns; all of it if that is nothing.
    async fn keep(
        &self,
        at: &Conversation,
        kept: impl FnOnce(Vec<Line>) -> Option<Vec<Line>> + Send + 'static,
    ) -> Result<(), StoreError> {
        let edit = move |messages: Vec<Value>| {
            let lines = messages.into_iter().filter_map(|message| serde_json::from_value(message).ok());
            Some(kept(lines.collect())?.iter().map(Line::to_json).collect())
        };
        if self.means.store.edit_context(at, edit).await? {
            let left = self.means.store.history(at).await?.into_iter();
            let mut left = left.filter_map(|line| serde_json::from_value::<Line>(line.message).ok());
            // Pictures are kept by room. Those of threads that are still known are needed.
            if !left.any(|line| line.shows()) {
                self.forget_pictures(&at.address).await;
            }
        }
        Ok(())
    }
}

impl Bot for ChatBot {
    fn name(&self) -> &BotName {
        &self.settings.name
    }

    fn policy(&self) -> &Policy {
        &self.settings.policy
    }

    fn permits(&self) -> &Permits {
        &self.permits
    }

    fn owns_sandbox(&self) -> bool {
        false
    }

    fn streams(&self) -> bool {
        true
    }

    fn intent(&self, said: &Said<'_>) -> Option<Intent> {
        if !self.is_called(said) || self.means.neighbours.is_unanswered(said.sender) {
            return None;
        }
        if said.has_file {
            return Some(Intent::Work);
        }
        let words = self.words(said);
        Some(match Wish::of(modes::read(&words, &self.settings.modes).1) {
            Wish::Help => Intent::Order,
            Wish::Reset => Intent::OrderBetweenTurns,
            Wish::Stop => Intent::Stop,
            Wish::Answer => Intent::Work,
        })
    }

    fn words(&self, said: &Said<'_>) -> String {
        let all: Vec<_> = self.names.iter().chain(&said.addressed.names).cloned().collect();
        names::without(said.text, &all)
    }

    fn greeting(&self) -> Option<String> {
        None
    }

    fn line(&self, message: &UserMessage) -> Value {
        Line::asked(message, &self.settings.modes).to_json()
    }

    fn stopped(&self) -> Outcome {
        Outcome::plain(Ending::Stopped, strings::chat::STOPPED)
    }

    fn turn(&self, job: TurnJob) -> BoxFuture<'_, Option<Outcome>> {
        async move {
            let abandon = job.abandon.clone();
            abandon.run_until_cancelled(Box::pin(self.answer(job))).await?
        }
        .boxed()
    }

    fn carry_out(&self, order: Order) -> BoxFuture<'_, String> {
        self.obey(order).boxed()
    }

    fn keep_file<'a>(
        &'a self,
        at: &'a Address,
        sent: &'a SentFile,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<Upload, String>> {
        self.keep_picture(at, sent, bytes).boxed()
    }

    fn forget<'a>(&'a self, at: &'a Conversation, event: &'a EventId) -> BoxFuture<'a, Result<(), String>> {
        let event = event.clone();
        async move {
            let kept = self.keep(at, move |lines| history::without(lines, &event));
            kept.await.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn left_running<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, Option<String>> {
        async { None }.boxed()
    }

    fn let_go<'a>(&'a self, at: &'a Address, with_files: bool) -> BoxFuture<'a, Result<(), String>> {
        async move {
            if with_files {
                self.forget_pictures(at).await;
            }
            Ok(())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_it_is_work_unless_it_is_one_of_few_words() {
        for (words, wish) in [
            ("", Wish::Help),
            ("?", Wish::Help),
            ("h", Wish::Help),
            ("Help!", Wish::Help),
            ("!reset", Wish::Reset),
            ("Reset.", Wish::Reset),
            ("stop", Wish::Stop),
            ("help me with this", Wish::Answer),
            ("reset the router, how?", Wish::Answer),
            ("hi", Wish::Answer),
            ("2?", Wish::Answer),
        ] {
            assert_eq!(Wish::of(words), wish, "{words}");
        }
    }
}
