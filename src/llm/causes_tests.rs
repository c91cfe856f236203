//! What providers say, word for word, and what it means.

use proptest::prelude::*;

use super::*;

fn limit(limit: u64, asked: u64) -> ToldTokens {
    ToldTokens { limit: Some(limit), asked: Some(asked) }
}

fn alone(limit: u64) -> ToldTokens {
    ToldTokens { limit: Some(limit), asked: None }
}

/// Providers with their words and the numbers in them.
#[rustfmt::skip]
fn too_long() -> Vec<(&'static str, &'static str, ToldTokens)> {
    let none = ToldTokens::default();
    vec![
        ("OpenAI", "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens. Please reduce the length of the messages.", limit(8192, 9000)),
        ("OpenAI", "Your input exceeds the context window of this model. Please adjust your input and try again.", none),
        ("OpenAI", "Invalid 'messages[1].content': string too long. Expected a string with maximum length 10485760, but got a string with length 10485800 instead.", none),
        ("OpenAI, one request of a minute", "Request too large for gpt-4o-2024-08-06 in organization org-abc on tokens per min (TPM): Limit 30000, Requested 42345. The input or output tokens must be reduced in order to run successfully.", limit(30_000, 42_345)),
        ("Anthropic", "prompt is too long: 210000 tokens > 200000 maximum", limit(200_000, 210_000)),
        ("Anthropic", "input length and `max_tokens` exceed context limit: 198000 + 8192 > 200000, decrease input length or `max_tokens` and try again", limit(200_000, 206_192)),
        ("Anthropic", "Request exceeds the maximum size request_too_large", none),
        ("Gemini", "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", limit(1_048_576, 1_200_000)),
        ("Mistral", "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length", limit(32_768, 40_000)),
        ("Groq", "Please reduce the length of the messages or completion. context_length_exceeded", none),
        ("Groq, one request of a minute", "Request too large for model `llama-3.3-70b-versatile` in organization `org_01hx` service tier `on_demand` on tokens per minute (TPM): Limit 6000, Requested 7200, please reduce your message size and try again. Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing", limit(6000, 7200)),
        ("Groq, one request of a minute", "Rate limit reached for model `x` on tokens per minute (TPM): Limit 6000, Requested 7200.", limit(6000, 7200)),
        ("xAI", "This model's maximum prompt length is 131072 but the request contains 140000 tokens.", limit(131_072, 140_000)),
        ("DeepSeek", "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens (62000 in the messages, 8000 in the completion). Please reduce the length of the messages or completion.", limit(65_536, 70_000)),
        ("Cohere", "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000. Try using a shorter prompt, or enabling prompt truncating.", limit(4081, 5000)),
        ("Cohere", "too many tokens: size limit exceeded by 1234 tokens. Try using shorter or fewer inputs.", none),
        ("Together", "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens and 512 `max_new_tokens`", limit(8193, 9000)),
        ("Hugging Face", "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000", limit(4096, 5000)),
        ("Fireworks", "The prompt is too long: 140000, model maximum context length: 131071", limit(131_071, 140_000)),
        ("vLLM", "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4488 in the messages, 512 in the completion).", limit(4096, 5000)),
        ("vLLM", "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller than the number of text tokens.", limit(4096, 5000)),
        ("SGLang", "The input (40000 tokens) is longer than the model's context length (32768 tokens).", limit(32_768, 40_000)),
        ("SGLang", "Requested token count exceeds the model's maximum context length of 32768 tokens. You requested a total of 40000 tokens: 38000 tokens from the input messages and 2000 tokens for the completion.", limit(32_768, 40_000)),
        ("llama.cpp", "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", limit(4096, 5000)),
        ("llama.cpp", "Context size has been exceeded.", none),
        ("llama.cpp", "Input prompt is too big compared to KV size. Please try increasing KV size.", none),
        ("Ollama", "the input length exceeds the context length", none),
        ("Ollama", "prompt too long; exceeded max context length by 1230 tokens", none),
        ("Bedrock", "Input is too long for requested model.", none),
        ("Bedrock", "Too many input tokens. Max input tokens: 8192, request input token count: 9000", limit(8192, 9000)),
        ("LM Studio", "Trying to keep the first 12000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough. Try to load the model with a larger context length, or provide a shorter input", limit(4096, 12_000)),
        ("LM Studio", "The number of tokens to keep from the initial prompt is greater than the context length.", none),
        ("Cerebras", "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192 context_length_exceeded", limit(8192, 9000)),
        ("OpenRouter", "This endpoint's maximum context length is 131072 tokens. However, you requested about 150000 tokens (140000 of text input, 2000 of tool input, 8000 in the output). Please reduce the length of either one, or use the \"middle-out\" transform.", limit(131_072, 150_000)),
        ("Moonshot", "Invalid request: Your request exceeded model token limit: 131072 (requested: 140000)", limit(131_072, 140_000)),
        ("Zhipu", "1261 Prompt exceeds max length", none),
        ("Zhipu", "tokens in request more than max tokens allowed", none),
        ("DashScope", "Range of input length should be [1, 129024]", none),
        ("DashScope", "InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]", none),
        ("MiniMax", "invalid params, context window exceeds limit (2013)", alone(2013)),
        ("Volcengine", "Total tokens of image and text exceed max message tokens.", none),
        ("GitHub Models", "Request body too large for gpt-4o model. Max size: 8000 tokens.", alone(8000)),
        ("Copilot", "prompt token count of 140000 exceeds the limit of 128000", limit(128_000, 140_000)),
        ("SambaNova", "Requests total token length 5000 exceeds maximum token length 4096", limit(4096, 5000)),
        ("Vertex", "Unable to submit request because the input token count is 40000 but model only supports up to 32768. Reduce the input token count and try again.", limit(32_768, 40_000)),
        ("Cloudflare", "The estimated number of input and maximum output tokens (9000) exceeded this model context window limit (7968).", limit(7968, 9000)),
        ("TabbyAPI", "Prompt length 9000 is greater than max_seq_len 8192", none),
        ("llama-cpp-python", "Requested tokens (9000) exceed context window of 8192", limit(8192, 9000)),
        ("llama.cpp", "KV cache is full, context shift is disabled", none),
        ("Baidu", "the max input characters is 20000", none),
        ("Hunyuan", "输入的内容过长", none),
        ("others", "Prompt tokens (9000) > max allowed 8192", limit(8192, 9000)),
        ("others", "Requested 9000 tokens but the window is 8192", limit(8192, 9000)),
        ("others", "Your conversation is over the maximum length", none),
        ("others", "The context window is full", none),
        ("others", "This model has a 128k token window, you sent 140000 tokens", limit(128_000, 140_000)),
        ("others, one request of a minute", "This one request needs 45k tokens, more than the 30k tokens per minute of this tier", limit(30_000, 45_000)),
        ("others", "The prompt tokens exceed what the deployment was sized for", none),
        ("others", "Input is longer than the context", none),
        ("others", "The messages do not fit into the model's context.", none),
        ("others", "conversation too long, start over", none),
        ("others", "Request was rejected because its size (42,000 tokens) exceeds the allowance of 30,000 tokens per minute", limit(30_000, 42_000)),
    ]
}

