//! The real Gemini CLI and Qwen Code in a real sandbox, with a scripted model behind the gateway: what they change, what the
//! room sees meanwhile, how they are ended, and what a plan is kept from.

mod support;

use std::sync::Arc;

use serde_json::{Value, json};
use support::{
    coding_agents::{Who, answered, aside, steps, who},
    rig::{Chat, FULL, Rig, answers, block_on, wait},
    scripted_llm::{Reply, ScriptedLlm, results, user_texts},
};
use tokio::sync::Notify;

/// A rig with the sandbox image and a key for Gemini.
fn rig(llm: &ScriptedLlm) -> Rig {
    let mut rig = Rig::new(FULL, llm.base_url());
    rig.set("GEMINI_API_KEY", "gemini-scripted-secret");
    rig.set("GEMINI_BASE_URL", llm.gemini_url());
    rig
}

/// What the room was shown while calls ran.
fn shown(frames: &[Value]) -> Vec<&str> {
    frames.iter().filter(|frame| frame["kind"] == "tool_output").filter_map(|frame| frame["line"].as_str()).collect()
}

fn exec(rig: &Rig, script: &str) -> String {
    let run = rig.run(&["sandbox", "exec", "one", "--", "sh", "-c", script]);
    String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned()
}

#[test]
fn a_task_is_planned_done_and_reviewed_and_the_room_watches() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| match who(request) {
        Who::Aside => aside(request),
        Who::Orchestrator => steps(
            request,
            &[
                ("run_command", json!({"command": "git init -q && git commit -q --allow-empty -m first"})),
                ("plan", json!({"task": "Write hello.txt."})),
                ("implement", json!({"task": "Write hello.txt."})),
                ("review", json!({})),
            ],
        ),
        Who::Gemini => {
            let asked = user_texts(request).concat();
            let plans = asked.contains("# Task");
            match (plans, answered(request)) {
                // It tries to get out, and to do what it is only to plan.
                (true, 0) => Reply::gemini_calls(&[("exit_plan_mode", json!({"plan_filename": "plan.md"}))]),
                (true, 1) => {
                    Reply::gemini_calls(&[("write_file", json!({"file_path": "/workspace/early.txt", "content": "x"}))])
                }
                (true, 2) => {
                    Reply::gemini_calls(&[("run_shell_command", json!({"command": "touch /workspace/early.txt"}))])
                }
                (true, _) => Reply::gemini_text("1. Write hello.txt."),
                (false, 0) => Reply::gemini_calls(&[("read_file", json!({"file_path": "/workspace/hello.txt"}))]),
                (false, _) if asked.contains("+hello") && asked.contains("1. Write hello.txt.") => {
                    Reply::gemini_text("Verdict: ready")
                }
                (false, _) => Reply::gemini_text("Verdict: not ready"),
            }
        }
        Who::Qwen => match answered(request) {
            0 if user_texts(request).concat().contains("1. Write hello.txt.") => {
                Reply::calls(&[("write_file", json!({"file_path": "/workspace/hello.txt", "content": "hello\n"}))])
            }
            0 => Reply::text("There is no plan."),
            1 => Reply::calls(&[(
                "run_shell_command",
                json!({"command": "cat hello.txt", "description": "look", "is_background": false}),
            )]),
            _ => Reply::text("I wrote hello.txt."),
        },
    });
    let rig = rig(&llm);
    let _server = rig.serve();
    let (code, frames) = rig.ask("one", "Write hello.txt, please.").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");

    let requests = llm.requests();
    let last = requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap();
    let told = results(last);
    for (told, parts) in told[1..].iter().zip([
        &["done: Gemini CLI, gemini-2.5-pro (", "1. Write hello.txt.", "[the whole log: /home/agent/"][..],
        &["done: Qwen Code, scripted (", "I wrote hello.txt.", "1 file +1 −0 changed:\nhello.txt +1 −0"],
        &["done: Gemini CLI", "Verdict: ready"],
    ]) {
        for part in parts {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
    }
    assert!(!told[1].contains("changed"), "{}", told[1]);
    assert_eq!(exec(&rig, "cat hello.txt; ls"), "hello\nhello.txt\n", "the plan wrote nothing");

    let shown = shown(&frames);
    // What is quickly over may go unseen; the last tool stays until the CLI has ended.
    for part in [
        "Gemini CLI · run shell command touch /workspace/early.txt · ",
        "Qwen Code · run shell command cat hello.txt · ",
    ] {
        assert!(shown.iter().any(|line| line.contains(part)), "{part:?} is not in {shown:#?}");
    }
    assert!(shown.iter().any(|line| line.contains("tokens")), "{shown:#?}");
    let ended: Vec<_> = frames
        .iter()
        .filter(|frame| frame["kind"] == "tool_ended")
        .map(|frame| frame["summary"].as_str().unwrap_or_default())
        .collect();
    assert!(
        ended[1].starts_with("plan: Gemini CLI (") && ended[2].starts_with("implement: Qwen Code, 1 file +1 −0 ("),
        "{ended:?}"
    );
    // What the agents are told of keys is void, and no real one was ever inside.
    let found = exec(&rig, "grep -rl -e scripted-secret /home /workspace /tmp /etc /proc/*/environ 2>/dev/null | head");
    assert_eq!(found, "", "{found}");
}

