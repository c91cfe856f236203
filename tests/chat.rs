//! The agent in the terminal: the real binary, real Podman, a scripted model.

mod support;

use std::sync::Arc;

use serde_json::json;
use support::{
    rig::{Rig, answers, block_on, wait},
    scripted,
    scripted_llm::{Reply, results},
    wire::Wire,
};
use tokio::sync::Notify;

#[test]
fn a_prompt_is_answered_once_with_what_it_took() {
    let (llm, rig) = scripted();
    llm.reply_text("Hello from the model.");
    let (code, frames) = rig.ask("one", "hello").finish();
    let answers = answers(&frames);
    assert_eq!((code, answers.len()), (0, 1), "{frames:#?}");
    assert_eq!(answers[0]["text"], "Hello from the model.");
    assert_eq!(answers[0]["ending"], "done");
    assert!(answers[0]["footer"].as_str().unwrap().contains("token"), "{}", answers[0]["footer"]);
    let streamed: String = frames.iter().filter_map(|frame| frame["delta"].as_str()).collect();
    assert_eq!(streamed, "Hello from the model.", "the text came as it was made");
}

#[test]
fn commands_run_in_the_rooms_own_sandbox_and_its_files_stay() {
    let (llm, rig) = scripted();
    llm.when("one").reply(Reply::command("echo mine > /workspace/note; id -un; exit 3")).reply_text("written");
    llm.when("two").reply(Reply::command("cat /workspace/note || echo nothing here")).reply_text("looked");
    llm.when("three").reply(Reply::command("cat /workspace/note")).reply_text("read");
    rig.ask("a", "one").finish();
    rig.ask("b", "two").finish();
    rig.ask("a", "three").finish();
    let requests = llm.requests();
    let seen: Vec<_> = [1, 3, 5].map(|index| results(&requests[index]).last().unwrap().to_string()).to_vec();
    assert!(seen[0].contains("agent") && seen[0].contains('3'), "{}", seen[0]);
    assert!(seen[1].contains("nothing here"), "{}", seen[1]);
    assert!(seen[2].contains("mine"), "{}", seen[2]);
}

#[test]
fn a_prompt_may_come_on_standard_input_and_a_plain_answer_goes_to_standard_output() {
    let (llm, rig) = scripted();
    llm.when("from a pipe").reply_text("Read.");
    let mut command = assert_cmd::Command::from_std(rig.command(&["chat"]));
    let output = command.write_stdin("from a pipe\n").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Read.\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("done"), "{said}");
    assert!(!said.contains("sk-scripted-secret") && !said.contains("from a pipe"), "no secret and no prompt: {said}");
}

#[test]
fn stop_ends_a_tree_that_ignores_sigterm_and_one_that_forked_twice() {
    let (llm, rig) = scripted();
    llm.reply(Reply::command("trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 1000' &) & echo up; sleep 1000"));
    let server = rig.serve();
    let mut chat = rig.ask("one", "go");
    chat.until("the command's output", |frame| frame["kind"] == "tool_output" && frame["line"] == "up");
    let (code, _) = rig.ask("one", "!stop").finish();
    assert_eq!(code, 0, "it is stopped, as was asked");
    let (code, frames) = chat.finish();
    assert_eq!(code, 1);
    assert_eq!(answers(&frames).iter().map(|answer| &answer["ending"]).collect::<Vec<_>>(), ["stopped"]);
    let left = rig.run(&["sandbox", "exec", "one", "--", "sh", "-c", "cat /proc/[0-9]*/comm"]);
    let left = String::from_utf8_lossy(&left.stdout);
    assert!(!left.contains("sleep"), "{left}");
    drop(server);
}

