//! The table of model families: the size of their context and whether they see pictures, by the beginning of their
//! names. Other models can be described in `matrix-agent.toml`.
//!
//! Pure; used by `endpoint.rs`.

/// What a model's name tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// The size of its context in tokens.
    pub(super) window: u64,
    /// Whether it sees pictures.
    pub(super) vision: bool,
}

/// The beginning of the names, wherever the model is served and whatever prefix it has there; the size of the context
/// in tokens; whether the model sees pictures. The first match counts.
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

/// Returns the family of the model `name`, which is in lower case and without anything before its last slash.
pub(super) fn family(name: &str) -> Option<Family> {
    // `us.anthropic.claude-…`, `bartowski_Qwen3-…`, `my-gpt-4o`.
    let begins = |(at, _): &(usize, &str)| !name[..*at].ends_with(|c: char| c.is_ascii_alphanumeric());
    let known = FAMILIES.iter().find(|(start, _, _)| name.match_indices(start).any(|found| begins(&found)));
    known.map(|&(_, window, vision)| Family { window, vision })
}

/// Returns the context size in a name such as `moonshot-v1-32k` or `glm-4-9b-chat-1m`.
pub(super) fn size_in_name(name: &str) -> Option<u64> {
    name.split(['-', '_', ':', '.', '@']).find_map(|part| {
        let number = |unit: char| part.strip_suffix(unit)?.parse::<u64>().ok();
        match (number('k'), number('m')) {
            // Powers of two count in units of 1024.
            (Some(size @ 4..1000), _) => Some(size * if size.is_power_of_two() { 1024 } else { 1000 }),
            // Larger numbers before an `m` are millions of parameters of small models.
            (_, Some(size @ 1..=10)) => Some(size * 1_000_000),
            _ => None,
        }
    })
}