#[test]
fn an_agent_asks_the_same_servers_of_the_registry_as_the_orchestrator() {
    let (busy, llm) = (block_on(ScriptedLlm::start()), block_on(ScriptedLlm::start()));
    busy.lists(&["Busy-7B"]);
    busy.otherwise(|_| Reply::Status(503, Vec::new(), r#"{"error":{"message":"no slot"}}"#.to_owned()));
    llm.lists(&["Lab-30B"]);
    llm.otherwise(|request| match who(request) {
        Who::Aside => aside(request),
        Who::Orchestrator => steps(request, &[("implement", json!({"task": "Write hello.txt."}))]),
        Who::Gemini => Reply::gemini_text("There is no key for me."),
        Who::Qwen => match answered(request) {
            0 => Reply::calls(&[("write_file", json!({"file_path": "/workspace/hello.txt", "content": "hello\n"}))]),
            _ => Reply::text("I wrote hello.txt."),
        },
    });
    let mut rig = Rig::new(FULL, "");
    let registry = rig.path().join("registry");
    std::fs::create_dir(&registry).unwrap();
    let endpoint = |id: &str, priority: u64, llm: &ScriptedLlm| json!({"id": id, "type": "vllm", "url": llm.base_url().trim_end_matches("/v1"), "priority": priority});
    let endpoints = json!({"endpoints": [endpoint("busy", 1, &busy), endpoint("lab", 2, &llm)]});
    std::fs::write(registry.join("inference-endpoints.json"), endpoints.to_string()).unwrap();
    rig.set("LOCALBOT_DIR", registry.to_str().unwrap());
    rig.set("LLM_MODEL", "localbot/");
    let server = rig.serve();
    let (code, frames) = rig.ask("one", "Write hello.txt, please.").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    assert_eq!(exec(&rig, "cat hello.txt"), "hello\n", "{}", server.log());
    let requests = llm.requests();
    let of_agent: Vec<_> = requests.iter().filter(|request| who(request) == Who::Qwen).collect();
    assert!(!of_agent.is_empty() && of_agent.iter().all(|request| request["model"] == "Lab-30B"), "{of_agent:#?}");
    assert!(busy.requests().iter().any(|request| who(request) == Who::Qwen), "the first one was asked before");
    let told = results(requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap());
    assert!(told[0].contains("done: Qwen Code, localbot/ ("), "{told:?}");
}

/// The gateway is the only way out, and it logs every host that is asked for.
#[test]
fn the_agents_dial_no_host_but_their_models() {
    let llm = block_on(ScriptedLlm::start());
    let settings = "/etc/gemini-cli/settings.json /etc/qwen-code/settings.json";
    let on = format!(r#"sed -i 's/"usageStatisticsEnabled": false/"usageStatisticsEnabled": true/' {settings}"#);
    llm.otherwise(move |request| match who(request) {
        Who::Aside => aside(request),
        Who::Orchestrator => {
            let agents = [("plan", json!({"task": "x"})), ("implement", json!({"task": "x"}))];
            let told = ("run_command", json!({"command": on, "as_root": true}));
            let with = user_texts(request).last().is_some_and(|text| text.contains("tell on us"));
            let [plan, implement] = agents;
            // The first turn's two results stand before the second's.
            let first = [plan.clone(), implement.clone()];
            let second = [plan.clone(), implement.clone(), told, plan, implement];
            steps(request, if with { &second[..] } else { &first[..] })
        }
        Who::Gemini => Reply::gemini_text("1. Nothing."),
        Who::Qwen => Reply::text("Nothing to do."),
    });
    let rig = rig(&llm);
    let server = rig.serve();
    let (code, frames) = rig.ask("one", "go").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let log = server.log();
    let hosts = |log: &str| -> Vec<String> {
        let lines = log.lines().filter(|line| line.contains("gateway") && line.contains("kind=web"));
        lines.filter_map(|line| Some(line.split_once(" host=")?.1.split(' ').next()?.to_owned())).collect()
    };
    assert_eq!(hosts(&log), [""; 0], "{log}");
    for agent in ["agent=\"gemini\"", "agent=\"qwen\""] {
        let asked = log.lines().any(|line| line.contains("kind=models") && line.contains(agent));
        assert!(asked, "{agent} asked its model: {log}");
    }

    // What they dial by default is seen here, so nothing else could have been missed.
    let (code, frames) = rig.ask("one", "tell on us").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    wait("the hosts of both", || {
        let hosts = hosts(&server.log());
        ["googleapis.com", "aliyuncs.com"].iter().all(|host| hosts.iter().any(|seen| seen.ends_with(host)))
    });
}

#[test]
fn a_model_that_nobody_has_is_told_with_those_that_there_are() {
    let llm = block_on(ScriptedLlm::start());
    llm.lists(&["gemini-8-mini", "qwen-8-mini"]);
    llm.otherwise(|request| match who(request) {
        Who::Orchestrator => steps(request, &[("plan", json!({"task": "x"})), ("implement", json!({"task": "x"}))]),
        _ => Reply::Status(404, Vec::new(), r#"{"error":{"code":404,"message":"not found"}}"#.to_owned()),
    });
    let mut rig = rig(&llm);
    rig.set("PLAN_MODEL", "gemini-9-mega");
    rig.set("IMPLEMENT_MODEL", "qwen-9-mega");
    let _server = rig.serve();
    let (code, frames) = rig.ask("one", "go").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap());
    for (told, words) in told.iter().zip([
        "knows no model `gemini-9-mega`. It knows gemini-8-mini, qwen-8-mini.",
        "knows no model `qwen-9-mega`. It knows qwen-8-mini, gemini-8-mini.",
    ]) {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
}

#[test]
fn a_stop_ends_every_process_of_an_agent() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| match who(request) {
        Who::Aside => aside(request),
        Who::Orchestrator => steps(request, &[("implement", json!({"task": "Wait."}))]),
        Who::Gemini | Who::Qwen => {
            let command = "setsid sleep 8642 & sleep 8642";
            Reply::calls(&[(
                "run_shell_command",
                json!({"command": command, "description": "wait", "is_background": false}),
            )])
        }
    });
    let rig = rig(&llm);
    let _server = rig.serve();
    let mut chat = rig.ask("one", "wait");
    chat.until("the agent's command", |frame| {
        frame["kind"] == "tool_output"
            && frame["line"].as_str().is_some_and(|line| line.contains("run shell command setsid sleep"))
    });
    let stops = rig.ask("one", "!stop");
    chat.until("that the stop was taken", |frame| frame["kind"] == "seen");
    chat.event("answer");
    assert_eq!(stops.finish().0, 0);
    let (_, frames) = chat.finish();
    assert_eq!(answers(&frames)[0]["ending"], "stopped", "{frames:#?}");
    let left = exec(
        &rig,
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o -e 'sleep 864[2]' -e 'bin/qwe[n]' | wc -l",
    );
    assert_eq!(left.trim(), "0");
}

/// Qwen Code begins, its model refuses from then on, Gemini CLI ends the work.
#[test]
fn whose_model_refuses_gives_way_to_the_next() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| match (who(request), answered(request)) {
        (Who::Aside, _) => aside(request),
        (Who::Orchestrator, _) => steps(request, &[("implement", json!({"task": "Write two files."}))]),
        (Who::Qwen, 0) => {
            let step = |id: &str, content: &str, status: &str| json!({"id": id, "content": content, "status": status});
            let steps = [step("1", "write one.txt", "completed"), step("2", "write two.txt", "pending")];
            Reply::calls(&[
                ("write_file", json!({"file_path": "/workspace/one.txt", "content": "one\n"})),
                ("todo_write", json!({"todos": steps})),
            ])
        }
        (Who::Qwen, _) => Reply::Status(429, Vec::new(), r#"{"error":{"message":"slow down, please"}}"#.to_owned()),
        (Who::Gemini, 0) => {
            let asked = user_texts(request).concat();
            let told = ["slow down", "- [x] write one.txt\n- [ ] write two.txt", "+one"];
            if told.iter().all(|part| asked.contains(part)) {
                Reply::gemini_calls(&[("write_file", json!({"file_path": "/workspace/two.txt", "content": "two\n"}))])
            } else {
                Reply::gemini_text(&format!("I was not told where it stands: {asked}"))
            }
        }
        (Who::Gemini, _) => Reply::gemini_text("I wrote two.txt."),
    });
    let mut rig = rig(&llm);
    rig.set("CODING_IDLE_SECONDS", "20");
    rig.set("IMPLEMENT_FALLBACK", "gemini:gemini-2.5-flash");
    let _server = rig.serve();
    let (code, frames) = rig.ask("one", "Write two files, please.").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let notice = "Gemini CLI with gemini-2.5-flash goes on from there.";
    let told: Vec<_> = frames.iter().filter(|frame| frame.to_string().contains(notice)).collect();
    assert!(
        told.len() == 1 && told[0].to_string().contains("Qwen Code ended: its model refuses every request (429"),
        "{told:#?}"
    );
    // No hook tells that a run was ended; of one that ends by itself nobody else does.
    let ends =
        |part: &str| frames.iter().filter(|frame| frame["kind"] == "told" && frame.to_string().contains(part)).count();
    assert_eq!(
        (ends("qwen ✗ ended: its model refuses"), ends("gemini ✓ I wrote two.txt."), ends("gemini ✓ done")),
        (1, 1, 0),
        "{frames:#?}"
    );
    let requests = llm.requests();
    let told = results(requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap());
    for part in [
        "done: Gemini CLI, gemini-2.5-flash (",
        "Before it, and told to it:\nended: its model refuses every request (429",
        "I wrote two.txt.",
        "2 files +2 −0 changed:\none.txt +1 −0\ntwo.txt +1 −0",
    ] {
        assert!(told[0].contains(part), "{part:?} is not in {}", told[0]);
    }
    assert_eq!(exec(&rig, "cat one.txt two.txt"), "one\ntwo\n");
}

/// Both CLIs read the room's own files, the one what the other has left there.
#[test]
fn what_a_room_keeps_in_mind_reaches_each_agent_and_its_people() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| match who(request) {
        Who::Aside => aside(request),
        Who::Orchestrator => steps(
            request,
            &[
                ("run_command", json!({"command": "printf 'Tabs, never blanks.\n\n@status.md\n' > AGENTS.md"})),
                ("implement", json!({"task": "Look around."})),
                ("plan", json!({"task": "Write it."})),
            ],
        ),
        Who::Gemini => Reply::gemini_text("1. Write it."),
        Who::Qwen => Reply::text("I looked."),
    });
    let rig = rig(&llm);
    let _server = rig.serve();
    let (code, frames) = rig.ask("one", "Look, then plan.").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let asked = |whom: Who| requests.iter().find(|request| who(request) == whom).unwrap().to_string();
    assert!(asked(Who::Qwen).contains("Tabs, never blanks."));
    let plan = asked(Who::Gemini);
    assert!(
        plan.contains("Tabs, never blanks.") && plan.contains("implement “Look around.” by Qwen Code: done"),
        "{plan}"
    );
    let (_, frames) = rig.ask("one", "!memory").finish();
    let reply = |frames: &[Value]| {
        frames.iter().find(|frame| frame["event"] == "reply").unwrap()["text"].as_str().unwrap().to_owned()
    };
    let told = reply(&frames);
    for part in ["`AGENTS.md`", "Tabs, never blanks.", "`status.md`", "] plan “Write it.” by Gemini CLI: done"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    let (_, frames) = rig.ask("two", "!memory").finish();
    assert!(reply(&frames).contains("Nothing is kept in mind"), "{frames:#?}");
}

