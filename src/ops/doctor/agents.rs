//! Checks the coding agents' keys: says what each is for; asks no provider.

use super::Check;
use crate::{
    config::{Config, Provider},
    net, ops,
};

/// A key and what depends on it.
struct Key<'a> {
    /// The check's name.
    name: &'static str,
    setting: &'static str,
    address: &'static str,
    agent: &'static str,
    /// What the agent does without the key.
    without: String,
    provider: &'a Provider,
}

pub(super) fn check(config: &Config) -> Vec<Check> {
    let own = if ops::has_model(config) {
        format!("Qwen Code asks `{}`, the orchestrator's model, with its key", config.llm.model)
    } else {
        "Qwen Code has no model to ask".to_owned()
    };
    let keys = [
        Key {
            name: "Gemini's key",
            setting: "GEMINI_API_KEY",
            address: "GEMINI_BASE_URL",
            agent: "Gemini CLI",
            without: "Gemini CLI has no model to ask. Google's personal logins do not serve it any more, a key does"
                .to_owned(),
            provider: &config.gemini,
        },
        Key {
            name: "Qwen's key",
            setting: "DASHSCOPE_API_KEY",
            address: "QWEN_BASE_URL",
            agent: "Qwen Code",
            without: format!("{own}. Qwen's free logins do not serve it any more, a key does"),
            provider: &config.qwen,
        },
    ];
    let others = ops::other_agents(config).into_iter().map(|agent| {
        let asks = if ops::has_model(config) {
            format!("asks `{}`, the orchestrator's model, with its key and no login", config.llm.model)
        } else {
            "has no model to ask".to_owned()
        };
        let (name, program) = (&agent.name, &agent.program);
        Check::good(
            "other coding agents",
            format!("{name} {asks}; SANDBOX_IMAGE has to have `{program}` (docs/agents)"),
        )
    });
    keys.iter().flat_map(Key::checks).chain(others).collect()
}

impl Key<'_> {
    fn checks(&self) -> Vec<Check> {
        let Self { name, setting, agent, provider, .. } = self;
        if provider.api_key.is_none() {
            return vec![Check::good(name, format!("{setting} is not set: {}", self.without))];
        }
        let host = provider.base_url.host_str().unwrap_or_default();
        let models = provider.models.join(", ");
        let what =
            format!("{setting} is set: the gateway adds it where {agent} asks {host} for {models}; no sandbox has it");
        let plain = net::is_plain(&provider.base_url).then(|| {
            let what = format!("everybody on the way to {host} can read {setting} and what {agent} is told");
            Check::warning(
                name,
                what,
                format!("Set {} to an https:// address, or reach the server through a tunnel", self.address),
            )
        });
        [Check::good(name, what)].into_iter().chain(plain).collect()
    }
}