#[test]
fn a_conversation_that_is_too_long_is_known_in_every_providers_words() {
    for (who, words, figures) in too_long() {
        let lower = words.to_lowercase();
        assert_eq!(excess(&lower), Some(Excess::Conversation), "{who}: {words}");
        // MiniMax's error code looks like a number of tokens, but is below any plausible window.
        assert_eq!(told(&lower), figures, "{who}: {words}");
    }
}

#[test]
fn what_is_something_else_is_not_taken_for_too_long() {
    for words in [
        "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 28000, Requested 3000. Please try again in 2s.",
        "Rate limit reached for model `x` on requests per minute (RPM): Limit 30, Used 30, Requested 1.",
        "This request would exceed your organization's rate limit of 30,000 input tokens per minute.",
        "You exceeded your current quota. Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_input_token_count, limit: 250000. Please retry in 34.07s.",
        "Too many requests",
        "messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 6000000 bytes > 5242880 bytes",
        "At least one of the image dimensions exceed max allowed size: 8000 pixels",
        "Invalid 'messages[3].tool_calls[0].id': string too long. Expected a string with maximum length 40.",
        "Invalid 'tools': array too long. Expected an array with maximum length 128, but got an array with length 200 instead.",
        "body.temperature: Input should be less than or equal to 2",
        "messages: at least one message is required",
        "Extra inputs are not permitted",
        "Invalid token",
        "The access token is not allowed for this model",
        "messages.3: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_01",
        "The server had an error while processing your request. Request id 1234567890",
        "temperature must be at least 0 and max 2",
        "Your credit balance is too low to access the Anthropic API.",
        "nothing more to say",
    ] {
        assert_eq!(excess(&words.to_lowercase()), None, "{words}");
    }
}