#[test]
fn a_message_during_work_is_shown_to_the_model_after_the_running_calls() {
    let (llm, rig) = scripted();
    llm.reply(Reply::command("echo up; while [ ! -e /workspace/go ]; do sleep 0.05; done"));
    llm.reply_text("Both done.");
    let _server = rig.serve();
    let mut first = rig.ask("one", "first wish");
    first.until("the command's output", |frame| frame["kind"] == "tool_output");
    let mut second = rig.ask("one", "second wish");
    second.event("admitted");
    first.until("that the turn has it", |frame| frame["kind"] == "heard");
    let go = rig.run(&["sandbox", "exec", "one", "--", "touch", "/workspace/go"]);
    assert!(go.status.success(), "{go:?}");
    let (code, frames) = first.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1));
    assert_eq!(second.finish().0, 0, "the second wish is answered with the first");
    let requests = llm.requests();
    assert_eq!(requests.len(), 2);
    let roles: Vec<_> = requests[1]["messages"].as_array().unwrap().iter().map(|message| &message["role"]).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "user"]);
    assert!(requests[1]["messages"][4].to_string().contains("second wish"));
}

#[test]
fn commands_of_the_chat_need_no_model() {
    let (llm, rig) = scripted();
    let _server = rig.serve();
    for (command, word) in [
        ("!help", "!stop"),
        ("!cost", "No tokens"),
        ("!stop", "Nothing is running"),
        ("!new", "new conversation"),
        ("!frobnicate", "!help"),
    ] {
        let (code, frames) = rig.ask("one", command).finish();
        let reply = frames.iter().find(|frame| frame["event"] == "reply").unwrap()["text"].as_str().unwrap().to_owned();
        assert!(code == 0 && reply.contains(word), "{command}: {reply}");
    }
    assert_eq!(llm.requests().len(), 0);
}

/// What a command is replied.
fn told(rig: &Rig, command: &str) -> String {
    let (_, frames) = rig.ask("one", command).finish();
    frames.iter().find(|frame| frame["event"] == "reply").unwrap()["text"].as_str().unwrap().to_owned()
}

#[test]
fn a_room_is_warned_stopped_and_goes_on_when_more_is_allowed() {
    let (llm, mut rig) = scripted();
    rig.set("ROOM_DAILY_TOKENS", "250");
    rig.configure("[models.\"openai/scripted\"]\nprice = { input = 1000, output = 10_000.5 }\n");
    llm.otherwise(|_| Reply::text("Yes."));
    let _server = rig.serve();
    let ask = |words: &str| {
        let (_, frames) = rig.ask("one", words).finish();
        let answer = answers(&frames)[0].clone();
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        (text("ending"), text("text"), text("footer"))
    };
    for number in 1..=2 {
        let (ending, text, footer) = ask("a question");
        assert_eq!((ending.as_str(), text.as_str()), ("done", "Yes."), "{number}");
        assert!(footer.contains("110 tokens · $0.2000 · "), "{footer}");
    }
    let warning = "Yes.\n\n⚠️ This room has used 80 % of its 250 tokens of today.";
    assert_eq!(ask("a third").1, warning);
    let (ending, text, _) = ask("a fourth");
    assert!(ending == "limit" && text.starts_with("This room has used its 250 tokens of today"), "{text}");
    assert!(text.contains("at midnight UTC; or write “go on” once") && text.contains("`!budget 500`"), "{text}");
    assert_eq!(llm.requests().len(), 3, "nothing more is sent");
    let day = told(&rig, "!budget");
    assert!(day.contains("- This room: 330 of 250 tokens were used today (UTC), 132 %"), "{day}");

    assert!(told(&rig, "!budget 0").contains("Write `!budget 500k`"));
    // Whoever sits at the machine runs the server.
    assert_eq!(told(&rig, "!budget 400"), "This room has 400 tokens today; 330 were used.");
    let (ending, text, _) = ask("go on");
    assert_eq!((ending.as_str(), text.as_str()), ("done", "Yes."), "it is warned once a day");
    assert_eq!(ask("and on").0, "limit");
    let cost = told(&rig, "!cost");
    assert!(cost.contains(": 400 in (0 % cached), 40 out, 4 requests, $0.8000\n"), "{cost}");
}

