//! The settings as an operator meets them: through the binary, with an environment, a `.env` and a file of their own.

use std::{
    fs, mem,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Output,
};

use assert_cmd::Command;
use matrix_agent::config::{PerMillion, Sources, load};
use tempfile::TempDir;

/// A home with nothing of this machine in it, in which the program runs.
struct Place {
    folder: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of this person's settings.
    fn settings(&self) -> PathBuf {
        let folder = self.path().join(".config/matrix-agent");
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn env_file(self, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.settings().join(".env"), text).unwrap();
        self
    }

    fn file(self, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.settings().join("matrix-agent.toml"), text).unwrap();
        self
    }

    fn sources(&self) -> Sources {
        let environment = [("HOME".into(), self.path().into())].into();
        Sources::new(environment, self.path().to_owned(), false)
    }

    fn set(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((key, value.into()));
        self
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_matrix-agent"));
        command.env_clear().env("HOME", self.path()).envs(self.environment.iter().map(|(key, value)| (*key, value)));
        let mut output = command.current_dir(self.path()).args(arguments).output().unwrap();
        let home = self.path().to_str().unwrap();
        for text in [&mut output.stdout, &mut output.stderr] {
            *text = String::from_utf8(mem::take(text)).unwrap().replace(home, "~").into_bytes();
        }
        Ran(output)
    }

    /// Returns the value and the source that `config` shows for a key.
    fn shown(&self, key: &str) -> (String, String) {
        let ran = self.run(&["config", "--json"]);
        assert_eq!(ran.code(), 0, "{}", ran.err());
        let shown: serde_json::Value = serde_json::from_str(&ran.out()).unwrap();
        let setting = shown["settings"].as_array().unwrap().iter().find(|setting| setting["key"] == key).unwrap();
        (setting["value"].as_str().unwrap_or_default().to_owned(), setting["source"].as_str().unwrap().to_owned())
    }

    /// Returns what `config` complains about; it must end with exit code 2.
    fn mistakes(&self) -> String {
        let ran = self.run(&["config"]);
        assert_eq!(ran.code(), 2, "{}{}", ran.out(), ran.err());
        assert_eq!(ran.out(), "", "nothing is shown as being in effect");
        ran.err()
    }
}

struct Ran(Output);

impl Ran {
    fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }
}

fn pair(value: &str, source: &str) -> (String, String) {
    (value.to_owned(), source.to_owned())
}

#[test]
fn all_mistakes_are_told_at_once_with_place_and_mend() {
    let place = Place::new()
        .file("sandbox_memory = \"lots\"\nsandbox_cpu = 2\n[models.x]\nvison = true\n")
        .env_file(
            "VPS_IP = my-server\nLLM_APIKEY = sk-hush\nthis line is broken sk-hush\nMAX_AGENT_TURNS = many\n\
             STATE_DIR = state\nGITHUB_TOKEN = has blanks hush\n",
        )
        .set("COMMAND_TIMEOUT_SECONDS", "0")
        .set("LLM_MODEL", "opnrouter/some/model")
        .set("SANDBOX_ALLOWED_HOSTS", "https://example.org/")
        .set("ALLOWED_USERS", "");
    insta::assert_snapshot!(place.mistakes());
    for arguments in [&["config", "--json"][..], &["config", "--for", "run"], &["config", "--for", "demo"]] {
        let ran = place.run(arguments);
        assert_eq!(ran.code(), 2);
        assert!(!format!("{}{}", ran.out(), ran.err()).contains("hush"), "a secret was shown");
    }
    let json: serde_json::Value = serde_json::from_str(&place.run(&["config", "--json"]).out()).unwrap();
    assert!(json["mistakes"].as_array().unwrap().len() >= 11, "{json:#}");
}

#[test]
fn what_is_in_effect_is_shown_with_its_source_and_no_secret() {
    let place = Place::new()
        .file("max_agent_turns = 40\n")
        .env_file("VPS_IP = 203.0.113.7\nMATRIX_PASSWORD = 'hush # hush'\nLLM_MODEL = ollama/qwen3\n")
        .set("LLM_API_KEY", "hush-hush-hush")
        .set("STATE_DIR", "/srv/agent")
        .set("LOCALBOT_DIR", "/srv/registry")
        .set("PODMAN_SOCKET", "unix:///run/podman.sock");
    let ran = place.run(&["config"]);
    assert_eq!(ran.code(), 0, "{}", ran.err());
    insta::assert_snapshot!(ran.out());
    let json = place.run(&["config", "--json"]).out();
    assert!(!ran.out().contains("hush") && !json.contains("hush"));
}

