//! Serves the Nextcloud Talk bot: one webhook, and an account for those who chat; one more for the coding agent, where it is to
//! work in some conversations.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use super::settings;
use crate::{
    bots::{
        Bot, Coder,
        chat::{self, ChatBot},
    },
    chat::nextcloud::{PATH, ROOMS, Talk, TalkSettings},
    config::{self, Config, TALK_ACCOUNTS},
    http::{HttpServer, Names},
    hub::{Account, AccountHub, Inbox, Keeper, Port},
    ids::BotName,
    rights::Rights,
};

/// Deliveries, and messages to fetch, that may be queued for an account.
const QUEUE: usize = 256;

/// A bot that is not served yet. Nextcloud can connect already.
pub(super) struct Listening {
    settings: config::Talk,
    /// `None` if the server's own HTTP server listens at the same address.
    http: Option<HttpServer>,
    /// The coding agent, if it is to work in some conversations.
    coder: Option<Coder>,
}

/// What serving needs.
pub(super) struct Means {
    pub(super) chat: chat::Means,
    pub(super) keeper: Keeper,
    pub(super) rights: Rights,
}

impl Means {
    /// Begins an account with one bot.
    async fn account(
        &self,
        name: &str,
        bot: Arc<dyn Bot>,
        rights: Option<Rights>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> anyhow::Result<(AccountHub, Inbox)> {
        let (port, inbox) = Port::new(ROOMS, QUEUE);
        let account = Account { name: name.to_owned(), bots: vec![bot], ports: vec![port], rights };
        let (store, keeper) = (self.chat.store.clone(), self.keeper.clone());
        let hub = AccountHub::start(account, store, keeper, tasks.clone(), cancel.clone()).await?;
        Ok((hub, inbox))
    }
}

impl Listening {
    /// Reads the bot's file, and listens where it says, unless another server listens at that address (`shared`) already. `None` if
    /// there is no bot, or its file cannot be used, which is told in the log.
    ///
    /// # Errors
    ///
    /// The address cannot be listened at, and nobody else is served. Where others are, the log tells it.
    pub(super) async fn begin(
        config: &Config,
        coder: Option<&Coder>,
        shared: Option<SocketAddr>,
    ) -> anyhow::Result<Option<Self>> {
        let settings = match config::Talk::read(config) {
            Ok(Some(settings)) => settings,
            Ok(None) => return Ok(None),
            Err(refused) => {
                tracing::error!("the Nextcloud Talk bot is not served, since its file cannot be used: {refused}");
                return Ok(None);
            }
        };
        let coder = settings.coder.as_ref().zip(coder).map(|(rules, coder)| coder.hearing(settings::talk_coder(rules)));
        if settings.coder.is_some() && coder.is_none() {
            tracing::warn!("the coding agent is not served, so it does not work in CODER_CONVERSATIONS either");
        }
        let http = if shared == Some(settings.listen) {
            None
        } else {
            // Whatever its name is there: a request counts by its signature alone.
            match HttpServer::bind(settings.listen, Names::every())
                .await
                .map_err(|error| error.of("BOT_HOST or BOT_PORT"))
            {
                Ok(server) => Some(server),
                Err(error) if settings::only_talk(config) => return Err(error.into()),
                Err(error) => {
                    tracing::error!("the Nextcloud Talk bot is not served; the others are: {error}");
                    return Ok(None);
                }
            }
        };
        Ok(Some(Self { settings, http, coder }))
    }

    /// Returns its bots, by account.
    pub(super) fn bots(&self) -> impl Iterator<Item = (String, BotName)> {
        let [chat, coder] = TALK_ACCOUNTS;
        let coding = self.coder.as_ref().map(|bot| (coder.to_owned(), bot.name().clone()));
        [(chat.to_owned(), BotName::from(chat))].into_iter().chain(coding)
    }

    /// Serves the bot; returns the hubs of its accounts. On the server with other pages its own are at [`PATH`].
    pub(super) async fn serve(
        self,
        means: Means,
        shared: Option<&mut HttpServer>,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Vec<AccountHub>> {
        let Self { settings, http, coder } = self;
        let (chat, source) = settings::talk(&settings)?;
        let chatting: Arc<dyn Bot> = Arc::new(ChatBot::new(chat, Arc::new(source), means.chat.clone()));
        let (first, in_first) = means.account(TALK_ACCOUNTS[0], chatting, None, tasks, cancel).await?;
        let second = match coder {
            Some(coder) => {
                Some(means.account(TALK_ACCOUNTS[1], Arc::new(coder), Some(means.rights.clone()), tasks, cancel).await?)
            }
            None => None,
        };
        let config::Talk { listen, nextcloud, secret, called, direct, coder: rules, .. } = settings;
        let conversations = rules.map(|rules| rules.conversations).unwrap_or_default();
        let reached = TalkSettings { nextcloud: nextcloud.clone(), secret, called, direct, second: conversations };
        let hub_of_second = second.as_ref().map(|(hub, _)| hub.clone());
        let talk = Talk::new(reached, first.clone(), hub_of_second).context("Nextcloud cannot be asked by TLS.")?;
        let accounts = [(first, in_first)].into_iter().chain(second);
        let mut hubs = Vec::new();
        for (hub, inbox) in accounts {
            let running = Arc::clone(&talk).run(hub.clone(), inbox, cancel.clone());
            tasks.spawn(running.instrument(hub.span()));
            hubs.push(hub);
        }
        tasks.spawn(Arc::clone(&talk).learn(cancel.clone()));
        match (http, shared) {
            (Some(mut own), _) => {
                own.add(talk.pages(true));
                tasks.spawn(own.serve(cancel.clone()));
            }
            (None, Some(shared)) => shared.add(talk.pages(false)),
            (None, None) => anyhow::bail!("Nothing listens at {listen}, where Nextcloud's webhook comes ({PATH})."),
        }
        tracing::info!(address = %listen, %nextcloud, "Nextcloud Talk is served");
        Ok(hubs)
    }
}