/// The run goes on while nobody is there, and its key is good again when the server is.
#[test]
fn a_run_goes_on_when_the_server_was_killed() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| match who(request) {
        Who::Aside => aside(request),
        Who::Orchestrator => steps(request, &[("implement", json!({"task": "Wait."}))]),
        Who::Gemini | Who::Qwen if answered(request) > 0 => Reply::text("Came through."),
        Who::Gemini | Who::Qwen => {
            let command = "until [ -e go ]; do sleep 0.05; done; rm go; echo hello > hello.txt";
            let arguments = json!({"command": command, "description": "wait", "is_background": false});
            Reply::calls(&[("run_shell_command", arguments)])
        }
    });
    let rig = rig(&llm);
    let server = rig.serve();
    let mut chat = rig.ask("one", "wait");
    let works = |frame: &Value| frame["line"].as_str().is_some_and(|line| line.contains("run shell command until"));
    chat.until("the agent's command", works);
    server.kill();
    let _server = rig.serve();
    chat.until("the agent's command again", works);
    rig.inside("touch go");
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap());
    for part in ["done: Qwen Code", "Came through.", "1 file +1 −0 changed:\nhello.txt +1 −0"] {
        assert!(told[0].contains(part), "{part:?} is not in {}", told[0]);
    }
    assert_eq!(requests.iter().filter(|request| who(request) == Who::Qwen).count(), 2, "nothing was asked twice");
}

