//! The bot for guests: everybody in a room that is public in the registry may begin sessions anew with `/lbn`, and that
//! is all it takes from them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::Value;

use super::{Asker, LocalBot, LocalCommand};
use crate::{
    bots::{
        Bot, Ending, Intent, Order, Outcome, People, Permits, Places, Policy, Said, SentFile, TurnJob, Upload,
        UserMessage, command::Command, policy::Passers,
    },
    ids::{Address, BotName},
    strings,
};

/// The bot's name in the store.
const NAME: &str = "lbn";

/// The bot for guests.
pub struct Guests {
    local: LocalBot,
    name: BotName,
    policy: Policy,
    permits: Permits,
}

impl Guests {
    /// Returns the bot, which stands behind the coding bot on its account.
    pub fn new(local: LocalBot) -> Self {
        let registry = local.inference.registry().clone();
        let passers = Passers { rooms: Arc::new(move |room| registry.is_public(room)), words: is_reset };
        let policy = Policy::new(People::Passing(passers), Places::Listed(vec![]));
        Self { local, name: BotName::from(NAME), policy, permits: Permits::new(1) }
    }
}

fn is_reset(text: &str) -> bool {
    matches!(Command::of(text), Some(Command::Local(LocalCommand::New(_))))
}

impl Bot for Guests {
    fn name(&self) -> &BotName {
        &self.name
    }

    fn policy(&self) -> &Policy {
        &self.policy
    }

    fn permits(&self) -> &Permits {
        &self.permits
    }

    fn owns_sandbox(&self) -> bool {
        false
    }

    fn intent(&self, said: &Said<'_>) -> Option<Intent> {
        (!said.has_file && is_reset(said.text)).then_some(Intent::Order)
    }

    fn greeting(&self) -> Option<String> {
        None
    }

    fn line(&self, _: &UserMessage) -> Value {
        Value::Null
    }

    fn stopped(&self) -> Outcome {
        Outcome::plain(Ending::Stopped, strings::turns::STOPPED_BEFORE)
    }

    fn turn(&self, _: TurnJob) -> BoxFuture<'_, Option<Outcome>> {
        // It wants no work, so that it has no turns.
        async { None }.boxed()
    }

    fn carry_out(&self, order: Order) -> BoxFuture<'_, String> {
        async move {
            match Command::of(&order.text) {
                Some(Command::Local(command)) => self.local.carry_out(&command, Asker::Guest).await,
                _ => String::new(),
            }
        }
        .boxed()
    }

    fn keep_file<'a>(&'a self, _: &'a Address, _: &'a SentFile, _: Bytes) -> BoxFuture<'a, Result<Upload, String>> {
        async { Err(strings::localbot::NO_FILES.to_owned()) }.boxed()
    }

    fn left_running<'a>(&'a self, _: &'a Address) -> BoxFuture<'a, Option<String>> {
        async { None }.boxed()
    }

    fn let_go<'a>(&'a self, _: &'a Address, _: bool) -> BoxFuture<'a, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
}