#[test]
fn the_environment_wins_over_dotenv_and_that_over_the_file() {
    let place = Place::new()
        .file("llm_model = \"ollama/file\"\nsandbox_pids = 300\nmax_agent_turns = 7\n")
        .env_file("LLM_MODEL = ollama/dotenv\nSANDBOX_PIDS = 400\n")
        .set("LLM_MODEL", "ollama/environment");
    assert_eq!(place.shown("LLM_MODEL"), pair("ollama/environment", "environment"));
    assert_eq!(place.shown("SANDBOX_PIDS"), pair("400", "~/.config/matrix-agent/.env:2"));
    assert_eq!(place.shown("MAX_AGENT_TURNS"), pair("7", "~/.config/matrix-agent/matrix-agent.toml:3"));
    assert_eq!(place.shown("SANDBOX_DISK"), pair("10g", "default"));
}

#[test]
fn a_value_left_empty_is_not_set() {
    let place = Place::new().env_file("LLM_API_KEY =\nMAX_AGENT_TURNS = 9\n").set("MAX_AGENT_TURNS", "");
    assert_eq!(place.shown("MAX_AGENT_TURNS"), pair("9", "~/.config/matrix-agent/.env:2"));
    assert_eq!(place.run(&["config", "--for", "run"]).code(), 2, "an empty key is no key");
}

#[test]
fn a_setting_that_is_written_twice_is_a_mistake_and_an_empty_line_of_it_none() {
    let place =
        Place::new().env_file("MAX_AGENT_TURNS =\nLLM_API_KEY = hush\nMAX_AGENT_TURNS = 9\nexport LLM_API_KEY=hush2\n");
    let told = place.mistakes();
    assert!(
        told.contains("LLM_API_KEY (~/.config/matrix-agent/.env:4): it stands in the file twice, also in line 2"),
        "{told}"
    );
    assert!(!told.contains("MAX_AGENT_TURNS") && !told.contains("hush"), "{told}");
}

#[test]
fn an_empty_list_is_never_taken_for_the_default() {
    for key in ["ALLOWED_USERS", "ADMIN_USERS", "SANDBOX_ALLOWED_HOSTS"] {
        let place = Place::new().env_file(format!("{key} =\n"));
        assert!(place.mistakes().contains("Write `none`"));
        let place = Place::new().env_file(format!("{key} = none\n"));
        assert_eq!(place.shown(key).0, "none");
    }
    for empty in ["", "none"] {
        let place = Place::new().env_file(format!("ALLOWED_ROOMS = {empty}\n"));
        assert!(place.mistakes().contains("ALLOWED_USERS"), "it would open every room");
    }
    assert_eq!(Place::new().file("sandbox_allowed_hosts = []").shown("SANDBOX_ALLOWED_HOSTS").0, "none");
}

#[test]
fn vps_ip_stands_for_the_matrix_settings() {
    let place = Place::new().env_file("VPS_IP = 203.0.113.7\n");
    assert_eq!(place.shown("MATRIX_HOMESERVER"), pair("http://203.0.113.7:8008", "from VPS_IP"));
    assert_eq!(place.shown("MATRIX_USER"), pair("@matrixbot:203.0.113.7", "from VPS_IP"));
    assert_eq!(place.shown("MATRIX_ADMIN_USER"), pair("@admin:203.0.113.7", "from VPS_IP"));
    assert_eq!(place.shown("ADMIN_USERS"), pair("@admin:203.0.113.7", "from MATRIX_ADMIN_USER"));
    assert_eq!(place.shown("ALLOWED_USERS"), pair("@admin:203.0.113.7", "from ADMIN_USERS"));
    let place = Place::new().env_file("VPS_IP = 2001:db8::7\n");
    assert_eq!(place.shown("MATRIX_HOMESERVER").0, "http://[2001:db8::7]:8008");
    assert_eq!(place.shown("MATRIX_USER").0, "@matrixbot:[2001:db8::7]");
    let place = Place::new().env_file("VPS_IP = 203.0.113.7\n").set("MATRIX_ADMIN_USER", "@anna:example.org");
    assert_eq!(place.shown("ALLOWED_USERS").0, "@anna:example.org");
    assert_eq!(place.shown("MATRIX_USER").0, "@matrixbot:203.0.113.7", "the others still follow");
}

