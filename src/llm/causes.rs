//! What a refusal means, by its words. Providers have no common code for "too long", "no credit" or "no pictures",
//! and each words it differently, so combinations of words are recognised, one sentence at a time.
//!
//! Pure; used by `refusal.rs` with a provider's words in lower case.

use super::error::ToldTokens;

/// Names of a conversation's length.
const LENGTH: &[&str] = &[
    "context",
    "prompt",
    "input",
    "token",
    "messages",
    "conversation",
    "chat history",
    "sequence length",
    "model length",
    "text bytes",
    "request body",
    "request size",
    "payload",
    "kv cache",
    "上下文",
    "输入",
];
/// Words for too much of it.
const TOO_MUCH: &[&str] = &[
    "exceed",
    "too long",
    "too large",
    "too big",
    "too many",
    "longer than",
    "larger than",
    "greater than",
    "bigger than",
    "more than",
    "less than",
    "at most",
    "<=",
    "overflow",
    "over the limit",
    "limited to",
    "not fit",
    "n't fit",
    "cannot fit",
    "surpass",
    "room in",
    "ran out of",
    "out of range",
    "beyond",
    "over the maximum",
    "above the",
    "supports up to",
    "support up to",
    "only supports",
    "is full",
    "limit reached",
    "超",
    "过长",
    "太长",
];
/// Words that mean "too long" without anything else.
const TOO_LONG: &[&str] = &[
    "context_length_exceeded",
    "exceed_context_size",
    "max_prompt_tokens_exceeded",
    "tokens_limit_reached",
    "request_too_large",
    "request too large",
    "request entity too large",
    "maximum context",
    "maximum prompt",
    "maximum input",
    "maximum sequence",
    "maximum model len",
    "maximum number of tokens",
    "max_model_len",
    "range of input length",
    "reduce the length of the messages",
    "reduce the length of either",
    "token limit",
    "context limit",
    "prompt limit",
    "max input",
    "max_seq_len",
    "context shift",
    "long context",
    "prompt 超长",
];
/// What servers say when they cannot parse the call that the model wrote: Groq (with `failed_generation`), Gemini,
/// llama.cpp.
const BAD_CALL: &[&str] = &[
    "tool_use_failed",
    "output_parse_failed",
    "failed_generation",
    "failed to call a function",
    "malformed_function_call",
    "unexpected_tool_call",
    "failed to parse input at pos",
    "the model generated output that could not be parsed",
];
/// Names of a call.
const CALL: &[&str] = &["tool call", "tool_call", "function call", "function_call", "tool use", "tool arguments"];
/// Words for "cannot be parsed".
const UNREADABLE: &[&str] = &[
    "parse",
    "parsing",
    "malformed",
    "validation failed",
    "failed to generate",
    "not valid json",
    "invalid json",
    "invalid tool call arguments",
    "invalid function call",
    "decode",
];
/// Words that show that a call of the request is meant, not one that the model just wrote.
const SENT_CALL: &[&str] =
    &["messages", "tool_choice", "tool_call_id", "call_id", "must be followed", "preceding", "required"];
/// What overloaded servers say, whatever status they send.
const BUSY: &[&str] = &[
    "overloaded",
    "temporarily unavailable",
    "server is busy",
    "system is busy",
    "at capacity",
    "capacity exceeded",
    "out of capacity",
    "capacity constraints",
    "no available workers",
    "is currently loading",
    "loading model",
    "model is loading",
    "try again later",
    "retry later",
    "繁忙",
];
/// Names of the answer's length limit.
const OUTPUT: &[&str] = &[
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "maxoutputtokens",
    "max_new_tokens",
    "output tokens",
    "completion tokens",
];
/// With one of these a sentence is about the conversation, even if it names the answer's limit too.
const CONVERSATION: &[&str] = &["context", "prompt", "input", "messages"];
/// Words about a call, or about the value of a field.
const FIELDS: &[&str] = &["tool_call", "tools[", "'tools'", "function.name", "input should be"];
/// Words about a rate limit.
const RATE: &[&str] =
    &["rate limit", "rate_limit", "per minute", "per min", "per day", "tpm", "rpm", "quota", "throttl"];
/// Words about pictures.
const PICTURES: &[&str] = &[
    "image",
    "picture",
    "vision",
    "visual",
    "multimodal",
    "multi-modal",
    "mmproj",
    "media type",
    "media_type",
    "pixel",
    "base64",
    "data url",
];
/// Words that say that a model sees no pictures at all.
const BLIND: &[&str] = &[
    "not support",
    "unsupported",
    "n't support",
    "no endpoints",
    "not a multimodal",
    "not multimodal",
    "mmproj",
    "text-only",
    "text only",
    "only supports text",
    "only support text",
    "not accept",
    "unknown variant",
    "no vision",
    "without vision",
    "missing data required for image",
    "not enabled",
];
/// Words about one picture, not all.
const ONE_PICTURE: &[&str] =
    &["format", "media type", "media_type", "mime", "size", "dimension", "pixel", "base64", "too many", "too large"];

