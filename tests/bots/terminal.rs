//! Several bots at a terminal: the state directory of a version that knew one bot goes on, and the coding bot may be left
//! out.

use super::{
    house::{WITHOUT_CODER, serve_house},
    support::{
        rig::{BARE, Rig, answers, wait},
        scripted_llm::ScriptedLlm,
    },
};

/// What `matrix-agent` with schema 5 left when it was killed: a question answered, and another one being worked on.
const LEFT: &str = include_str!("../fixtures/upgrade/schema-5.sql");
const ANSWERED: &str = "2e0e59b7db16758ed6a58b4a";
const OPEN: &str = "d254947c2822bd04dc308d86";

#[tokio::test(flavor = "multi_thread")]
async fn an_open_turn_of_the_version_before_goes_on_and_its_conversation_is_known() {
    let llm = ScriptedLlm::start().await;
    llm.when("second question").reply_text("The second answer.");
    llm.when("third").reply_text("The third answer.");
    let mut rig = Rig::new(BARE, llm.base_url());
    std::fs::create_dir(rig.path().join("s")).unwrap();
    rusqlite::Connection::open(rig.database()).unwrap().execute_batch(LEFT).unwrap();
    serve_house(&mut rig);
    tokio::task::block_in_place(|| {
        let server = rig.serve();
        // Else the open turn may take the third question in.
        let store = rusqlite::Connection::open(rig.database()).unwrap();
        let open =
            || store.query_row("SELECT count(*) FROM turns WHERE state = 'open'", [], |row| row.get::<_, i64>(0));
        wait("the open turn's end", || open().is_ok_and(|open| open == 0));
        let (code, seen) = rig.ask("old", "third").finish();
        assert_eq!(code, 0, "{seen:#?}\n{}", server.log());
        let of = |asked: &str| answers(&seen).into_iter().filter(|it| it["asked"] == asked).count();
        assert_eq!((of(OPEN), of(ANSWERED)), (1, 0), "what was open is answered, and nothing again: {seen:#?}");
        let told = |text: &str| answers(&seen).iter().any(|it| it["text"].as_str().unwrap().contains(text));
        assert!(told("The second answer.") && told("The third answer."), "{seen:#?}");
        let (code, seen) = rig.ask("old", "/lbask before all").finish();
        assert_eq!(code, 0, "{seen:#?}");
        assert_eq!(answers(&seen)[0]["text"], "lb heard: /lbask before all");
        server.stop();
    });
    let last = llm.requests().pop().unwrap().to_string();
    for known in ["first", "The first answer.", "second question", "The second answer.", "third"] {
        assert!(last.contains(known), "the model is told {known:?}: {last}");
    }
    let rows: Vec<(String, Option<String>)> = rusqlite::Connection::open(rig.database())
        .unwrap()
        .prepare("SELECT bot, answerer FROM turns ORDER BY opened")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let coder = || ("coder".to_owned(), None);
    assert_eq!(rows, [coder(), coder(), coder(), ("coder".to_owned(), Some("lb".to_owned()))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_gives_a_turn_up_keeps_neither_its_person_nor_its_room_waiting() {
    let mut rig = Rig::new(BARE, "http://127.0.0.1:9");
    serve_without_coder(&mut rig);
    tokio::task::block_in_place(|| {
        let server = rig.serve();
        let (code, seen) = rig.ask("here", "/lbask give up").finish();
        let told = answers(&seen);
        assert_eq!((code, told.len(), &told[0]["ending"]), (1, 1, &"failed".into()), "{seen:#?}");
        assert!(told[0]["text"].as_str().unwrap().contains("Something went wrong on my side"), "{seen:#?}");
        let (code, seen) = rig.ask("here", "/lbask and now?").finish();
        assert_eq!((code, &answers(&seen)[0]["text"]), (0, &"lb heard: /lbask and now?".into()), "{seen:#?}");
        assert!(server.stop().contains("a bot has left a turn without an outcome"));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_coding_bot_neither_podman_nor_a_models_key_is_needed() {
    let mut rig = Rig::new(BARE, "http://127.0.0.1:9");
    serve_without_coder(&mut rig);
    tokio::task::block_in_place(|| {
        let server = rig.serve();
        let (code, seen) = rig.ask("here", "/lbask are you there?").finish();
        assert_eq!((code, &answers(&seen)[0]["text"]), (0, &"lb heard: /lbask are you there?".into()), "{seen:#?}");
        let output = rig.run(&["sandbox", "list"]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("No bot of this server works in sandboxes."), "{output:?}");
        server.stop();
    });
}

/// Lets the house serve without its coding bot, and so without a model and Podman.
fn serve_without_coder(rig: &mut Rig) {
    for (key, value) in [(WITHOUT_CODER, "yes"), ("LLM_API_KEY", ""), ("PODMAN_PATH", "/nowhere/podman")] {
        rig.set(key, value);
    }
    rig.set("PODMAN_SOCKET", &rig.path().join("none.sock").display().to_string());
    serve_house(rig);
}
