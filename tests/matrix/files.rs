//! Files both ways: what people send lands in the sandbox and before the model's eyes, what the bot makes in the room.

use std::io::Write as _;

use matrix_sdk::ruma::OwnedRoomId;
use matrix_sdk::{attachment::AttachmentConfig, ruma::events::room::message::TextMessageEventContent};
use serde_json::{Value, json};

use crate::support::{
    bot::Town,
    proxy::Fault,
    replies::Reply,
    rig::FULL,
    scripted_llm::{results, user_texts},
    seen::Seen,
    synapse::Limits,
};

/// A picture of one point.
const POINT: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\nIDATx\x9cc\0\x01\0\0\x05\0\x01\r\n-\xb4\0\0\0\0IEND\xaeB`\x82";

/// What the bot takes, in bytes, and what the homeserver of these tests takes.
const TAKEN: u64 = 32 << 20;
const HUGE: usize = 200 << 20;

impl Town {
    /// Sends a file whose event says of it what `content` does.
    async fn send_as(&self, room: &OwnedRoomId, url: &str, content: Value) -> String {
        let mut content = content;
        content["url"] = url.into();
        self.anna.send(room, "m.room.message", content).await
    }

    /// Uploads some bytes, and returns where they are.
    async fn stored(&self, bytes: Vec<u8>) -> String {
        let uploaded = self.anna.client.media().upload(&"text/plain".parse().unwrap(), bytes, None).await;
        uploaded.unwrap().content_uri.to_string()
    }

    /// The most memory that the server has had, in bytes.
    fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.as_ref().unwrap().pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}

/// The pictures of a request's last message.
fn pictures(request: &Value) -> Vec<&str> {
    let last = request["messages"].as_array().unwrap().last().unwrap();
    let parts = last["content"].as_array().into_iter().flatten();
    parts.filter_map(|part| part["image_url"]["url"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_send_lands_in_the_sandbox_and_before_the_models_eyes() {
    let town = Town::prepared(Limits::Relaxed, |rig| rig.set("LLM_MODEL", "openai/gpt-4o")).await;
    town.llm.otherwise(|_| Reply::text("I see."));
    for encrypted in [false, true] {
        let room = town.room(encrypted).await;
        for path in ["/workspace/uploads/notes.txt", "/workspace/uploads/notes-2.txt"] {
            let sent = town.anna.upload(&room, "notes.txt", path.as_bytes().to_vec(), "text/plain").await;
            let reply = town.replies(&sent).await;
            assert!(reply.body().contains(&format!("Saved as `{path}`.")), "{reply:?}");
            assert_eq!(town.in_sandbox(&room, &format!("cat {path}")), path);
        }
        let broken = town.anna.upload(&room, "broken.png", POINT[..POINT.len() / 2].to_vec(), "image/png").await;
        let reply = town.replies(&broken).await;
        let sentence = "As a picture it cannot be shown: it is broken, for its data cannot be decoded.";
        assert!(reply.body().contains(sentence), "{reply:?}");
        let asked = town.llm.requests().len();
        let caption = TextMessageEventContent::plain("what is in it?");
        let config = AttachmentConfig::new().caption(Some(caption));
        let (to, mime) = (town.anna.room(&room), "image/png".parse().unwrap());
        let sent = to.send_attachment("a b.png", &mime, POINT.to_vec(), config).await.unwrap();
        let sent = sent.event_id.to_string();
        assert!(town.replies(&sent).await.body().contains("I see."));
        let requests = town.llm.requests();
        assert_eq!(requests.len(), asked + 1, "a file without words asks nothing");
        let request = requests.last().unwrap();
        assert!(pictures(request)[0].starts_with("data:image/png;base64,iVBOR"), "{request}");
        let texts = user_texts(request);
        let told = "what is in it?\n\n[a b.png saved as /workspace/uploads/a b.png: image/png";
        assert!(texts.last().unwrap().contains(told), "{texts:#?}");
        let others = texts.iter().map(|text| text.matches("[notes.txt saved as").count()).sum::<usize>();
        assert_eq!(others, 2, "it was told of the others: {texts:#?}");
        assert_eq!(town.in_sandbox(&room, "wc -c < '/workspace/uploads/a b.png'").trim(), POINT.len().to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_answered_politely_and_costs_little() {
    let town = Town::start().await;
    let room = town.room(false).await;
    let small = town.stored(b"small".to_vec()).await;
    let long = format!("{}.txt", "n".repeat(300));
    let kept = format!("{}.txt", "n".repeat(96));
    for (name, lands) in [
        ("../../x", "x"),
        ("", "file"),
        (&*long, &*kept),
        ("a\u{0}b.txt", "ab.txt"),
        ("/etc/passwd", "passwd"),
        ("..", "file-2"),
        ("`id` $(id)\n.sh", "'id' $(id).sh"),
    ] {
        let content = json!({"msgtype": "m.file", "body": name, "info": {"size": 5}});
        let reply = town.send_as(&room, &small, content).await;
        let reply = town.replies(&reply).await;
        assert!(reply.body().contains(&format!("Saved as `/workspace/uploads/{lands}`.")), "{name:?}: {reply:?}");
    }
    let listed = town.in_sandbox(&room, "cd /workspace/uploads; ls | wc -l; cat * | wc -c; ls /workspace");
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["7", "35", "uploads"]);

    // It says itself that it is too large; or it says that it is small.
    let claims = json!({"msgtype": "m.file", "body": "disk.img", "info": {"size": TAKEN + 1}});
    let reply = town.send_as(&room, &small, claims).await;
    let reply = town.replies(&reply).await;
    assert!(reply.body().contains("`disk.img` was not saved: it has 32 MiB, and I take files of up to 32 MiB."));
    let huge = town.stored(vec![b'x'; HUGE]).await;
    let before = town.peak();
    let reply = town.send_as(&room, &huge, json!({"msgtype": "m.file", "body": "liar.txt", "info": {"size": 5}})).await;
    let reply = town.replies(&reply).await;
    assert!(reply.body().contains("`liar.txt` was not saved: it has 200 MiB"), "{reply:?}");
    let grown = town.peak() - before;
    assert!(grown < 16 << 20, "the server has grown by {grown} bytes");

    let gone = json!({"msgtype": "m.file", "body": "gone.txt"});
    for url in ["mxc://localhost/nothing", "mxc://", "https://evil.example/x", "mxc://localhost/../../admin"] {
        let reply = town.send_as(&room, url, gone.clone()).await;
        let reply = town.replies(&reply).await;
        assert!(reply.body().contains("`gone.txt` was not saved: "), "{url}: {reply:?}");
    }
    let voice = json!({"msgtype": "m.audio", "body": "v.ogg", "url": small, "org.matrix.msc3245.voice": {}});
    let place = json!({"msgtype": "m.location", "body": "here", "geo_uri": "geo:1,2"});
    let odd = json!({"msgtype": "org.example.odd", "body": "?"});
    let sticker = json!({"body": "cat", "url": small, "info": {}});
    let poll = json!({"m.poll": {"question": {"m.text": [{"body": "?"}]}, "answers": []}, "m.text": [{"body": "?"}]});
    for (kind, content, word) in [
        ("m.room.message", voice, "voice messages"),
        ("m.room.message", place, "locations"),
        ("m.room.message", odd, "messages of this kind"),
        ("m.sticker", sticker, "stickers"),
        ("org.matrix.msc3381.poll.start", poll, "polls"),
    ] {
        let sent = town.anna.send(&room, kind, content).await;
        let reply = town.replies(&sent).await;
        assert_eq!(reply.body(), format!("I cannot work with {word}. Please write it, or send it as a file."));
    }
    assert!(town.llm.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bot_makes_comes_as_files_and_pictures_and_what_is_too_large_as_a_sentence() {
    let prepare = |rig: &mut crate::support::rig::Rig| rig.set("SANDBOX_IMAGE", FULL);
    let town = Town::configured(Limits::Default, "max_upload_size: 200K", prepare).await;
    town.synapse.exempt(&town.bot).await;
    for encrypted in [false, true] {
        let room = town.room(encrypted).await;
        let word = format!("make-{encrypted}");
        let page = "echo '<h1>Hi</h1>' > page.html; head -c 300K /dev/zero > big.bin; echo data > 'my report.csv'";
        town.llm
            .when(&word)
            .reply_calls(&[("run_command", json!({"command": page}))])
            .reply_calls(&[
                ("take_screenshot", json!({"url": "page.html", "width": 200, "height": 100})),
                ("send_file", json!({"path": "my report.csv"})),
                ("send_file", json!({"path": "big.bin"})),
            ])
            .reply_text("There they are.");
        let asked = town.anna.say(&room, &word).await;
        town.replies(&asked).await;
        let shown = town.llm.requests();
        let came = town.said_since(&room, &asked).await;
        let of = |kind: &str| came.iter().filter(|it| it.msgtype() == kind).collect::<Vec<&Seen>>();
        let pictures = of("m.image");
        assert_eq!(pictures.len(), 1, "{came:#?} {:#?}", results(shown.last().unwrap()));
        assert_eq!(pictures[0].content["info"]["mimetype"], "image/png");
        assert!(town.anna.download(pictures[0]).await.starts_with(&POINT[..8]));
        let files = of("m.file");
        assert_eq!((files.len(), files[0].body()), (1, "my report.csv"));
        assert_eq!(town.anna.download(files[0]).await, b"data\n");
        let sentence = "`big.bin` has 300 KiB, and the homeserver takes 200 KiB.";
        assert!(of("m.notice").iter().any(|it| it.body().starts_with(sentence)), "{came:#?}");

        let mut long = Vec::new();
        for line in 0.. {
            if long.len() > 60_000 {
                break;
            }
            writeln!(long, "{line}. A line of *text* with <b>marks</b> & \"quotes\".").unwrap();
        }
        let long = String::from_utf8(long).unwrap();
        let word = format!("long-{encrypted}");
        town.llm.when(&word).reply_text(&long);
        let asked = town.anna.say(&room, &word).await;
        let answer = town.replies(&asked).await;
        assert!(answer.body().len() < 32 << 10 && answer.body().contains("the whole text is in the attached file"));
        let file = town.said_since(&room, &asked).await.into_iter().find(|it| it.msgtype() == "m.file").unwrap();
        assert_eq!(file.body(), "answer.md");
        assert_eq!(String::from_utf8(town.anna.download(&file).await).unwrap().trim(), long.trim());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_leads_no_download_to_the_hosts_own_network() {
    let (town, proxy) = Town::proxied().await;
    let inside = wiremock::MockServer::start().await;
    let secret = wiremock::ResponseTemplate::new(200).set_body_string("for this machine alone");
    wiremock::Mock::given(wiremock::matchers::any()).respond_with(secret).mount(&inside).await;
    let room = town.room(false).await;
    let there = inside.uri();
    proxy.rule(move |asked| asked.path.contains("/media/download/").then(|| Fault::Redirect(format!("{there}/key"))));
    let sent = town.anna.upload(&room, "notes.txt", b"notes".to_vec(), "text/plain").await;
    let reply = town.replies(&sent).await;
    assert!(reply.body().contains("could not be downloaded"), "{reply:?}");
    assert_eq!(inside.received_requests().await.unwrap().len(), 0, "the service inside was asked");
}