/// What servers say when waiting does not help, without anything else.
const NO_CREDIT: &[&str] = &[
    "insufficient_quota",
    "insufficient balance",
    "insufficient credits",
    "arrearage",
    "billing_hard_limit",
    "billing_not_active",
    "exceeded_current_quota",
    "payment required",
    "payment_required",
    "account is not active",
    "credit balance is too low",
    "key limit exceeded",
    "accountoverdue",
    "余额不足",
    "欠费",
];
/// Names of money.
const MONEY: &[&str] = &[
    "credit ",
    "credits",
    "balance ",
    "billing",
    "payment",
    "prepa",
    "in arrears",
    "overdue",
    "spend",
    "recharge",
    "unpaid",
    "funds",
    "usage limits",
    "included usage",
    "good standing",
];
/// Words for none of it being left.
const NONE_LEFT: &[&str] = &[
    "insufficient",
    "too low",
    "not enough",
    "exhausted",
    "depleted",
    "exceed",
    "reached",
    "used all",
    "used up",
    "run out",
    "ran out",
    "no credit",
    "any credits",
    "more credits",
    "requires",
    "required",
    "purchase",
    "suspended",
    "not active",
    "inactive",
    "past due",
    "disabled",
    "negative",
    "overdue",
    "arrears",
    "make sure",
];

fn any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

/// Which length is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// The length of the conversation.
    Conversation,
    /// The requested length of the answer.
    Answer,
}

/// Returns whether the provider could not parse a call that the model wrote: a mistake of the model, not of the
/// request.
pub(super) fn bad_call(lower: &str) -> bool {
    any(lower, BAD_CALL) || sentences(lower).any(|it| any(it, CALL) && any(it, UNREADABLE) && !any(it, SENT_CALL))
}

/// Returns whether a refusal is about a rate limit, whatever its status.
pub(super) fn rate(lower: &str) -> bool {
    any(lower, &["rate limit", "rate_limit", "ratelimit", "too many requests", "throttl"])
}

/// Returns whether the server is overloaded, which passes.
pub(super) fn busy(lower: &str) -> bool {
    any(lower, BUSY)
}

/// Returns what is too long, if anything is.
pub(super) fn excess(lower: &str) -> Option<Excess> {
    if any(lower, RATE) {
        return one_request_too_large(lower).then_some(Excess::Conversation);
    }
    sentences(lower).find_map(|sentence| {
        let pictures = any(sentence, PICTURES) && !sentence.contains("token");
        if pictures || any(sentence, FIELDS) {
            return None;
        }
        let output = any(sentence, OUTPUT) && !any(sentence, CONVERSATION);
        if output && (any(sentence, TOO_MUCH) || any(sentence, &["maximum", "range", "invalid", "> "])) {
            return Some(Excess::Answer);
        }
        let long = any(sentence, TOO_LONG)
            || any(sentence, LENGTH) && (any(sentence, TOO_MUCH) || is_more_than_fits(sentence));
        long.then_some(Excess::Conversation)
    })
}

/// Names of the largest length that a model takes.
const MOST: &[&str] = &["limit", "max", "window", "context", "capacity", "allow", "only", "available", "budget", " > "];

/// Returns whether a sentence has two numbers of tokens, the limit and a larger one.
fn is_more_than_fits(sentence: &str) -> bool {
    let told = told(sentence);
    sentence.contains("token") && any(sentence, MOST) && told.limit.is_some() && told.asked > told.limit
}

/// Returns whether a rate-limit refusal says that this request alone exceeds the limit, so that waiting does not
/// help.
pub(super) fn one_request_too_large(lower: &str) -> bool {
    if !any(lower, &["token", "tpm"]) {
        return false;
    }
    if any(lower, &["request too large", "request is too large", "request_too_large"]) {
        return true;
    }
    if let (Some(limit), Some(requested)) = (number_after(lower, "limit"), number_after(lower, "requested")) {
        return requested > limit;
    }
    let running_sum = any(lower, &["used", "remaining", "current"]);
    let told = told(lower);
    !running_sum
        && any(lower, &["exceed", "larger than", "more than"])
        && any(lower, &["request", "prompt", "input", "message"])
        && told.limit.is_some()
        && told.asked > told.limit
}

