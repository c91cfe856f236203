//! All mistakes in the settings at once, for what they are needed for.

use crate::{
    chat::matrix::has_session,
    coding_agents::Profiles,
    config::{Config, Loaded, Mistakes, Talk, Wrong, account_setting, hears_nobody},
    environments::{self, BadSecrets},
    gateway::{
        AllowedHosts,
        models::{BadUpstream, Protocol},
    },
    github::Repositories,
    http::Names,
    ids::FIRST_ACCOUNT,
};

use super::{
    chat_bots::coder_in_talk,
    models::{endpoint, has_key, has_model, is_local, profiles, upstream},
    web::{GitHubMistake, WebhookMistake, github_key, webhook_secret},
};

/// What the settings are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For what needs only valid values: `config`, the demo, administration.
    Anything,
    /// For a chat in the terminal with the configured model.
    Chat,
    /// For the server.
    Run,
}

/// Returns all mistakes in the settings for `purpose`.
pub(crate) fn review(loaded: &Loaded, purpose: Purpose) -> Mistakes {
    let mut review = Review { loaded, purpose, mistakes: loaded.mistakes.clone() };
    review.model();
    review.providers();
    review.agents();
    review.sandboxes();
    review.github();
    review.talk();
    review.web();
    review.folders();
    review.mistakes
}

struct Review<'a> {
    loaded: &'a Loaded,
    purpose: Purpose,
    mistakes: Mistakes,
}

impl Review<'_> {
    /// Adds what is wrong with a setting, unless something is wrong with it already.
    fn add(&mut self, key: &str, wrong: Wrong) {
        if !self.mistakes.has(key) {
            self.mistakes.add(key, self.loaded.source(key), wrong);
        }
    }

    fn model(&mut self) {
        let config = &self.loaded.config;
        match endpoint(config) {
            // The coding agent is not served then, so it needs no model.
            Ok(_) if self.purpose == Purpose::Run && only_chat_bots(config) => {}
            // The registry may change at any time, and tells its mistakes by itself.
            _ if is_local(config) => {}
            Ok(endpoint) if self.purpose != Purpose::Anything && !has_key(config, &endpoint) => {
                let mend = "Write the key into `.env`, or choose a model of your own with LLM_MODEL (`ollama/…`, \
                            `llama-cpp/…`) or LLM_BASE_URL";
                let unread = self.loaded.unread.iter().map(|file| format!("{file}; {}", file.mend()));
                let mend = std::iter::once(mend.to_owned()).chain(unread).collect::<Vec<_>>().join(". ");
                let what = format!("it is not set, and `{}` needs a key", config.llm.model);
                self.add("LLM_API_KEY", Wrong::new(what, mend));
            }
            Ok(_) => {}
            Err(error) => self.add(error.key, Wrong::new(error.problem, "")),
        }
    }

    fn providers(&mut self) {
        let config = &self.loaded.config;
        for (protocol, provider, [key, address, models]) in [
            (Protocol::Gemini, &config.gemini, ["GEMINI_API_KEY", "GEMINI_BASE_URL", "GEMINI_MODELS"]),
            (Protocol::OpenAi, &config.qwen, ["DASHSCOPE_API_KEY", "QWEN_BASE_URL", "QWEN_MODELS"]),
        ] {
            if let Err(error) = upstream(protocol, provider) {
                let name = match error {
                    BadUpstream::Key => key,
                    BadUpstream::Address => address,
                    BadUpstream::Model => models,
                };
                self.add(name, Wrong::new(error.to_string(), ""));
            }
        }
    }

    fn agents(&mut self) {
        let config = &self.loaded.config;
        for profile in &config.profiles {
            if let Err(error) = Profiles::check(&profile.entries) {
                let key = format!("agents.{}", profile.name);
                self.mistakes.add(&key, Some(profile.source.clone()), Wrong::new(error.to_string(), ""));
            }
        }
        let profiles = profiles(config);
        for (role, agent, fallback) in [
            (&config.agents.plan, "PLAN_AGENT", "PLAN_FALLBACK"),
            (&config.agents.implement, "IMPLEMENT_AGENT", "IMPLEMENT_FALLBACK"),
            (&config.agents.review, "REVIEW_AGENT", "REVIEW_FALLBACK"),
        ] {
            for (choice, key) in role.all().zip([agent].into_iter().chain(std::iter::repeat(fallback))) {
                if profiles.of(&choice.agent).is_none() {
                    let what = format!("there is no coding agent `{}`", choice.agent);
                    self.add(key, Wrong::new(what, format!("Write one of `{}`", profiles.names().join("`, `"))));
                }
            }
        }
    }

    fn sandboxes(&mut self) {
        let sandbox = &self.loaded.config.sandbox;
        if let Err(error) = AllowedHosts::parse(&sandbox.allowed_hosts) {
            self.add("SANDBOX_ALLOWED_HOSTS", Wrong::new(error.to_string(), ""));
        }
        if let Some(file) = &sandbox.setup_secrets {
            match environments::find(file) {
                // Others than the server's user cannot look for it, and need not.
                Err(BadSecrets::Unreadable(_)) if self.purpose == Purpose::Anything => {}
                Ok(()) => {}
                Err(error) => {
                    self.add("SETUP_SECRETS", Wrong::new(format!("{}: {error}", file.display()), error.mend()));
                }
            }
        }
    }

    fn github(&mut self) {
        const BOTH: &str = "Set both or neither";
        let config = &self.loaded.config;
        match github_key(config) {
            // Others than the server's user cannot read the file, and need not.
            Err(GitHubMistake::File(_)) if self.purpose == Purpose::Anything => {}
            Ok(_) => {}
            Err(GitHubMistake::Half) if config.github.app.is_none() => {
                self.add("GITHUB_APP_ID", Wrong::new("it is not set, and GITHUB_APP_KEY is", BOTH));
            }
            Err(GitHubMistake::Half) => {
                self.add("GITHUB_APP_KEY", Wrong::new("it is not set, and GITHUB_APP_ID is", BOTH));
            }
            Err(error) => {
                self.add("GITHUB_APP_KEY", Wrong::new(error.to_string(), "Download a new one in the App's settings"));
            }
        }
        if let Err(error) = Repositories::parse(&config.github.repositories) {
            self.add("GITHUB_REPOS", Wrong::new(error.to_string(), ""));
        }
    }

    /// Looks at the Talk bot's own file if nobody else is served; where others are, they start, and the log tells.
    fn talk(&mut self) {
        let config = &self.loaded.config;
        if self.purpose == Purpose::Run
            && only_talk(config)
            && let Err(refused) = Talk::read(config)
        {
            for mistake in refused.mistakes.iter() {
                let wrong = Wrong::new(mistake.what.clone(), mistake.mend.clone());
                self.mistakes.add(&mistake.key, mistake.source.clone(), wrong);
            }
        }
    }

    /// Looks at what directories hold, which the server's user alone can and need do.
    fn folders(&mut self) {
        if self.purpose == Purpose::Run {
            for (key, error) in self.loaded.config.paths.shared() {
                self.add(key, Wrong::new(error.to_string(), ""));
            }
        }
    }

    fn web(&mut self) {
        let config = &self.loaded.config;
        if let Err(error) = Names::parse(&config.http.names) {
            self.add("HTTP_NAMES", Wrong::new(error.to_string(), ""));
        }
        if config.http.listen.is_none() && !config.http.names.is_empty() {
            let what = "it is not set, and HTTP_NAMES is, so that nobody could ask by these names";
            self.add("HTTP_LISTEN", Wrong::new(what, "Write a port, such as `8090`, or remove HTTP_NAMES"));
        }
        if config.tasks.secret.is_none() {
            return;
        }
        match webhook_secret(config) {
            Err(WebhookMistake::File(_)) if self.purpose == Purpose::Anything => {}
            Ok(_) => {}
            Err(error) => {
                self.add("GITHUB_WEBHOOK_SECRET", Wrong::new(error.to_string(), "Write it anew there and at GitHub"));
            }
        }
        if config.http.listen.is_none() {
            let what = "it is not set, and GITHUB_WEBHOOK_SECRET is, so that no event would come";
            let mend = "Write a port, such as `8090`, and let a proxy pass `/webhook/github` on to it";
            self.add("HTTP_LISTEN", Wrong::new(what, mend));
        }
        if matches!(github_key(config), Ok(None)) {
            let what = "it is not set, and GITHUB_WEBHOOK_SECRET is: nobody could tell who may write to a repository";
            self.add("GITHUB_APP_ID", Wrong::new(what, "Set it with GITHUB_APP_KEY, or set GITHUB_TOKEN"));
        }
    }
}

