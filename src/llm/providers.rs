//! The table of providers: the address of each, the variable of its key, and how it deviates from OpenAI's published
//! API. Everything else in this folder asks a [`Quirks`] value and never compares a provider's name.
//!
//! Pure: no network, no environment. Used by `endpoint.rs`, which finds the row for a model string.

/// A row of the table.
#[derive(Debug)]
pub(super) struct Provider {
    /// The first segment of LiteLLM's model string.
    pub(super) prefix: &'static str,
    /// The address of its OpenAI-compatible API; `None` if it needs `LLM_BASE_URL`.
    pub(super) base_url: Option<&'static str>,
    /// The environment variable that usually holds its key; `None` if it needs no key.
    pub(super) key_variable: Option<&'static str>,
    /// The path of its API, if an address has only a host.
    pub(super) default_path: &'static str,
    /// The size of the context that it serves by default, whatever the model could do.
    pub(super) window: Option<u64>,
    /// Who can be asked for the size of the context.
    pub(super) asking: Asking,
    pub(super) quirks: Quirks,
}

impl Provider {
    /// Returns the peculiarities of one of its models. A router serves models of other providers, whose peculiarities
    /// hold there too.
    pub(super) fn quirks_of(&self, model: &str) -> Quirks {
        let mut quirks = self.quirks;
        if self.prefix == "openrouter" {
            quirks.cache_marks = model.starts_with("anthropic/");
            if model.starts_with("mistralai/") {
                quirks.call_ids = CallIds::Nine;
                quirks.bridge_user_after_tool = true;
            }
        }
        // Google documents the placeholder for Gemini 3; older models never demanded a signature.
        quirks.placeholder_signature = self.prefix == "gemini" && model.starts_with("gemini-3");
        quirks
    }
}

/// Who can be asked for the size of a model's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// Nobody; the names tell it.
    Nobody,
    /// OpenRouter, which has it for each model.
    OpenRouter,
    /// Ollama.
    Ollama,
    /// Any server: vLLM, llama-server, LM Studio, Ollama …
    Anything,
}

/// A provider's deviations. The fields say what to do, not for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quirks {
    /// Which of its two names the output limit has.
    pub max_tokens: MaxTokens,
    /// Ask for usage with `stream_options`. Some providers (Mistral) refuse unknown fields, so this is set only where
    /// it is known.
    pub stream_usage: bool,
    /// Ask for parallel calls explicitly, since the default is one at a time.
    pub ask_parallel: bool,
    /// What a call id may look like.
    pub call_ids: CallIds,
    /// Which reasoning is sent back.
    pub echo: Echo,
    /// Send `""` instead of `null` as the content of a message that only calls.
    pub empty_content: bool,
    /// Mark where the prompt's prefix may be cached.
    pub cache_marks: bool,
    /// A user message may not follow a tool's result, so an assistant message goes between.
    pub bridge_user_after_tool: bool,
    /// A conversation with calls is refused if there are no tools, so one that does nothing is sent.
    pub tools_beside_calls: bool,
    /// A call without a thought signature is refused, so the documented placeholder is sent.
    pub placeholder_signature: bool,
}

/// The name of the field for the output limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaxTokens {
    /// `max_tokens`, which nearly all providers take.
    Classic,
    /// `max_completion_tokens`, which OpenAI's reasoning models require.
    Completion,
}

/// What a call id may look like at the strictest server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallIds {
    /// At most 40 characters (OpenAI).
    Short,
    /// At most 64 of `[A-Za-z0-9_-]` (Anthropic).
    Word,
    /// Exactly nine alphanumerics (Mistral).
    Nine,
}

/// Which reasoning is sent back with the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// None.
    Nothing,
    /// `reasoning_content` as plain text with every assistant message, `""` if there was none (DeepSeek).
    Content,
    /// `reasoning_details`, unchanged and in order (OpenRouter).
    Details,
    /// `extra_content` of the calls (Gemini's thought signatures).
    CallExtra,
}

/// For a server about which nothing is known: only what all of them take.
pub(super) const PLAIN: Quirks = Quirks {
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

/// A server about which only the address is known.
pub(super) static GENERIC: Provider = Provider {
    prefix: "",
    base_url: None,
    key_variable: None,
    default_path: "",
    window: None,
    asking: Asking::Anything,
    quirks: PLAIN,
};

/// The assumed context size of a local server. llama.cpp's `-c` and Ollama's `OLLAMA_CONTEXT_LENGTH` decide it, and
/// Ollama silently cuts a longer prompt: compacting too early is better than losing the beginning.
pub(super) const LOCAL_WINDOW: u64 = 32_768;

/// All providers that have a prefix of their own.
#[rustfmt::skip]
pub(super) static PROVIDERS: &[Provider] = &[
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