/// Gemini CLI's way to its model breaks with the server. While no answer has begun, it asks once more.
#[test]
fn a_plan_that_waits_for_its_model_outlives_the_server() {
    let llm = block_on(ScriptedLlm::start());
    let never = Arc::new(Notify::new());
    llm.matching(|request| who(request) == Who::Gemini).after(&never).reply(Reply::gemini_text("Lost."));
    llm.otherwise(|request| match who(request) {
        Who::Aside => aside(request),
        Who::Orchestrator => steps(request, &[("plan", json!({"task": "Wait."}))]),
        Who::Gemini | Who::Qwen => Reply::gemini_text("Came through."),
    });
    let rig = rig(&llm);
    let server = rig.serve();
    let chat = rig.ask("one", "wait");
    wait("the plan's request", || llm.requests().iter().any(|request| who(request) == Who::Gemini));
    server.kill();
    let _server = rig.serve();
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap());
    assert!(told[0].starts_with("done: Gemini CLI") && told[0].contains("Came through."), "{}", told[0]);
}

/// While no server is there, an agent goes on, asks its model and writes more than any buffer holds. The one that comes back
/// knows its key again before it answers, and has seen each event once.
#[test]
fn nothing_of_a_run_is_lost_or_seen_twice_when_the_server_was_killed() {
    // In the place of the CLI: what it writes is counted in tokens.
    let program = r#"#!/bin/bash
read -r; read -r
spends() { echo '{"type":"assistant","message":{"content":[{"type":"tool_use","id":"'$1'","name":"write_file","input":{"file_path":"step-'$1'"}}],"usage":{"input_tokens":30000,"output_tokens":0}}}'; }
echo '{"type":"system","subtype":"init","session_id":"a","model":"m"}'
spends 1
until [ -e /tmp/go ]; do sleep 0.05; done
spends 2
for n in {1..20000}; do echo '{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"'$n'","is_error":false}]}}'; done
touch /tmp/asks
said=$(curl -s -m 60 -o /dev/null -w '%{http_code}' -H "authorization: Bearer $OPENAI_API_KEY" -H 'content-type: application/json' \
    -d '{"model":"scripted","messages":[{"role":"user","content":"x"}]}' "$OPENAI_BASE_URL/chat/completions")
spends 3
echo '{"type":"result","subtype":"success","is_error":false,"result":"Its model said '$said'."}'
"#;
    let put =
        format!("mkdir -p ~/.local/bin && cat > ~/.local/bin/qwen <<'END'\n{program}END\nchmod +x ~/.local/bin/qwen");
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(move |request| match who(request) {
        Who::Aside => Reply::text("Yes."),
        Who::Orchestrator => {
            steps(request, &[("run_command", json!({"command": put})), ("implement", json!({"task": "Wait."}))])
        }
        Who::Gemini | Who::Qwen => Reply::text("{}"),
    });
    let rig = rig(&llm);
    let server = rig.serve();
    let mut chat = rig.ask("one", "wait");
    chat.until("its first step", |frame| frame["line"].as_str().is_some_and(|line| line.contains("write file step-1")));
    server.kill();
    rig.inside("touch /tmp/go; until [ -e /tmp/asks ]; do sleep 0.05; done");
    let _server = rig.serve();
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap());
    for part in ["done: Qwen Code", "90k tokens)", "Its model said 200."] {
        assert!(told[1].contains(part), "{part:?} is not in {}", told[1]);
    }
}

