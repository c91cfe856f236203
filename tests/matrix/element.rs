//! What people see: the bot in Element's own interface. How that is driven: `tests/element/`.
//!
//! The pictures of the documentation are made here too:
//! `MATRIX_AGENT_PICTURES=docs/images cargo nextest run --test matrix element`.

use std::sync::Arc;

use matrix_sdk::ruma::RoomId;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{
    bot::Town,
    element::{Element, Encrypted, Person, Seen, Shield, Tile},
    replies::Reply,
    rig::{FULL, Rig},
    scripted_llm::results,
    synapse::{Limits, password},
};

const EVA: &str = "@eva:localhost";
/// What is typed into Element's picker to find 🛑.
const STOP: &str = "octagonal";
/// The same for 👍.
const THUMBS_UP: &str = "thumbs up";

/// One browser and one homeserver for all of it.
#[tokio::test(flavor = "multi_thread")]
async fn people_at_element_see_work_answers_pictures_and_no_red_shield() {
    let prepare = |rig: &mut Rig| {
        rig.set("SANDBOX_IMAGE", FULL);
        rig.set("ALLOWED_USERS", &format!("{EVA},@anna:localhost"));
        rig.set("ADMIN_USERS", EVA);
        rig.set("SANDBOX_ALLOWED_HOSTS", "none");
        rig.set("HOST_ASK_SECONDS", "60");
        rig.trust_what_this_machine_trusts();
    };
    let (town, element) = tokio::join!(Town::prepared(Limits::Relaxed, prepare), Element::start("bot"));
    town.synapse.account("eva").await;
    for (id, name) in [(EVA, "Eva"), (&*town.bot, "agent")] {
        let path = format!("/_synapse/admin/v2/users/{id}");
        town.synapse.admin(Method::PUT, &path, json!({ "displayname": name })).await;
    }
    let eva = element.login("eva", town.synapse.url(), "eva", &password("eva")).await;
    work_is_seen_and_stopped(&town, &eva).await;
    a_host_is_opened_from_the_room(&town, &eva).await;
    an_encrypted_room_has_no_red_shield(&town, &eva).await;
}

/// The bot's messages of the room that is shown.
async fn of_bot(town: &Town, eva: &Person) -> Vec<Tile> {
    let tiles = eva.timeline().await.into_iter();
    tiles.filter(|tile| tile.sender.as_deref() == Some(&*town.bot)).collect()
}

fn wrote(path: &str, content: &str) -> (&'static str, Value) {
    ("write_file", json!({"path": format!("bill/{path}"), "content": content}))
}

fn edited(path: &str, old: &str, new: &str) -> (&'static str, Value) {
    ("edit_file", json!({"path": format!("bill/{path}"), "old_text": old, "new_text": new}))
}

/// A model that writes a page, finds its tests failing, mends it, tests it again and looks at it. Its second message
/// waits for the gate, the last of its tests until there is a file `/tmp/go`.
fn script_the_page(town: &Town, gate: &Arc<Notify>) {
    let said = |words: &str, calls: &[(&str, Value)]| Reply::calls(calls).saying(words);
    let test = || ("run_tests", json!({"path": "bill"}));
    let last = "sum(split(10000, 0, 3)), 10000));\n";
    let serve = json!({"command": "python3 -m http.server 8123", "workdir": "bill", "background": true});
    town.llm
        .when("splits a bill")
        .reply(said(
            "I write the sum and its tests first.",
            &[
                wrote("package.json", include_str!("element/package.json")),
                wrote("split.mjs", include_str!("element/split.mjs")),
                wrote("split.test.mjs", include_str!("element/split.test.mjs")),
            ],
        ))
        .after(gate)
        .reply(said("Let me see whether they pass.", &[test()]))
        .reply(said(
            "A cent is lost in rounding: I mend that, and write the page.",
            &[
                edited(
                    "split.mjs",
                    "return Array(people).fill(Math.round(total / people));",
                    "const share = Math.floor(total / people);\n  const rest = total % people;\n  \
                     return Array(people).fill(share).map((it, at) => it + (at < rest));",
                ),
                edited("split.test.mjs", last, &format!("{last}{}", include_str!("element/random.mjs"))),
                wrote("index.html", include_str!("element/index.html")),
            ],
        ))
        .reply(said("Now once more, with random bills:", &[test()]))
        .reply(said(
            "All pass. I look at the page.",
            &[("run_command", serve), ("take_screenshot", json!({"url": "8123", "width": 640, "height": 480}))],
        ))
        .reply_text(include_str!("element/answer.md"));
}

