//! How fast an endpoint is: one short question, timed by the server where it tells times, and by the clock where not.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    entries::{Endpoint, Kind},
    http::{Fault, Http},
};

/// How long one question may take.
const LIMIT: Duration = Duration::from_mins(1);
/// The question; always the same, so that figures can be compared.
const PROMPT: &str =
    "Write two sentences about how a lighthouse works, in plain words, for somebody who has never seen one.";
/// The most tokens of the answer.
const TOKENS: u32 = 30;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Generated tokens a second.
    pub generation: f64,
    /// Tokens of the prompt read a second; `None` if the server does not let it be known.
    pub prompt: Option<f64>,
    /// From the question to the whole answer.
    pub roundtrip: Duration,
}

/// Measures a model that is loaded.
pub(super) async fn measure(http: &Http, endpoint: &Endpoint, model: &str) -> Result<Measured, Fault> {
    match endpoint.kind {
        Kind::LlamaCpp => {
            let mut body = question(model, TOKENS);
            body["cache_prompt"] = false.into();
            let (answer, roundtrip) = ask(http, endpoint, "/v1/chat/completions", &body).await?;
            llama(&answer, roundtrip).ok_or(Fault::NoJson)
        }
        Kind::Ollama => {
            let body = json!({"model": model, "prompt": PROMPT, "stream": false, "options": {"num_predict": TOKENS}});
            let (answer, roundtrip) = ask(http, endpoint, "/api/generate", &body).await?;
            ollama(&answer, roundtrip).ok_or(Fault::NoJson)
        }
        Kind::Vllm => {
            // The first token comes when the prompt was read.
            let (first, read) = ask(http, endpoint, "/v1/chat/completions", &question(model, 1)).await?;
            let (answer, roundtrip) = ask(http, endpoint, "/v1/chat/completions", &question(model, TOKENS)).await?;
            vllm(&first, read, &answer, roundtrip).ok_or(Fault::NoJson)
        }
    }
}

fn question(model: &str, tokens: u32) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": tokens})
}

async fn ask(http: &Http, endpoint: &Endpoint, path: &str, body: &Value) -> Result<(Value, Duration), Fault> {
    let started = Instant::now();
    let answer = http.post(endpoint, path, body, LIMIT).await?;
    Ok((answer, started.elapsed()))
}

fn llama(answer: &Value, roundtrip: Duration) -> Option<Measured> {
    let timings = &answer["timings"];
    let rate = |name: &str| timings[name].as_f64().filter(|rate| rate.is_finite() && *rate > 0.0);
    let (generation, prompt) = (rate("predicted_per_second"), rate("prompt_per_second"));
    let generation = generation.or_else(|| per_second(answer["usage"]["completion_tokens"].as_f64()?, roundtrip))?;
    Some(Measured { generation, prompt, roundtrip })
}

fn ollama(answer: &Value, roundtrip: Duration) -> Option<Measured> {
    let rate =
        |count: &str, time: &str| per_second(answer[count].as_f64()?, Duration::from_nanos(answer[time].as_u64()?));
    let prompt = rate("prompt_eval_count", "prompt_eval_duration");
    Some(Measured { generation: rate("eval_count", "eval_duration")?, prompt, roundtrip })
}

fn vllm(first: &Value, read: Duration, answer: &Value, roundtrip: Duration) -> Option<Measured> {
    let tokens = answer["usage"]["completion_tokens"].as_f64()?;
    let later = roundtrip.checked_sub(read).filter(|later| tokens > 1.0 && !later.is_zero());
    let generation = match later {
        Some(later) => per_second(tokens - 1.0, later),
        None => per_second(tokens, roundtrip),
    };
    let prompt = first["usage"]["prompt_tokens"].as_f64().and_then(|tokens| per_second(tokens, read));
    Some(Measured { generation: generation?, prompt, roundtrip })
}

fn per_second(count: f64, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    (count > 0.0 && seconds > 0.0).then(|| count / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(rate: f64, expected: f64) -> bool {
        (rate - expected).abs() < 0.05
    }

    #[test]
    fn each_server_tells_its_speed_in_its_own_way() {
        let second = Duration::from_secs(1);
        let answer = json!({"timings": {"prompt_n": 30, "prompt_per_second": 392.4, "predicted_n": 30, "predicted_per_second": 61.7}});
        let told = llama(&answer, second).unwrap();
        assert!(near(told.generation, 61.7) && near(told.prompt.unwrap(), 392.4) && told.roundtrip == second);
        let plain = llama(&json!({"usage": {"completion_tokens": 30}}), second).unwrap();
        assert!(near(plain.generation, 30.0) && plain.prompt.is_none(), "an old one tells tokens alone");
        // As in Ollama's documentation of `/api/generate`.
        let answer = json!({"total_duration": 5_043_500_667_u64, "load_duration": 5_025_959, "prompt_eval_count": 26,
            "prompt_eval_duration": 325_953_000, "eval_count": 290, "eval_duration": 4_709_213_000_u64});
        let told = ollama(&answer, second).unwrap();
        assert!(near(told.generation, 61.58) && near(told.prompt.unwrap(), 79.77), "{told:?}");
        let usage =
            |prompt: u32, completion: u32| json!({"usage": {"prompt_tokens": prompt, "completion_tokens": completion}});
        let told = vllm(&usage(40, 1), second / 10, &usage(40, 30), second).unwrap();
        assert!(near(told.prompt.unwrap(), 400.0) && near(told.generation, 29.0 / 0.9), "{told:?}");
        let told = vllm(&usage(40, 1), second, &usage(40, 30), second).unwrap();
        assert!(near(told.generation, 30.0), "the second was as quick as the first: {told:?}");
    }

    #[test]
    fn what_tells_no_speed_is_none() {
        let second = Duration::from_secs(1);
        for answer in [
            json!({}),
            json!([]),
            json!({"timings": "fast"}),
            json!({"timings": {"predicted_per_second": -1}}),
            json!({"eval_count": "9", "eval_duration": 0}),
        ] {
            assert_eq!((llama(&answer, second), ollama(&answer, second)), (None, None), "{answer}");
            assert_eq!(vllm(&answer, second, &answer, second), None);
        }
    }
}
