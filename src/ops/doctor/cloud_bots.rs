//! Checks the cloud bots: each one's file, account, endpoint and rooms.

use futures_util::future::{join, join_all};
use tokio_util::sync::CancellationToken;

use super::Check;
use crate::{
    chat::matrix::{Fault, Homeserver},
    config::{CloudBot, CloudBots, Config},
    llm::Listed,
    net,
    ops::settings,
};

const NAME: &str = "cloud bot";

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let CloudBots { bots, refused } = CloudBots::read(config);
    if !config.cloud_bots.enabled {
        let waiting = !bots.is_empty() || !refused.is_empty();
        let what = "there are cloud bots, and ENABLE_CLOUD_BOTS is not set, so that none is served";
        return waiting.then(|| Check::warning(NAME, what, "Set ENABLE_CLOUD_BOTS=true")).into_iter().collect();
    }
    if bots.is_empty() && refused.is_empty() {
        let mend = "`matrix-agent cloud-bot add NAME` makes one";
        return vec![Check::warning(NAME, "ENABLE_CLOUD_BOTS is set, and there is none", mend)];
    }
    let mistakes = refused.iter().flat_map(|refused| {
        let name = &refused.name;
        refused.mistakes.iter().map(move |mistake| {
            let what = format!("`{name}` is not served: {}: {}", mistake.key, mistake.what);
            Check::bad(NAME, what, if mistake.mend.is_empty() { "Mend the setting" } else { &mistake.mend })
        })
    });
    let mut checks: Vec<_> = mistakes.collect();
    // At the same time, so that one that hangs hides no other.
    checks.extend(join_all(bots.iter().map(|bot| check_one(config, bot))).await.into_iter().flatten());
    checks
}

async fn check_one(config: &Config, bot: &CloudBot) -> Vec<Check> {
    // Boxed because the SDK's futures are large.
    let login = settings::cloud_login(config, bot);
    let (account, endpoint) = join(Box::pin(login.examine()), endpoint(config, bot)).await;
    let works = account.homeserver.is_ok() && account.account.is_ok();
    let mut checks = vec![];
    // That the homeserver answers is told with the account.
    checks.extend(account.homeserver.err().map(|fault| bad(bot, fault)));
    checks.push(match account.account {
        Ok(what) => Check::good(NAME, format!("`{}`: {what}", bot.name)),
        Err(fault) => bad(bot, fault),
    });
    checks.push(endpoint);
    if works {
        checks.push(rooms(bot).await);
    }
    checks
}

fn bad(bot: &CloudBot, fault: Fault) -> Check {
    Check::bad(NAME, format!("`{}`: {}", bot.name, fault.what), fault.mend)
}

async fn endpoint(config: &Config, bot: &CloudBot) -> Check {
    let (name, model, file) = (&bot.name, &bot.model, bot.file.display());
    let host = bot.base_url.as_ref().and_then(|url| url.host_str()).unwrap_or("the registry of inference servers");
    let cancel = CancellationToken::new();
    let inference = super::model::inference(config, &cancel);
    let _ends_with_this = cancel.drop_guard();
    let listed = match inference.map(|inference| settings::cloud_model(bot, &inference)) {
        Ok(Ok(model)) => model.look_up().await,
        Ok(Err(error)) => return Check::bad(NAME, format!("`{name}`: {}", error.user_text()), format!("Mend {file}")),
        Err(error) => return Check::bad(NAME, format!("`{name}`: its model cannot be asked"), error.to_string()),
    };
    match listed {
        Listed::NoKey => {
            let what = format!("`{name}`: {host} does not take its key");
            Check::bad(NAME, what, format!("Write another LLM_API_KEY to {file}"))
        }
        Listed::Away(why) => {
            let what = format!("`{name}`: {host} cannot be used now: {why}");
            Check::bad(NAME, what, format!("Check LLM_BASE_URL in {file}, and that the endpoint runs"))
        }
        Listed::HasOthers => {
            let what = format!("`{name}`: {host} does not list `{model}`");
            Check::warning(NAME, what, format!("Check LLM_MODEL in {file}; some endpoints serve more than they list"))
        }
        Listed::Has | Listed::Answers if bot.base_url.as_ref().is_some_and(net::is_plain) => {
            let what =
                format!("`{name}`: everybody on the way to {host} can read the key and what is said in its rooms");
            Check::warning(NAME, what, format!("Write an https:// address to LLM_BASE_URL in {file}"))
        }
        Listed::Has => Check::good(NAME, format!("`{name}`: {host} takes its key and has `{model}`")),
        Listed::Answers => Check::good(NAME, format!("`{name}`: {host} answers, and lists no models")),
    }
}

async fn rooms(bot: &CloudBot) -> Check {
    let (name, file) = (&bot.name, bot.file.display());
    if bot.rooms.is_empty() {
        let what = format!("`{name}`: it works nowhere, since ALLOWED_ROOMS names no room");
        return Check::warning(NAME, what, format!("Write its rooms to {file}"));
    }
    let joined = match Homeserver::at(&bot.homeserver) {
        Ok(homeserver) => homeserver.joined_rooms(&bot.token).await,
        Err(fault) => Err(fault),
    };
    let joined = match joined {
        Ok(joined) => joined,
        Err(fault) => return bad(bot, fault),
    };
    // Where an alias leads is not asked; such a room is told by its number only.
    let ids: Vec<_> = bot.rooms.iter().filter(|room| room.starts_with('!')).collect();
    let missing: Vec<_> = ids.iter().filter(|room| !joined.contains(room)).map(|room| room.as_str()).collect();
    if missing.is_empty() {
        return Check::good(NAME, format!("`{name}`: is in {} rooms, {} are listed", joined.len(), bot.rooms.len()));
    }
    let what = format!("`{name}`: is not in {} yet", missing.join(", "));
    Check::warning(NAME, what, format!("Invite {}", bot.user))
}