#[test]
fn run_and_chat_demand_a_model() {
    let none = Place::new();
    for purpose in ["run", "chat"] {
        let ran = none.run(&["config", "--for", purpose]);
        assert_eq!(ran.code(), 2);
        assert!(ran.err().contains("LLM_API_KEY") && ran.err().contains("Write the key into `.env`"), "{}", ran.err());
    }
    assert_eq!(none.run(&["config", "--for", "demo"]).code(), 0);
    for place in [
        Place::new().set("LLM_API_KEY", "key"),
        Place::new().set("LLM_MODEL", "ollama/qwen3"),
        Place::new().set("LLM_MODEL", "llama-cpp/anything"),
        Place::new().set("LLM_MODEL", "my-model").set("LLM_BASE_URL", "http://127.0.0.1:8000/v1"),
    ] {
        let ran = place.run(&["config", "--for", "chat"]);
        assert_eq!(ran.code(), 0, "{}", ran.err());
    }
}

#[test]
fn a_server_in_rooms_needs_an_account_and_a_password_or_a_session() {
    let place = || {
        let place = Place::new().set("LLM_API_KEY", "key");
        let state = place.path().join("state").to_str().unwrap().to_owned();
        place.set("STATE_DIR", state)
    };
    let unheard = || place().set("MATRIX_HOMESERVER", "https://example.org").set("MATRIX_USER", "@bot:example.org");
    let account = || unheard().set("MATRIX_ADMIN_USER", "@me:example.org");
    let ran = place().set("LLM_API_KEY", "").run(&["config", "--for", "run"]);
    for missing in
        ["LLM_API_KEY: it is not set", "MATRIX_USER: it is not set", "MATRIX_PASSWORD: it is not set", "hears nobody"]
    {
        assert!(ran.code() == 2 && ran.err().contains(missing), "all is told at once: {}", ran.err());
    }
    for (key, folder) in [("STATE_DIR", "/"), ("IPC_BASE_DIR", "/usr"), ("STATE_DIR", "/etc")] {
        let ran = place().set(key, folder).run(&["config", "--for", "run"]);
        let told = format!("{folder} is open to other users and holds what is not this program's");
        assert!(ran.code() == 2 && ran.err().contains(&format!("{key} (environment): {told}")), "{}", ran.err());
    }
    let ran = account().run(&["config", "--for", "run"]);
    assert!(ran.code() == 2 && ran.err().contains("MATRIX_PASSWORD: it is not set"), "{}", ran.err());
    let ran = account().set("MATRIX_PASSWORD", "hush").run(&["config", "--for", "run"]);
    assert_eq!(ran.code(), 0, "{}", ran.err());
    assert!(ran.err().contains("GEMINI_API_KEY is not set"), "{}", ran.err());
    let ran = unheard().set("MATRIX_PASSWORD", "hush").run(&["config", "--for", "run"]);
    assert!(ran.code() == 2 && ran.err().contains("ALLOWED_USERS: the account `coder` hears nobody"), "{}", ran.err());
    let plain = || account().set("MATRIX_PASSWORD", "hush").set("MATRIX_HOMESERVER", "http://example.org");
    let ran = plain().run(&["config", "--for", "run"]);
    let told = "MATRIX_HOMESERVER: no password is sent to http://example.org";
    assert!(ran.code() == 2 && ran.err().contains(told), "{}", ran.err());
    let ran = plain().set("ALLOW_PLAIN_HTTP", "true").run(&["config", "--for", "run"]);
    assert_eq!(ran.code(), 0, "{}", ran.err());
    let stored = account();
    let secrets = stored.folder.path().join("state/secrets");
    fs::create_dir_all(&secrets).unwrap();
    fs::write(secrets.join("matrix-coder-session.json"), "{}").unwrap();
    let ran = stored.run(&["config", "--for", "run"]);
    assert_eq!(ran.code(), 0, "{}", ran.err());
}

#[test]
fn a_server_that_cannot_start_tells_all_that_it_lacks_at_once() {
    let place = Place::new().set("SANDBOX_CPUS", "many").set("GITHUB_WEBHOOK_SECRET", "/nothing/here");
    let ran = place.set("HTTP_NAMES", "agent.example.org").run(&["run"]);
    assert_eq!(ran.code(), 2, "{}", ran.err());
    for key in ["SANDBOX_CPUS", "GITHUB_WEBHOOK_SECRET", "HTTP_LISTEN", "GITHUB_APP_ID", "LLM_API_KEY"] {
        assert!(ran.err().contains(&format!("  {key}")), "{key}: {}", ran.err());
    }
    let nameless = Place::new().set("HTTP_NAMES", "agent.example.org").mistakes();
    assert!(nameless.contains("HTTP_LISTEN: it is not set, and HTTP_NAMES is"), "{nameless}");
}