/// At the next point where none of its tools works, in the session of the CLI itself.
#[test]
fn a_word_that_steers_reaches_an_agent_at_work() {
    for (agent, name) in [("qwen", "Qwen Code"), ("gemini", "Gemini CLI")] {
        let llm = block_on(ScriptedLlm::start());
        llm.otherwise(|request| {
            match who(request) {
                Who::Aside => return aside(request),
                Who::Orchestrator => return steps(request, &[("implement", json!({"task": "Paint it."}))]),
                Who::Gemini | Who::Qwen => {}
            }
            let speaks = |gemini: Reply, qwen: Reply| if who(request) == Who::Gemini { gemini } else { qwen };
            let calls = |calls: &[(&str, Value)]| speaks(Reply::gemini_calls(calls), Reply::calls(calls));
            let text = |text: &str| speaks(Reply::gemini_text(text), Reply::text(text));
            match (user_texts(request).concat().contains("in blue, please"), answered(request)) {
                (false, 0) => {
                    let command = "until [ -e go ]; do sleep 0.05; done; rm go";
                    let arguments = json!({"command": command, "description": "wait", "is_background": false});
                    calls(&[("run_shell_command", arguments)])
                }
                // It would think for ever.
                (false, _) => Reply::Hang,
                (true, 0) => text("It has forgotten what it did."),
                (true, 1) => {
                    calls(&[("write_file", json!({"file_path": "/workspace/colour.txt", "content": "blue\n"}))])
                }
                (true, _) => text("Painted it blue."),
            }
        });
        let mut rig = rig(&llm);
        rig.set("IMPLEMENT_AGENT", agent);
        let _server = rig.serve();
        let mut chat = rig.ask("one", "Paint it.");
        let line = |frame: &Value, part: &str| frame["line"].as_str().is_some_and(|line| line.contains(part));
        chat.until("the agent's command", |frame| line(frame, "run shell command until"));
        let steers = rig.ask("one", "in blue, please");
        chat.until("that the word waits", |frame| line(frame, "gets your word after this step"));
        rig.inside("touch go");
        chat.until("that it was taken", |frame| frame["kind"] == "seen");
        chat.until("that the agent has it", |frame| line(frame, &format!("{name} · was told “in blue, please”")));
        let (code, frames) = chat.finish();
        assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
        assert_eq!(steers.finish().0, 0, "it is answered with the turn");

        let requests = llm.requests();
        let last = requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap();
        let told = results(last);
        for part in [
            &format!("done: {name}"),
            "While it worked it was told, and went on with:\n- in blue, please",
            "Painted it blue.",
            "1 file +1 −0 changed:\ncolour.txt +1 −0",
        ] {
            assert!(told[0].contains(part), "{part:?} is not in {}", told[0]);
        }
        assert!(user_texts(last).last().unwrap().contains("in blue, please"), "{last:#}");
        assert_eq!(requests.iter().filter(|request| who(request) == Who::Orchestrator).count(), 2);
    }
}

