//! `matrix-agent doctor`: what it finds on a machine where something is missing, and that one thing hides no other.

use std::{fs, os::unix::fs::PermissionsExt, os::unix::net::UnixListener, path::Path};

use assert_cmd::Command;
use matrix_agent::{
    clock::Clock,
    store::{Durability, NewInbound, Store},
};
use serde_json::Value;
use tempfile::TempDir;

/// What `doctor --json` found, with its exit code.
struct Found {
    code: i32,
    json: Value,
}

impl Found {
    fn check(&self, name: &str) -> &Value {
        let checks = self.json["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no `{name}` in {:#}", self.json))
    }

    fn status(&self, name: &str) -> &str {
        self.check(name)["status"].as_str().unwrap()
    }

    fn says(&self, name: &str, words: &str) -> bool {
        format!("{}", self.check(name)).contains(words)
    }
}

/// Runs it where Podman cannot be found unless `settings` say otherwise.
fn doctor(folder: &Path, settings: &[(&str, &str)]) -> Found {
    let mut command = Command::new(env!("CARGO_BIN_EXE_matrix-agent"));
    let state = folder.join("state");
    command
        .env_clear()
        .env("STATE_DIR", &state)
        .env("IPC_BASE_DIR", folder.join("ipc"))
        .env("PODMAN_SOCKET", folder.join("none.sock"))
        .env("PODMAN_PATH", "/nowhere/podman")
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .envs(settings.iter().copied())
        .current_dir(folder);
    let output = command.args(["doctor", "--json"]).output().unwrap();
    assert!(!state.exists(), "looking makes nothing");
    Found { code: output.status.code().unwrap(), json: serde_json::from_slice(&output.stdout).unwrap() }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn what_is_missing_is_told_and_hides_nothing_else() {
    let folder = folder();
    let found = doctor(folder.path(), &[]);
    assert_eq!(found.code, 1);
    assert_eq!(found.json["status"], "bad");
    assert_eq!((found.status("podman"), found.status("model")), ("bad", "bad"));
    assert!(found.says("podman", "/nowhere/podman") && found.says("podman", "Install Podman"), "{:#}", found.json);
    for name in ["settings", "allowed hosts", "state directory", "disk of the state", "database", "server"] {
        assert_eq!(found.status(name), "good", "{:#}", found.json);
    }
}

/// What monitors a machine knows the checks by these.
#[test]
fn each_check_has_an_id_that_stays() {
    let folder = folder();
    let found = doctor(folder.path(), &[]);
    let ids: Vec<_> =
        found.json["checks"].as_array().unwrap().iter().map(|check| check["id"].as_str().unwrap()).collect();
    for id in [
        "settings",
        "allowed-hosts",
        "state-directory",
        "ipc-directory",
        "podman",
        "disk-of-the-state",
        "model",
        "github",
    ] {
        assert!(ids.contains(&id), "{id} in {ids:?}");
    }
    assert_eq!(found.check("podman")["fixable"], false);
}

#[test]
fn under_gvisor_no_agent_plans_whatever_this_machines_kernel_can() {
    let folder = folder();
    let found = doctor(folder.path(), &[("SANDBOX_RUNTIME", "runsc")]);
    assert!(found.status("landlock") == "warning" && found.says("landlock", "gVisor cannot keep"), "{:#}", found.json);
    let found = doctor(folder.path(), &[("SANDBOX_RUNTIME", "crun")]);
    assert!(!found.says("landlock", "gVisor"), "{:#}", found.json);
}

#[test]
fn secrets_that_others_can_read_are_closed_and_nothing_else_is_changed() {
    let folder = folder();
    let state = folder.path().join("state");
    let [secret, template, setups, bundle] =
        ["state/secrets/matrix-coder-session.json", "state/secrets/x.env.template", "setups", "ca.crt"]
            .map(|name| folder.path().join(name));
    fs::create_dir_all(secret.parent().unwrap()).unwrap();
    let [deeper, strange, link] =
        ["state/secrets/old/key", "strange", "state/secrets/link"].map(|name| folder.path().join(name));
    fs::create_dir(deeper.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&strange, link).unwrap();
    for (file, mode) in
        [(&secret, 0o644), (&template, 0o644), (&setups, 0o640), (&bundle, 0o600), (&deeper, 0o666), (&strange, 0o644)]
    {
        fs::write(file, "-----BEGIN CERTIFICATE-----\n").unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    let others = folder.path().join("ipc");
    fs::create_dir_all(others.join("of-somebody")).unwrap();
    fs::set_permissions(&others, fs::Permissions::from_mode(0o777)).unwrap();
    let settings = [
        ("STATE_DIR", state.as_path()),
        ("IPC_BASE_DIR", others.as_path()),
        ("PODMAN_SOCKET", &folder.path().join("none.sock")),
        ("PODMAN_PATH", Path::new("/nowhere/podman")),
        ("XDG_CONFIG_HOME", &folder.path().join("config")),
        ("SETUP_SECRETS", &setups),
        ("SANDBOX_CA_BUNDLE", &bundle),
    ];
    let run = |arguments: &[&str]| -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_matrix-agent"));
        let output = command.env_clear().envs(settings).current_dir(folder.path()).args(arguments).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let status = |found: &Value, id: &str| {
        found["checks"].as_array().unwrap().iter().find(|check| check["id"] == id).map(|check| check["status"].clone())
    };
    let found = run(&["doctor", "--json"]);
    assert_eq!((status(&found, "secrets"), status(&found, "ca-bundle")), (Some("warning".into()), Some("bad".into())));
    assert_eq!(status(&found, "state-directory"), Some("warning".into()), "others can write there: {found:#}");
    assert_eq!(found["mended"].as_array().unwrap().len(), 0, "{found:#}");
    let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&secret), mode(&bundle)), (0o644, 0o600), "without --fix it only looks");
    let fixed = run(&["doctor", "--json", "--fix"]);
    assert_eq!((status(&fixed, "secrets"), status(&fixed, "ca-bundle")), (None, Some("good".into())), "{fixed:#}");
    let modes = [&secret, &setups, &bundle, &template, &deeper, &state].map(|file| mode(file));
    assert_eq!(modes, [0o600, 0o600, 0o604, 0o644, 0o600, 0o700]);
    assert_eq!(
        (status(&fixed, "ipc-directory"), mode(&others)),
        (Some("bad".into()), 0o777),
        "it is not this program's"
    );
    assert_eq!(mode(&strange), 0o644, "what a link leads to is not in the folder");
    assert_eq!(fixed["mended"].as_array().unwrap().len(), 5, "{fixed:#}");
    assert_eq!(run(&["doctor", "--json", "--fix"])["mended"].as_array().unwrap().len(), 0, "nothing is left to do");
}