#[test]
fn names_that_nobody_knows_are_mistakes_in_the_files_only() {
    let mistakes = Place::new().env_file("SANDBOX_MEMROY = 1g\nTOTALLY_ELSE = 1\nc2VjcmV0c2VjcmV0 =\n").mistakes();
    assert!(
        mistakes.contains("SANDBOX_MEMROY (~/.config/matrix-agent/.env:1)")
            && mistakes.contains("Did you mean SANDBOX_MEMORY?"),
        "{mistakes}"
    );
    assert!(
        mistakes.contains("TOTALLY_ELSE (~/.config/matrix-agent/.env:2)") && mistakes.contains(".env:3"),
        "{mistakes}"
    );
    assert!(!mistakes.contains("c2VjcmV0"), "a stray line may be a secret");
    let mistakes = Place::new().file("max_agent_trns = 3\n[sandbox]\nmemory = 1\n").mistakes();
    assert!(mistakes.contains("MAX_AGENT_TURNS?") && mistakes.contains("matrix-agent.toml:2"), "{mistakes}");
    let place = Place::new().set("SANDBOX_MEMROY", "1g").set("PATH", "/bin");
    assert_eq!(place.run(&["config"]).code(), 0, "the environment belongs to everybody");
}

#[test]
fn hostile_and_broken_values_are_told_and_nothing_breaks() {
    let huge = "9".repeat(100_000);
    let place = Place::new()
        .set("MAX_AGENT_TURNS", huge.clone())
        .set("SANDBOX_IMAGE", huge.clone())
        .set("SANDBOX_MEMORY", "99999999999999t")
        .set("SANDBOX_CPUS", "NaN")
        .set("SANDBOX_DISK", "-5g")
        .set("PODMAN_PATH", "--root=/")
        .set("IPC_BASE_DIR", "/tmp/../etc")
        .set("MATRIX_USER", "@a\u{1b}[31mb:c")
        .set("MATRIX_HOMESERVER", "https://me:hush@host")
        .set("LLM_API_KEY", "hush\nInjected: header");
    let mistakes = place.mistakes();
    for key in place.environment.iter().map(|(key, _)| key) {
        assert!(mistakes.contains(key), "{key} is missing in {mistakes}");
    }
    assert!(mistakes.len() < 4000 && !mistakes.contains('\u{1b}') && !mistakes.contains("hush"), "{mistakes}");
}

#[test]
fn files_that_cannot_be_read_are_told() {
    assert!(Place::new().env_file(b"LLM_MODEL = \xff\xfe").mistakes().contains("not valid UTF-8"));
    assert!(Place::new().env_file("A".repeat(2 << 20)).mistakes().contains("larger than 1 MiB"));
    let mistakes = Place::new().file("llm_api_key = \"hush\nllm_model = 3").mistakes();
    assert!(mistakes.contains("not valid TOML") && mistakes.contains("matrix-agent.toml:1"), "{mistakes}");
    assert!(!mistakes.contains("hush"));
    let mistakes =
        Place::new().file("max_agent_turns = true\nsandbox_pids = 1979-05-27\nllm_model = {a = 1}").mistakes();
    assert!(["boolean", "datetime", "table"].iter().all(|kind| mistakes.contains(kind)), "{mistakes}");
    for flag in ["--env-file", "--config-file"] {
        let ran = Place::new().run(&["config", flag, "missing"]);
        assert!(ran.code() == 2 && ran.err().contains("cannot be read"), "{}", ran.err());
    }
    let folder = Place::new();
    fs::create_dir(folder.settings().join(".env")).unwrap();
    assert!(folder.mistakes().contains("cannot be read"));
}

#[test]
fn the_files_may_be_named() {
    let place = Place::new().env_file("MAX_AGENT_TURNS = 3\n");
    fs::write(place.path().join("other"), "MAX_AGENT_TURNS = 4\n").unwrap();
    let ran = place.run(&["--env-file", "other", "config"]);
    assert!(ran.out().contains("other:1") && !ran.out().contains(".env:"), "{}", ran.out());
}