#[test]
fn an_answer_that_is_stopped_in_the_middle_is_counted() {
    let (llm, rig) = scripted();
    llm.hang_after(1, Reply::text("Hello there."));
    let _server = rig.serve();
    let chat = rig.ask("one", "a long story");
    block_on(llm.arrived(1));
    assert_eq!(rig.ask("one", "!stop").finish().0, 0);
    chat.finish();
    let cost = told(&rig, "!cost");
    assert!(cost.contains("1 request") && !cost.contains(": 0 in"), "{cost}");
    assert!(
        told(&rig, "!budget").contains("tokens were used today (UTC), without a limit\n"),
        "nothing is held any more"
    );
}

#[test]
fn the_model_is_told_with_its_window_and_who_says_so() {
    let (_llm, mut rig) = scripted();
    let told = |rig: &Rig| {
        let (_, frames) = rig.ask("one", "!model").finish();
        frames.iter().find(|frame| frame["event"] == "reply").unwrap()["text"].as_str().unwrap().to_owned()
    };
    let guessed = told(&rig);
    assert!(guessed.contains("32768 tokens fit in its context (a guess: set `context_window` for it"), "{guessed}");
    rig.set("LLM_MODEL", "openai/claude-sonnet-4");
    let by_name = told(&rig);
    assert!(by_name.contains("200000 tokens fit in its context (so it is with models of its name)"), "{by_name}");
    rig.configure("[models.\"openai/claude-sonnet-4\"]\ncontext_window = 5000\n");
    let set = told(&rig);
    assert!(set.contains("5000 tokens fit in its context (so says `context_window` in matrix-agent.toml)"), "{set}");
}

#[test]
fn a_new_conversation_forgets_what_was_said() {
    let (llm, rig) = scripted();
    llm.reply_text("one").reply_text("two").reply_text("three");
    let _server = rig.serve();
    rig.ask("r", "the word is xyzzy").finish();
    rig.ask("r", "what is it?").finish();
    rig.ask("r", "!new").finish();
    rig.ask("r", "and now?").finish();
    let told: Vec<_> = llm.requests().iter().map(|request| request.to_string().contains("xyzzy")).collect();
    assert_eq!(told, [true, true, false]);
}

