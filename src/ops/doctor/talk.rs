//! Checks the Nextcloud Talk bot: its file, the server and what it was given there, its model.

use std::collections::BTreeSet;

use futures_util::future::join;

use super::Check;
use crate::{
    chat::nextcloud::{Api, TalkError, TalkFeatures},
    config::{Config, Talk},
    llm::{Listed, Model},
    net,
    ops::settings,
};

const NAME: &str = "Nextcloud Talk";
/// How the bot is installed, as far as that is always the same.
const INSTALL: &str = "occ talk:bot:install --feature webhook --feature response NAME SECRET URL";

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let talk = match Talk::read(config) {
        Ok(None) => return vec![],
        Ok(Some(talk)) => talk,
        Err(refused) => {
            let mistakes = refused.mistakes.iter().map(|mistake| {
                let what = format!("the bot is not served: {}: {}", mistake.key, mistake.what);
                Check::bad(NAME, what, if mistake.mend.is_empty() { "Mend the setting" } else { &mistake.mend })
            });
            return mistakes.collect();
        }
    };
    let (mut checks, model) = join(server(&talk), model(&talk)).await;
    checks.push(model);
    checks
}

/// Looks at the server and, where it tells that, at what the bot was given in each conversation that is known.
async fn server(talk: &Talk) -> Vec<Check> {
    let url = &talk.nextcloud;
    let api = match Api::new(url, &talk.secret) {
        Ok(api) => api,
        Err(error) => {
            return vec![Check::bad(
                NAME,
                format!("no TLS can be spoken: {error}"),
                "Check the machine's certificates",
            )];
        }
    };
    let capabilities = match api.capabilities().await {
        Ok(capabilities) => capabilities,
        Err(error) => {
            let mend = format!("Check NEXTCLOUD_URL in {}, and that Nextcloud runs", talk.file.display());
            return vec![Check::bad(NAME, format!("{url}: {error}"), mend)];
        }
    };
    if !capabilities.bots {
        let what = format!("{url} has no Talk with bots");
        return vec![Check::bad(NAME, what, "Install Talk 17.1 or newer there, and check NEXTCLOUD_URL")];
    }
    let mut checks = vec![];
    if net::is_plain(url) {
        let what = format!("everybody on the way to {url} can read what is said, though not forge it");
        checks.push(Check::warning(NAME, what, "Write an https:// address to NEXTCLOUD_URL"));
    }
    let coder = talk.coder.iter().flat_map(|coder| &coder.conversations);
    let known: BTreeSet<_> = talk.direct.iter().chain(coder).collect();
    if !capabilities.tells_features || known.is_empty() {
        let why = if capabilities.tells_features {
            "it tells what a bot was given in conversations of DIRECT_CONVERSATIONS and CODER_CONVERSATIONS only"
        } else {
            "before Talk 25 it does not tell what a bot was given"
        };
        checks.push(Check::good(NAME, format!("{url} has Talk with bots; {why}: it is installed by `{INSTALL}`")));
        return checks;
    }
    // One after another: each that is refused counts against this machine.
    for conversation in known {
        let features = api.features(conversation).await;
        let refused = matches!(features, Err(TalkError::Unknown | TalkError::Limited(_)));
        checks.push(given(conversation, features));
        if refused {
            break;
        }
    }
    checks
}

/// Returns what the bot was given in a conversation.
fn given(conversation: &str, features: Result<TalkFeatures, TalkError>) -> Check {
    match features {
        Ok(TalkFeatures { webhook: true, response: true }) => {
            Check::good(NAME, format!("`{conversation}`: the bot is told of messages and may answer"))
        }
        Ok(TalkFeatures { response: false, .. }) => {
            let what = format!(
                "`{conversation}`: the bot may not answer, since it was installed without `--feature response`"
            );
            Check::bad(NAME, what, format!("Remove it with `occ talk:bot:uninstall`, and install it anew: `{INSTALL}`"))
        }
        Ok(TalkFeatures { webhook: false, .. }) => {
            let what = format!(
                "`{conversation}`: the bot is told nothing, since it was installed without `--feature webhook`"
            );
            Check::bad(NAME, what, format!("Remove it with `occ talk:bot:uninstall`, and install it anew: `{INSTALL}`"))
        }
        Err(error @ (TalkError::Unknown | TalkError::Limited(_))) => {
            let what = format!("`{conversation}`: {error}");
            let mend =
                "Add the bot in the conversation's settings, and compare the secret with that of its installation";
            Check::bad(NAME, what, mend)
        }
        Err(error) => {
            let what = format!("`{conversation}`: what the bot was given there is not known: {error}");
            Check::warning(NAME, what, "Look again later")
        }
    }
}

async fn model(talk: &Talk) -> Check {
    let (model, file) = (&talk.model, talk.file.display());
    let host = talk.base_url.host_str().unwrap_or_default();
    let listed = match Model::new(settings::talk_model(talk)) {
        Ok(model) => model.look_up().await,
        Err(error) => return Check::bad(NAME, error.user_text(), format!("Mend {file}")),
    };
    match listed {
        Listed::NoKey => {
            Check::bad(NAME, format!("{host} does not take its key"), format!("Write MODEL_API_KEY to {file}"))
        }
        Listed::Away(why) => {
            let what = format!("the model at {host} cannot be used now: {why}");
            Check::bad(NAME, what, format!("Check MODEL_BASE_URL in {file}, and that the endpoint runs"))
        }
        Listed::HasOthers => {
            let what = format!("{host} does not list `{model}`");
            Check::warning(NAME, what, format!("Check MODEL_NAME in {file}; some endpoints serve more than they list"))
        }
        Listed::Has => Check::good(NAME, format!("{host} has `{model}`")),
        Listed::Answers => Check::good(NAME, format!("{host} answers, and lists no models")),
    }
}
