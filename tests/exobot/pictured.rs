//! A room with exobot and a real model, as Element shows it. Only for whoever asks for it: `EXOBOT_GGUF` names the model.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{
    Lab,
    real::{IMAGE, MODEL},
    rooms::login,
    support::{
        element::{Element, Encrypted, Seen},
        synapse::{Limits, Synapse, password},
    },
};

const BOT: &str = "@exobot:localhost";
/// Small models on busy machines are slow.
const SLOW: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a model of one's own: EXOBOT_GGUF=/path/to/model.gguf"]
async fn a_room_with_a_real_model_is_pictured() {
    let gguf = std::env::var(MODEL).expect("EXOBOT_GGUF names the model");
    let (synapse, element) = tokio::join!(Synapse::start(Limits::Relaxed), Element::start("exobot"));
    synapse.admin(Method::GET, "/_synapse/admin/v2/users?limit=1", json!({})).await;
    synapse.account("eva").await;
    let eva = element.login("eva", synapse.url(), "eva", &password("eva")).await;
    let mut lab = Lab::new("none");
    for (key, value) in [
        ("MATRIX_HOMESERVER", synapse.url()),
        ("MATRIX_ADMIN_USER", "@operator:localhost"),
        ("MATRIX_ADMIN_PASSWORD", &password("operator")),
        ("LLAMA_SERVER_BIN", ""),
        ("LLAMA_SERVER_IMAGE", IMAGE),
        ("PODMAN_PATH", "podman"),
        ("MODEL_PATH", &gguf),
    ] {
        lab.rig.set(key, value);
    }
    assert!(login(&lab, "").status.success());
    let room = eva.create_room("With exobot", Encrypted::Yes, &[BOT]).await;
    lab.rig.set("EXOBOT_ALLOWED_ROOMS", &room);
    let _server = tokio::task::block_in_place(|| lab.rig.serve());
    eva.send("@exobot fast: Tell a story. Once upon a time there was a fox who").await;
    eva.wait(&Seen::text(" tok/s").from(BOT).notice(false).within(SLOW)).await;
    eva.screenshot("exobot-room.png").await;
}