#[test]
fn a_folder_is_not_obeyed_because_the_program_runs_in_it() {
    let place = Place::new();
    fs::write(place.path().join(".env"), "PODMAN_PATH = /evil\nLLM_BASE_URL = http://evil\nbroken\n").unwrap();
    fs::write(place.path().join("matrix-agent.toml"), "podman_path = \"/evil\"").unwrap();
    assert_eq!(place.shown("PODMAN_PATH"), pair("podman", "default"));
    assert_eq!(place.shown("LLM_BASE_URL"), pair("", "default"));
    // They are named, with the option that reads them, wherever somebody would look for the reason.
    let told =
        [place.run(&["config"]).out(), place.run(&["config", "--for", "chat"]).err(), place.run(&["doctor"]).out()];
    for told in told {
        for words in ["~/.env is not read", "--env-file ~/.env", "--config-file ~/matrix-agent.toml"] {
            assert!(told.contains(words), "{words} in {told}");
        }
    }
    assert_eq!(place.run(&["config", "--json", "--env-file", ".env"]).code(), 2, "it is read where it is named");
    // What is read all the same, by a link from the usual place, is not among them.
    symlink(place.path().join("matrix-agent.toml"), place.settings().join("matrix-agent.toml")).unwrap();
    assert_eq!(place.shown("PODMAN_PATH"), pair("/evil", "~/.config/matrix-agent/matrix-agent.toml:1"));
    assert!(!place.run(&["config"]).out().contains("--config-file"));
    // A link that leads nowhere is a mistake, not a missing file.
    symlink(place.path().join("gone"), place.settings().join(".env")).unwrap();
    assert!(place.mistakes().contains("cannot be read"));
}