#[test]
fn a_word_after_an_agent_s_last_stays_a_word_to_the_turn() {
    let llm = block_on(ScriptedLlm::start());
    // It has said its last, and takes its time to end.
    let agent = r#"mkdir -p ~/.local/bin; cat > ~/.local/bin/gemini <<'END'
#!/bin/sh
cat > /dev/null
echo '{"type":"init","session_id":"a","model":"m"}'
echo '{"type":"tool_use","tool_name":"write_file","tool_id":"1","parameters":{"file_path":"x"}}'
echo '{"type":"tool_result","tool_id":"1","status":"success","output":"x"}'
echo '{"type":"message","role":"assistant","content":"All done.","delta":true}'
echo '{"type":"result","status":"success","stats":{"total_tokens":2,"input_tokens":1,"output_tokens":1}}'
until [ -e /tmp/go ]; do sleep 0.05; done
END
chmod +x ~/.local/bin/gemini"#;
    llm.otherwise(move |request| {
        let arguments = json!({ "command": agent });
        steps(request, &[("run_command", arguments), ("implement", json!({"task": "Paint it."}))])
    });
    let mut rig = rig(&llm);
    rig.set("IMPLEMENT_AGENT", "gemini");
    let _server = rig.serve();
    let mut chat = rig.ask("one", "Paint it.");
    chat.until("the agent's work", |frame| frame["line"].as_str().is_some_and(|line| line.contains("write file x")));
    let steers = rig.ask("one", "in blue, please");
    chat.until("that it was heard", |frame| frame["kind"] == "heard");
    rig.inside("touch /tmp/go");
    chat.until("that the call has ended", |frame| frame["kind"] == "tool_ended");
    chat.until("that it was taken", |frame| frame["kind"] == "seen");
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len(), steers.finish().0), (0, 1, 0), "{frames:#?}");
    let requests = llm.requests();
    let (last, told) = (requests.last().unwrap(), results(requests.last().unwrap()));
    assert!(told[1].contains("All done.") && !told[1].contains("was told"), "{}", told[1]);
    assert!(user_texts(last).last().unwrap().contains("in blue, please"), "{last:#}");
}

