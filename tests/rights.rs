//! What people allow, over the real chat: a host that is blocked is asked for while its connection waits.

mod support;

use serde_json::{Value, json};
use support::{
    coding_agents::{Who, answered, aside, steps, who},
    rig::{BARE, FULL, Rig, answers, block_on, wait},
    scripted_llm::{Reply, ScriptedLlm, results, user_texts},
};

/// A rig whose sandboxes may reach no host, and that asks in the room.
fn closed(image: &str) -> (ScriptedLlm, Rig) {
    let llm = block_on(ScriptedLlm::start());
    let mut rig = Rig::new(image, llm.base_url());
    rig.set("SANDBOX_ALLOWED_HOSTS", "none");
    rig.set("HOST_ASK_SECONDS", "60");
    (llm, rig)
}

fn is_card(frame: &Value) -> bool {
    frame["kind"] == "notice" && frame["text"].as_str().is_some_and(|text| text.contains("May I?"))
}

/// The code on a card.
fn code(card: &Value) -> String {
    let (_, behind) = card["text"].as_str().unwrap().split_once("`!yes ").unwrap();
    behind.split('`').next().unwrap().to_owned()
}

fn told(rig: &Rig, command: &str) -> String {
    let (_, frames) = rig.ask("one", command).finish();
    frames.iter().find(|frame| frame["event"] == "reply").unwrap()["text"].as_str().unwrap().to_owned()
}

#[test]
fn an_install_goes_on_once_its_host_is_opened_without_another_try() {
    let (llm, mut rig) = closed(FULL);
    rig.trust_what_this_machine_trusts();
    let install = "cd /tmp && npm install --no-audit --no-fund --fetch-retries=0 is-odd@3.0.1 && ls node_modules";
    llm.reply(Reply::command(install)).reply_text("Installed.");
    let _server = rig.serve();
    let mut chat = rig.ask("one", "install it");
    let card = chat.until("the card", is_card);
    let text = card["text"].as_str().unwrap();
    assert!(text.contains("`registry.npmjs.org`") && text.contains("npm install"), "{text}");
    let said = told(&rig, &format!("!yes {}", code(&card)));
    assert!(said.contains("Allowed by") && said.contains("until the work under way is done"), "{said}");
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let result = results(requests.last().unwrap())[0];
    assert!(result.contains("is-odd") && result.contains("exit code: 0"), "{result}");
    assert!(told(&rig, "!grants").contains("Nothing is granted"), "it ended with the work");
}

#[test]
fn a_no_is_todays_refusal_and_the_host_is_not_asked_for_again() {
    let (llm, rig) = closed(BARE);
    let fetch = "for n in 1 2; do bash -c 'exec 3<>/dev/tcp/127.0.0.1/3128; printf \"CONNECT nowhere.example.com:443 HTTP/1.1\\r\\n\\r\\n\" >&3; cat <&3'; done";
    llm.reply(Reply::command(fetch)).reply_text("Closed.");
    let _server = rig.serve();
    let mut chat = rig.ask("one", "fetch it");
    let card = chat.until("the card", is_card);
    assert!(told(&rig, &format!("!no {}", code(&card))).contains("Refused by"));
    let (code_of_exit, frames) = chat.finish();
    assert_eq!((code_of_exit, answers(&frames).len()), (0, 1));
    assert_eq!(frames.iter().filter(|frame| is_card(frame)).count(), 1, "{frames:#?}");
    let requests = llm.requests();
    let result = results(requests.last().unwrap())[0];
    assert_eq!(result.matches("it is not among the allowed hosts").count(), 2, "{result}");
    let again = told(&rig, &format!("!yes {}", code(&card)));
    assert!(again.contains("No question with the code"), "{again}");
}

#[test]
fn orders_open_a_host_for_a_while_and_close_it() {
    let (llm, rig) = closed(BARE);
    let fetch = json!({"command": "bash -c 'exec 3<>/dev/tcp/127.0.0.1/3128; printf \"CONNECT nowhere.invalid-name.example.com:443 HTTP/1.1\\r\\n\\r\\n\" >&3; cat <&3'"});
    llm.reply_calls(&[("run_command", fetch)]).reply_text("Asked.");
    let _server = rig.serve();
    assert!(told(&rig, "!grants").contains("Nothing is granted"));
    let said = told(&rig, "!grant nowhere.invalid-name.example.com 2h");
    assert!(said.contains("for another 2 h"), "{said}");
    assert!(told(&rig, "!grant Acme/Site push room").contains("`acme/site`, with pushes"));
    let granted = told(&rig, "!grants");
    assert!(granted.contains("nowhere.invalid-name.example.com") && granted.contains("until `!revoke`"), "{granted}");
    let (_, frames) = rig.ask("one", "fetch it").finish();
    assert_eq!(frames.iter().filter(|frame| is_card(frame)).count(), 0, "{frames:#?}");
    let requests = llm.requests();
    let result = results(requests.last().unwrap())[0];
    assert!(result.contains("could not be resolved"), "it passed the list: {result}");
    assert!(told(&rig, "!revoke all").contains("2 grants"));
    assert!(told(&rig, "!grants").contains("Nothing is granted"));
}

