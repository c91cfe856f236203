//! `self_update`: an administrator asks in a room, says yes to the commit, and reads what became of it.

use std::fs;

use serde_json::{Value, json};

use crate::{
    machine::{GOOD, Machine},
    support::{
        rig::{BARE, Rig, answers, block_on, wait},
        scripted_llm::{Reply, ScriptedLlm},
    },
};

/// A model that asks for the update and tells what came of it.
fn llm() -> ScriptedLlm {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| {
        let last = request["messages"].as_array().unwrap().last().unwrap();
        if last["role"] == "tool" {
            return Reply::text(&format!("It came to this: {}", last["content"].as_str().unwrap()));
        }
        Reply::calls(&[("self_update", json!({"reason": "Somebody asked."}))])
    });
    llm
}

/// Whether models are offered it in a request.
pub(crate) fn is_offered(request: &Value) -> bool {
    request["tools"].as_array().unwrap().iter().any(|tool| tool["function"]["name"] == "self_update")
}

/// Asks for it, and answers the card; returns what the chat came to.
fn update(machine: &Machine, yes: bool) -> String {
    let _watched = machine.watched();
    let mut chat = machine.ask("one", "Update yourself, please.");
    let card = chat.until("the card", |frame| {
        frame["text"].as_str().is_some_and(|text| text.contains("replace this server's own program"))
    });
    let text = card["text"].as_str().unwrap();
    let order = text.split('`').find(|part| part.starts_with(if yes { "!yes " } else { "!no " })).unwrap();
    machine.ask("one", order).finish();
    let (_, frames) = chat.finish();
    assert_eq!(answers(&frames).len(), 1, "{frames:#?}");
    format!("{text}\n{}", answers(&frames)[0]["text"].as_str().unwrap())
}

fn machine(llm: &ScriptedLlm) -> Machine {
    let machine = Machine::new(Rig::new(BARE, llm.base_url()));
    fs::create_dir_all(machine.path("s/redeploy")).unwrap();
    machine.systemctl(&["restart", "--no-block", "matrix-agent.service"]);
    machine.until_ready();
    machine
}

#[test]
fn an_administrator_s_yes_to_the_commit_brings_it_and_both_servers_tell_the_room() {
    let llm = llm();
    let mut machine = machine(&llm);
    let commit = machine.publish("", GOOD);
    let said = update(&machine, true);
    assert!(said.contains(&commit[..10]) && said.contains("Version 2"), "{said}");
    assert!(said.contains("It came to this: ✅ I run as"), "{said}");
    assert_eq!((machine.installed().as_str(), machine.previous().as_str()), ("2", "1"));
    assert_eq!(llm.requests().len(), 2, "nothing was asked twice");
    assert!(is_offered(&llm.requests()[0]));
    wait("the room's news", || machine.told().iter().any(|told| told.starts_with("✅ I run as")));
    let told = machine.told();
    let place = |sign: &str| told.iter().position(|told| told.starts_with(sign)).expect(sign);
    assert!(place("🔧 I have built") < place("✅ I run as"), "{told:?}");
}

#[test]
fn a_no_changes_nothing_and_a_bad_version_is_told_by_the_old_one() {
    let llm = llm();
    let mut machine = machine(&llm);
    machine.publish("", r#"case "$*" in *"null run") exit 1 ;; esac"#);
    let said = update(&machine, false);
    assert!(!said.contains("✅ I run as"), "{said}");
    assert_eq!((machine.installed().as_str(), machine.beside().len()), ("1", 1));
    let said = update(&machine, true);
    assert!(said.contains("It came to this: ❌ I was replaced by"), "{said}");
    assert_eq!(machine.installed(), "1");
    wait("the room's news", || machine.told().iter().any(|told| told.starts_with("❌ I was replaced")));
}
