//! What happens to a room's sandbox from outside, as the room sees it: the real binary, real Podman, a scripted model.

mod support;

use serde_json::json;
use support::{
    rig::{BARE, Rig, answers, block_on},
    scripted_llm::{Reply, ScriptedLlm, results},
};

fn rig() -> (ScriptedLlm, Rig) {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    (llm, rig)
}

fn run_command(command: &str) -> Reply {
    Reply::calls(&[("run_command", json!({"command": command}))])
}

#[test]
fn a_turn_goes_on_when_its_sandbox_was_paused() {
    let (llm, rig) = rig();
    llm.reply_calls(&[("run_command", json!({"command": "echo begun; sleep 600", "timeout_seconds": 5}))]);
    llm.reply(run_command("echo again")).reply_text("It is paused.");
    let _server = rig.serve();
    let mut chat = rig.ask("one", "go");
    chat.until("the command's output", |frame| frame["kind"] == "tool_output" && frame["line"] == "begun");
    let list = String::from_utf8(rig.run(&["sandbox", "list"]).stdout).unwrap();
    let name = list.split_whitespace().nth(1).unwrap();
    let podman = |verb| std::process::Command::new("podman").args([verb, name]).output().unwrap();
    assert!(podman("pause").status.success(), "{list}");
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(&requests[2]);
    for told in [told[0], told[1]] {
        assert!(told.contains("is paused") && told.contains(&format!("podman unpause {name}")), "{told}");
        assert!(!told.contains("disk"), "{told}");
    }

    assert!(podman("unpause").status.success());
    llm.reply(run_command("echo back")).reply_text("Done.");
    assert_eq!(rig.ask("one", "and now?").finish().0, 0);
    let requests = llm.requests();
    assert!(results(requests.last().unwrap()).last().unwrap().contains("back"));
}
