//! The one table of providers: where each is, which variable names its key, and what it does differently from OpenAI's
//! published API. Everything else in this folder asks a [`Quirks`] value and never compares a provider's name.
//!
//! Pure: no network, no environment. `config` calls [`parse_model`] to validate `LLM_MODEL` and `LLM_BASE_URL`.

use std::fmt;

use super::window::{Window, WindowSource};

use reqwest::Url;

/// A row of the table.
#[derive(Debug)]
pub(super) struct Provider {
    /// The first segment of LiteLLM's model string.
    prefix: &'static str,
    /// Where its OpenAI-compatible API is; `None`: only with `LLM_BASE_URL`.
    base_url: Option<&'static str>,
    /// The variable in which other programs expect its key; `None`: it needs none.
    key_variable: Option<&'static str>,
    /// What its API path is called when somebody gives only the host.
    default_path: &'static str,
    /// The context that it serves unless told otherwise, whatever the model could do.
    window: Option<u64>,
    /// Who can be asked for the context.
    asking: Asking,
    quirks: Quirks,
}

/// Who can be asked how much fits into a model's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// Nobody; the names are known.
    Nobody,
    /// OpenRouter, which has it for each model.
    OpenRouter,
    /// Ollama.
    Ollama,
    /// Some server: vLLM, llama-server, LM Studio, Ollama …
    Anything,
}

/// What a provider wants done differently. The fields say what to do, not who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quirks {
    /// Which of the two names the output limit has.
    pub max_tokens: MaxTokens,
    /// Ask for usage with `stream_options`; unknown fields are errors at some (Mistral), so only where known.
    pub stream_usage: bool,
    /// Ask for parallel calls in so many words: the default is "one at a time" there.
    pub ask_parallel: bool,
    /// What a call id may look like.
    pub call_ids: CallIds,
    /// What becomes of the reasoning.
    pub echo: Echo,
    /// `""` instead of `null` as the content of a message that only calls.
    pub empty_content: bool,
    /// Mark where the prompt's prefix may be cached.
    pub cache_marks: bool,
    /// A user message may not follow a tool's result: an assistant's word goes between.
    pub bridge_user_after_tool: bool,
    /// A conversation with calls in it is refused where no tools are given: give one that stands for none.
    pub tools_beside_calls: bool,
    /// A call without a thought signature is refused: send the documented stand-in where there is none.
    pub placeholder_signature: bool,
}

/// The name of the output limit's field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaxTokens {
    /// `max_tokens`, which nearly all take.
    Classic,
    /// `max_completion_tokens`, the only one OpenAI's reasoning models take.
    Completion,
}

/// Rules for call ids, by the strictest reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallIds {
    /// At most 40 characters (OpenAI).
    Short,
    /// At most 64 of `[A-Za-z0-9_-]` (Anthropic).
    Word,
    /// Exactly nine alphanumerics (Mistral).
    Nine,
}

/// Which reasoning goes back with the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// None.
    Nothing,
    /// `reasoning_content` as plain text on every assistant message, `""` where there was none (DeepSeek).
    Content,
    /// `reasoning_details`, unchanged and in order (OpenRouter).
    Details,
    /// `extra_content` of the calls (Gemini's thought signatures).
    CallExtra,
}

/// What is sent to a server of which nothing is known: only what all of them take.
const PLAIN: Quirks = Quirks {
    max_tokens: MaxTokens::Classic,
    stream_usage: false,
    ask_parallel: false,
    call_ids: CallIds::Short,
    echo: Echo::Nothing,
    empty_content: true,
    cache_marks: false,
    bridge_user_after_tool: false,
    tools_beside_calls: false,
    placeholder_signature: false,
};

static GENERIC: Provider = Provider {
    prefix: "",
    base_url: None,
    key_variable: None,
    default_path: "",
    window: None,
    asking: Asking::Anything,
    quirks: PLAIN,
};

/// What a local server is assumed to hold. llama.cpp's `-c` and Ollama's `OLLAMA_CONTEXT_LENGTH` decide, and Ollama cuts
/// a longer prompt without a word: better too early a compaction than a lost beginning.
const LOCAL_WINDOW: u64 = 32_768;