#[test]
fn the_sandbox_tells_what_is_observed_of_it() {
    let (llm, rig) = scripted();
    llm.reply(Reply::command("true")).reply_text("ok");
    let _server = rig.serve();
    rig.ask("one", "go").finish();
    let inspected = rig.run(&["sandbox", "inspect", "one"]);
    let inspected = String::from_utf8_lossy(&inspected.stdout).into_owned();
    let (_, frames) = rig.ask("one", "!sandbox").finish();
    let told = frames.iter().find(|frame| frame["event"] == "reply").unwrap()["text"].as_str().unwrap().to_owned();
    for word in ["agent", "memory", "sha256"] {
        assert!(inspected.contains(word), "{word} in {inspected}");
        assert!(told.contains(word), "{word} in {told}");
    }
    let list = rig.run(&["sandbox", "list"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("sandbox-terminal-one"), "{list:?}");
    let gone = rig.run(&["sandbox", "rm", "one"]);
    assert!(gone.status.success(), "{gone:?}");
    let missing = rig.run(&["sandbox", "inspect", "one"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn files_that_are_gone_are_told_to_the_room_and_to_the_model_once() {
    let (llm, rig) = scripted();
    llm.reply(Reply::command("echo mine > note")).reply_text("written");
    let _server = rig.serve();
    rig.ask("one", "write").finish();
    let list = String::from_utf8(rig.run(&["sandbox", "list"]).stdout).unwrap();
    let name = list.split_whitespace().nth(1).unwrap();
    let stopped = std::process::Command::new("podman").args(["stop", "--time", "2", name]).output().unwrap();
    assert!(stopped.status.success(), "{stopped:?}");
    for entry in std::fs::read_dir(rig.path().join("s/workspaces")).unwrap().flatten() {
        let is_record = entry.path().extension().is_some_and(|extension| extension == "json");
        if !is_record {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }

    llm.reply(Reply::command("cat note")).reply(Reply::command("ls; echo works")).reply_text("Gone.");
    let mut server_tells = rig.ask("one", "read");
    server_tells.until("what became of the files", |frame| frame.to_string().contains("files of this room are gone"));
    server_tells.finish();
    let requests = llm.requests();
    let told = results(requests.last().unwrap());
    let last: Vec<_> = told[told.len() - 2..].to_vec();
    assert!(
        last[0].contains("files of this room are gone") && last[0].contains("this call was not run"),
        "{}",
        last[0]
    );
    assert_eq!(last[1], "exit code: 0\nworks");
}

#[test]
fn a_second_server_says_who_holds_the_state_directory() {
    let (_llm, rig) = scripted();
    let server = rig.serve();
    let second = rig.run(&["run"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {}", server.pid())), "{said}");
}

#[test]
fn a_server_on_a_copy_of_a_database_in_use_leaves_its_sandboxes_alone() {
    let (llm, rig) = scripted();
    llm.reply(Reply::calls(&[("run_command", json!({"command": "true"}))])).reply_text("Done.");
    let server = rig.serve();
    rig.ask("one", "please").finish();
    let copy = rig.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    let backup = format!(".backup '{}'", copy.join("matrix-agent.db").display());
    assert!(std::process::Command::new("sqlite3").arg(rig.database()).arg(backup).status().unwrap().success());
    let refused = rig.command(&["run"]).env("STATE_DIR", &copy).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && said.contains(&format!("another matrix-agent (process {})", server.pid())),
        "{said}"
    );
    // Without that server it is what was moved, or brought back.
    drop(server);
    let listed = rig.command(&["sandbox", "list"]).env("STATE_DIR", &copy).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("terminal:one"), "{listed:?}");
}

#[test]
fn a_model_that_is_away_is_said_plainly_and_the_next_question_works() {
    let (llm, mut rig) = scripted();
    rig.set("LLM_BASE_URL", "http://127.0.0.1:9/v1");
    let (code, frames) = rig.ask("one", "hello").finish();
    let told = answers(&frames);
    assert_eq!((code, told.len()), (1, 1));
    assert_eq!(told[0]["ending"], "failed");
    assert!(told[0]["text"].as_str().unwrap().contains("model"), "{}", told[0]["text"]);
    rig.set("LLM_BASE_URL", llm.base_url());
    llm.reply_text("back");
    assert_eq!(rig.ask("one", "again").finish().0, 0);
}

#[test]
fn podman_away_is_said_plainly_and_questions_without_tools_still_work() {
    let (llm, mut rig) = scripted();
    rig.set("PODMAN_PATH", "/nonexistent/podman");
    rig.set("PODMAN_SOCKET", rig.path().join("no.sock").to_str().unwrap().to_owned().as_str());
    llm.reply(Reply::command("true")).reply_text("The sandbox is away.");
    let (code, frames) = rig.ask("one", "go").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1));
    let told = results(&llm.requests()[1]).concat();
    assert!(told.contains("Podman"), "{told}");
}

#[test]
fn what_an_interrupted_client_left_is_answered_to_the_next_and_only_once() {
    let (llm, rig) = scripted();
    let _server = rig.serve();
    llm.reply(Reply::command("echo up; while [ ! -e /workspace/go ]; do sleep 0.05; done")).reply_text("late answer");
    let mut chat = rig.ask("one", "slow");
    chat.until("the command's output", |frame| frame["kind"] == "tool_output");
    drop(chat);
    let go = rig.run(&["sandbox", "exec", "one", "--", "touch", "/workspace/go"]);
    assert!(go.status.success(), "{go:?}");
    llm.reply_text("the next answer");
    let mut next = rig.ask("one", "and?");
    next.until("the late answer", |frame| frame["text"] == "late answer");
    assert_eq!(next.finish().0, 0);
    let (_, frames) = rig.ask("one", "!help").finish();
    assert_eq!(answers(&frames).len(), 0, "it is not told again");
}

#[test]
fn ctrl_c_stops_the_turn_and_what_ran() {
    let (llm, rig) = scripted();
    let _server = rig.serve();
    llm.reply(Reply::command("echo up; sleep 1000"));
    let mut chat = rig.ask("one", "go");
    chat.until("the command's output", |frame| frame["kind"] == "tool_output");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(chat.pid()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let (code, frames) = chat.finish();
    assert_eq!((code, &answers(&frames)[0]["ending"]), (1, &json!("stopped")));
    let left = rig.run(&["sandbox", "exec", "one", "--", "sh", "-c", "cat /proc/[0-9]*/comm"]);
    assert!(!String::from_utf8_lossy(&left.stdout).contains("sleep"), "{left:?}");
}

#[test]
fn however_many_terminals_watch_each_is_shown_the_answer_and_each_confirmation_is_answered() {
    let (llm, rig) = scripted();
    llm.reply_text("Here.");
    let _server = rig.serve();
    let mut terminals = [Wire::join(&rig, "one"), Wire::join(&rig, "one"), Wire::join(&rig, "one")];
    terminals[0].say("q1", "hello");
    for terminal in &mut terminals {
        let answer = terminal.event("answer");
        assert_eq!((&answer["text"], &answer["asked"]), (&json!("Here."), &json!("q1")));
        terminal.confirm(&answer);
        terminal.confirm(&answer);
    }
}

#[test]
fn who_was_away_when_another_terminal_was_shown_the_answer_gets_it_all_the_same() {
    let (llm, rig) = scripted();
    let gate = Arc::new(Notify::new());
    llm.when("first").after(&gate).reply(Reply::command("true"));
    llm.reply_text("Both done.");
    let _server = rig.serve();
    let mut watcher = Wire::join(&rig, "one");
    let mut first = Wire::join(&rig, "one");
    first.say("q1", "first");
    block_on(llm.arrived(1));
    let mut second = Wire::join(&rig, "one");
    second.say("q2", "second");
    second.tell(&json!({"do": "open", "id": "q2"}));
    assert_eq!(second.event("open")["id"], "q2", "it is not answered yet");
    drop((first, second));
    gate.notify_one();
    let answer = watcher.event("answer");
    assert_eq!((&answer["asked"], &answer["others"]), (&json!("q1"), &json!(["q2"])));
    watcher.confirm(&answer);
    for id in ["q1", "q2"] {
        let mut back = Wire::join(&rig, "one");
        back.tell(&json!({"do": "open", "id": id}));
        assert_eq!(back.event("answer"), answer, "{id}");
        back.confirm(&answer);
    }
    let mut stranger = Wire::join(&rig, "two");
    for id in ["q1", "q9"] {
        stranger.tell(&json!({"do": "open", "id": id}));
        assert_eq!(stranger.event("unknown")["id"], id, "nobody said that in this room");
    }
}

#[test]
fn the_reply_to_a_command_and_a_file_come_again_to_who_was_away() {
    let (llm, rig) = scripted();
    llm.reply(Reply::command("echo words > a.txt"));
    llm.reply(Reply::calls(&[("send_file", json!({"path": "a.txt"}))])).reply_text("Sent.");
    let _server = rig.serve();
    let mut watcher = Wire::join(&rig, "one");
    let mut away = Wire::join(&rig, "one");
    away.say("q1", "send it");
    away.say("q2", "!cost");
    drop(away);
    for event in ["reply", "file", "answer"] {
        let frame = watcher.event(event);
        watcher.confirm(&frame);
    }
    let mut back = Wire::join(&rig, "one");
    back.tell(&json!({"do": "open", "id": "q2"}));
    assert_eq!(back.event("reply")["asked"], "q2");
    back.tell(&json!({"do": "open", "id": "q1"}));
    let file = back.event("file");
    assert_eq!((&file["name"], &file["data"]), (&json!("a.txt"), &json!(null)), "the watcher has saved it");
    assert_eq!(back.event("answer")["asked"], "q1");
}

#[test]
fn a_terminal_that_sleeps_keeps_nothing_from_the_next() {
    let (llm, rig) = scripted();
    let gate = Arc::new(Notify::new());
    llm.when("hello").after(&gate).reply_text("Here.");
    let _server = rig.serve();
    let mut sleeper = Wire::join(&rig, "one");
    sleeper.say("q1", "hello");
    gate.notify_one();
    let answer = sleeper.event("answer");
    // It confirms nothing, and does not go away.
    let mut next = Wire::join(&rig, "one");
    next.say("q2", "!help");
    assert_eq!(next.event("answer"), answer);
    next.confirm(&answer);
    assert_eq!(next.event("reply")["asked"], "q2");
}

/// What somebody asks for, because they were away, they may be shown before what the room is owed for longer.
#[test]
fn an_answer_that_was_asked_for_does_not_wait_for_what_nobody_confirms_and_does_not_come_again() {
    let (llm, rig) = scripted();
    llm.reply_text("Here.");
    let _server = rig.serve();
    let mut sleeper = Wire::join(&rig, "one");
    sleeper.say("q1", "!help");
    sleeper.event("reply");
    // It confirms nothing, and so keeps what comes next.
    sleeper.say("q2", "hello");
    let mut answer = json!(null);
    wait("the answer", || {
        sleeper.tell(&json!({"do": "open", "id": "q2"}));
        answer = sleeper.until("what became of it", |frame| frame["event"] == "answer" || frame["event"] == "open");
        answer["event"] == "answer"
    });
    sleeper.confirm(&answer);
    drop(sleeper);
    let (code, frames) = rig.ask("one", "!cost").finish();
    let replies: Vec<_> = frames.iter().filter(|frame| frame["event"] == "reply").collect();
    assert_eq!((code, replies.len(), answers(&frames).len()), (0, 2, 0), "{frames:#?}");
    assert_eq!(replies[0]["asked"], "q1", "what is owed comes first");
}

#[test]
fn a_question_that_the_server_has_lost_ends_with_an_error() {
    let (llm, mut rig) = scripted();
    // Without sandboxes, so that none is left when the database that knows of it is gone.
    rig.set("PODMAN_PATH", "/nonexistent/podman");
    rig.set("PODMAN_SOCKET", rig.path().join("no.sock").to_str().unwrap().to_owned().as_str());
    llm.hang();
    let server = rig.serve();
    let mut chat = rig.ask("one", "hello");
    chat.event("admitted");
    server.kill();
    for file in ["matrix-agent.db", "matrix-agent.db-wal", "matrix-agent.db-shm"] {
        let _ = std::fs::remove_file(rig.path().join("s").join(file));
    }
    let _server = rig.serve();
    let (code, frames) = chat.finish();
    assert_ne!(code, 0);
    assert_eq!(frames.last().unwrap()["event"], "unknown", "{frames:#?}");
}

#[test]
fn a_stop_says_which_background_jobs_are_left_and_stop_jobs_ends_them() {
    let (llm, rig) = scripted();
    let job = "(setsid sleep 1000 &); sleep 1000; true watcher";
    llm.reply(Reply::calls(&[("run_command", json!({"command": job, "background": true}))]));
    llm.reply(Reply::command("echo up; sleep 500"));
    let _server = rig.serve();
    let mut chat = rig.ask("one", "go");
    chat.until("the command's output", |frame| frame["kind"] == "tool_output" && frame["line"] == "up");
    rig.ask("one", "!Stop.").finish();
    let (_, frames) = chat.finish();
    let answer = answers(&frames)[0]["text"].as_str().unwrap().to_owned();
    assert!(answer.contains("true watcher` (job-") && answer.contains("`!stop jobs` ends it."), "{answer}");
    assert!(!answer.contains("sleep 500"), "what the turn ran has ended: {answer}");
    let sleeps = || {
        let left = rig.run(&["sandbox", "exec", "one", "--", "sh", "-c", "cat /proc/[0-9]*/comm"]);
        String::from_utf8_lossy(&left.stdout).matches("sleep").count()
    };
    // A shell's child may not be `sleep` yet.
    wait("the job and what it has forked run on", || sleeps() == 2);
    let told = |command: &str| {
        let (code, frames) = rig.ask("one", command).finish();
        let reply = frames.iter().find(|frame| frame["event"] == "reply").unwrap()["text"].as_str().unwrap().to_owned();
        assert_eq!(code, 0, "{reply}");
        reply
    };
    let again = told("!stop");
    assert!(again.contains("Nothing is running.") && again.contains("true watcher"), "{again}");
    let ended = told("!stop jobs");
    assert!(ended.starts_with("Ended") && ended.contains("true watcher"), "{ended}");
    assert_eq!(sleeps(), 0);
    assert_eq!(told("!stop"), "Nothing is running.");
    assert_eq!(told("!stop jobs"), "Nothing runs in the background.");
}

#[test]
fn what_a_program_in_the_sandbox_tells_is_shown_while_it_works() {
    let (llm, rig) = scripted();
    let tell =
        r#"cd /workspace/.ipc; printf '%s' '{"version":1,"kind":"progress","text":"half way"}' > .1; mv .1 1.json"#;
    llm.reply(Reply::command(&format!("{tell}; while [ ! -e /workspace/go ]; do sleep 0.05; done")))
        .reply_text("Done.");
    let _server = rig.serve();
    let mut chat = rig.ask("one", "go");
    chat.until("what it tells", |frame| frame["kind"] == "told" && frame["line"] == "half way");
    assert!(rig.run(&["sandbox", "exec", "one", "--", "touch", "/workspace/go"]).status.success());
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
}

#[test]
fn check_ipc_tells_what_arrives_from_a_sandbox_and_what_is_missing_there() {
    let (llm, rig) = scripted();
    llm.reply(Reply::command("true")).reply_text("Ready.");
    let check = |arguments: &[&str]| {
        let output = rig.run(&[&["check-ipc", "--json"], arguments].concat());
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let status = |id: &str| {
            let checks = found["sandboxes"][0]["checks"].as_array().unwrap();
            checks.iter().find(|check| check["name"] == id).map(|check| check["status"].as_str().unwrap().to_owned())
        };
        let of = ["directory", "scripts", "gemini-hooks", "canary", "hook-errors"].map(status);
        (output.status.code(), of.map(Option::unwrap_or_default))
    };
    let nothing = rig.run(&["check-ipc"]);
    assert!(nothing.status.success() && String::from_utf8_lossy(&nothing.stdout).contains("No sandbox"), "{nothing:?}");
    rig.ask("one", "go").finish();
    // A bare image has no hooks, and what is dropped arrives all the same; with a server, and without one.
    let bare = |errors: &str| (Some(1), ["good", "bad", "warning", "good", errors].map(str::to_owned));
    assert_eq!(check(&["one"]), bare("good"));
    let _server = rig.serve();
    let list: serde_json::Value = serde_json::from_slice(&rig.run(&["sandbox", "list", "--json"]).stdout).unwrap();
    assert_eq!(check(&[list[0]["name"].as_str().unwrap()]), bare("good"), "by the container's name");
    let spoil = "echo broken > /workspace/.ipc/hook-errors.log";
    assert!(rig.run(&["sandbox", "exec", "one", "--", "sh", "-c", spoil]).status.success());
    assert_eq!(check(&[]), bare("bad"), "the canary came after it");
    let text = rig.run(&["check-ipc", "one"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("✅ canary") && text.contains("❌ hook-errors") && text.contains("broken"), "{text}");
}
