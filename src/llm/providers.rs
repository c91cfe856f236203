//! The one table of providers: where each is, which variable names its key, and what it does differently from OpenAI's
//! published API. Everything else in this folder asks a [`Quirks`] value and never compares a provider's name.
//!
//! Pure: no network, no environment. Called by `endpoint.rs`, which finds the row for a model string.

/// A row of the table.
#[derive(Debug)]
pub(super) struct Provider {
    /// The first segment of LiteLLM's model string.
    pub(super) prefix: &'static str,
    /// Where its OpenAI-compatible API is; `None`: only with `LLM_BASE_URL`.
    pub(super) base_url: Option<&'static str>,
    /// The variable in which other programs expect its key; `None`: it needs none.
    pub(super) key_variable: Option<&'static str>,
    /// What its API path is called when somebody gives only the host.
    pub(super) default_path: &'static str,
    /// The context that it serves unless told otherwise, whatever the model could do.
    pub(super) window: Option<u64>,
    /// Who can be asked for the context.
    pub(super) asking: Asking,
    pub(super) quirks: Quirks,
}

impl Provider {
    /// Returns what is peculiar to one of its models. A router serves other houses' models: what those houses want holds
    /// there too.
    pub(super) fn quirks_of(&self, model: &str) -> Quirks {
        let mut quirks = self.quirks;
        if self.prefix == "openrouter" {
            quirks.cache_marks = model.starts_with("anthropic/");
            if model.starts_with("mistralai/") {
                quirks.call_ids = CallIds::Nine;
                quirks.bridge_user_after_tool = true;
            }
        }
        // Google documents the stand-in for Gemini 3; older models never demanded a signature.
        quirks.placeholder_signature = self.prefix == "gemini" && model.starts_with("gemini-3");
        quirks
    }
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

/// A server of which nothing is known but its address.
pub(super) static GENERIC: Provider = Provider {
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
pub(super) const LOCAL_WINDOW: u64 = 32_768;

/// Every provider that has a prefix of its own.
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