/// Returns whether the account has no credit. `passing` says that the refusal named a wait.
pub(super) fn no_credit(lower: &str, passing: bool) -> bool {
    let by_words = || {
        !passing
            && !any(lower, &["rate limit", "per minute", "per day", "tpm", "rpm", "resource_exhausted"])
            && sentences(lower).any(|sentence| any(sentence, MONEY) && any(sentence, NONE_LEFT))
    };
    any(lower, NO_CREDIT) || by_words()
}

/// Returns whether pictures are refused; `Some(true)` if the model sees none at all.
pub(super) fn pictures(lower: &str) -> Option<bool> {
    any(lower, PICTURES).then(|| any(lower, BLIND) && !any(lower, ONE_PICTURE))
}

fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', ';']).flat_map(|line| line.split(". "))
}

/// Smaller numbers are no context window but a part of a name, a number of tries or a wait.
const LEAST: u64 = 512;

/// Returns the limit and the size of the request in tokens, as far as a refusal names them.
pub(super) fn told(lower: &str) -> ToldTokens {
    if !any(lower, &["token", "context"]) || any(lower, &["bytes", "characters", "string too long"]) {
        return ToldTokens::default();
    }
    let all = numbers(lower);
    let figures: Vec<_> = all.iter().filter(|figure| figure.value >= LEAST).collect();
    // In `198000 + 8192 > 200000` the last number is the limit, and the sum was asked for.
    if let [first, second, third] = &figures[..]
        && lower[first.end..second.start].trim() == "+"
        && lower[second.end..third.start].trim() == ">"
    {
        return ToldTokens { limit: Some(third.value), asked: Some(first.value + second.value) };
    }
    let Some(largest) = figures.iter().map(|figure| figure.value).max() else { return ToldTokens::default() };
    if let Some(limit) = figures.iter().find(|figure| figure.value < largest) {
        return ToldTokens { limit: Some(limit.value), asked: Some(largest) };
    }
    // A lone number is the limit if it is called one; not in `exceeded by 1234 tokens`.
    let before = &lower[..figures[0].start];
    let before = &before[before.ceil_char_boundary(before.len().saturating_sub(40))..];
    let named =
        any(before, &["limit", "maximum", "max", "length", "size", "window", "context", "allowed", "range", "exceed"]);
    let over = before.trim_end().ends_with(" by");
    ToldTokens { limit: (named && !over).then_some(largest), asked: None }
}

/// Returns the longest answer of the model in tokens, if a refusal names it.
pub(super) fn longest_answer(lower: &str) -> Option<u64> {
    numbers(lower).into_iter().map(|figure| figure.value).filter(|value| *value >= LEAST).min()
}

fn number_after(text: &str, word: &str) -> Option<u64> {
    let all = numbers(text);
    text.match_indices(word).find_map(|(at, _)| {
        let after = at + word.len();
        let between = |figure: &&Figure| {
            figure.start >= after && text[after..figure.start].chars().all(|c| matches!(c, ' ' | ':' | '='))
        };
        all.iter().find(between).map(|figure| figure.value)
    })
}

/// A number in a text.
struct Figure {
    value: u64,
    start: usize,
    end: usize,
}

/// Finds numbers that stand alone: not those in a name (`gpt-4o-2024-08-06`) or after a decimal point.
fn numbers(text: &str) -> Vec<Figure> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let part_of_a_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/') || byte >= 0x80;
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !digit(at) {
            at += 1;
            continue;
        }
        let start = at;
        let mut value: u64 = 0;
        // `40,000` and `40_000` are one number.
        while digit(at) || matches!(bytes.get(at), Some(b',' | b'_')) && (1..=3).all(|next| digit(at + next)) {
            if digit(at) {
                value = value.saturating_mul(10).saturating_add(u64::from(bytes[at] - b'0'));
            }
            at += 1;
        }
        // `128k` is a number of tokens; `4.5k` and `gpt-4k` are not.
        let thousands = bytes.get(at) == Some(&b'k') && value < 100_000;
        if thousands && !bytes.get(at + 1).is_some_and(|byte| part_of_a_word(*byte)) {
            value = value.saturating_mul(1000);
            at += 1;
        }
        let fraction = bytes.get(at) == Some(&b'.') && digit(at + 1);
        let glued = start > 0 && (part_of_a_word(bytes[start - 1]) || bytes[start - 1] == b'.');
        let followed = bytes.get(at).is_some_and(|byte| part_of_a_word(*byte));
        if !fraction && !glued && !followed {
            found.push(Figure { value, start, end: at });
        }
    }
    found
}

#[cfg(test)]
#[path = "causes_tests.rs"]
mod tests;