/// Qwen Code is asked again without a start: by the same process, whose key is good only while a call runs, and which is gone
/// once the turn is over.
#[test]
fn a_second_call_of_a_task_finds_qwen_awake() {
    const KEY: &str = "key=$(tr '\\0' '\\n' < /proc/$(pgrep -of input-forma[t])/environ | sed -n 's/^OPENAI_API_KEY=//p'); \
        curl -s -o /dev/null -w '%{http_code}' -H \"authorization: Bearer $key\" http://127.0.0.1:3130/v1/models";
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(move |request| match who(request) {
        Who::Aside | Who::Gemini => aside(request),
        Who::Orchestrator => steps(
            request,
            &[
                ("implement", json!({"task": "Write one."})),
                ("run_command", json!({ "command": KEY })),
                ("implement", json!({"task": "Write two."})),
            ],
        ),
        Who::Qwen => {
            let file = if user_texts(request).concat().contains("Write two.") { "two" } else { "one" };
            let command = format!("{{ echo $PPID; {KEY}; }} > {file}");
            let arguments = json!({"command": command, "description": "write", "is_background": false});
            match (file, answered(request)) {
                ("one", 0) | ("two", 1) => Reply::calls(&[("run_shell_command", arguments)]),
                ("one", _) | ("two", 2) => Reply::text(&format!("Wrote {file}.")),
                (_, count) => Reply::text(&format!("It has forgotten what it did: {count}.")),
            }
        }
    });
    let rig = rig(&llm);
    let _server = rig.serve();
    let (code, frames) = rig.ask("one", "Write two files.").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap());
    assert!(told[0].contains("Wrote one.") && told[2].contains("Wrote two."), "{told:#?}");
    assert!(told[1].ends_with("401"), "between calls the key is void: {}", told[1]);
    let files = exec(&rig, "cat one; echo; cat two");
    let lines: Vec<_> = files.lines().collect();
    assert!(lines[..2] == lines[2..] && lines[1] == "200", "one process, whose key was good: {files}");
    assert_eq!(exec(&rig, "pgrep -fc input-forma[t]").trim(), "0");
}

