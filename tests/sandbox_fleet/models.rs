//! A coding agent's way to its model, out of a real sandbox: with the key of its run, and with no other.

use matrix_agent::{
    gateway::models::{Grant, ModelDoor, Pass, Protocol, Upstream},
    ids::Address,
    sandbox::{Command, Sandbox, User},
};
use reqwest::Url;
use secrecy::SecretString;

use crate::{
    house::{House, is_gvisor, run, sh, shell, text},
    support::{
        rig::FULL,
        scripted_llm::{Reply, ScriptedLlm},
    },
};

const KEY: &str = "the-operators-own-key-19c4e7";

fn upstream(protocol: Protocol, base: &str, model: &str) -> Upstream {
    let (base, key) = (Url::parse(base).unwrap(), Some(SecretString::from(KEY)));
    Upstream::new(protocol, &base, key, vec![model.to_owned()]).unwrap()
}

fn pass(models: &ModelDoor, address: &Address) -> Pass {
    models.open(Grant {
        address: address.clone(),
        turn: "t1".into(),
        person: None,
        agent: "qwen".to_owned(),
        run: "r1".to_owned(),
    })
}

const CHAT: &str = r#"curl -sS -N -m 20 -w ' %{http_code}' http://127.0.0.1:3130/v1/chat/completions \
    -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
    -d '{"model": "qwen-x", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'"#;
const GENERATE: &str = r#"curl -sS -N -m 20 -w ' %{http_code}' -H "x-goog-api-key: $TOKEN" \
    'http://127.0.0.1:3130/v1beta/models/gemini-x:streamGenerateContent?alt=sse' \
    -d '{"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}'"#;

async fn with(sandbox: &Sandbox, token: &str, script: &str) -> String {
    let command = Command { env: vec![("TOKEN".to_owned(), token.to_owned())], ..shell(script) };
    text(&run(sandbox, command).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_reached_with_the_key_of_a_run_and_the_real_key_is_nowhere_inside() {
    let llm = ScriptedLlm::start().await;
    let upstreams = vec![
        upstream(Protocol::OpenAi, llm.base_url(), "qwen-x"),
        upstream(Protocol::Gemini, llm.gemini_url(), "gemini-x"),
    ];
    let models = ModelDoor::new(upstreams, false, None);
    let house = House::with(|options| FULL.clone_into(&mut options.image));
    let fleet = house.open_with(models.clone()).await;
    let (here, there) = (house.room("here"), house.room("there"));
    let (sandbox, other) = (fleet.ensure(&here).await.unwrap(), fleet.ensure(&there).await.unwrap());

    let pass = pass(&models, &here);
    llm.reply_text("Hello there.").reply(Reply::gemini_text("Good day."));
    let told = with(&sandbox, pass.token(), CHAT).await;
    assert!(told.contains("Hell") && told.contains("[DONE]") && told.ends_with(" 200"), "{told}");
    let told = with(&sandbox, pass.token(), GENERATE).await;
    assert!(told.contains("Good") && told.ends_with(" 200"), "{told}");
    assert_eq!(llm.headers(1)["authorization"], format!("Bearer {KEY}"));
    assert_eq!(llm.headers(2)["x-goog-api-key"], KEY);
    assert_eq!(pass.seen().borrow().requests, 2);

    // The key of another room's run, one that was made up, none.
    for (sandbox, token) in [(&other, pass.token()), (&sandbox, "sandbox-0"), (&sandbox, "")] {
        for script in [CHAT, GENERATE] {
            let told = with(sandbox, token, script).await;
            assert!(told.ends_with(" 401") && told.contains("not one that is valid here"), "{told}");
        }
    }

    // While a request is under way: in every process's environment and arguments, and in every file that is the sandbox's own.
    llm.hang_after(1, Reply::text("Hello there."));
    let asking = Command {
        env: vec![("TOKEN".to_owned(), pass.token().to_owned())],
        background: true,
        ..shell(&format!("{CHAT} > /workspace/said"))
    };
    let asking = sandbox.spawn(asking).await.unwrap();
    llm.arrived(3).await;
    // Written so that the search does not find itself.
    let (first, rest) = KEY.split_at(4);
    let key = format!("{first}[{}]{}", &rest[..1], &rest[1..]);
    let search = format!(
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | grep -ac '{key}'; \
         grep -rlas '{key}' /workspace /home /tmp /var/tmp /run /etc /dev/shm /root 2>/dev/null | grep -c ."
    );
    // Only the agent sees what its own processes were started with, only root sees every file.
    for user in [User::Agent, User::Root] {
        let found = run(&sandbox, Command { user, ..shell(&search) }).await;
        assert_eq!(text(&found), "0\n0", "{user:?}");
    }
    let planted = format!("echo {KEY} > /workspace/planted; PLANTED={KEY} sh -c 'sleep 1m' & {search}; kill $!");
    let found = text(&run(&sandbox, shell(&planted)).await);
    // gVisor shows the room's own files in /run/volume, too.
    let files = if is_gvisor() { "\n2" } else { "\n1" };
    assert!(
        found.starts_with(|count| count != '0') && found.ends_with(files),
        "the search finds what is there: {found}"
    );

    // The run is over: what it left behind is cut, and its key opens nothing.
    let token = pass.token().to_owned();
    drop(pass);
    llm.cancelled(1).await;
    asking.wait().await.unwrap();
    assert!(sh(&sandbox, "cat /workspace/said").await.contains("Hell"));
    assert!(with(&sandbox, &token, CHAT).await.ends_with(" 401"));
    assert_eq!(llm.requests().len(), 3);
}