/// Returns what a server needs besides so that somebody reaches it in a room: an account, its password or a session, a homeserver to
/// which the password may be sent, and somebody to hear. A server for the terminal alone runs without.
pub(crate) fn review_rooms(loaded: &Loaded) -> Mistakes {
    let (config, mut mistakes) = (&loaded.config, Mistakes::default());
    if only_chat_bots(config) {
        return mistakes;
    }
    if config.all_accounts().next().is_none() && coder_in_talk(config).is_none() {
        let mend = "Run `scripts/setup-synapse.sh`, or name the bot's account";
        mistakes.add("MATRIX_USER", None, Wrong::new("it is not set, so the server would be in no room", mend));
        if loaded.source("MATRIX_PASSWORD").is_none() {
            mistakes.add("MATRIX_PASSWORD", None, Wrong::new("it is not set", "Write the password of that account"));
        }
        if let Some(deaf) = hears_nobody(FIRST_ACCOUNT, &config.people) {
            mistakes.add(&account_setting(FIRST_ACCOUNT, "allowed_users"), None, deaf);
        }
    }
    for (name, matrix, people) in config.all_accounts() {
        if let Some(refused) = matrix.password_refused(name) {
            mistakes.add(&account_setting(name, "homeserver"), None, refused);
        }
        if let Some(deaf) = hears_nobody(name, people) {
            mistakes.add(&account_setting(name, "allowed_users"), None, deaf);
        }
        if matrix.password.is_none() && !has_session(&config.paths.state_dir, name) {
            let key =
                if name == FIRST_ACCOUNT { "MATRIX_PASSWORD".to_owned() } else { format!("accounts.{name}.password") };
            let what = format!("it is not set, and {} has no stored session to go on with", matrix.user);
            mistakes.add(&key, None, Wrong::new(what, format!("Write the password of {}", matrix.user)));
        }
    }
    mistakes
}

/// Returns whether the server serves bots that only chat, those of the cloud or of Nextcloud Talk or exobot: neither an account nor
/// a model of the coding agent is set, nor is it to work in Nextcloud Talk.
pub(crate) fn only_chat_bots(config: &Config) -> bool {
    (config.cloud_bots.enabled || config.exobot.enabled || Talk::is_set_up(config))
        && config.all_accounts().next().is_none()
        && !has_model(config)
        && coder_in_talk(config).is_none()
}

/// Returns whether the server serves the Nextcloud Talk bot and nobody else.
pub(in crate::ops) fn only_talk(config: &Config) -> bool {
    only_chat_bots(config) && !config.cloud_bots.enabled && !config.exobot.enabled
}