/// The room's day ends in the middle of a run: what was written stays, and the next turn goes on once more is allowed.
#[test]
fn a_day_that_ends_in_the_middle_of_a_run_ends_it_and_keeps_its_work() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| match who(request) {
        Who::Aside => aside(request),
        Who::Orchestrator if user_texts(request).concat().contains("go on") => Reply::text("It is there."),
        Who::Orchestrator => steps(request, &[("implement", json!({"task": "Write a lot."}))]),
        Who::Gemini | Who::Qwen => match answered(request) {
            0 => Reply::calls(&[("write_file", json!({"file_path": "/workspace/first.txt", "content": "one\n"}))]),
            // Each time another command: it takes the same one for a loop.
            n => Reply::calls(&[(
                "run_shell_command",
                json!({"command": format!("echo {n} >> second.txt"), "description": "more", "is_background": false}),
            )]),
        },
    });
    let mut rig = rig(&llm);
    rig.set("ROOM_DAILY_TOKENS", "1000");
    rig.configure("[models.scripted]\nprice = { input = 100, output = 100 }\n");
    let _server = rig.serve();
    let (_, frames) = rig.ask("one", "write a lot").finish();
    let answer = answers(&frames)[0].clone();
    let text = answer["text"].as_str().unwrap();
    assert!(
        answer["ending"] == "limit" && text.starts_with("This room has used its 1k tokens of today"),
        "{frames:#?}"
    );
    let ended: Vec<_> = frames.iter().filter(|frame| frame["kind"] == "tool_ended").collect();
    let summary = ended[0]["summary"].as_str().unwrap();
    assert!(summary.contains("today's tokens are used up") && ended[0]["ok"] == false, "{summary}");
    let warned = |frame: &&Value| frame["text"].as_str().is_some_and(|text| text.contains("has used 80 % of its 1k"));
    assert_eq!(frames.iter().filter(warned).count(), 1, "{frames:#?}");
    let asked = llm.requests().len();
    assert!((9..=12).contains(&asked), "{asked} requests of 110 tokens");
    assert!(exec(&rig, "cat first.txt; wc -l < second.txt").starts_with("one\n"));
    // The orchestrator's request and the agent's, by their model's two names, at one price.
    let money = answer["footer"].as_str().unwrap().split(" · ").find(|part| part.starts_with('$')).unwrap();
    let paid = f64::from(u32::try_from(asked).unwrap()) * 0.011;
    assert!((money[1..].parse::<f64>().unwrap() - paid).abs() < 0.005, "{answer}");

    let replied = |command: &str| {
        let (_, frames) = rig.ask("one", command).finish();
        frames.iter().find(|frame| frame["event"] == "reply").unwrap()["text"].as_str().unwrap().to_owned()
    };
    let cost = replied("!cost");
    for part in ["- the orchestrator with `openai/scripted` for `", "- qwen with `scripted` for `"] {
        assert!(cost.contains(part), "{part:?} is not in {cost}");
    }
    replied("!budget 100k");
    let (code, frames) = rig.ask("one", "go on").finish();
    assert_eq!((code, &answers(&frames)[0]["text"]), (0, &json!("It is there.")), "{frames:#?}");
}

#[test]
fn a_model_that_refuses_is_told_with_its_words() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| {
        if who(request) == Who::Orchestrator {
            return steps(request, &[("implement", json!({"task": "x"})), ("plan", json!({"task": "x"}))]);
        }
        let body = r#"{"error":{"code":429,"message":"slow down, please","status":"RESOURCE_EXHAUSTED"}}"#;
        Reply::Status(429, Vec::new(), body.to_owned())
    });
    let mut rig = rig(&llm);
    rig.set("CODING_IDLE_SECONDS", "20");
    let _server = rig.serve();
    let mut chat: Chat = rig.ask("one", "go");
    chat.until("the refusal", |frame| {
        frame["kind"] == "tool_output"
            && frame["line"].as_str().is_some_and(|line| line.contains("its model refuses: 429"))
    });
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap());
    assert!(
        told[0].contains("ended: its model refuses every request (429") && told[0].contains("slow down"),
        "{}",
        told[0]
    );
    assert!(told[1].contains("429"), "{}", told[1]);
}
