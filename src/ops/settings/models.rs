//! The models that the settings name: the orchestrator's, and those of coding agents.

use std::{collections::BTreeSet, num::NonZeroU64, sync::Arc};

use reqwest::Url;
use secrecy::SecretString;

use crate::{
    coding_agents::{CodingAgent, CodingAgents, Profiles, Roster},
    config::{self, Config, ModelFacts, Provider},
    gateway::models::{BadUpstream, Chosen, ModelDoor, Protocol, Upstream},
    inference::{self, Inference},
    ledger::{Ledger, Prices},
    llm::{self, DemoModel, Endpoint, LlmError, Model, ModelSettings, SettingError, parse_model},
    ops::local_models::LocalModel,
};

/// Returns whether the orchestrator's model is one of the registry of inference servers.
pub(crate) fn is_local(config: &Config) -> bool {
    is_of_registry(&config.llm.model)
}

/// Returns the orchestrator's model: at its address, or of the registry.
pub(crate) fn model(config: &Config, inference: &Inference) -> Result<Model, LlmError> {
    let settings = model_settings(config);
    if is_local(config) { Ok(inference.model(settings)) } else { Model::new(settings) }
}

/// Returns whether a model can be asked: a key is set, or none is needed.
pub(crate) fn has_model(config: &Config) -> bool {
    if is_local(config) {
        return true;
    }
    endpoint(config).is_ok_and(|endpoint| has_key(config, &endpoint))
}

pub(super) fn endpoint(config: &Config) -> Result<Endpoint, SettingError> {
    parse_model(&config.llm.model, config.llm.base_url.as_ref().map(Url::as_str))
}

/// Returns whether the endpoint has a key or may need none. If an operator's own server needs one after all, its
/// answer says so.
pub(super) fn has_key(config: &Config, endpoint: &Endpoint) -> bool {
    config.llm.api_key.is_some() || config.llm.base_url.is_some() || endpoint.key_variable().is_none()
}

/// Returns the settings of the model's client.
pub fn model_settings(config: &Config) -> ModelSettings {
    let key = config.llm.api_key.clone().unwrap_or_else(|| SecretString::from(""));
    let (idle, usual) = (config.llm.idle, llm::ModelLimits::default());
    ModelSettings {
        limits: llm::ModelLimits {
            idle,
            first_token: usual.first_token.max(idle),
            whole: usual.whole.max(idle),
            ..usual
        },
        base_url: config.llm.base_url.as_ref().map(ToString::to_string),
        vision: config.llm.facts.vision,
        context_window: config.llm.facts.context_window.map(NonZeroU64::get),
        ..ModelSettings::new(config.llm.model.clone(), key)
    }
}

/// Returns the coding agents' profiles.
pub(super) fn profiles(config: &Config) -> Profiles {
    Profiles::new(config.profiles.iter().map(|profile| (&*profile.name, &profile.entries)))
}

/// Returns the coding agents' way to their models. It fails only for settings that [`review`] has refused.
pub(in crate::ops) fn models(config: &Config, ledger: Ledger, inference: &Inference) -> Result<ModelDoor, BadUpstream> {
    let mut upstreams = Vec::new();
    let endpoint = endpoint(config).ok().filter(|endpoint| has_key(config, endpoint));
    let own = endpoint.as_ref().map(Endpoint::model);
    for (protocol, provider) in [(Protocol::Gemini, &config.gemini), (Protocol::OpenAi, &config.qwen)] {
        if provider.api_key.is_some() {
            let models = provider.models.iter().cloned().chain(chosen(config, protocol, own)).collect();
            upstreams.push(upstream(protocol, &Provider { models, ..provider.clone() })?);
        }
    }
    // The orchestrator's own model is for agents without a key, and for those whose own model fails.
    if let Some(endpoint) = &endpoint {
        let base = Url::parse(endpoint.base_url()).map_err(|_| BadUpstream::Address)?;
        for protocol in [Protocol::OpenAi, Protocol::Responses, Protocol::Messages] {
            let alone = protocol != Protocol::OpenAi || config.qwen.api_key.is_none();
            let chosen = chosen(config, protocol, own).into_iter().filter(|_| alone);
            let models = [endpoint.model().to_owned()].into_iter().chain(chosen).collect();
            upstreams.push(Upstream::new(protocol, &base, config.llm.api_key.clone(), models)?);
        }
    }
    let chosen = [Protocol::OpenAi, Protocol::Responses, Protocol::Messages].into_iter().flat_map(|protocol| {
        let own = is_local(config).then(|| config.llm.model.clone());
        let names = own.into_iter().chain(of_roles(config, protocol).filter(|model| is_of_registry(model)));
        names.map(move |name| Chosen::new(protocol, name.clone(), Arc::new(LocalModel::new(inference.clone(), name))))
    });
    Ok(ModelDoor::new(upstreams, config.sandbox.web_search, Some(ledger)).with_chosen(chosen.collect()))
}

