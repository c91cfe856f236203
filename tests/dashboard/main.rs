//! Looking at the server from outside: what it tells machines, and the page on which people look on. The real binary, real Podman,
//! a scripted model.

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod flood;
mod machines;
mod page;
mod rooms;

use matrix_agent::net;
use reqwest::Client;
use serde_json::Value;

use support::looker::with_port;

fn client() -> Client {
    net::client().no_proxy().build().unwrap()
}

/// Asks by a public name, or by none; returns the status and the text.
async fn get(address: &str, name: Option<&str>) -> (u16, String) {
    let request = name.into_iter().fold(client().get(address), |request, name| request.header("host", name));
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// What the bot has said last, as an answer or as the reply to a command.
fn said(frames: &[Value]) -> String {
    let of_bot = |frame: &&Value| frame["event"] == "answer" || frame["event"] == "reply";
    let last = frames.iter().rev().find(of_bot).unwrap_or_else(|| panic!("{frames:?}"));
    last["text"].as_str().unwrap().to_owned()
}
