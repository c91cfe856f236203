//! What the tests ask, and of whom.

use std::time::Duration;

use matrix_agent::llm::{Chunk, Completion, LlmError, Message, Meter, Model, ModelSettings, Part};

use crate::support::scripted_llm::{Reply, ScriptedLlm};

pub(crate) const KEY: &str = "sk-test-0123456789";

pub(crate) fn settings(llm: &ScriptedLlm, model: &str) -> ModelSettings {
    let mut settings = ModelSettings::new(model, KEY.to_owned().into());
    settings.base_url = Some(llm.base_url().to_owned());
    settings.context_window = Some(32_768); // so that it is not asked
    settings.limits.backoff = Duration::from_millis(5);
    settings
}

pub(crate) fn model(llm: &ScriptedLlm, name: &str) -> Model {
    Model::new(settings(llm, name)).expect("a model")
}

pub(crate) fn ask(text: &str) -> Vec<Message> {
    vec![Message::User { parts: vec![Part::Text { text: text.to_owned() }] }]
}

pub(crate) async fn complete(model: &Model) -> (Result<Completion, LlmError>, Vec<Chunk>) {
    let mut shown = Vec::new();
    let completion = model.complete(&ask("hello"), &[], None, &Meter::new(0), &mut |chunk| shown.push(chunk)).await;
    (completion, shown)
}

/// What `name` makes of a raw stream.
pub(crate) async fn stream(name: &str, sse: &str) -> (Completion, Vec<Chunk>) {
    let llm = ScriptedLlm::start().await;
    llm.raw_sse(sse);
    let (completion, shown) = complete(&model(&llm, name)).await;
    (completion.expect("an answer"), shown)
}

/// A stream that ends in an error, each time it is asked.
pub(crate) async fn failing(name: &str, sse: &str) -> LlmError {
    let llm = ScriptedLlm::start().await;
    let sse = sse.to_owned();
    llm.otherwise(move |_| Reply::raw(&sse));
    complete(&model(&llm, name)).await.0.expect_err("an error")
}

pub(crate) fn calls(completion: &Completion) -> Vec<(&str, &str)> {
    completion.message.calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect()
}