pub(super) fn upstream(protocol: Protocol, provider: &Provider) -> Result<Upstream, BadUpstream> {
    Upstream::new(protocol, &provider.base_url, provider.api_key.clone(), provider.models.clone())
}

/// Returns the models of the roles whose agents use this API, without the orchestrator's own and those of the registry.
fn chosen(config: &Config, protocol: Protocol, own: Option<&str>) -> Vec<String> {
    of_roles(config, protocol).filter(|model| own != Some(model) && !is_of_registry(model)).collect()
}

/// Returns the models of the roles whose agents use this API.
fn of_roles(config: &Config, protocol: Protocol) -> impl Iterator<Item = String> {
    let profiles = profiles(config);
    let config::Agents { plan, implement, review } = &config.agents;
    let choices = [plan, implement, review].into_iter().flat_map(config::AgentRole::all);
    choices
        .filter(move |choice| profiles.of(&choice.agent).is_some_and(|agent| agent.protocol == protocol))
        .filter_map(|choice| choice.model.clone())
}

fn is_of_registry(model: &str) -> bool {
    model.starts_with(inference::PREFIX)
}

/// Returns what models cost. The orchestrator's model has two names: the operator's, and the one by which its provider and
/// the coding agents know it.
pub(super) fn prices(config: &Config) -> Prices {
    let mut prices = config.prices.clone();
    if let Ok(endpoint) = endpoint(config) {
        let names = [config.llm.model.clone(), endpoint.model().to_owned()];
        if let Some(price) = names.iter().find_map(|name| prices.get(name).copied()) {
            for name in names {
                prices.entry(name).or_insert(price);
            }
        }
    }
    Prices::new(prices)
}

/// Returns the coding agents with their roles.
pub(in crate::ops) fn agents(config: &Config, door: ModelDoor) -> CodingAgents {
    let roster = Roster::new(&config.agents, &profiles(config), |protocol| door.models(protocol));
    CodingAgents::new(roster, door)
}

/// Returns the coding agents that have a role and are not among the two in the image, each once.
pub(crate) fn other_agents(config: &Config) -> Vec<Arc<CodingAgent>> {
    let profiles = profiles(config);
    let config::Agents { plan, implement, review } = &config.agents;
    let names: BTreeSet<_> =
        [plan, implement, review].into_iter().flat_map(config::AgentRole::all).map(|choice| &*choice.agent).collect();
    let others = names.into_iter().filter(|name| !matches!(*name, "gemini" | "qwen"));
    others.filter_map(|name| profiles.of(name).cloned()).collect()
}

/// Returns the settings with the built-in demo model in place of the configured one, also for coding agents.
pub(crate) fn with_demo_model(config: &Config, demo: &DemoModel) -> anyhow::Result<Config> {
    let mut config = config.clone();
    config.llm.model = format!("openai/{}", DemoModel::MODEL);
    config.llm.api_key = Some(SecretString::from("demo"));
    config.llm.base_url = Some(demo.base_url().parse()?);
    config.llm.facts = ModelFacts::default();
    (config.gemini.api_key, config.qwen.api_key) = (None, None);
    Ok(config)
}