#[test]
fn a_call_that_could_not_be_read_is_known_and_one_that_was_sent_amiss_is_another_thing() {
    for words in [
        "tool_use_failed",
        "error parsing tool call: raw='{\"a' err=unexpected end of JSON input",
        "Failed to parse tool call arguments as JSON: [json.exception.parse_error.101]",
        "Failed to parse input at pos 0: <tool_call>",
        "Parsing failed. The model generated output that could not be parsed. output_parse_failed",
        "Malformed function call",
        "The model produced a malformed tool call",
        "Invalid function call generated by the model",
        "Could not decode the function call: invalid json",
        "tool call validation failed: parameters for tool run_command did not match schema",
    ] {
        assert!(bad_call(&words.to_lowercase()), "{words}");
    }
    for words in [
        "Invalid 'messages[3].tool_calls[0].function.arguments': not valid JSON",
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'",
        "messages with role 'tool' must be a response to a preceding message with 'tool_calls'",
        "This model does not support tool calls",
        "Failed to parse the request body as JSON",
        "nothing more to say",
    ] {
        assert!(!bad_call(&words.to_lowercase()), "{words}");
    }
}

#[test]
fn the_answers_limit_is_not_the_conversations() {
    for (words, longest) in [
        (
            "max_tokens: 300000 > 64000, which is the maximum allowed number of output tokens for claude-sonnet-4-5",
            Some(64_000),
        ),
        (
            "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000.",
            Some(16_384),
        ),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", Some(8192)),
        ("Range of max_tokens should be [1, 8192]", Some(8192)),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 8192 tokens and your request has 4000 input tokens (8192 > 8192 - 4000).",
            Some(4000),
        ),
    ] {
        let lower = words.to_lowercase();
        assert_eq!((excess(&lower), longest_answer(&lower)), (Some(Excess::Answer), longest), "{words}");
    }
}

#[test]
fn an_empty_account_is_known_in_every_providers_words() {
    for words in [
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.",
        "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.",
        "insufficient_quota You exceeded your current quota, please check your plan and billing details.",
        "Your account is not active, please check your billing details on our website.",
        "Billing hard limit has been reached",
        "Insufficient Balance",
        "Insufficient credits. Add more using https://openrouter.ai/settings/credits",
        "This request requires more credits, or fewer max_tokens. You requested up to 8192 tokens, but can only afford 1234.",
        "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys",
        "Access denied, please make sure your account is in good standing. Arrearage",
        "Your account org-x is suspended, please check your plan and billing details",
        "Your newly created team doesn't have any credits or licenses yet. You can purchase those on https://console.x.ai",
        "Your team has either used all available credits or reached its monthly spending limit.",
        "Account x is suspended, possibly due to reaching the monthly spending limit or failure to pay past invoices.",
        "You have exceeded your monthly included credits for Inference Providers.",
        "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing.",
        "This API method requires billing to be enabled.",
        "Sorry, your account balance is insufficient",
        "The request failed because your account has an overdue balance.",
        "余额不足或无可用资源包,请充值。",
    ] {
        assert!(no_credit(&words.to_lowercase(), false), "{words}");
    }
    for words in [
        "Rate limit reached for model `x` on tokens per minute (TPM): Limit 6000, Used 5500, Requested 1200. Upgrade at https://console.groq.com/settings/billing",
        "You do not have the required credentials for this project",
        "The upstream load balancer limit was reached",
        "nothing more to say",
    ] {
        assert!(!no_credit(&words.to_lowercase(), false), "{words}");
    }
    let free_tier = "you exceeded your current quota, please check your plan and billing details.";
    assert!(!no_credit(free_tier, true), "one that says how long to wait only wants to be waited for");
}

#[test]
fn refused_pictures_are_known_and_whether_the_model_has_eyes() {
    for (words, blind) in [
        ("No endpoints found that support image input", true),
        ("image input is not supported - hint: if this is unexpected, you may need to provide the mmproj", true),
        ("llama3 is not a multimodal model", true),
        (
            "Failed to deserialize the JSON body into the target type: messages[0]: unknown variant `image_url`, expected `text`",
            true,
        ),
        ("This model does not support image inputs", true),
        ("messages.0.content.1.image.source.base64: image exceeds 5 MB maximum", false),
        ("Could not process image", false),
        (
            "You uploaded an unsupported image. Please make sure your image has of one the following formats: ['png', 'jpeg', 'gif', 'webp'].",
            false,
        ),
        ("media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'", false),
        ("At least one of the image dimensions exceed max allowed size: 8000 pixels", false),
    ] {
        assert_eq!(pictures(&words.to_lowercase()), Some(blind), "{words}");
    }
    assert_eq!(pictures("temperature must not be above 2"), None);
}

proptest! {
    /// Any words can be read without a panic, and a limit is never more than what was asked.
    #[test]
    fn any_words_can_be_read(words in "(\\PC{0,20}|[0-9,_.]{0,25}|tokens|context|limit|requested| \\+ | > ){0,12}") {
        let lower = words.to_lowercase();
        _ = (excess(&lower), no_credit(&lower, false), pictures(&lower), longest_answer(&lower));
        let told = told(&lower);
        if let (Some(limit), Some(asked)) = (told.limit, told.asked) {
            prop_assert!(limit >= LEAST && asked >= LEAST);
        }
    }
}
