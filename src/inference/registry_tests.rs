use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> (Self, Registry) {
        let folder = Self(tempfile::tempdir().unwrap());
        let registry = Registry::new(folder.0.path().to_owned());
        (folder, registry)
    }

    fn write(&self, name: &str, text: &str) {
        // A new file in place of the old one, as editors do it.
        let next = self.0.path().join("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.0.path().join(name)).unwrap();
    }
}

const ONE: &str = r#"{"endpoints": [{"id": "b", "type": "vllm", "url": "http://b:8000/v1/", "priority": 2},
    {"id": "a", "type": "llama-cpp", "url": "http://a:8080", "priority": 1, "notes": "first", "x-own": 1}]}"#;

#[test]
fn the_examples_are_sound() {
    let registry = Registry::new(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/config")));
    for (name, example) in [
        (ENDPOINTS, include_str!("../../config/inference-endpoints.example.json")),
        (MODELS, include_str!("../../config/localbot-models.example.json")),
        (ROOMS, include_str!("../../config/localbot-rooms.example.json")),
    ] {
        let (folder, registry) = Folder::new();
        folder.write(name, example);
        let read = registry.read();
        assert_eq!(
            read.mistakes.iter().filter(|told| told.starts_with(name) && !told.contains("no endpoint")).count(),
            0,
            "{:?}",
            read.mistakes
        );
        assert!(read.endpoints.len() + read.models.len() + read.rooms.len() > 0, "{name}");
    }
    assert!(registry.read().mistakes.is_empty(), "a folder without the files is none");
}

#[test]
fn endpoints_stand_in_the_order_of_their_priority_and_models_in_that_of_the_file() {
    let (folder, registry) = Folder::new();
    folder.write(ENDPOINTS, ONE);
    folder.write(MODELS, r#"{"models": {"llama-cpp/z.gguf": {"alias": "z"}, "ollama/b:8b": {"alias": "b"}, "vllm/a/b": {"alias": "a"}}}"#);
    let read = registry.read();
    assert!(read.mistakes.is_empty(), "{:?}", read.mistakes);
    let endpoints: Vec<_> = read.endpoints.iter().map(|it| (it.id.as_str(), it.url.as_str())).collect();
    assert_eq!(endpoints, [("a", "http://a:8080"), ("b", "http://b:8000")]);
    let models: Vec<_> = read.models.iter().map(|it| (it.alias.as_str(), it.file.as_str(), it.name.as_str())).collect();
    assert_eq!(models, [("z", "z.gguf", "z"), ("b", "b:8b", "b:8b"), ("a", "a/b", "b")]);
}

#[test]
fn a_file_that_changes_is_read_again_and_a_broken_one_keeps_what_it_said() {
    let (folder, registry) = Folder::new();
    assert!(registry.read().endpoints.is_empty());
    folder.write(ENDPOINTS, ONE);
    assert_eq!(registry.read().endpoints.len(), 2);
    folder.write(ENDPOINTS, &ONE.replace("vllm", "wllm"));
    let read = registry.read();
    assert_eq!(read.endpoints.len(), 2, "what it said before holds");
    let told = read.mistakes.join("\n");
    assert!(told.contains("inference-endpoints.json: endpoints[0].type: write `llama-cpp`"), "{told}");
    assert!(told.contains(localbot::KEPT), "{told}");
    folder.write(ENDPOINTS, "{");
    assert_eq!((registry.read().endpoints.len(), registry.read().mistakes.len()), (2, 2));
    fs::remove_file(folder.0.path().join(ENDPOINTS)).unwrap();
    let read = registry.read();
    assert!(read.endpoints.is_empty() && read.mistakes.is_empty(), "{:?}", read.mistakes);
}

#[test]
fn a_mistake_is_named_by_its_file_and_field() {
    let endpoint =
        |fields: &str| format!(r#"{{"endpoints": [{{"id": "a", "type": "vllm", "url": "http://a:1", {fields}}}]}}"#);
    let model = |fields: &str| format!(r#"{{"models": {{"ollama/a": {{"alias": "a", {fields}}}}}}}"#);
    let room =
        |fields: &str| format!(r#"{{"rooms": {{"!a:x": {{"roomName": "a", "agentId": "coder/coder", {fields}}}}}}}"#);
    let long = "x".repeat(2000);
    for (file, text, told) in [
        (ENDPOINTS, "[]".to_owned(), "an object"),
        (ENDPOINTS, r#"{"endpoints": {}}"#.to_owned(), "endpoints: write a list there"),
        (ENDPOINTS, endpoint(r#""apiKey": "sk-1""#), "endpoints[0].apiKey: there is no such field, only `id`, `name`"),
        (ENDPOINTS, endpoint(r#""id": "b""#), "endpoints[0].id: it stands there twice"),
        (ENDPOINTS, ONE.replacen('{', r#"{"version": 1, "#, 1), "version: there is no such field, only `endpoints`"),
        (MODELS, model(r#""alias": "b""#), "models.\"ollama/a\".alias: it stands there twice"),
        (MODELS, model(r#""speeds": {"fast": 1}"#), "models.\"ollama/a\".speeds.fast: there is no such field"),
        (
            MODELS,
            r#"{"models": {"ollama/a": {"alias": "a"}, "ollama/a": {"alias": "b"}}}"#.to_owned(),
            "models.\"ollama/a\": it stands there twice",
        ),
        (ENDPOINTS, r#"{"endpoints": [7]}"#.to_owned(), "endpoints[0]: it is no object"),
        (
            ENDPOINTS,
            r#"{"endpoints": [{"type": "vllm", "url": "http://a"}]}"#.to_owned(),
            "endpoints[0].id: it is missing",
        ),
        (ENDPOINTS, endpoint(r#""priority": "high""#), "endpoints[0].priority: it is no whole number"),
        (
            ENDPOINTS,
            endpoint(r#""prioritty": 1"#),
            "endpoints[0].prioritty: there is no such field; did you mean `priority`?",
        ),
        (ENDPOINTS, endpoint(r#""apiKeyFile": "key""#), "endpoints[0].apiKeyFile: write its whole path"),
        (ENDPOINTS, endpoint(r#""apiKeyFile": "/k", "apiKeyEnv": "K""#), "endpoints[0].apiKeyEnv"),
        (ENDPOINTS, endpoint(r#""ssh": "-oProxyCommand=x", "unit": "u""#), "endpoints[0].ssh"),
        (ENDPOINTS, endpoint(r#""ssh": "u@h", "unit": "u; reboot""#), "endpoints[0].unit"),
        (ENDPOINTS, endpoint(r#""ssh": "u@h""#), "endpoints[0].unit"),
        (ENDPOINTS, endpoint(r#""memory": "much""#), "endpoints[0].memory"),
        (ENDPOINTS, endpoint(&format!(r#""name": "{long}""#)), "endpoints[0].name"),
        (ENDPOINTS, ONE.replace(r#""id": "b""#, r#""id": "A""#), "endpoints[1].id: another endpoint has it, too"),
        (ENDPOINTS, ONE.replace("http://a:8080", "http://u:p@a:8080"), "endpoints[1].url"),
        (ENDPOINTS, ONE.replace("http://a:8080", "file:///a"), "endpoints[1].url"),
        (MODELS, r#"{"models": []}"#.to_owned(), "an object"),
        (MODELS, r#"{"model": {}}"#.to_owned(), "it has no `models`"),
        (MODELS, r#"{"models": {"a.gguf": {"alias": "a"}}}"#.to_owned(), "models.\"a.gguf\": write the kind"),
        (MODELS, model(r#""context": "long""#), "models.\"ollama/a\".context"),
        (MODELS, model(r#""speeds": {"genFresh": "fast"}"#), "models.\"ollama/a\".speeds.genFresh: it is no number"),
        (ROOMS, room(r#""publicReset": "yes""#), "rooms.\"!a:x\".publicReset: it is neither true nor false"),
        (
            ROOMS,
            r#"{"rooms": {"!a:x": {"roomName": "a b", "agentId": "coder/coder"}}}"#.to_owned(),
            "rooms.\"!a:x\".roomName",
        ),
        (
            ROOMS,
            r#"{"rooms": {"!a:x": {"roomName": "a", "agentId": "localbot"}}}"#.to_owned(),
            "rooms.\"!a:x\".agentId",
        ),
    ] {
        let (folder, registry) = Folder::new();
        folder.write(file, &text);
        let mistakes = registry.read().mistakes;
        assert!(
            mistakes.iter().any(|mistake| mistake.starts_with(file) && mistake.contains(told)),
            "{text}: {mistakes:?}"
        );
    }
    let (folder, registry) = Folder::new();
    folder.write(ENDPOINTS, &" ".repeat(2 << 20));
    assert!(registry.read().mistakes[0].contains("larger than 1 MiB"));
}

#[test]
fn an_exact_alias_goes_before_all_that_is_like_it() {
    let (folder, registry) = Folder::new();
    folder.write(
        MODELS,
        r#"{"models": {"ollama/q3": {"alias": "q3cn40b"}, "ollama/b": {"alias": "q3"}, "ollama/c": {"alias": "go20b", "name": "nemo"},
            "ollama/nemo30b": {"alias": "nemo"}}}"#,
    );
    let read = registry.read();
    let found = |said: &str| read.model(said).map(|model| model.alias.as_str());
    assert_eq!(found("q3"), Ok("q3"), "also where another one's name is the same");
    assert_eq!(found("Q3CN"), Ok("q3cn40b"), "the only one that begins so");
    assert_eq!(found("nemo"), Ok("nemo"));
    assert_eq!(found("nemo30b"), Ok("nemo"), "its name there");
    assert_eq!(found("q"), Err(NotOne::Several(vec!["q3cn40b".into(), "q3".into()])));
    for unknown in ["xyz", "", "3cn", "é"] {
        assert_eq!(found(unknown), Err(NotOne::Unknown), "{unknown}");
    }
}

#[test]
fn a_key_is_read_each_time_and_a_file_that_others_can_read_is_refused() {
    let (folder, registry) = Folder::new();
    let key = folder.0.path().join("key");
    let text = ONE.replace(r#""priority": 1"#, &format!(r#""priority": 1, "apiKeyFile": "{}""#, key.display()));
    folder.write(ENDPOINTS, &text);
    let endpoint = registry.read().endpoints[0].clone();
    let told =
        || endpoint.key().map(|key| key.map(|key| key.expose_secret().to_owned())).map_err(|error| error.to_string());
    assert!(told().unwrap_err().contains("cannot be read"));
    fs::write(&key, "sk-one\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(told().unwrap_err().contains("chmod 600"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(told(), Ok(Some("sk-one".into())));
    assert!(!format!("{endpoint:?}").contains("sk-one"));
}

#[test]
fn everybody_may_reset_what_is_public() {
    let (folder, registry) = Folder::new();
    let text = |public: bool| {
        format!(r#"{{"rooms": {{"!a:x": {{"agentId": "coder/coder", "roomName": "a", "publicReset": {public}}}}}}}"#)
    };
    folder.write(ROOMS, &text(true));
    assert!(registry.is_public("!a:x") && !registry.is_public("!b:x"));
    folder.write(ROOMS, &text(false));
    assert!(!registry.is_public("!a:x"), "the file is read again");
    assert_eq!(registry.read().room("A").unwrap().agent, ("coder".to_owned(), "coder".to_owned()));
}

#[test]
fn a_pipe_holds_nobody_up_and_a_unit_is_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(folder.path().to_owned());
    let path = folder.path().join(ENDPOINTS);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(registry.read().mistakes[0].contains("it is no file"), "{:?}", registry.read().mistakes);
    fs::remove_file(&path).unwrap();
    for unit in ["../../etc/x.service", "x/../y.service", "..", ".hidden"] {
        let endpoint = serde_json::json!({"id": "a", "type": "llama-cpp", "url": "http://127.0.0.1:9", "ssh": "a@b", "unit": unit});
        fs::write(&path, serde_json::json!({"endpoints": [endpoint]}).to_string()).unwrap();
        let mistakes = registry.read().mistakes;
        assert!(mistakes[0].contains("the unit's name alone"), "{unit}: {mistakes:?}");
    }
}

#[test]
fn more_than_is_read_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let endpoints: Vec<_> = (0..201)
        .map(|n| serde_json::json!({"id": format!("e{n}"), "type": "vllm", "url": "http://127.0.0.1:9"}))
        .collect();
    fs::write(folder.path().join(ENDPOINTS), serde_json::json!({"endpoints": endpoints}).to_string()).unwrap();
    let mistakes = Registry::new(folder.path().to_owned()).read().mistakes;
    assert!(mistakes[0].contains("201 entries, and 200 are the most"), "{mistakes:?}");
}