/// One progress message that changes, a rich answer with a picture, on a narrow window too, and a stop by 🛑.
async fn work_is_seen_and_stopped(town: &Town, eva: &Person) {
    let gate = Arc::new(Notify::new());
    script_the_page(town, &gate);

    let room = eva.create_room("Split the bill", Encrypted::No, &[&town.bot]).await;
    let greeting = eva.wait(&Seen::text("!help").from(&town.bot)).await;
    assert!(greeting.notice, "{greeting:?}");

    eva.send("Please write a page that splits a bill: total, tip, people. With tests, and show me how it looks.").await;
    let first = eva.wait(&Seen::text("split.test.mjs").from(&town.bot).notice(true)).await;
    gate.notify_one();
    let working = eva.wait(&Seen::text("add up to the total").from(&town.bot).notice(true)).await;
    assert_eq!((&working.event_id, working.edited), (&first.event_id, true), "{working:?}");
    eva.screenshot("room-at-work.png").await;
    let go = tokio::task::block_in_place(|| town.rig.run(&["sandbox", "exec", &room, "--", "touch", "/tmp/go"]));
    assert!(go.status.success(), "{go:?}");

    let answer = eva.wait(&Seen::text("The page is in").from(&town.bot)).await;
    assert_eq!(
        (answer.notice, answer.edited, answer.pills.len()),
        (false, false, 0),
        "nobody else is there to call from"
    );
    assert_eq!((answer.tables, answer.code.as_slice(), answer.details), (1, &["js".to_owned()][..], 1), "{answer:?}");
    assert_eq!(answer.lists, 2, "{answer:?}");
    eva.wait(&Seen::image().from(&town.bot)).await;
    let done = eva.wait(&Seen::text("✓ done").from(&town.bot)).await;
    assert_eq!(done.event_id, first.event_id);
    assert_eq!(of_bot(town, eva).await.len(), 4, "a greeting, a progress message, an image, an answer");
    eva.resize(1100, 1180).await;
    eva.screenshot("answer.png").await;
    eva.resize(390, 844).await;
    eva.screenshot("phone.png").await;
    eva.resize(1100, 760).await;

    town.llm.when("yen").reply_calls(&[("run_command", json!({"command": "sleep 1000"}))]);
    eva.send("Now the same for yen.").await;
    eva.wait(&Seen::text("sleep 1000").from(&town.bot)).await;
    eva.react("sleep 1000", STOP).await;
    let stopped = eva.wait(&Seen::text("■ stopped").from(&town.bot)).await;
    assert_eq!(stopped.reactions, ["🛑1"], "{stopped:?}");
    eva.wait(&Seen::text("Stopped").from(&town.bot).notice(false)).await;
}

/// An install waits for its host, and goes on once somebody has said yes.
async fn a_host_is_opened_from_the_room(town: &Town, eva: &Person) {
    let install = "npm install --no-audit --no-fund --fetch-retries=0 is-odd@3.0.1 && node -e 'console.log(require(\"is-odd\")(7))'";
    town.llm
        .when("is-odd")
        .reply(Reply::calls(&[("run_command", json!({"command": install, "workdir": "/workspace"}))]))
        .reply_text("`is-odd` is installed, and it says that 7 is odd.");
    eva.create_room("Packages", Encrypted::No, &[&town.bot]).await;
    eva.wait(&Seen::text("!help").from(&town.bot)).await;
    eva.send("Please install is-odd and try it.").await;
    let card = eva.wait(&Seen::text("May I?").from(&town.bot).notice(false)).await;
    eva.screenshot("host-asked-for.png").await;
    eva.react("May I?", THUMBS_UP).await;
    let opened = eva.wait(&Seen::text("Allowed by").from(&town.bot)).await;
    assert_eq!((&opened.event_id, opened.edited), (&card.event_id, true), "{opened:?}");
    eva.wait(&Seen::text("7 is odd").from(&town.bot).notice(false)).await;
    eva.wait(&Seen::text("✓ done").from(&town.bot)).await;
    eva.screenshot("host-opened.png").await;
    let results = results(town.llm.requests().last().unwrap()).last().unwrap().to_string();
    assert!(results.contains("exit code: 0") && results.contains("true"), "{results}");
}

/// Neither the greeting nor progress nor the answer has one, and there are some to be seen.
async fn an_encrypted_room_has_no_red_shield(town: &Town, eva: &Person) {
    let note = "echo 'The spare key is with Mrs Berg.' >> notes.md; cat notes.md";
    town.llm
        .when("spare key")
        .reply(Reply::calls(&[("run_command", json!({ "command": note }))]))
        .reply_text("Noted in `notes.md`: the spare key is with Mrs Berg.");
    let room = eva.create_room("Just between us", Encrypted::Yes, &[&town.bot, &town.anna.id]).await;
    let room = <&RoomId>::try_from(room.as_str()).unwrap();
    town.anna.accept(room).await;
    eva.wait(&Seen::text("!help").from(&town.bot)).await;
    eva.send("Please note that the spare key is with Mrs Berg.").await;
    eva.wait(&Seen::text("Noted in").from(&town.bot)).await;
    eva.wait(&Seen::text("✓ done").from(&town.bot)).await;
    eva.screenshot("encrypted.png").await;

    town.anna.send_plain(room, "m.room.message", json!({"msgtype": "m.text", "body": "said in the clear"})).await;
    assert_eq!(eva.wait(&Seen::text("said in the clear")).await.shield, Shield::Red);
    let shields: Vec<_> = of_bot(town, eva).await.iter().map(|tile| tile.shield).collect();
    assert_eq!(shields, [Shield::None; 3], "a greeting, a progress message, an answer");
}
