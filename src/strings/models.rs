//! Why the model gives no answer: a sentence for the person who waits, with the mend for whoever runs the server. `said`
//! is what the provider's own words add, or empty.

use std::time::Duration;

/// The provider's own words, behind a sentence.
pub(crate) fn said(words: &str) -> String {
    format!(" It said: “{words}”")
}

/// The settings cannot work.
pub(crate) fn setting(key: &str, problem: &str) -> String {
    format!("The model is not set up: {key}: {problem}.")
}

/// No connection, or none that lasted until an answer.
pub(crate) fn unreachable(host: &str, why: &str) -> String {
    format!("The model's provider at {host} cannot be reached ({why}). Check the network and LLM_BASE_URL.")
}

/// The key does not count.
pub(crate) fn key_refused(said: &str) -> String {
    format!("The model's provider refused the key. Check LLM_API_KEY.{said}")
}

/// The key does not give the right to this.
pub(crate) fn forbidden(said: &str) -> String {
    format!("The model's provider does not allow this with the present key (403). Check the account's rights.{said}")
}

/// The account has no money left, or no quota.
pub(crate) fn no_credit(said: &str) -> String {
    format!("The account at the model's provider has no credit left. Top it up, or set another LLM_API_KEY.{said}")
}

/// There is no such model, or nothing at the address.
pub(crate) fn unknown_model(model: &str, said: &str) -> String {
    format!(
        "The model's provider does not know `{model}`, or the address is wrong. Check LLM_MODEL and LLM_BASE_URL.{said}"
    )
}

/// Too many requests, after all retries.
pub(crate) fn rate_limited(wait: Option<Duration>, said: &str) -> String {
    format!("The model's provider takes no more requests just now; {}.{said}", again(wait))
}

/// The conversation does not fit into the model's context.
pub(crate) fn overflow(said: &str) -> String {
    format!("The conversation has grown too long for the model. Start a new one with !new.{said}")
}

/// An answer as long as was asked for is more than the model gives.
pub(crate) fn answer_too_long(said: &str) -> String {
    format!("The model's provider gives no answers as long as were asked for. Another model may: see LLM_MODEL.{said}")
}

/// It takes the pictures in the conversation amiss.
pub(crate) fn pictures(said: &str) -> String {
    format!(
        "The model's provider refused the pictures in this conversation. Start a new one with `!new`, or set a model that \
         sees with LLM_MODEL.{said}"
    )
}

/// It answers with a redirect.
pub(crate) const REDIRECTED: &str =
    "The model's provider answered with a redirect, which is not followed. Check LLM_BASE_URL.";

/// The request itself displeases.
pub(crate) fn refused(status: u16, said: &str) -> String {
    format!(
        "The model's provider rejected the request ({status}). If it does so again, start a new conversation with `!new`, \
         or set another model with LLM_MODEL.{said}"
    )
}

/// Trouble of its own, after all retries.
pub(crate) fn unavailable(status: Option<u16>, wait: Option<Duration>, said: &str) -> String {
    let number = status.map(|status| format!(" ({status})")).unwrap_or_default();
    // After a 500 that stays it may be the conversation that its server cannot take.
    let stays = if status == Some(500) { ", and if it stays so, start a new conversation with `!new`" } else { "" };
    format!("The model's provider has trouble{number}; {}{stays}.{said}", again(wait))
}

/// Nothing came for too long; `did` is what the model failed to do.
pub(crate) fn slow(did: &str, limit: Duration) -> String {
    format!("The model {did} within {} s. Try again, or choose a faster one with LLM_MODEL.", limit.as_secs())
}

/// Nothing at all came.
pub(crate) const SLOW_BEGIN: &str = "did not begin to answer";

/// It fell silent in the middle.
pub(crate) const SLOW_GO_ON: &str = "fell silent and did not go on";

/// It went on without an end.
pub(crate) const SLOW_END: &str = "did not end its answer";

/// The stream ended in the middle.
pub(crate) const CUT: &str = "The model's answer broke off in the middle. Try again.";

/// What came is no chat completion, and never will be one.
pub(crate) fn garbled(what: &str) -> String {
    format!("What the model's provider sent is no chat completion ({what}). Check LLM_BASE_URL and LLM_MODEL.")
}

/// What came is no whole chat completion; the next one may be.
pub(crate) fn broken(what: &str) -> String {
    format!(
        "What the model's provider sent is no chat completion ({what}). Try again; if it stays so, check LLM_BASE_URL and \
         LLM_MODEL."
    )
}

/// The model wrote a call that its provider could not read.
pub(crate) fn bad_call(said: &str) -> String {
    format!(
        "The model wrote a tool call that its provider could not read. Another model may do better: see LLM_MODEL.{said}"
    )
}

fn again(wait: Option<Duration>) -> String {
    match wait {
        Some(wait) if wait.as_secs() > 90 => format!("it asks to wait {} minutes", wait.as_secs().div_ceil(60)),
        Some(wait) => format!("it asks to wait {} s", wait.as_secs().max(1)),
        None => "try again in a minute".to_owned(),
    }
}