#[test]
fn the_file_with_what_setups_are_given_is_looked_through() {
    let folder = folder();
    let file = folder.path().join("secrets");
    let found = || doctor(folder.path(), &[("SETUP_SECRETS", file.to_str().unwrap())]);
    let missing = found();
    assert!(missing.says("settings", "there is no such file") && missing.status("environments") == "good");
    fs::create_dir(&file).unwrap();
    assert!(found().says("settings", "it is no file"));
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "acme/site NPM_TOKEN=canary-value\nNPM_TOKEN=canary-value\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let found = found();
    assert_eq!((found.status("settings"), found.says("environments", "none is kept yet")), ("good", true));
    assert!(found.json.to_string().contains("line 2 is none of `owner/name NAME=value`"), "{:#}", found.json);
    assert!(!found.json.to_string().contains("canary-value"));
}

#[test]
fn a_podman_that_hangs_hides_nothing_else() {
    let folder = folder();
    let socket = folder.path().join("hangs.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let found = doctor(folder.path(), &[("PODMAN_SOCKET", socket.to_str().unwrap())]);
    assert_eq!(found.status("podman"), "bad");
    assert!(found.says("podman", "no answer"), "{:#}", found.json);
    assert_eq!(found.status("database"), "good");
}

#[test]
fn wrong_settings_are_told_and_the_rest_is_looked_at() {
    let folder = folder();
    let settings =
        [("MAX_AGENT_TURNS", "many"), ("SANDBOX_CA_BUNDLE", "/nowhere/ca.pem"), ("SANDBOX_ALLOWED_HOSTS", "*")];
    let found = doctor(folder.path(), &settings);
    assert!(found.status("settings") == "bad" && found.says("settings", "MAX_AGENT_TURNS (environment)"));
    assert!(found.status("CA bundle") == "bad" && found.says("CA bundle", "cannot be read"));
    assert!(found.status("allowed hosts") == "warning" && found.says("allowed hosts", "every public host"));
}

#[test]
fn a_ca_bundle_must_be_one_and_readable_by_strangers() {
    let folder = folder();
    let bundle = folder.path().join("ca.pem");
    let look = || {
        let found = doctor(folder.path(), &[("SANDBOX_CA_BUNDLE", bundle.to_str().unwrap())]);
        (found.status("CA bundle").to_owned(), found.check("CA bundle")["what"].as_str().unwrap().to_owned())
    };
    fs::write(&bundle, "no certificate").unwrap();
    assert!(look().1.contains("holds no certificate"));
    fs::write(&bundle, "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n").unwrap();
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(look().1.contains("sandboxes cannot read"));
    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(look().0, "good");
}

#[test]
fn secrets_that_others_can_read_are_told() {
    let folder = folder();
    let file = folder.path().join("config/matrix-agent/.env");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "LLM_MODEL = ollama/none\nGEMINI_API_KEY = hush\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let found = doctor(folder.path(), &[]);
    assert!(found.status("secrets") == "warning" && found.says("secrets", "chmod 600"), "{:#}", found.json);
    assert!(!found.json.to_string().contains("hush"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!doctor(folder.path(), &[]).json.to_string().contains("chmod"));
}

#[test]
fn what_others_can_read_on_the_way_is_told_and_no_password_is_sent_there() {
    let folder = folder();
    let settings = [
        ("VPS_IP", "203.0.113.7"),
        ("MATRIX_PASSWORD", "hush"),
        ("LLM_BASE_URL", "http://192.0.2.1:9/v1"),
        ("LLM_MODEL", "openai/m"),
    ];
    let found = doctor(folder.path(), &settings);
    assert!(found.says("account", "no password is sent to http://203.0.113.7:8008"), "{:#}", found.json);
    assert!(found.says("account", "ALLOW_PLAIN_HTTP"), "{:#}", found.json);
    let all = found.json.to_string();
    assert!(all.contains("everybody on the way to http://203.0.113.7:8008"), "{:#}", found.json);
    assert!(all.contains("everybody on the way to 192.0.2.1"), "{:#}", found.json);
    assert!(found.says("account", "Set MATRIX_HOMESERVER to an https:// address"), "{:#}", found.json);
    // Another account's homeserver has a setting of its own.
    let config = folder.path().join("config/matrix-agent");
    fs::create_dir_all(&config).unwrap();
    let account = "[accounts.two]\nuser = \"@two:b.org\"\nhomeserver = \"http://203.0.113.8\"\npassword = \"hush\"\n";
    fs::write(config.join("matrix-agent.toml"), account).unwrap();
    let both = doctor(folder.path(), &settings);
    let of_two = |check: &&Value| check["what"].as_str().unwrap().contains("http://203.0.113.8");
    let mends: Vec<_> =
        both.json["checks"].as_array().unwrap().iter().filter(of_two).map(|check| &check["mend"]).collect();
    let named =
        mends.iter().filter(|mend| mend.to_string().contains("Set accounts.two.homeserver to an https:// address"));
    assert_eq!(named.count(), 2, "no password is sent, and what is read on the way: {mends:#?}");
    fs::remove_dir_all(folder.path().join("config")).unwrap();
    let allowed = [&settings[..], &[("ALLOW_PLAIN_HTTP", "true")]].concat();
    assert!(!doctor(folder.path(), &allowed).says("account", "no password is sent"));
}

#[test]
fn a_state_directory_that_can_only_be_read_is_told() {
    let folder = folder();
    let state = folder.path().join("old");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let looks = |mount: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args([
            "--mount",
            "sh",
            "-c",
            &format!("{mount} exec \"$0\" doctor --json"),
            env!("CARGO_BIN_EXE_matrix-agent"),
        ]);
        command.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("HOME", folder.path());
        command
            .env("STATE_DIR", &state)
            .env("IPC_BASE_DIR", folder.path().join("ipc"))
            .env("PODMAN_PATH", "/nowhere/podman");
        let output = command.env("PODMAN_SOCKET", "/nowhere/sock").output().unwrap();
        let json = serde_json::from_slice(&output.stdout);
        let said = || String::from_utf8_lossy(&output.stderr);
        Found { code: output.status.code().unwrap(), json: json.unwrap_or_else(|error| panic!("{error}: {}", said())) }
    };
    if !nix::unistd::geteuid().is_root() {
        return; // Only root can make a file system read-only here.
    }
    assert_eq!(looks("").status("state directory"), "good");
    let found = looks("mount --bind \"$STATE_DIR\" \"$STATE_DIR\" && mount -o remount,bind,ro \"$STATE_DIR\" &&");
    assert_eq!((found.code, found.status("state directory")), (1, "bad"), "{:#}", found.json);
    assert!(found.says("state directory", "Read-only file system"), "{:#}", found.json);
    assert!(found.says("state directory", "Or set STATE_DIR to another directory"), "{:#}", found.json);
}

#[test]
fn an_account_that_hears_nobody_is_told() {
    let folder = folder();
    let account = [("MATRIX_HOMESERVER", "http://127.0.0.1:9"), ("MATRIX_USER", "@bot:b.org")];
    let found = doctor(folder.path(), &account).json.to_string();
    assert!(found.contains("the account `coder` hears nobody") && found.contains("Set ALLOWED_USERS"), "{found}");
    let heard = [&account[..], &[("ALLOWED_USERS", "@anna:b.org")]].concat();
    assert!(!doctor(folder.path(), &heard).json.to_string().contains("hears nobody"));
}

#[test]
fn a_full_disk_is_told() {
    let folder = folder();
    let found = doctor(folder.path(), &[("HOST_DISK_RESERVE", "4000t")]);
    assert!(found.status("disk of the state") == "bad" && found.says("disk of the state", "HOST_DISK_RESERVE"));
    let found = doctor(folder.path(), &[("SANDBOX_DISK", "4000t")]);
    assert_eq!(found.status("disk of the state"), "warning");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_asked_for_one_token() {
    use wiremock::{
        Mock, MockServer, ResponseTemplate,
        matchers::{body_partial_json, header, method, path},
    };
    let server = MockServer::start().await;
    let chunk = r#"{"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"p"},"finish_reason":"length"}]}"#;
    let answer =
        ResponseTemplate::new(200).set_body_raw(format!("data: {chunk}\n\ndata: [DONE]\n\n"), "text/event-stream");
    Mock::given(method("POST"))
        .and(path("/v1/chat/completions"))
        .and(header("authorization", "Bearer hush"))
        .and(body_partial_json(serde_json::json!({ "max_tokens": 1 })))
        .respond_with(answer)
        .mount(&server)
        .await;
    let base = format!("{}/v1", server.uri());
    let look = move |key: &'static str| {
        let base = base.clone();
        tokio::task::spawn_blocking(move || {
            let folder = folder();
            doctor(folder.path(), &[("LLM_MODEL", "openai/m"), ("LLM_BASE_URL", &base), ("LLM_API_KEY", key)])
        })
    };
    let found = look("hush").await.unwrap();
    assert_eq!(found.status("model"), "good", "{:#}", found.json);
    let found = look("wrong").await.unwrap();
    assert_eq!(found.status("model"), "bad", "{:#}", found.json);
    assert!(!found.json.to_string().contains("hush"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_homeserver_is_asked_where_there_is_an_account() {
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::path};
    let nothing = tokio::task::spawn_blocking(|| doctor(folder().path(), &[])).await.unwrap();
    for name in ["homeserver", "account"] {
        assert!(nothing.json["checks"].as_array().unwrap().iter().all(|check| check["name"] != name));
    }
    let looks = |versions: ResponseTemplate, flow: &'static str, password: &'static str| async move {
        let server = MockServer::start().await;
        Mock::given(path("/_matrix/client/versions")).respond_with(versions).mount(&server).await;
        let flows = ResponseTemplate::new(200).set_body_json(serde_json::json!({ "flows": [{ "type": flow }] }));
        Mock::given(path("/_matrix/client/v3/login")).respond_with(flows).mount(&server).await;
        let url = server.uri();
        let settings = move || {
            let settings =
                [("MATRIX_HOMESERVER", url.as_str()), ("MATRIX_USER", "@bot:localhost"), ("MATRIX_PASSWORD", password)];
            doctor(folder().path(), &settings)
        };
        tokio::task::spawn_blocking(settings).await.unwrap()
    };
    let versions = || ResponseTemplate::new(200).set_body_json(serde_json::json!({ "versions": ["v1.11"] }));

    let found = looks(versions(), "m.login.password", "hush").await;
    assert_eq!((found.status("homeserver"), found.status("account")), ("good", "good"), "{:#}", found.json);
    assert!(found.says("account", "@bot:localhost logs in") && !found.json.to_string().contains("hush"));

    let found = looks(versions(), "m.login.sso", "").await;
    assert_eq!((found.status("homeserver"), found.status("account")), ("bad", "bad"), "{:#}", found.json);
    assert!(found.says("homeserver", "no login by password") && found.says("account", "MATRIX_PASSWORD is not set"));

    let found = looks(ResponseTemplate::new(404).set_body_string("Welcome!"), "m.login.password", "hush").await;
    assert_eq!((found.status("homeserver"), found.status("account")), ("bad", "good"), "{:#}", found.json);
    assert!(found.says("homeserver", "does not answer like a Matrix homeserver"), "{:#}", found.json);
}

/// Starts a server that ends by itself, since its account cannot log in; returns what it says.
fn served_in_vain(folder: &Path, settings: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_matrix-agent"));
    command.env_clear().envs(settings.iter().copied()).current_dir(folder).args(["run", "--demo-model"]);
    let output = command.timeout(std::time::Duration::from_mins(1)).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_told_until_the_settings_change_and_doctor_makes_none_of_its_own() {
    use wiremock::{
        Mock, MockServer, ResponseTemplate,
        matchers::{method, path},
    };
    let server = MockServer::start().await;
    let versions = ResponseTemplate::new(200).set_body_json(serde_json::json!({ "versions": ["v1.11"] }));
    Mock::given(path("/_matrix/client/versions")).respond_with(versions).mount(&server).await;
    let login = || path("/_matrix/client/v3/login");
    let flows = serde_json::json!({ "flows": [{ "type": "m.login.password" }] });
    let flows = ResponseTemplate::new(200).set_body_json(flows);
    Mock::given(method("GET")).and(login()).respond_with(flows).mount(&server).await;
    let refused = serde_json::json!({ "errcode": "M_FORBIDDEN", "error": "Invalid username or password" });
    let refused = ResponseTemplate::new(403).set_body_json(refused);
    Mock::given(method("POST")).and(login()).respond_with(refused).expect(1).mount(&server).await;
    let url = server.uri();
    let looks = move || {
        let folder = folder();
        let (state, ipc, socket) =
            (folder.path().join("old"), folder.path().join("ipc"), folder.path().join("none.sock"));
        let settings = [
            ("STATE_DIR", state.to_str().unwrap()),
            ("IPC_BASE_DIR", ipc.to_str().unwrap()),
            ("PODMAN_PATH", "/nowhere/podman"),
            ("PODMAN_SOCKET", socket.to_str().unwrap()),
            ("MATRIX_HOMESERVER", &url),
            ("MATRIX_USER", "@bot:localhost"),
        ];
        let with = |password| [&settings[..], &[("MATRIX_PASSWORD", password)]].concat();
        assert_eq!(doctor(folder.path(), &with("guess-work")).status("account"), "good", "nobody has tried it");
        let said = served_in_vain(folder.path(), &with("guess-work"));
        assert!(said.contains("does not take the password of @bot:localhost"), "{said}");
        let found = doctor(folder.path(), &with("guess-work"));
        assert_eq!((found.code, found.status("homeserver"), found.status("account")), (1, "good", "bad"));
        assert!(found.says("account", "does not take the password of @bot:localhost"), "{:#}", found.json);
        assert!(found.says("account", "Check MATRIX_USER and MATRIX_PASSWORD"), "{:#}", found.json);
        assert!(!found.json.to_string().contains("guess-work"), "{:#}", found.json);
        assert_eq!(doctor(folder.path(), &with("another")).status("account"), "good", "nobody has tried that one");
    };
    tokio::task::spawn_blocking(looks).await.unwrap();
}

#[test]
fn a_real_podman_is_known() {
    let folder = folder();
    let podman = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|place| place.join("podman"))
        .find(|podman| podman.exists());
    let Some(podman) = podman else { return }; // Nothing to look at here.
    let path = std::env::var("PATH").unwrap();
    let image = ("SANDBOX_IMAGE", "localhost/nobody/built-this:ever");
    let found = doctor(folder.path(), &[("PODMAN_PATH", podman.to_str().unwrap()), ("PATH", &path), image]);
    assert!(
        found.status("podman") != "bad" && found.says("podman", "the server can start its service"),
        "{:#}",
        found.json
    );
    for name in ["runtime", "limits", "memory of the sandboxes", "user namespaces", "disk of the sandboxes"] {
        assert!(!found.check(name)["what"].as_str().unwrap().is_empty());
    }
    assert!(found.status("image") == "bad" && found.says("image", "SANDBOX_IMAGE"), "{:#}", found.json);
}

#[test]
fn people_get_a_line_each_and_the_mend_below() {
    let folder = folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_matrix-agent"));
    command
        .env_clear()
        .env("PODMAN_PATH", "/nowhere/podman")
        .env("PODMAN_SOCKET", "/nowhere/sock")
        .current_dir(&folder);
    let output = command.env("HOME", folder.path()).arg("doctor").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line.starts_with("❌ podman")), "{text}");
    assert!(text.lines().any(|line| line.trim_start().starts_with("→ Install Podman")), "{text}");
    assert!(text.lines().last().unwrap().contains("to mend (❌)"), "{text}");
}

#[test]
fn an_account_that_is_set_up_no_more_keeps_what_waits_and_is_told() {
    let folder = folder();
    let state = folder.path().join("old");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&state.join("matrix-agent.db"), Durability::Normal, Clock::default()).unwrap();
        let said = |event: &str| NewInbound {
            room: "!a:b.org".into(),
            event: event.into(),
            sender: "anna".into(),
            body: Value::Null,
            target: None,
        };
        store.admit("family", vec![said("e1"), said("e2")], vec![], None).await.unwrap();
        store.admit("coder", vec![said("e1")], vec![], None).await.unwrap();
    });
    let found = doctor(folder.path(), &[("STATE_DIR", state.to_str().unwrap())]);
    assert_eq!(found.status("accounts"), "warning");
    assert!(found.says("accounts", "`family` is not set up, and 2 messages and 0 answers wait"), "{:#}", found.json);
    assert!(!found.says("accounts", "coder"), "the first account is always there: {:#}", found.json);
    let file = folder.path().join("matrix-agent.toml");
    fs::write(&file, "[accounts.family]\nuser = \"@a:b.org\"\nhomeserver = \"http://127.0.0.1:9\"\n").unwrap();
    fs::create_dir_all(folder.path().join("config/matrix-agent")).unwrap();
    fs::rename(&file, folder.path().join("config/matrix-agent/matrix-agent.toml")).unwrap();
    let found = doctor(folder.path(), &[("STATE_DIR", state.to_str().unwrap())]);
    assert!(
        found.json["checks"].as_array().unwrap().iter().all(|check| check["name"] != "accounts"),
        "{:#}",
        found.json
    );
    assert_eq!(found.status("account"), "bad", "the account itself is looked at: {:#}", found.json);
}

