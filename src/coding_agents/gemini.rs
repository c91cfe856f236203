//! Gemini CLI: Google's, for API keys. Its settings and its policy stand in the image (`sandbox/image/gemini-cli/`).

use super::{
    agent::{CodingAgent, Launch, MODEL_DOOR},
    stream::Dialect,
};
use crate::gateway::models::Protocol;

/// The description of Gemini CLI.
pub(super) static GEMINI: CodingAgent = CodingAgent {
    name: "Gemini CLI",
    program: "gemini",
    protocol: Protocol::Gemini,
    dialect: Dialect::Gemini,
    arguments,
    environment,
    exit,
};

fn arguments(launch: &Launch<'_>) -> Vec<String> {
    let mode = if launch.role.may_write() { "yolo" } else { "plan" };
    // Without a model it asks one which model to ask.
    let fixed = ["--model", launch.model, "--approval-mode", mode, "--output-format", "stream-json"];
    fixed.into_iter().map(str::to_owned).chain(launch.session.arguments()).collect()
}

fn environment(launch: &Launch<'_>) -> Vec<(&'static str, String)> {
    vec![
        ("GOOGLE_GEMINI_BASE_URL", MODEL_DOOR.to_owned()),
        ("GEMINI_API_KEY", launch.key.to_owned()),
        // It does nothing in a folder that nobody has called trusted.
        ("GEMINI_CLI_TRUST_WORKSPACE", "true".to_owned()),
        // One process fewer: the outer one hides how the inner one ended.
        ("GEMINI_CLI_NO_RELAUNCH", "true".to_owned()),
        // Of a plainer terminal it warns in each run.
        ("TERM", "xterm-256color".to_owned()),
        ("COLORTERM", "truecolor".to_owned()),
    ]
}

fn exit(code: i32) -> Option<&'static str> {
    Some(match code {
        41 => "it could not log in",
        42 => "it did not take its input",
        44 => "its own sandbox failed",
        52 => "it does not take its settings",
        53 => "it reached its limit of turns",
        54 => "a tool of its failed",
        55 => "it does not trust the folder",
        130 => "it was cancelled",
        // The status of the last answer, of which a process can hand on the lowest byte.
        144 => "its model's server answered 400",
        145 => "its model's server answered 401",
        147 => "its model's server answered 403",
        148 => "its model's server answered 404",
        173 => "its model's server answered 429",
        244 => "its model's server answered 500",
        246 => "its model's server answered 502",
        247 => "its model's server answered 503",
        _ => return None,
    })
}