#[rustfmt::skip]
static PROVIDERS: &[Provider] = &[
    Provider {
        prefix: "openrouter", base_url: Some("https://openrouter.ai/api/v1"), key_variable: Some("OPENROUTER_API_KEY"),
        default_path: "", window: None, asking: Asking::OpenRouter,
        quirks: Quirks {
            stream_usage: true, call_ids: CallIds::Word, echo: Echo::Details, empty_content: false, tools_beside_calls: true,
            ..PLAIN
        },
    },
    Provider {
        prefix: "anthropic", base_url: Some("https://api.anthropic.com/v1"), key_variable: Some("ANTHROPIC_API_KEY"),
        default_path: "", window: None, asking: Asking::Nobody,
        quirks: Quirks {
            stream_usage: true, call_ids: CallIds::Word, empty_content: false, tools_beside_calls: true, ..PLAIN
        },
    },
    Provider {
        prefix: "gemini", base_url: Some("https://generativelanguage.googleapis.com/v1beta/openai"),
        key_variable: Some("GEMINI_API_KEY"), default_path: "", window: None, asking: Asking::Nobody,
        quirks: Quirks { stream_usage: true, echo: Echo::CallExtra, empty_content: false, ..PLAIN },
    },
    Provider {
        prefix: "openai", base_url: Some("https://api.openai.com/v1"), key_variable: Some("OPENAI_API_KEY"),
        default_path: "", window: None, asking: Asking::Nobody,
        quirks: Quirks { max_tokens: MaxTokens::Completion, stream_usage: true, empty_content: false, ..PLAIN },
    },
    Provider {
        prefix: "dashscope", base_url: Some("https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
        key_variable: Some("DASHSCOPE_API_KEY"), default_path: "", window: None, asking: Asking::Nobody,
        quirks: Quirks { stream_usage: true, ask_parallel: true, cache_marks: true, ..PLAIN },
    },
    Provider {
        prefix: "deepseek", base_url: Some("https://api.deepseek.com/v1"), key_variable: Some("DEEPSEEK_API_KEY"),
        default_path: "", window: None, asking: Asking::Nobody,
        quirks: Quirks { stream_usage: true, echo: Echo::Content, ..PLAIN },
    },
    Provider {
        prefix: "mistral", base_url: Some("https://api.mistral.ai/v1"), key_variable: Some("MISTRAL_API_KEY"),
        default_path: "", window: None, asking: Asking::Nobody,
        quirks: Quirks { call_ids: CallIds::Nine, bridge_user_after_tool: true, ..PLAIN },
    },
    Provider {
        prefix: "ollama", base_url: Some("http://127.0.0.1:11434/v1"), key_variable: None,
        default_path: "/v1", window: Some(LOCAL_WINDOW), asking: Asking::Ollama,
        quirks: Quirks { stream_usage: true, ..PLAIN },
    },
    Provider {
        prefix: "llama-cpp", base_url: Some("http://127.0.0.1:8080/v1"), key_variable: None,
        default_path: "/v1", window: Some(LOCAL_WINDOW), asking: Asking::Anything,
        quirks: Quirks { stream_usage: true, ask_parallel: true, ..PLAIN },
    },
    Provider {
        prefix: "hosted_vllm", base_url: None, key_variable: None,
        default_path: "/v1", window: None, asking: Asking::Anything,
        quirks: Quirks { stream_usage: true, ..PLAIN },
    },
];

/// Model families by what their names begin with, wherever a model is served and whatever stands before it there: context
/// in tokens, and whether they see pictures. The first match counts; both can be set by hand for a model that is not here.
#[rustfmt::skip]
const FAMILIES: &[(&str, u64, bool)] = &[
    ("claude-instant", 100_000, false),
    ("claude-2.0", 100_000, false),
    ("claude-2", 200_000, false),
    ("claude", 200_000, true),
    ("gemini-1.5-pro", 2_097_152, true),
    ("gemini", 1_048_576, true),
    ("gemma-7b", 8192, false),
    ("gemma-1.1", 8192, false),
    ("gemma:", 8192, false),
    ("codegemma", 8192, false),
    ("gemma-2", 8192, false),
    ("gemma2", 8192, false),
    ("gemma-3-1b", 32_768, false),
    ("gemma-3-270m", 32_768, false),
    ("gemma3:1b", 32_768, false),
    ("gemma3:270m", 32_768, false),
    ("gemma", 128_000, true),
    ("gpt-oss", 131_072, false),
    ("gpt-5", 400_000, true),
    ("gpt-4.1", 1_047_576, true),
    ("gpt-4o", 128_000, true),
    ("gpt-4.5", 128_000, true),
    ("gpt-4-vision", 128_000, true),
    ("gpt-4-turbo", 128_000, true),
    ("gpt-4-1106", 128_000, false),
    ("gpt-4-0125", 128_000, false),
    ("gpt-4-32k", 32_768, false),
    ("gpt-4", 8192, false),
    ("gpt-3.5", 16_385, false),
    ("gpt-35", 16_385, false),
    ("chatgpt-4o", 128_000, true),
    ("codex-mini", 200_000, true),
    ("o1-mini", 128_000, false),
    ("o1-preview", 128_000, false),
    ("o1", 200_000, true),
    ("o3", 200_000, true),
    ("o4", 200_000, true),
    ("qwen3-coder-plus", 1_000_000, false),
    ("qwen3-coder-flash", 1_000_000, false),
    ("qwen3-coder", 262_144, false),
    ("qwen3-max", 262_144, false),
    ("qwen3-next", 262_144, false),
    ("qwen3vl", 262_144, true),
    ("qwen3-vl", 262_144, true),
    ("qwen2.5vl", 128_000, true),
    ("qwen2-vl", 32_768, true),
    ("qwen1.5", 32_768, false),
    ("qwen2.5-vl", 131_072, true),
    ("qwq", 131_072, false),
    ("qwen-vl", 131_072, true),
    ("qwen", 131_072, false),
    ("deepseek-coder-v2", 128_000, false),
    ("deepseek-coder", 16_384, false),
    ("deepseek-llm", 4096, false),
    ("deepseek", 128_000, false),
    ("devstral", 131_072, false),
    ("codestral", 131_072, false),
    ("pixtral", 131_072, true),
    ("magistral", 40_000, false),
    ("ministral", 131_072, false),
    ("mixtral", 32_768, false),
    ("mistral-7b", 32_768, false),
    ("mistral", 131_072, true),
    ("moonshot-v1", 131_072, false),
    ("kimi-k2-0711", 131_072, false),
    ("kimi-k2", 262_144, false),
    ("kimi", 131_072, false),
    ("glm-4.5v", 65_536, true),
    ("glm-4.6v", 128_000, true),
    ("glm-4.7", 200_000, false),
    ("glm-5", 200_000, false),
    ("glm-4.6", 200_000, false),
    ("glm", 128_000, false),
    ("grok-code", 256_000, false),
    ("grok-4-fast", 2_000_000, true),
    ("grok-4", 256_000, true),
    ("grok", 131_072, true),
    ("minimax-m1", 1_000_000, false),
    ("minimax-m2", 196_608, false),
    ("command-a", 256_000, false),
    ("command-r", 128_000, false),
    ("phi4", 16_384, false),
    ("phi3", 128_000, false),
    ("phi-4", 16_384, false),
    ("phi-3", 128_000, false),
    ("codellama", 16_384, false),
    ("llama-4", 131_072, true),
    ("llama4", 131_072, true),
    ("llama-2", 4096, false),
    ("llama2", 4096, false),
    ("meta-llama-3-", 8192, false),
    ("llama-3-", 8192, false),
    ("llama-3.2-11b-vision", 131_072, true),
    ("llama-3.2-90b-vision", 131_072, true),
    ("llama3.2-vision", 131_072, true),
    ("llama3.", 131_072, false),
    ("llama3", 8192, false),
    ("llava", 4096, true),
    ("minicpm-v", 32_768, true),
    ("granite", 131_072, false),
    ("nemotron", 131_072, false),
    ("jamba", 256_000, false),
    ("nova-micro", 128_000, false),
    ("nova-lite", 300_000, true),
    ("nova-pro", 300_000, true),
    ("nova-premier", 1_000_000, true),
    ("ernie-4.5", 131_072, false),
    ("seed-oss", 524_288, false),
    ("exaone-4", 131_072, false),
    ("sonar", 128_000, false),
    ("starcoder2", 16_384, false),
    ("llama", 131_072, false),
];

/// Why a model string or address cannot be used; what to write instead is part of the sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct SettingError {
    /// The variable that is wrong: `LLM_MODEL`, `LLM_BASE_URL` or `LLM_API_KEY`.
    pub key: &'static str,
    /// What is wrong and how to mend it.
    pub problem: String,
}