#[test]
fn what_each_coding_agents_key_is_for_is_told_and_no_key_is_shown() {
    let folder = folder();
    let found = doctor(folder.path(), &[("LLM_MODEL", "ollama/none")]);
    assert!(found.status("Gemini's key") == "good" && found.says("Gemini's key", "GEMINI_API_KEY is not set"));
    assert!(found.says("Gemini's key", "personal logins do not serve it any more"), "{:#}", found.json);
    assert!(found.says("Qwen's key", "Qwen Code asks `ollama/none`, the orchestrator's model"), "{:#}", found.json);
    let keys =
        [("GEMINI_API_KEY", "hush-1"), ("DASHSCOPE_API_KEY", "hush-2"), ("QWEN_BASE_URL", "http://192.0.2.1/v1")];
    let found = doctor(folder.path(), &keys);
    assert!(
        found.says("Gemini's key", "generativelanguage.googleapis.com") && found.says("Gemini's key", "Gemini CLI")
    );
    let all = found.json.to_string();
    assert!(all.contains("everybody on the way to 192.0.2.1 can read DASHSCOPE_API_KEY"), "{:#}", found.json);
    assert!(!all.contains("hush"), "{all}");
    let found =
        doctor(folder.path(), &[("LLM_MODEL", "ollama/none"), ("PLAN_AGENT", "codex"), ("REVIEW_FALLBACK", "codex")]);
    assert!(
        found.says(
            "other coding agents",
            "Codex asks `ollama/none`, the orchestrator's model, with its key and no login"
        ),
        "{:#}",
        found.json
    );
    assert!(found.says("other coding agents", "has to have `codex`"));
    let found = doctor(folder.path(), &[("GEMINI_MODELS", "gemini/x"), ("SANDBOX_WEB_SEARCH", "perhaps")]);
    assert!(found.json.to_string().contains("GEMINI_MODELS (environment): a Gemini model's name has letters"));
    assert!(found.json.to_string().contains("SANDBOX_WEB_SEARCH (environment)"), "{:#}", found.json);
}
