//! The audit log, over a real homeserver: what was done is in it, nothing of what was said is, and a room is its witness.

use std::fs;

use serde_json::Value;

use crate::support::{bot::Town, replies::Reply, rig::wait};

impl Town {
    /// The lines of the audit log.
    fn deeds(&self) -> Vec<Value> {
        let files =
            fs::read_dir(self.rig.path().join("s/audit")).into_iter().flatten().map(|file| file.unwrap().path());
        let mut logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "jsonl")).collect();
        logs.sort();
        let text: String = logs.iter().map(|log| fs::read_to_string(log).unwrap()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn verified(&self) -> (bool, String) {
        let output = tokio::task::block_in_place(|| self.rig.run(&["audit", "verify"]));
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&told).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_in_a_log_that_shows_every_change_and_whose_end_a_room_knows() {
    let mut town = Town::start().await;
    let room = town.room(false).await;
    let witness = town.room(false).await;
    // An empty log is no head to tell, and the next look at it comes minutes later.
    town.llm.reply(Reply::command("true")).reply_text("Ready.");
    let first = town.anna.say(&room, "begin").await;
    town.replies(&first).await;
    tokio::task::block_in_place(|| wait("the first line", || !town.deeds().is_empty()));
    town.rig.set("AUDIT_ROOM", witness.as_str());
    town.server.take().unwrap().kill();
    town.serve();
    let ask = |host: &str| {
        let ask = format!("printf 'CONNECT {host}:443 HTTP/1.1\\r\\nHost: {host}:443\\r\\n\\r\\n' >&3; head -n 1 <&3");
        format!("bash -c \"exec 3<>/dev/tcp/127.0.0.1/3128; {ask}\"")
    };
    let asked = ["denied.example", "github.com", "api.github.com"].map(ask).join("; ");
    let command = format!("echo a-secret-word; {asked}; git ls-remote https://github.com/acme/closed; true");
    town.llm.reply(Reply::command(&command)).reply_text("Done.");
    let asked = town.anna.say(&room, "say a-secret-word").await;
    town.replies(&asked).await;
    let order = town.anna.say(&room, "!grant example.org 1h").await;
    town.replies(&order).await;
    let of = |kind: &str| town.deeds().into_iter().find(|deed| deed["kind"] == kind);
    tokio::task::block_in_place(|| wait("the order's line", || of("order").is_some()));
    let tool = of("tool").unwrap();
    assert_eq!((&tool["about"], &tool["outcome"]), (&"run_command".into(), &"done".into()), "{tool}");
    assert!(tool["who"][0] == *town.anna.id && tool["room"] == *room.as_str() && tool["turn"] != "", "{tool}");
    let host = of("host").unwrap();
    assert!(host["about"] == "denied.example" && host["outcome"].as_str().unwrap().starts_with("refused"), "{host}");
    let deeds = town.deeds();
    let hosts: Vec<_> = deeds.iter().filter(|deed| deed["kind"] == "host").map(|deed| &deed["about"]).collect();
    assert!(hosts.iter().all(|host| **host != "") && hosts.contains(&&"github.com".into()), "{hosts:?}");
    assert!(hosts.contains(&&"api.github.com".into()), "{hosts:?}");
    assert_eq!(of("grant").unwrap()["about"], "example.org");
    assert_eq!(of("order").unwrap()["about"], "!grant");
    let text = format!("{:?}", town.deeds());
    assert!(!text.contains("a-secret-word") && !text.contains("echo"), "{text}");

    let said =
        town.anna.wait_for("the witness", |seen| seen.room == witness && seen.body().contains("audit log")).await;
    let head = said.body().split('`').nth(1).unwrap().to_owned();
    let (is_whole, told) = town.verified();
    assert!(is_whole, "{told}");
    let output = tokio::task::block_in_place(|| town.rig.run(&["audit", "verify", "--head", &head]));
    assert!(output.status.success(), "{output:?}");

    let log = fs::read_dir(town.rig.path().join("s/audit")).unwrap().map(|file| file.unwrap().path());
    let log = log.into_iter().find(|path| path.extension().is_some_and(|it| it == "jsonl")).unwrap();
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen("denied.example", "elsewhere.example", 1)).unwrap();
    let (is_whole, told) = town.verified();
    assert!(!is_whole && told.contains("was changed"), "{told}");
    let cut: Vec<_> = text.lines().collect();
    fs::write(&log, cut[..cut.len() - 1].join("\n") + "\n").unwrap();
    let (is_whole, told) = town.verified();
    assert!(!is_whole && told.contains("it was cut"), "{told}");
}
