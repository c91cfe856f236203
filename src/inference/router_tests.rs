//! The router against a scripted llama-server, which does what real ones were seen to do.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use axum::{
    Json, Router as Pages,
    extract::State as Shared,
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Value, json};

use super::*;
use crate::inference::Inference;

#[derive(Default)]
struct Script {
    /// The models with their states.
    models: BTreeMap<String, &'static str>,
    /// Requests that each model answers now.
    answering: BTreeMap<String, usize>,
    /// Loads that are queued for ever, and models whose loads fail.
    stuck: usize,
    failing: Vec<String>,
    /// What was asked, in order.
    events: Vec<String>,
    /// What must not happen.
    wrong: Vec<String>,
}

type Llama = Arc<Mutex<Script>>;

fn script(llama: &Llama) -> MutexGuard<'_, Script> {
    llama.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a llama-server with room for one of its two models.
async fn llama() -> (Llama, String) {
    let llama = Llama::default();
    script(&llama).models = [("a".to_owned(), "unloaded"), ("b".to_owned(), "unloaded")].into();
    let list = |Shared(llama): Shared<Llama>| async move {
        let models = script(&llama).models.clone();
        let failing = script(&llama).failing.clone();
        let entry = |(id, state): (String, &str)| {
            let failed = failing.contains(&id) && state == "failed";
            json!({"id": id, "status": {"value": if failed { "unloaded" } else { state }, "failed": failed, "args": []}})
        };
        Json(json!({"data": models.into_iter().map(entry).collect::<Vec<_>>()}))
    };
    let load = |Shared(llama): Shared<Llama>, Json(body): Json<Value>| async move {
        let model = body["model"].as_str().unwrap().to_owned();
        let mut script = script(&llama);
        script.events.push(format!("load {model}"));
        if script.models.values().any(|state| *state == "loading" || *state == "loaded") {
            script.wrong.push(format!("{model} is loaded beside another one"));
        }
        if script.stuck > 0 {
            script.stuck -= 1;
            script.models.insert(model, "loading");
        } else if script.failing.contains(&model) {
            script.models.insert(model, "failed");
        } else {
            script.models.insert(model.clone(), "loading");
            drop(script);
            tokio::spawn(async move {
                time::sleep(Duration::from_millis(20)).await;
                let mut script = self::script(&llama);
                if script.models[&model] == "loading" {
                    script.models.insert(model, "loaded");
                }
            });
        }
        Json(json!({"success": true}))
    };
    let unload = |Shared(llama): Shared<Llama>, Json(body): Json<Value>| async move {
        let model = body["model"].as_str().unwrap().to_owned();
        let mut script = script(&llama);
        script.events.push(format!("unload {model}"));
        if script.answering.get(&model).is_some_and(|count| *count > 0) {
            script.wrong.push(format!("{model} is unloaded while it answers"));
        }
        script.models.insert(model, "unloaded");
        Json(json!({"success": true}))
    };
    let answer = |Shared(llama): Shared<Llama>, Json(body): Json<Value>| async move {
        let model = body["model"].as_str().unwrap().to_owned();
        {
            let mut script = script(&llama);
            if script.models[&model] != "loaded" {
                return Err(StatusCode::INTERNAL_SERVER_ERROR);
            }
            *script.answering.entry(model.clone()).or_default() += 1;
        }
        time::sleep(Duration::from_millis(2)).await;
        *script(&llama).answering.get_mut(&model).unwrap() -= 1;
        Ok(Json(json!({"answer": model})))
    };
    let pages = Pages::new()
        .route("/health", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/props", get(|| async { Json(json!({"role": "router", "max_instances": 1})) }))
        .route("/models", get(list))
        .route("/models/load", post(load))
        .route("/models/unload", post(unload))
        .route("/v1/chat/completions", post(answer))
        .with_state(llama.clone());
    (llama, serve(pages).await)
}

async fn serve(pages: Pages) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, pages).await });
    format!("http://{address}")
}

/// An inference with one llama-server and the models `a` and `b`.
fn inference(folder: &Path, url: &str, more: &str, ssh: PathBuf) -> (Inference, Endpoint, [LocalModel; 2]) {
    let endpoint = format!(
        r#"{{"endpoints": [{{"id": "llama", "type": "llama-cpp", "url": "{url}", "loadSeconds": 1 {more}}}]}}"#
    );
    fs::write(folder.join("inference-endpoints.json"), endpoint).unwrap();
    let models =
        r#"{"models": {"llama-cpp/a.gguf": {"alias": "a", "context": 512}, "llama-cpp/b.gguf": {"alias": "b"}}}"#;
    fs::write(folder.join("localbot-models.json"), models).unwrap();
    let inference = Inference::with_ssh(folder.to_owned(), ssh, TaskTracker::new(), CancellationToken::new()).unwrap();
    let read = inference.registry().read();
    assert!(read.mistakes.is_empty(), "{:?}", read.mistakes);
    let models = ["a", "b"].map(|alias| read.model(alias).unwrap().clone());
    (inference, read.endpoints[0].clone(), models)
}