/// A model string understood: which model, where, and what is peculiar there.
#[derive(Clone)]
pub struct Endpoint {
    provider: &'static Provider,
    base_url: Url,
    given: String,
    model: String,
    quirks: Quirks,
}

/// Reads LiteLLM's model string (`openrouter/anthropic/claude-sonnet-4`). A `base_url` replaces the table's; with one,
/// a name whose prefix nobody knows goes to that server as it stands.
pub fn parse_model(model: &str, base_url: Option<&str>) -> Result<Endpoint, SettingError> {
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
        // LiteLLM's way to name any compatible server is `openai/…` with an address: OpenAI's own peculiarities are not
        // that server's.
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
        quirks: adapt(provider, name),
    })
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

/// A router serves other houses' models: what those houses want holds there too.
fn adapt(provider: &Provider, model: &str) -> Quirks {
    let mut quirks = provider.quirks;
    if provider.prefix == "openrouter" {
        quirks.cache_marks = model.starts_with("anthropic/");
        if model.starts_with("mistralai/") {
            quirks.call_ids = CallIds::Nine;
            quirks.bridge_user_after_tool = true;
        }
    }
    // Google documents the stand-in for Gemini 3; older models never demanded a signature.
    quirks.placeholder_signature = provider.prefix == "gemini" && model.starts_with("gemini-3");
    quirks
}

