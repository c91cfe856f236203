//! Somebody asks in a chat, the room is asked by a card, and what was committed becomes a pull request.

use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{
    house,
    support::{
        forge::Forge,
        rig::{Chat, FULL, Rig, answers},
        scripted_llm::{Reply, ScriptedLlm, results},
    },
};

/// Clones the repository and commits a change.
const WORK: &str = "git clone -q https://github.com/acme/site && cd site && printf 'one\\ntwo\\n' > login.txt && \
     git add . && git commit -q -m 'Fix the login' && echo committed";

fn pull_request() -> Value {
    json!({"action": "pull_request", "title": "Fix the login", "body": "The cookie was set too late.", "path": "site"})
}

/// A model that works, proposes what it did, and tells what came of it.
fn proposes(request: &Value) -> Reply {
    match results(request)[..] {
        [] => Reply::command(WORK),
        [_] => Reply::calls(&[("github", pull_request())]),
        [.., last] => Reply::text(&format!("It came to this: {last}")),
    }
}

pub(crate) fn is_card(frame: &Value) -> bool {
    frame["kind"] == "notice" && frame["text"].as_str().is_some_and(|text| text.contains("May I?"))
}

pub(crate) fn code(card: &Value) -> String {
    let (_, behind) = card["text"].as_str().unwrap().split_once("`!yes ").unwrap();
    behind.split('`').next().unwrap().to_owned()
}

pub(crate) async fn rig(forge: &Forge) -> (ScriptedLlm, Rig) {
    let llm = ScriptedLlm::start().await;
    let mut rig = Rig::new(FULL, llm.base_url());
    house::serve_with(&mut rig, forge);
    (llm, rig)
}

pub(crate) fn told(rig: &Rig, command: &str) -> String {
    let (_, frames) = rig.ask("one", command).finish();
    frames.iter().find(|frame| frame["event"] == "reply").unwrap()["text"].as_str().unwrap().to_owned()
}

/// Returns the answer's text, and all frames.
fn ended(chat: Chat) -> (String, Vec<Value>) {
    let (code, frames) = chat.finish();
    let answers = answers(&frames);
    assert_eq!((code, answers.len()), (0, 1), "{frames:#?}");
    (answers[0]["text"].as_str().unwrap().to_owned(), frames)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_asks_for_becomes_a_pull_request_once_she_has_said_yes() {
    let forge = Forge::with("README.md", "A site.\n").await;
    let (llm, rig) = rig(&forge).await;
    llm.otherwise(proposes);
    block_in_place(|| {
        let _server = rig.serve();
        let mut chat = rig.ask("one", "fix the login of acme/site");
        let card = chat.until("the card", is_card);
        let text = card["text"].as_str().unwrap();
        for part in [
            "push agent/fix-the-login-",
            "to acme/site",
            "“Fix the login”",
            "> 1 commit, 1 file +2 −0\n> login.txt +2 −0\n",
            "The cookie was set too late.",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!((forge.branches().len(), forge.api.pulls().len()), (0, 0), "nothing leaves before the yes");
        let said = told(&rig, &format!("!yes {}", code(&card)));
        assert!(said.contains("Allowed by"), "{said}");
        let link = "https://github.com/acme/site/pull/1";
        let (answer, frames) = ended(chat);
        let is_told = frames
            .iter()
            .any(|frame| frame["kind"] == "notice" && frame["text"].as_str().is_some_and(|text| text.contains(link)));
        assert!(answer.contains(link) && answer.contains("1 file +2 −0"), "{answer}");
        assert!(answer.contains("Checks: 1 failed: test (1 of 3 failed); 1 running"), "{answer}");
        assert!(is_told, "the room has the link from the server itself: {frames:#?}");
        let again = told(&rig, &format!("!yes {}", code(&card)));
        assert!(again.contains("No question with the code"), "{again}");
    });
    let pulls = forge.api.pulls();
    assert_eq!((pulls.len(), forge.branches()), (1, vec![pulls[0][2].clone()]));
    assert_eq!(forge.git(&["show", &format!("{}:login.txt", pulls[0][2])]), "one\ntwo\n");
    let message = forge.git(&["log", "-1", "--format=%B", &pulls[0][2]]);
    assert!(message.contains("Co-authored-by: "), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_no_nothing_has_left_and_the_model_knows() {
    let forge = Forge::with("README.md", "A site.\n").await;
    let (llm, rig) = rig(&forge).await;
    llm.otherwise(proposes);
    block_in_place(|| {
        let _server = rig.serve();
        let mut chat = rig.ask("one", "fix the login of acme/site");
        let card = chat.until("the card", is_card);
        assert!(told(&rig, &format!("!no {}", code(&card))).contains("Refused by"));
        let (answer, _) = ended(chat);
        assert!(answer.contains("Somebody in the room was asked and said no"), "{answer}");
    });
    assert_eq!((forge.branches().len(), forge.api.pulls().len()), (0, 0));
}
