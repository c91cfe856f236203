//! Rooms of Matrix as people see them who look on: by their names, with what their sandboxes take, and with the turns of all bots.

use std::{fs, os::unix::fs::PermissionsExt};

use reqwest::Method;
use serde_json::json;

use super::support::{
    bot::Town,
    looker::{Looker, part, with_port},
    replies::{End, Reply},
    synapse::{Limits, password},
};

const NAME: &str = "Ops <img src=x onerror=alert(1)> & \"co\"";
const SHOWN: &str = "Ops &lt;img src=x onerror=alert(1)&gt; &amp; &quot;co&quot;";

#[tokio::test(flavor = "multi_thread")]
async fn rooms_have_the_names_that_people_see_and_each_bots_turn_is_followed() {
    let mut address = String::new();
    let town = Town::prepared(Limits::Relaxed, |rig| {
        address = with_port(rig);
        rig.set("ENABLE_CLOUD_BOTS", "true");
    })
    .await;
    town.llm.when("look").reply(Reply::command("head -c 30M /dev/zero > big; sync")).reply_text("I have looked.");
    let Reply::Stream(events, _) = Reply::text("It was a dark night.") else { unreachable!("a text is a stream") };
    town.llm.when("a story").reply(Reply::Stream(events[..2].to_vec(), End::Open));
    let room = town.room(false).await;
    town.anna.state(&room, "m.room.name", "", json!({"name": NAME})).await;
    let asked = town.anna.say(&room, "look").await;
    town.anna.answer_to(&asked).await;

    // A bot that only chats comes while others work.
    let bot = town.synapse.account("llama").await;
    let login = json!({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "llama"},
        "password": password("llama")});
    let (_, login) = town.synapse.call(Method::POST, "/_matrix/client/v3/login", None, Some(login)).await;
    let secrets = town.rig.path().join("s/secrets");
    fs::create_dir_all(&secrets).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o700)).unwrap();
    let (file, fresh) = (secrets.join("cloud-bot-llama.env"), secrets.join("fresh"));
    let settings = format!(
        "BOT_MXID={bot}\nLLM_BASE_URL={}\nLLM_MODEL=tiny\nLLM_API_KEY=k\nALLOWED_ROOMS={room}\nBOT_TOKEN={}\n",
        town.llm.base_url(),
        login["access_token"].as_str().unwrap()
    );
    fs::write(&fresh, settings).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&fresh, &file).unwrap();
    town.anna.invite(&room, &bot).await;
    town.anna.joined(&room, &bot).await;
    town.anna.say(&room, "@llama tell me a story").await;

    let looker = tokio::task::block_in_place(|| Looker::come_in(&town.rig, &address));
    let looker = looker.await;
    let page = looker.until("the running turn", |page| part(page, "running").contains("writes")).await;
    let running = part(&page, "running");
    assert!(running.contains(&format!("title=\"cloud-llama/{room}\">{SHOWN}</span> (cloud-llama)")), "{running}");
    // Its disk's meter has the limit of SANDBOX_DISK.
    let counted = |page: &str| {
        part(page, "sandboxes").contains("<meter max=\"10737418240\" value=\"")
            && part(page, "bots").contains("serves 1 rooms")
    };
    let page = looker.until("the count of files", counted).await;
    let rooms = part(&page, "rooms");
    assert!(rooms.contains(&format!("<td>{SHOWN}<p class=\"where\">{room}</p></td>")), "{rooms}");
    assert!(!page.contains("<img"), "{page}");
    // Nobody sees a name who has not come in.
    let (status, page) = super::get(&format!("{address}/dashboard"), None).await;
    assert!(status == 401 && !page.contains("Ops"), "{page}");

    town.anna.state(&room, "m.room.name", "", json!({"name": "Quiet"})).await;
    looker.until("the new name", |page| part(page, "rooms").contains("<td>Quiet<p")).await;
}
