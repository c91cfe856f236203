//! What the host does to a room, as the room sees it, and what the server gives away on the host: the real binary, real
//! Podman, a scripted model.

mod support;

use std::os::unix::fs::PermissionsExt;

use nix::sys::stat::{Mode, umask};
use serde_json::json;
use support::{
    rig::{BARE, Rig, answers},
    scripted,
    scripted_llm::{Reply, results},
};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path},
};

#[test]
fn a_turn_goes_on_when_its_sandbox_was_paused() {
    let (llm, rig) = scripted();
    llm.reply_calls(&[("run_command", json!({"command": "echo begun; sleep 600", "timeout_seconds": 5}))]);
    llm.reply(Reply::command("echo again")).reply_text("It is paused.");
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
    llm.reply(Reply::command("echo back")).reply_text("Done.");
    assert_eq!(rig.ask("one", "and now?").finish().0, 0);
    let requests = llm.requests();
    assert!(results(requests.last().unwrap()).last().unwrap().contains("back"));
}

#[test]
fn a_room_that_waits_for_memory_is_told_so_and_then_served() {
    let (llm, mut rig) = scripted();
    rig.set("SANDBOX_MEMORY_TOTAL", "64m");
    let fill = "head -c 100M /dev/zero > /dev/shm/x; echo full; until [ -e go ]; do sleep 0.1; done";
    llm.when("fill").reply(Reply::command(fill)).reply_text("Filled.");
    llm.when("small").reply(Reply::command("echo small")).reply_text("Done.");
    let _server = rig.serve();
    let mut large = rig.ask("large", "fill it");
    large.until("the command's output", |frame| frame["kind"] == "tool_output" && frame["line"] == "full");
    let mut small = rig.ask("small", "a small thing");
    let told = small.until("word that it waits", |frame| frame.to_string().contains("memory is short"));
    assert!(told.to_string().contains("goes on as soon as one of them is idle"), "{told}");
    let go = rig.run(&["sandbox", "exec", "large", "--", "touch", "/workspace/go"]);
    assert!(go.status.success(), "{go:?}");
    assert_eq!(large.finish().0, 0, "what is at work is never stopped");
    let (code, frames) = small.finish();
    assert_eq!((code, &answers(&frames)[0]["text"]), (0, &json!("Done.")), "{frames:#?}");
}

/// Whoever starts the server may have a umask that opens to all what it makes.
#[test]
fn what_the_server_writes_is_its_users_alone_whatever_the_umask() {
    let (llm, mut rig) = scripted();
    llm.reply(Reply::command("true")).reply_text("Done.");
    let log = rig.path().join("log");
    let run = ["--env-file", "/dev/null", "--config-file", "/dev/null", "run", "--log-file", log.to_str().unwrap()];
    rig.serve_with(env!("CARGO_BIN_EXE_matrix-agent").into(), &run);
    let before = umask(Mode::empty());
    let server = rig.serve();
    umask(before);
    assert_eq!(rig.ask("one", "go").finish().0, 0);
    let state = rig.database().parent().unwrap().to_owned();
    let mut files = vec![log, state.join("control.sock")];
    files.extend(["", "-wal", "-shm"].map(|end| state.join(format!("matrix-agent.db{end}"))));
    files.extend(std::fs::read_dir(state.join("workspaces")).unwrap().map(|entry| entry.unwrap().path()));
    for file in files {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is open: {mode:o}", file.display());
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_goes_to_another_machine_where_everybody_on_the_way_can_read_it() {
    // A proxy stands for everybody on the way.
    let way = MockServer::start().await;
    for (at, answer) in [
        ("/_matrix/client/versions", json!({"versions": ["v1.11"]})),
        ("/_matrix/client/v3/login", json!({"flows": [{"type": "m.login.password"}]})),
    ] {
        let answer = ResponseTemplate::new(200).set_body_json(answer);
        Mock::given(method("GET")).and(path(at)).respond_with(answer).mount(&way).await;
    }
    let mut rig = Rig::new(BARE, "http://127.0.0.1:9/v1");
    for (key, value) in [
        ("MATRIX_HOMESERVER", "http://192.0.2.1:8008"),
        ("MATRIX_USER", "@bot:example.org"),
        ("MATRIX_PASSWORD", "hush-hush"),
        ("ALLOWED_USERS", "@anna:example.org"),
        ("http_proxy", &way.uri()),
    ] {
        rig.set(key, value);
    }
    let seen = async |rig: &Rig| {
        let ended = tokio::task::block_in_place(|| rig.run(&["run"]));
        let asked = way.received_requests().await.unwrap();
        let told = asked.iter().any(|request| String::from_utf8_lossy(&request.body).contains("hush-hush"));
        (told, String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    let (told, said) = seen(&rig).await;
    assert!(!told && said.contains("no password is sent to http://192.0.2.1:8008"), "{said}");
    rig.set("ALLOW_PLAIN_HTTP", "true");
    let (told, said) = seen(&rig).await;
    assert!(told, "{said}");
}

/// What a process was given to begin with can be read in `/proc` as long as it lives.
#[test]
fn what_the_server_starts_gets_none_of_its_secrets() {
    let (_llm, mut rig) = scripted();
    for key in ["MATRIX_PASSWORD", "GITHUB_TOKEN", "GEMINI_API_KEY", "NOT_OURS_BUT_SECRET"] {
        rig.set(key, "hush-hush");
    }
    let nobody = rig.path().join("nobody.sock");
    rig.set("PODMAN_SOCKET", nobody.to_str().unwrap());
    rig.set("XDG_CACHE_HOME", "/tmp/of-podman");
    let server = rig.serve();
    let parent = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok())
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let children: Vec<_> = pids.filter(|pid| parent(pid) == Some(server.pid())).collect();
    assert!(!children.is_empty(), "Podman's service runs");
    for pid in children {
        let read =
            |file: &str| String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned();
        let (command, environment) = (read("cmdline").replace('\0', " "), read("environ"));
        for secret in ["hush-hush", "sk-scripted-secret"] {
            assert!(!environment.contains(secret), "{command}: {}", environment.replace('\0', "\n"));
        }
        assert!(environment.contains("PATH=") && environment.contains("XDG_CACHE_HOME=/tmp/of-podman"), "{command}");
    }
}