/// The card is asked, or answered, and the server is killed at once: it is answered once, and told once.
#[test]
fn a_card_outlives_the_server() {
    for point in ["card_asked", "card_ended"] {
        let (llm, mut rig) = closed(BARE);
        let fetch = "bash -c 'for n in 1 2; do exec 3<>/dev/tcp/127.0.0.1/3128; printf \"CONNECT nowhere.example.com:443 HTTP/1.1\\r\\n\\r\\n\" >&3; cat <&3; done'";
        llm.otherwise(move |request| match results(request).last() {
            Some(result) => Reply::text(&format!("It said: {result}")),
            None => Reply::command(fetch),
        });
        let marker = rig.path().to_str().unwrap().to_owned();
        rig.set("MATRIX_AGENT_CRASH_AT", &format!("{point}:{marker}"));
        let mut server = rig.serve();
        let mut chat = rig.ask("one", "fetch it");
        let (mut card, mut yes) = (None, None);
        if point == "card_ended" {
            let seen = chat.until("the card", is_card);
            yes = Some(rig.ask("one", &format!("!yes {} room", code(&seen))));
            card = Some(seen);
            assert!(!server.died().success());
        } else {
            assert!(!server.died().success());
        }
        let _server = rig.serve();
        // Else its reply would come to the next who asks something.
        if let Some(yes) = yes {
            yes.finish();
        }
        if card.is_none() {
            let seen = chat.until("the card", is_card);
            for order in ["!status", "!grants"] {
                // The card may be shown before the turn that waits for it is taken up again.
                let open = format!("Write `!yes {}` or", code(&seen));
                wait("what is open is told", || told(&rig, order).contains(&open));
            }
            assert!(told(&rig, &format!("!yes {} room", code(&seen))).contains("Allowed by"));
        }
        let (code, frames) = chat.finish();
        assert_eq!((code, answers(&frames).len()), (0, 1), "{point}: {frames:#?}");
        assert!(told(&rig, "!grants").contains("nowhere.example.com"), "{point}");
        let cards = frames.iter().filter(|frame| is_card(frame)).count();
        assert!(cards <= 1, "{point}: {frames:#?}");
    }
}

#[test]
fn a_plan_is_carried_out_once_whoever_asked_has_approved_it() {
    let llm = block_on(ScriptedLlm::start());
    let implement = |plan: &str| ("implement", json!({"task": "Write it.", "plan": plan}));
    let calls = [
        ("implement", json!({"task": "Write it."})),
        implement(&format!("# Long\n\n{}", "1. Write.\n".repeat(1200))),
        implement("# Hello\n\n1. Write hello.txt."),
        implement("# Hi\n\n1. Write hi.txt."),
        implement("# Hi\n\n1. Write hi.txt."),
    ];
    llm.otherwise(move |request| match who(request) {
        Who::Aside => aside(request),
        Who::Orchestrator => steps(request, &calls),
        Who::Gemini => unreachable!("nobody plans"),
        Who::Qwen if answered(request) > 0 => Reply::text("I wrote it."),
        Who::Qwen => {
            let name = if user_texts(request).concat().contains("1. Write hi.txt.") { "hi" } else { "hello" };
            let file = format!("/workspace/{name}.txt");
            Reply::calls(&[("write_file", json!({"file_path": file, "content": "hello\n"}))])
        }
    });
    let mut rig = Rig::new(FULL, llm.base_url());
    rig.set("PLAN_APPROVAL", "asker");
    let _server = rig.serve();
    let mut chat = rig.ask("one", "write it");
    let card = chat.until("the first card", is_card);
    let text = card["text"].as_str().unwrap();
    assert!(text.contains("the plan “Hello”") && text.contains("\n> 1. Write hello.txt.\n"), "{text}");
    let _words = rig.ask("one", "name it hi.txt");
    let second = chat.until("the second card", |frame| is_card(frame) && frame["text"] != card["text"]);
    assert!(second["text"].as_str().unwrap().contains("the plan “Hi”"), "{second}");
    let late = told(&rig, &format!("!yes {}", code(&card)));
    assert!(late.contains("No question with the code"), "{late}");
    assert!(told(&rig, &format!("!yes {}", code(&second))).contains("Allowed by"));
    let (_, frames) = chat.finish();
    let cards = frames.iter().filter(|frame| is_card(frame)).count();
    assert_eq!(cards, 2, "the same plan is not asked about again: {frames:#?}");
    let requests = llm.requests();
    let last = requests.iter().rfind(|request| who(request) == Who::Orchestrator).unwrap();
    let [none, long, word, done, again] = results(last)[..] else { panic!("{last}") };
    assert!(none.contains("Call plan first"), "{none}");
    assert!(long.contains("too long to be shown whole"), "{long}");
    assert!(word.contains("somebody has said something"), "{word}");
    assert!(done.contains("hi.txt") && again.contains("done: Qwen Code"), "{done} {again}");
    let files = rig.run(&["sandbox", "exec", "one", "--", "sh", "-c", "cd /workspace && ls *.txt"]);
    assert_eq!(String::from_utf8_lossy(&files.stdout), "hi.txt\n");
}