impl Endpoint {
    /// Returns the model string as the operator wrote it.
    pub fn name(&self) -> &str {
        &self.given
    }

    /// Returns the address of the API, without a slash at the end.
    pub fn base_url(&self) -> &str {
        self.base_url.as_str().trim_end_matches('/')
    }

    /// Returns the variable in which other programs expect this provider's key; `None`: it works without a key.
    pub fn key_variable(&self) -> Option<&'static str> {
        self.provider.key_variable
    }

    /// Returns whether the model is known to see pictures.
    pub fn vision(&self) -> bool {
        self.family().is_some_and(|(_, _, vision)| *vision)
    }

    /// Returns the size of the context, as far as one can know it from the name.
    pub(super) fn window(&self) -> Window {
        let family = size_in_name(&self.own_name()).or_else(|| self.family().map(|(_, window, _)| *window));
        match (family, self.provider.window) {
            (Some(tokens), Some(limit)) if tokens > limit => Window { tokens: limit, source: WindowSource::Guess },
            (Some(tokens), _) => Window { tokens, source: WindowSource::Name },
            (None, limit) => Window { tokens: limit.unwrap_or(LOCAL_WINDOW), source: WindowSource::Guess },
        }
    }

    /// Returns who can be asked for the size of the context.
    pub(super) fn asking(&self) -> Asking {
        // Another address than its own: whatever server that is.
        let moved = self.provider.base_url.is_some_and(|own| own != self.base_url());
        if moved && self.provider.asking == Asking::Nobody { Asking::Anything } else { self.provider.asking }
    }

    /// Returns the model's name as the provider wants it.
    pub fn model(&self) -> &str {
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

    /// Returns whether the server is on this machine, where no proxy stands between.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.base_url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Returns the model's name without what stands before it where it is served.
    fn own_name(&self) -> String {
        self.model.rsplit('/').next().unwrap_or_default().to_lowercase()
    }

    fn family(&self) -> Option<&'static (&'static str, u64, bool)> {
        let name = self.own_name();
        // `us.anthropic.claude-…`, `bartowski_Qwen3-…`, `my-gpt-4o`.
        let begins = |(at, _): &(usize, &str)| !name[..*at].ends_with(|c: char| c.is_ascii_alphanumeric());
        FAMILIES.iter().find(|(start, _, _)| name.match_indices(start).any(|found| begins(&found)))
    }
}

/// Returns the context that a name tells, as `moonshot-v1-32k` and `glm-4-9b-chat-1m` do.
fn size_in_name(name: &str) -> Option<u64> {
    name.split(['-', '_', ':', '.', '@']).find_map(|part| {
        let number = |unit: char| part.strip_suffix(unit)?.parse::<u64>().ok();
        match (number('k'), number('m')) {
            // Those that are powers of two count as computers do.
            (Some(size @ 4..1000), _) => Some(size * if size.is_power_of_two() { 1024 } else { 1000 }),
            // Small models have so many millions of parameters, but more of them.
            (_, Some(size @ 1..=10)) => Some(size * 1_000_000),
            _ => None,
        }
    })
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({} at {})", self.given, self.base_url())
    }
}

#[cfg(test)]
#[path = "providers_tests.rs"]
mod tests;