#[tokio::test]
async fn two_models_share_one_place_and_no_request_is_lost() {
    let (folder, (llama, url)) = (tempfile::tempdir().unwrap(), llama().await);
    let (inference, endpoint, models) = inference(folder.path(), &url, "", "ssh".into());
    let http = Http::new().unwrap();
    let asked = (0..100).map(|number| {
        let (inference, endpoint, http, model) = (&inference, &endpoint, &http, &models[number % 2]);
        async move {
            let lease = inference.lease(endpoint, model).await.unwrap();
            let body = json!({"model": lease.model()});
            http.post(endpoint, "/v1/chat/completions", &body, Duration::from_secs(10)).await.unwrap()["answer"].clone()
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().enumerate().all(|(number, answer)| answer == ["a", "b"][number % 2]), "{answers:?}");
    let script = script(&llama);
    assert_eq!(script.wrong, [""; 0]);
    assert!(script.events.len() < 8, "those for one model go together: {:?}", script.events);
    assert!(inference.standing(&endpoint).iter().all(|it| it.answering == 0 && it.waiting.is_none()));
}

#[tokio::test]
async fn a_load_that_is_queued_for_ever_is_mended_once() {
    let (folder, (llama, url)) = (tempfile::tempdir().unwrap(), llama().await);
    let (inference, endpoint, [a, b]) = inference(folder.path(), &url, "", "ssh".into());
    script(&llama).stuck = 1;
    inference.lease(&endpoint, &a).await.unwrap();
    assert_eq!(script(&llama).events, ["load a", "unload a", "load a"]);
    script(&llama).stuck = 2;
    let why = inference.lease(&endpoint, &b).await.unwrap_err();
    let NoLease::Failed { why: LoadFault::Failed(why), serving } = why else { panic!("{why:?}") };
    assert!(why.contains("did not answer within 1 s") && serving.as_deref() == Some("a"), "{why}");
    assert_eq!(script(&llama).models["a"], "loaded", "what was there before is back");
}

#[tokio::test]
async fn a_load_that_fails_leaves_the_model_before_serving() {
    let (folder, (llama, url)) = (tempfile::tempdir().unwrap(), llama().await);
    let (inference, endpoint, [a, b]) = inference(folder.path(), &url, "", "ssh".into());
    script(&llama).failing = vec!["b".to_owned()];
    inference.lease(&endpoint, &a).await.unwrap();
    let failed = inference.lease(&endpoint, &b).await.unwrap_err();
    assert!(matches!(&failed, NoLease::Failed { serving: Some(model), .. } if model == "a"), "{failed:?}");
    assert_eq!(script(&llama).models["a"], "loaded");
    inference.lease(&endpoint, &a).await.unwrap();
    assert_eq!(script(&llama).wrong, [""; 0]);
}

#[tokio::test]
async fn a_loaded_model_that_does_not_answer_is_loaded_anew_once_nobody_asks_it() {
    let (folder, (llama, url)) = (tempfile::tempdir().unwrap(), llama().await);
    let (inference, endpoint, [a, _]) = inference(folder.path(), &url, "", "ssh".into());
    let lease = inference.lease(&endpoint, &a).await.unwrap();
    lease.broken();
    drop(lease);
    inference.lease(&endpoint, &a).await.unwrap();
    assert_eq!(script(&llama).events, ["load a", "unload a", "load a"]);
}

#[tokio::test]
async fn who_stops_waiting_leaves_nothing_behind() {
    let (folder, (llama, url)) = (tempfile::tempdir().unwrap(), llama().await);
    let (inference, endpoint, [a, b]) = inference(folder.path(), &url, "", "ssh".into());
    let lease = inference.lease(&endpoint, &a).await.unwrap();
    {
        let waits = inference.lease(&endpoint, &b);
        assert!(time::timeout(Duration::from_millis(100), waits).await.is_err(), "a is in use");
    }
    drop(lease);
    inference.lease(&endpoint, &a).await.unwrap();
    assert_eq!(script(&llama).events, ["load a"], "nobody wants b any more");
}

/// A single llama-server whose model is the one that stands in a file, as a unit's environment would have it.
async fn single(served: &Path) -> String {
    let path = served.to_owned();
    let props = move || {
        let model = fs::read_to_string(&path).unwrap();
        async move { Json(json!({"model_path": model.trim(), "default_generation_settings": {"n_ctx": 512}})) }
    };
    let health = || async { Json(json!({"status": "ok"})) };
    serve(Pages::new().route("/health", get(health)).route("/props", get(props))).await
}

/// A program in place of `ssh`: it does what the remote machine would do with its last argument, and notes all of them.
fn ssh(folder: &Path, body: &str) -> PathBuf {
    let program = folder.join("ssh");
    fs::write(&program, format!("#!/bin/sh\ncd {}\nprintf '%s\\n' \"$@\" >> asked\n{body}", folder.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    program
}

const PLACE: &str = r#", "ssh": "llama@gpu.example", "unit": "llama-server.service", "modelsDir": "/srv/models""#;
/// What the unit serves once it is restarted: what the drop-in says, or what it was before.
const OBEYS: &str = r#"for last; do :; done
case $last in
*LLAMA_ARG_MODEL=*) cp served before; echo "$last" | sed -n 's/.*LLAMA_ARG_MODEL=\([^"\\]*\).*/\1/p' > served ;;
*mv*) cp before served ;;
esac
"#;

#[tokio::test]
async fn a_server_without_a_router_is_restarted_with_the_other_model_over_ssh() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("served"), "/srv/models/a.gguf").unwrap();
    let (url, ssh) = (single(&folder.path().join("served")).await, ssh(folder.path(), OBEYS));
    let (inference, endpoint, [a, b]) = inference(folder.path(), &url, PLACE, ssh);
    inference.lease(&endpoint, &a).await.unwrap();
    assert!(!folder.path().join("asked").exists(), "it is served already");
    inference.lease(&endpoint, &b).await.unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("served")).unwrap().trim(), "/srv/models/b.gguf");
    let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
    for word in [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "ConnectTimeout=10",
        "--\nllama@gpu.example\n",
        "systemctl restart llama-server.service",
    ] {
        assert!(asked.contains(word), "{word}: {asked}");
    }
    inference.lease(&endpoint, &a).await.unwrap();
    let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
    assert!(asked.contains(r#""LLAMA_ARG_MODEL=/srv/models/a.gguf\" \"LLAMA_ARG_CTX_SIZE=512\""#), "{asked}");
}

#[tokio::test]
async fn an_ssh_that_fails_leaves_the_model_before_serving() {
    let folder = tempfile::tempdir().unwrap();
    let served = folder.path().join("served");
    fs::write(&served, "/srv/models/a.gguf").unwrap();
    let url = single(&served).await;
    let program = ssh(folder.path(), "echo 'Host key verification failed.' >&2\nexit 255\n");
    let (inference, endpoint, [_, b]) = inference(folder.path(), &url, PLACE, program);
    let failed = inference.lease(&endpoint, &b).await.unwrap_err();
    let unreachable =
        LoadFault::Unreachable("SSH does not reach its machine: Host key verification failed.".to_owned());
    assert_eq!(failed, NoLease::Failed { why: unreachable, serving: Some("a".to_owned()) });

    // The unit comes back with another model than was asked for, or with none.
    ssh(folder.path(), &OBEYS.replace("s/.*LLAMA_ARG_MODEL=\\([^\"\\\\]*\\).*/\\1/p", "s/.*/none/p"));
    let failed = inference.lease(&endpoint, &b).await.unwrap_err();
    let NoLease::Failed { why: LoadFault::Failed(why), serving } = failed else { panic!("{failed:?}") };
    assert!(why.contains("did not answer within 1 s") && serving.as_deref() == Some("a"), "{why} {serving:?}");
    assert_eq!(fs::read_to_string(served).unwrap().trim(), "/srv/models/a.gguf", "it was brought back");
}

#[tokio::test]
async fn a_log_is_read_over_ssh() {
    let folder = tempfile::tempdir().unwrap();
    let program = ssh(folder.path(), "echo 'srv  init: \u{1b}[31mready\u{1b}[0m'\n");
    let (inference, endpoint, _) = inference(folder.path(), "http://127.0.0.1:9", PLACE, program);
    assert_eq!(inference.log(&endpoint, 20).await.unwrap(), "srv  init: ready\n");
    let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
    assert!(asked.contains("journalctl --no-pager --output=cat --lines=20 --unit=llama-server.service"), "{asked}");
    ssh(folder.path(), "trap '' PIPE; head -c 3000000 /dev/zero | tr '\\0' x; exit 0\n");
    assert_eq!(inference.log(&endpoint, 20).await.unwrap().len(), 64 * 1024, "what has no end is cut");
    ssh(folder.path(), "exit 3\n");
    assert!(inference.log(&endpoint, 20).await.unwrap_err().to_string().contains("ended with code 3 and said nothing"));
    ssh(folder.path(), "echo 'Permission denied (publickey).' >&2; exit 255\n");
    assert_eq!(
        inference.log(&endpoint, 20).await.unwrap_err().to_string(),
        "SSH does not reach its machine: Permission denied (publickey)."
    );
    let (inference, endpoint, _) = self::inference(folder.path(), "http://127.0.0.1:9", "", "ssh".into());
    assert!(inference.log(&endpoint, 20).await.unwrap_err().to_string().contains("no `ssh` and `unit`"));
}