#[test]
fn settings_come_from_one_folder_the_persons_own_before_the_systems() {
    let (own, system) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(system.path().join(".env"), "LLM_API_KEY = key\nMAX_AGENT_TURNS = 3\n").unwrap();
    let sources = Sources {
        folders: vec![own.path().to_owned(), system.path().to_owned()],
        ..Sources::new([].into(), "/nowhere".into(), true)
    };
    let config = load(&sources).config;
    assert!(config.llm.api_key.is_some() && config.limits.agent_turns == 3);
    // An address from one folder never meets a secret from the other.
    fs::write(own.path().join("matrix-agent.toml"), "llm_base_url = \"http://127.0.0.1:1/v1\"").unwrap();
    let config = load(&sources).config;
    assert!(config.llm.api_key.is_none() && config.llm.base_url.is_some() && config.limits.agent_turns == 25);
    let usual = |environment: &[(&str, &str)]| {
        let environment = environment.iter().map(|(key, value)| (key.into(), value.into())).collect();
        Sources::new(environment, "/nowhere".into(), false).folders
    };
    let system = PathBuf::from("/etc/matrix-agent");
    assert_eq!(usual(&[("HOME", "/home/me")]), [PathBuf::from("/home/me/.config/matrix-agent"), system.clone()]);
    let relative = [("HOME", "/home/me"), ("XDG_CONFIG_HOME", "here")];
    assert_eq!(usual(&relative)[0], PathBuf::from("/home/me/.config/matrix-agent"), "a relative one is none");
    assert_eq!(usual(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")])[0], PathBuf::from("/c/matrix-agent"));
    assert_eq!(usual(&[("HOME", "."), ("XDG_CONFIG_HOME", "")]), [system]);
}

#[test]
fn dotenv_example_is_in_step_with_the_table() {
    let example = include_str!("../.env.example");
    assert_eq!(
        Place::new().run(&["config", "--example"]).out(),
        example,
        "make it anew: `matrix-agent config --example > .env.example`"
    );
    let ran = Place::new().env_file(example).run(&["config"]);
    assert_eq!(ran.code(), 0, "a copy that nobody filled in is no mistake: {}", ran.err());
}

#[test]
fn everything_in_dotenv_example_may_be_uncommented() {
    let settings = include_str!("../.env.example").lines().filter_map(|line| {
        let line = line.trim_start_matches("# ");
        let (key, value) = line.split_once(" =")?;
        let set = !value.is_empty() && key.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        set.then(|| format!("{line}\n"))
    });
    let text: String = settings.collect();
    assert!(text.lines().count() > 15, "{text}");
    let ran = Place::new().env_file(text).run(&["config"]);
    assert_eq!(ran.code(), 0, "{}", ran.err());
}

#[test]
fn every_setting_of_the_original_has_its_name_and_default() {
    let place = Place::new();
    for (key, default) in [
        ("VPS_IP", ""),
        ("MATRIX_HOMESERVER", "https://matrix.org"),
        ("MATRIX_USER", ""),
        ("MATRIX_PASSWORD", ""),
        ("MATRIX_ADMIN_USER", ""),
        ("MATRIX_ADMIN_PASSWORD", ""),
        ("LLM_API_KEY", ""),
        ("LLM_MODEL", "openrouter/anthropic/claude-sonnet-4"),
        ("GEMINI_API_KEY", ""),
        ("DASHSCOPE_API_KEY", ""),
        ("GITHUB_TOKEN", ""),
        ("PODMAN_PATH", "podman"),
        ("SANDBOX_IMAGE", "matrix-agent-sandbox:latest"),
        ("COMMAND_TIMEOUT_SECONDS", "120"),
        ("CODING_TIMEOUT_SECONDS", "1800"),
        ("MAX_AGENT_TURNS", "25"),
        ("IPC_BASE_DIR", "/tmp/sandbox-ipc"),
    ] {
        assert_eq!(place.shown(key), pair(default, "default"), "{key}");
    }
}

#[test]
fn directories_follow_from_who_runs_it() {
    let sources = |root, environment: &[(&str, &str)]| {
        let environment = environment.iter().map(|(key, value)| (key.into(), value.into())).collect();
        Sources { folders: vec![], ..Sources::new(environment, "/nowhere".into(), root) }
    };
    let paths = |sources: &Sources| {
        let loaded = load(sources);
        assert!(loaded.mistakes.is_empty(), "{}", loaded.mistakes);
        (loaded.config.paths.state_dir, loaded.config.sandbox.podman_socket.unwrap())
    };
    let pair = |state: &str, socket: &str| (PathBuf::from(state), PathBuf::from(socket));
    let home = ("HOME", "/home/me");
    assert_eq!(paths(&sources(true, &[home])), pair("/var/lib/matrix-agent", "/run/podman/podman.sock"));
    let runtime = ("XDG_RUNTIME_DIR", "/run/user/7");
    assert_eq!(
        paths(&sources(false, &[home, runtime])),
        pair("/home/me/.local/state/matrix-agent", "/run/user/7/podman/podman.sock")
    );
    let state = ("XDG_STATE_HOME", "/state");
    assert_eq!(paths(&sources(false, &[home, runtime, state])).0, PathBuf::from("/state/matrix-agent"));
    let relative = ("XDG_STATE_HOME", "state");
    assert_eq!(paths(&sources(false, &[home, relative])).0, PathBuf::from("/home/me/.local/state/matrix-agent"));
    let deep = format!("/home/{}", "x".repeat(80));
    let loaded = load(&sources(false, &[("HOME", &deep)]));
    assert!(loaded.mistakes.has("STATE_DIR"), "a home too deep for sockets is told: {}", loaded.mistakes);
}

#[test]
fn secrets_show_in_no_debug_output() {
    let place =
        Place::new().env_file("LLM_API_KEY = hush\nMATRIX_USER = @a:b\nMATRIX_PASSWORD = hush\nGITHUB_TOKEN = hush\n");
    let loaded = load(&place.sources());
    assert!(loaded.config.llm.api_key.is_some() && loaded.config.matrix.is_some());
    assert!(!format!("{loaded:?}").contains("hush"));
    assert!(!serde_json::to_string(&loaded.settings).unwrap().contains("hush"));
}

#[test]
fn what_the_file_says_of_a_model_goes_with_that_model() {
    let file = "llm_model = \"ollama/a\"\n[models.\"ollama/a\"]\ncontext_window = 5000\n[models.\"ollama/b\"]\nvision = true\n";
    let place = Place::new().file(file);
    let facts = |model: Option<&str>| {
        let mut sources = place.sources();
        sources.environment.extend(model.map(|model| ("LLM_MODEL".into(), model.into())));
        let facts = load(&sources).config.llm.facts;
        (facts.context_window.map(u64::from), facts.vision)
    };
    assert_eq!(facts(None), (Some(5000), None));
    assert_eq!(facts(Some("ollama/b")), (None, Some(true)));
    assert_eq!(facts(Some("ollama/c")), (None, None));
    assert!(Place::new().file("[models.x]\ncontext_window = 0").mistakes().contains("nonzero"));
}

#[test]
fn prices_are_dollars_for_a_million_tokens_and_nothing_else() {
    let place = Place::new().file(
        "[models.a]\nprice = { input = 3, cached = 0.3, output = 15.0 }\n[models.b]\nprice = { input = 0, output = 1e6 }\n\
         [models.c]\nvision = true\n",
    );
    let loaded = load(&place.sources());
    assert!(loaded.mistakes.is_empty(), "{}", loaded.mistakes);
    let prices = &loaded.config.prices;
    let told = |model: &str| {
        prices
            .get(model)
            .map(|price| (price.input.dollars(), price.cached.map(PerMillion::dollars), price.output.dollars()))
    };
    assert_eq!((told("a"), told("b")), (Some((3.0, Some(0.3), 15.0)), Some((0.0, None, 1e6))));
    assert_eq!(prices.len(), 2);
    for (price, wrong) in [
        ("{ input = -1, output = 1 }", "-1 is no price"),
        ("{ input = 1, output = 1e7 }", "10000000 is no price"),
        ("{ input = nan, output = 1 }", "NaN is no price"),
        ("{ input = inf, output = 1 }", "inf is no price"),
        ("{ input = 1 }", "missing field `output`"),
        ("{ input = \"3\", output = 1 }", "invalid type: string"),
        ("{ input = 1, output = 1, per = 1000 }", "unknown field `per`"),
        ("3", "invalid type: integer"),
    ] {
        let told = Place::new().file(format!("[models.x]\nprice = {price}")).mistakes();
        let mend = "price = { input = 3, cached = 0.3, output = 15 }";
        assert!(told.contains(wrong) && told.contains(mend), "{price}: {told}");
    }
}

#[test]
fn the_example_of_the_file_is_right() {
    let place = Place::new().file(include_str!("../docs/matrix-agent.toml"));
    assert!(load(&place.sources()).mistakes.is_empty());
    assert_eq!(
        place.shown("SANDBOX_ALLOWED_HOSTS"),
        pair("default,*.example.org", "~/.config/matrix-agent/matrix-agent.toml:10")
    );
}

#[test]
fn a_reader_who_goes_away_is_no_error() {
    use std::process::{Command, Stdio};
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_matrix-agent"))
        .args(["config"])
        .current_dir(place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn help_reads_well() {
    let place = Place::new();
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["chat", "--help"],
        &["demo", "--help"],
        &["sandbox", "--help"],
        &["doctor", "--help"],
        &["config", "--help"],
    ] {
        insta::assert_snapshot!(arguments.join(" ").replace("--", "").replace(' ', "_"), place.run(arguments).out());
    }
    let ran = place.run(&["confg"]);
    assert!(ran.code() == 2 && ran.err().contains("'config'"), "{}", ran.err());
}

#[test]
fn any_number_of_accounts_is_read_and_each_may_differ_from_the_first() {
    let place = Place::new()
        .env_file("MATRIX_HOMESERVER=https://one.org\nMATRIX_USER=@bot:one.org\nALLOWED_USERS=@anna:one.org\n")
        .file(
            "[accounts.family]\nuser = \"@helper:two.org\"\nhomeserver = \"https://two.org\"\n\
             allowed_users = [\"@bert:two.org\", \"@*:three.org\"]\nallowed_rooms = [\"#family:two.org\"]\n\
             password = \"secret two\"\n[accounts.work]\nuser = \"@other:one.org\"\n",
        );
    let loaded = load(&place.sources());
    assert!(loaded.mistakes.is_empty(), "{}", loaded.mistakes);
    let [family, work] = &loaded.config.accounts[..] else { panic!("{:?}", loaded.config.accounts) };
    assert_eq!((family.name.as_str(), family.matrix.user.as_str()), ("family", "@helper:two.org"));
    assert_eq!(family.matrix.homeserver.as_str(), "https://two.org/");
    assert_eq!(family.people.allowed, ["@bert:two.org", "@*:three.org"]);
    assert_eq!(family.people.rooms, ["#family:two.org"]);
    assert!(family.matrix.password.is_some() && work.matrix.password.is_none(), "a password is one account's own");
    assert_eq!((work.matrix.user.as_str(), work.matrix.homeserver.as_str()), ("@other:one.org", "https://one.org/"));
    assert_eq!(work.people.allowed, ["@anna:one.org"]);
}

#[test]
fn what_is_wrong_with_an_account_is_told_by_its_name_and_no_value_of_it_is_shown() {
    for (text, told) in [
        ("accounts = 5", "accounts"),
        ("[accounts]\nx = \"secret\"", "accounts.x"),
        ("[accounts.coder]\nuser = \"@a:b.org\"", "that cannot be an account's name"),
        ("[accounts.\"../x\"]\nuser = \"@a:b.org\"", "that cannot be an account's name"),
        ("[accounts.a]\npassword = \"secret\"", "it has no `user`"),
        ("[accounts.a]\nuser = \"anna\"", "accounts.a.user"),
        ("[accounts.a]\nuser = [1, 2]", "accounts.a.user"),
        ("[accounts.a]\nuser = [1, 2]", "it cannot be a list"),
        ("[accounts.a]\nuser = \"@a:b.org\"\npassword = [\"secret\"]", "accounts.a.password"),
        ("[accounts.a]\nuser = \"@a:b.org\"\npassword = [\"secret\"]", "it cannot be a list. Write a text"),
        ("[accounts.a]\nuser = \"@a:b.org\"\npassword = true", "it cannot be a boolean"),
        ("[accounts.a]\nuser = \"@a:b.org\"\nallowed_users = [1]", "accounts.a.allowed_users"),
        ("[accounts.a]\nuser = \"@a:b.org\"\nallowed_users = [1]", "it cannot be a list of anything but texts"),
        ("matrix_password = [\"secret\"]", "it cannot be a list. Write a text"),
        ("[accounts.a]\nuser = \"@a:b.org\"\npasswords = \"secret\"", "accounts.a.passwords"),
        ("[accounts.a]\nuser = \"@a:b.org\"\n[accounts.b]\nuser = \"@a:b.org\"", "@a:b.org is an account already"),
    ] {
        let mistakes = Place::new().file(text).mistakes();
        assert!(mistakes.contains(told) && !mistakes.contains("secret"), "{text}: {mistakes}");
    }
}

#[test]
fn each_account_is_shown_with_whom_it_hears_and_one_that_hears_nobody_with_the_mend() {
    let place = Place::new()
        .env_file("MATRIX_HOMESERVER=https://one.org\nMATRIX_USER=@bot:one.org\nMATRIX_PASSWORD=hush\n")
        .file(
            "[accounts.family]\nuser = \"@helper:two.org\"\nhomeserver = \"https://two.org\"\n\
             allowed_users = [\"@bert:two.org\", \"@*:three.org\"]\nallowed_rooms = [\"#family:two.org\"]\n\
             password = \"hush two\"\n[accounts.work]\nuser = \"@other:one.org\"\n",
        );
    let told = place.run(&["config"]).out();
    let accounts: Vec<_> = told.lines().skip_while(|line| *line != "# --- Accounts ---").skip(1).collect();
    let [first, family, work] = &accounts[..] else { panic!("{told}") };
    assert_eq!(
        *first,
        "# coder: @bot:one.org at https://one.org/ with the password of ~/.config/matrix-agent/.env:3, hears nobody: Set \
         ALLOWED_USERS to those who may command the bot"
    );
    assert_eq!(
        *family,
        "# family: @helper:two.org at https://two.org/ with the password of ~/.config/matrix-agent/matrix-agent.toml:1, \
         hears @bert:two.org, @*:three.org in #family:two.org"
    );
    assert!(work.contains("without a password, hears nobody: Set accounts.work.allowed_users"), "{work}");
    let json: serde_json::Value = serde_json::from_str(&place.run(&["config", "--json"]).out()).unwrap();
    assert_eq!(json["accounts"][1]["hears"], serde_json::json!(["@bert:two.org", "@*:three.org"]), "{json:#}");
    assert!(!told.contains("hush") && !json.to_string().contains("hush"));
    assert!(!Place::new().run(&["config"]).out().contains("Accounts"), "there is none");
}

#[test]
fn coding_agents_are_profiles_and_what_is_wrong_with_one_is_told() {
    let profile = "[agents.mine]\nname = \"Mine\"\nprogram = \"mine\"\nprotocol = \"openai\"\nformat = \"claude\"\n";
    let ran = Place::new()
        .file(profile)
        .set("IMPLEMENT_AGENT", "mine")
        .set("PLAN_FALLBACK", "codex:x, mine")
        .run(&["config"]);
    assert_eq!(ran.code(), 0, "{}", ran.err());
    let mistakes =
        Place::new().file(profile).set("PLAN_AGENT", "cursor").set("REVIEW_FALLBACK", "qwen, your").mistakes();
    for part in
        ["PLAN_AGENT", "no coding agent `cursor`", "`mine`, `opencode`", "REVIEW_FALLBACK", "no coding agent `your`"]
    {
        assert!(mistakes.contains(part), "{part:?} is not in {mistakes}");
    }
    for (text, parts) in [
        ("[agents]\nmine = 7\n", ["agents.mine", "no table"]),
        ("[agents.\"My Own\"]\nname = \"x\"\n", ["agents.My Own", "no name of a coding agent"]),
        ("[agents.mine]\nname = \"x\"\n", ["agents.mine", "missing field `program`"]),
        ("agents = true\n", ["agents", "no table"]),
    ] {
        let mistakes = Place::new().file(text).mistakes();
        assert!(parts.iter().all(|part| mistakes.contains(part)), "{text}: {mistakes}");
    }
}
