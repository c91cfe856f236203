//! The real Gemini CLI and Qwen Code at work for a Matrix room: what the people in it see meanwhile.

use serde_json::{Value, json};

use crate::support::{
    bot::Town,
    coding_agents::{Who, answered, aside, steps, who},
    replies::Reply,
    rig::FULL,
    scripted_llm::{ScriptedLlm, results},
    synapse::{Limits, Synapse},
};

/// Qwen Code's steps: a list of what it is to do, a file, and a command that waits until the test lets it go on.
fn implement(request: &Value) -> Reply {
    let todo = |state: &str| {
        let steps = [("1", "Write the page", state), ("2", "Look at it", "pending")];
        let todos: Vec<_> =
            steps.iter().map(|(id, content, status)| json!({"id": id, "content": content, "status": status})).collect();
        json!({"todos": todos})
    };
    match answered(request) {
        0 => Reply::calls(&[("todo_write", todo("in_progress"))]),
        1 => {
            Reply::calls(&[("write_file", json!({"file_path": "/workspace/page.html", "content": "<h1>Login</h1>\n"}))])
        }
        2 => {
            let command = "until [ -e go ]; do sleep 0.05; done; rm go";
            let arguments = json!({"command": command, "description": "wait", "is_background": false});
            Reply::calls(&[("run_shell_command", arguments)])
        }
        _ => Reply::text("The page is there."),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_watches_a_plan_and_its_work() {
    let (synapse, llm) = tokio::join!(Synapse::configured(Limits::Relaxed, ""), ScriptedLlm::start());
    let gemini = llm.gemini_url().to_owned();
    let town = Town::on(synapse, llm, |rig| {
        rig.set("SANDBOX_IMAGE", FULL);
        rig.set("GEMINI_API_KEY", "gemini-scripted-secret");
        rig.set("GEMINI_BASE_URL", &gemini);
    })
    .await;
    town.llm.otherwise(|request| match who(request) {
        Who::Aside => aside(request),
        Who::Orchestrator => {
            let task = json!({"task": "Add a login page."});
            steps(request, &[("plan", task.clone()), ("implement", task)])
        }
        Who::Gemini => Reply::gemini_text("1. Write page.html."),
        Who::Qwen => implement(request),
    });
    let room = town.room(true).await;
    let asked = town.anna.say(&room, "Add a login page, please.").await;
    let shown = town
        .anna
        .shows(&room, "what Qwen Code does, and its list", |shown| {
            shown.iter().any(|message| message.body.contains("run shell command until") && message.body.contains("0/2"))
        })
        .await;
    let progress = shown.iter().find(|message| message.body.contains("run shell command until")).unwrap();
    for part in ["✓ plan: Gemini CLI", "Qwen Code · run shell command until", "▸ Write the page ☐ Look at it", "tokens"]
    {
        assert!(progress.body.contains(part), "{part:?} is not in {progress:#?}");
    }
    town.in_sandbox(&room, "touch go");
    assert!(town.anna.answer_to(&asked).await.body().contains("Done."));
    town.anna
        .shows(&room, "the end of the progress message", |shown| {
            shown.iter().any(|message| message.id == progress.id && message.body.contains("✓ done · 2 tools"))
        })
        .await;
    let logs: Vec<_> = town.anna.shown(&room).into_iter().filter(|message| message.thread == asked).collect();
    assert_eq!(logs.len(), 2, "one for each agent: {logs:#?}");
    assert!(logs.iter().all(|log| log.msgtype == "m.notice"), "a log makes no phone ring: {logs:#?}");
    for part in ["implement: Qwen Code", "write file page.html", "The page is there."] {
        assert!(logs[1].body.contains(part), "{part:?} is not in {:#?}", logs[1]);
    }
    assert_eq!(town.in_sandbox(&room, "cat page.html"), "<h1>Login</h1>\n");
    let requests = town.llm.requests();
    let last = requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap();
    assert!(results(last)[1].contains("page.html +1 −0"), "{:?}", results(last));
}
