//! The names of fields and tools that providers take, by what becomes of them. A name that stands in no list is refused.

/// Top-level fields of a chat completion that are passed on; `model`, `messages`, `tools` and what bounds
/// the answer are looked into.
pub(super) const CHAT_FIELDS: [&str; 34] = [
    "audio",
    "cache_control",
    "chat_template_kwargs",
    "enable_thinking",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "metadata",
    "min_p",
    "modalities",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "reasoning",
    "reasoning_effort",
    "repetition_penalty",
    "response_format",
    "safety_identifier",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "thinking",
    "thinking_budget",
    "tool_choice",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
];

/// Top-level fields by which one provider or another searches the web.
pub(super) const CHAT_WEB_FIELDS: [&str; 4] =
    ["enable_search", "search_options", "search_parameters", "web_search_options"];

/// Tools that the provider runs, which reach into the web.
pub(super) const CHAT_WEB_TOOLS: [&str; 3] = ["web_search", "web_search_preview", "code_interpreter"];

/// Top-level fields of OpenAI's responses that are passed on. What the provider has kept of others is not to be named.
pub(super) const RESPONSE_FIELDS: [&str; 17] = [
    "client_metadata",
    "include",
    "instructions",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "top_p",
    "truncation",
    "user",
];

/// What a response's input is made of.
pub(super) const RESPONSE_ITEMS: [&str; 9] = [
    "custom_tool_call",
    "custom_tool_call_output",
    "function_call",
    "function_call_output",
    "local_shell_call",
    "local_shell_call_output",
    "message",
    "reasoning",
    "web_search_call",
];

/// Top-level fields of Anthropic's messages that are passed on.
pub(super) const MESSAGES_FIELDS: [&str; 11] = [
    "cache_control",
    "context_management",
    "metadata",
    "output_config",
    "stop_sequences",
    "stream",
    "temperature",
    "thinking",
    "tool_choice",
    "top_k",
    "top_p",
];

/// Anthropic's own tools, by how their names begin: those that whoever asks runs, and those that the provider runs, which
/// reach into the web.
pub(super) const MESSAGES_TOOLS: [&str; 4] = ["bash_", "computer_", "memory_", "text_editor_"];
pub(super) const MESSAGES_WEB_TOOLS: [&str; 3] = ["code_execution_", "web_fetch_", "web_search_"];

/// Top-level fields of a call of Gemini's that are passed on, in the two spellings that it takes.
pub(super) const GEMINI_FIELDS: [&str; 5] =
    ["labels", "safetySettings", "safety_settings", "toolConfig", "tool_config"];

/// Tools of Gemini's that run at the provider and reach into the web, or run code there.
pub(super) const GEMINI_WEB_TOOLS: [&str; 8] = [
    "codeExecution",
    "code_execution",
    "googleSearch",
    "googleSearchRetrieval",
    "google_search",
    "google_search_retrieval",
    "urlContext",
    "url_context",
];
