//! A parsed model string: which model, at which address, and the peculiarities of its provider.
//!
//! Pure: no network, no environment. `ops::settings` validates `LLM_MODEL` and `LLM_BASE_URL` with [`parse_model`].

use std::fmt;

use reqwest::Url;

use super::{
    families::{family, size_in_name},
    providers::{Asking, GENERIC, LOCAL_WINDOW, PROVIDERS, Provider, Quirks},
    window::{Window, WindowSource},
};

/// Why a model string or address cannot be used; the sentence says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct SettingError {
    /// The variable that is wrong: `LLM_MODEL`, `LLM_BASE_URL` or `LLM_API_KEY`.
    pub key: &'static str,
    /// What is wrong and how to fix it.
    pub problem: String,
}

/// A parsed model string: which model, at which address, and the peculiarities of its provider.
#[derive(Clone)]
pub(crate) struct Endpoint {
    provider: &'static Provider,
    base_url: Url,
    given: String,
    model: String,
    quirks: Quirks,
}

/// Parses LiteLLM's model string (`openrouter/anthropic/claude-sonnet-4`). A `base_url` replaces the provider's; with
/// one, a name with an unknown prefix goes to that server unchanged.
pub(crate) fn parse_model(model: &str, base_url: Option<&str>) -> Result<Endpoint, SettingError> {
    let given = model.trim();
    let base_url = base_url.map(str::trim).filter(|url| !url.is_empty());
    let bad = |problem: String| Err(SettingError { key: "LLM_MODEL", problem });
    if given.is_empty() {
        return bad(format!("no model is named; write for example `{EXAMPLE}`"));
    }
    if given.len() > 200 || given.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return bad("a model's name has no spaces and at most 200 characters".to_owned());
    }
    let (prefix, rest) = given.split_once('/').unwrap_or(("", given));
    let known = PROVIDERS.iter().find(|provider| provider.prefix == prefix);
    let (provider, name) = match (known, base_url) {
        (Some(_), _) if rest.is_empty() => return bad(format!("`{prefix}/` needs a model's name after the slash")),
        // In LiteLLM `openai/…` with an address means any compatible server, which does not have OpenAI's own
        // peculiarities.
        (Some(provider), Some(url)) if provider.prefix == "openai" && !url.contains("api.openai.com") => {
            (&GENERIC, rest)
        }
        (Some(provider), _) => (provider, rest),
        (None, Some(_)) => (&GENERIC, given),
        (None, None) => return bad(unknown_prefix(given, prefix)),
    };
    let Some(address) = base_url.or(provider.base_url) else {
        return bad(format!("`{prefix}/…` names no address of its own: set LLM_BASE_URL"));
    };
    Ok(Endpoint {
        provider,
        base_url: read_base_url(address, provider.default_path)?,
        given: given.to_owned(),
        model: name.to_owned(),
        quirks: provider.quirks_of(name),
    })
}

/// Returns the model string of a model that the endpoint at `base_url` knows by the name `model`, whatever that begins with.
pub(crate) fn model_string(model: &str, base_url: &str) -> String {
    let given = base_url.trim_end_matches('/');
    let owner =
        PROVIDERS.iter().find(|provider| provider.base_url.is_some_and(|own| own.trim_end_matches('/') == given));
    format!("{}/{model}", owner.map_or("openai", |provider| provider.prefix))
}

const EXAMPLE: &str = "openrouter/anthropic/claude-sonnet-4";

fn unknown_prefix(given: &str, prefix: &str) -> String {
    let nearest = PROVIDERS
        .iter()
        .map(|provider| (strsim::damerau_levenshtein(provider.prefix, prefix), provider.prefix))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    let names: Vec<_> = PROVIDERS.iter().map(|provider| provider.prefix).collect();
    match nearest {
        Some((_, near)) => format!("`{prefix}/` is no provider known here; did you mean `{near}/…`?"),
        None => format!(
            "`{given}` does not begin with a known provider ({}); for another server set LLM_BASE_URL",
            names.join(", ")
        ),
    }
}

fn read_base_url(address: &str, default_path: &str) -> Result<Url, SettingError> {
    let bad = |problem: &str| SettingError { key: "LLM_BASE_URL", problem: problem.to_owned() };
    let address = address.trim_end_matches('/').trim_end_matches("/chat/completions");
    let mut url = Url::parse(address).map_err(|_| bad("not a URL; write for example `https://host.example/v1`"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(bad("must begin with `https://` or `http://` and name a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("must hold no user or password; the key goes into LLM_API_KEY"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("must end with the path (`…/v1`), without `?` or `#`"));
    }
    if url.path() == "/" && !default_path.is_empty() {
        url.set_path(default_path);
    }
    Ok(url)
}

impl Endpoint {
    /// Returns the model string as the operator wrote it.
    pub(crate) fn name(&self) -> &str {
        &self.given
    }

    /// Returns the address of the API, without a slash at the end.
    pub(crate) fn base_url(&self) -> &str {
        self.base_url.as_str().trim_end_matches('/')
    }

    /// Returns the environment variable that usually holds this provider's key; `None` if it needs no key.
    pub(crate) fn key_variable(&self) -> Option<&'static str> {
        self.provider.key_variable
    }

    /// Returns whether the model is known to see pictures.
    pub(crate) fn vision(&self) -> bool {
        family(&self.own_name()).is_some_and(|family| family.vision)
    }

    /// Returns the size of the context as far as the name tells it.
    pub(super) fn window(&self) -> Window {
        let name = self.own_name();
        let family = size_in_name(&name).or_else(|| family(&name).map(|family| family.window));
        match (family, self.provider.window) {
            (Some(tokens), Some(limit)) if tokens > limit => Window { tokens: limit, source: WindowSource::Guess },
            (Some(tokens), _) => Window { tokens, source: WindowSource::Name },
            (None, limit) => Window { tokens: limit.unwrap_or(LOCAL_WINDOW), source: WindowSource::Guess },
        }
    }

    /// Returns who can be asked for the size of the context.
    pub(super) fn asking(&self) -> Asking {
        // At another address than the provider's own there may be any server.
        let moved = self.provider.base_url.is_some_and(|own| own != self.base_url());
        if moved && self.provider.asking == Asking::Nobody { Asking::Anything } else { self.provider.asking }
    }

    /// Returns the model's name for requests.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    pub(super) fn quirks(&self) -> Quirks {
        self.quirks
    }

    /// Returns host and port, for messages.
    pub(super) fn host(&self) -> String {
        let host = self.base_url.host_str().unwrap_or_default();
        self.base_url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Returns whether the server is on this machine, so that requests need no proxy.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.base_url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Returns the model's name without the prefixes of those that serve it.
    fn own_name(&self) -> String {
        self.model.rsplit('/').next().unwrap_or_default().to_lowercase()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({} at {})", self.given, self.base_url())
    }
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
