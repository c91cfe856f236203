//! Checks exobot: its account, the program and the file of its model, and its rooms.

use tokio_util::sync::CancellationToken;

use super::Check;
use crate::{
    chat::matrix::{Fault, Homeserver},
    config::{Config, ExobotAccount},
    inference::engine::{Binary, Looked, look},
    llm::Listed,
    ops::{exobot, settings},
};

const NAME: &str = "exobot";

pub(super) async fn check(config: &Config) -> Vec<Check> {
    if !config.exobot.enabled {
        let what = "it has an account, and ENABLE_EXOBOT is not set, so that it is not served";
        let is_there = ExobotAccount::path(config).exists();
        return is_there.then(|| Check::warning(NAME, what, "Set ENABLE_EXOBOT=true")).into_iter().collect();
    }
    let mut checks = vec![model(config).await];
    match ExobotAccount::read(config) {
        Ok(account) => checks.extend(examined(config, &account).await),
        Err(refused) => checks.extend(refused.0.iter().map(|mistake| {
            let what = format!("it is not served: {}: {}", mistake.key, mistake.what);
            Check::bad(NAME, what, if mistake.mend.is_empty() { "Mend the setting" } else { &mistake.mend })
        })),
    }
    checks
}

/// Looks at what serves its model, and starts nothing.
async fn model(config: &Config) -> Check {
    match exobot::registry_model(config) {
        Ok(None) => {}
        Ok(Some(name)) => return of_registry(config, name).await,
        Err(two) => return Check::bad(NAME, two.to_string(), "See docs/exobot.md"),
    }
    let options = match exobot::options(config, "") {
        Ok(options) => options,
        Err(missing) => {
            return Check::bad(NAME, missing.to_string(), "See docs/exobot.md for what you have to bring along");
        }
    };
    let shown = match &options.binary {
        Binary::Native(path) => path.display().to_string(),
        Binary::Image { image, .. } => image.clone(),
    };
    match look(&options).await {
        Looked::Good => Check::good(NAME, format!("{shown} and the model are there; the first question starts them")),
        Looked::NoProgram(why) => Check::bad(NAME, why, "Build llama.cpp on this machine, and set LLAMA_SERVER_BIN"),
        Looked::NoImage(why) => Check::bad(NAME, why, "Fetch it with `podman pull` as whom the server runs as"),
        Looked::NoModel(why) => Check::bad(NAME, why, "Set MODEL_PATH to a GGUF file"),
    }
}

/// Asks the registry for the model that exobot asks.
async fn of_registry(config: &Config, name: &str) -> Check {
    let cancel = CancellationToken::new();
    let inference = super::model::inference(config, &cancel);
    let _ends_with_this = cancel.drop_guard();
    match inference {
        Ok(inference) => match settings::exobot_model(name, &inference).look_up().await {
            Listed::Has | Listed::Answers => Check::good(NAME, format!("`{name}` of the registry answers")),
            Listed::Away(why) => {
                Check::bad(NAME, format!("`{name}` cannot be used now: {why}"), "Check it with `/lbe` in a room")
            }
            Listed::NoKey | Listed::HasOthers => {
                Check::bad(NAME, format!("the registry has no `{name}`"), "Check EXOBOT_MODEL and `/lbm` in a room")
            }
        },
        Err(error) => Check::bad(NAME, "its model cannot be asked", error.to_string()),
    }
}

async fn examined(config: &Config, account: &ExobotAccount) -> Vec<Check> {
    // Boxed because the SDK's futures are large.
    let login = settings::exobot_login(config, account);
    let examined = Box::pin(login.examine()).await;
    let works = examined.homeserver.is_ok() && examined.account.is_ok();
    let mut checks: Vec<_> = examined.homeserver.err().map(bad).into_iter().collect();
    checks.push(examined.account.map_or_else(bad, |what| Check::good(NAME, what)));
    if works {
        checks.push(rooms(config, account).await);
    }
    checks
}

fn bad(fault: Fault) -> Check {
    Check::bad(NAME, fault.what, fault.mend)
}

async fn rooms(config: &Config, account: &ExobotAccount) -> Check {
    let rooms = &config.exobot.rooms;
    if rooms.is_empty() {
        let what = "it works nowhere, since EXOBOT_ALLOWED_ROOMS names no room";
        return Check::warning(NAME, what, "Write its rooms to EXOBOT_ALLOWED_ROOMS");
    }
    let joined = match Homeserver::at(&account.homeserver) {
        Ok(homeserver) => homeserver.joined_rooms(&account.token).await,
        Err(fault) => Err(fault),
    };
    let joined = match joined {
        Ok(joined) => joined,
        Err(fault) => return bad(fault),
    };
    // Where an alias leads is not asked; such a room is told by its number only.
    let missing: Vec<_> =
        rooms.iter().filter(|room| room.starts_with('!') && !joined.contains(room)).cloned().collect();
    if missing.is_empty() {
        return Check::good(NAME, format!("is in {} rooms, {} are listed", joined.len(), rooms.len()));
    }
    Check::warning(NAME, format!("is not in {} yet", missing.join(", ")), format!("Invite {}", account.user))
}
