//! Qwen Code: Alibaba's, for any OpenAI-compatible model. Its settings stand in the image (`sandbox/image/qwen-code/`).

use super::{
    agent::{CodingAgent, Launch, MODEL_DOOR},
    stream::Dialect,
};
use crate::gateway::models::Protocol;

/// The description of Qwen Code.
pub(super) static QWEN: CodingAgent = CodingAgent {
    name: "Qwen Code",
    program: "qwen",
    protocol: Protocol::OpenAi,
    dialect: Dialect::Qwen,
    arguments,
    environment,
    exit,
};

fn arguments(launch: &Launch<'_>) -> Vec<String> {
    let mode = if launch.role.may_write() { "yolo" } else { "plan" };
    let fixed = ["--approval-mode", mode, "--output-format", "stream-json"];
    fixed.into_iter().map(str::to_owned).chain(launch.session.arguments()).collect()
}

fn environment(launch: &Launch<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("OPENAI_BASE_URL", format!("{MODEL_DOOR}/v1")),
        ("OPENAI_API_KEY", launch.key.to_owned()),
        ("OPENAI_MODEL", launch.model.to_owned()),
        ("QWEN_CODE_SUPPRESS_YOLO_WARNING", "1".to_owned()),
        // One process fewer: the inner one would outlive the outer.
        ("QWEN_CODE_NO_RELAUNCH", "true".to_owned()),
    ]
}

fn exit(code: i32) -> Option<&'static str> {
    Some(match code {
        53 => "it reached its limit of turns",
        55 => "it reached its limit of time",
        130 => "it was cancelled",
        _ => return None,
    })
}
