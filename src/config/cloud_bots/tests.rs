use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
};

use secrecy::ExposeSecret;

use super::*;
use crate::config::{Sources, load};

/// What a bot needs.
const NEEDED: &str = "BOT_TOKEN=syt_hush_token\nBOT_MXID=@llama:example.org\nLLM_BASE_URL=https://api.groq.com/openai/v1\n\
                      LLM_MODEL=llama-3.3\nLLM_API_KEY=gsk_hush\n";

struct Place {
    folder: tempfile::TempDir,
    config: Config,
}

impl Place {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = environment.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let sources = Sources { folders: vec![], ..Sources::new(environment, folder.path().to_owned(), true) };
        let mut config = load(&sources).config;
        config.paths.state_dir = folder.path().join("state");
        fs::create_dir_all(config.paths.secrets()).unwrap();
        Self { folder, config }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.config.paths.secrets().join(file)
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(file);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn read(&self) -> CloudBots {
        CloudBots::read(&self.config)
    }

    /// Returns the bot of this text.
    fn bot(&self, more: &str) -> CloudBot {
        self.bot_of(&format!("{NEEDED}{more}"))
    }

    fn bot_of(&self, text: &str) -> CloudBot {
        self.write("cloud-bot-llama.env", text);
        let CloudBots { mut bots, refused } = self.read();
        assert!(refused.is_empty(), "{refused:?}");
        bots.pop().unwrap()
    }

    /// Returns why this text is refused, while another bot is there; no secret may be in it.
    fn refusal(&self, text: impl AsRef<[u8]>) -> String {
        self.write("cloud-bot-good.env", NEEDED.replace("@llama", "@good"));
        self.write("cloud-bot-llama.env", text);
        let CloudBots { bots, refused } = self.read();
        assert_eq!(bots.iter().map(|bot| bot.name.as_str()).collect::<Vec<_>>(), ["good"], "the other one is served");
        assert_eq!(refused.len(), 1);
        let shown = refused[0].to_string();
        assert!(!shown.contains("hush") && !format!("{refused:?}").contains("hush"), "{shown}");
        assert!(shown.contains("cloud-bot-llama.env") || shown.contains("it is not set"), "{shown}");
        shown
    }
}

#[test]
fn what_nobody_writes_has_the_defaults_of_the_page() {
    let bot = Place::new().bot("");
    assert_eq!((bot.name.as_str(), bot.account()), ("llama", "cloud-llama".to_owned()));
    assert_eq!(bot.token.expose_secret(), "syt_hush_token");
    assert_eq!(bot.homeserver.as_str(), "http://127.0.0.1:8448/");
    assert_eq!((bot.max_tokens, bot.temperature, bot.timeout.as_secs()), (600, 0.7, 60));
    assert_eq!((bot.history_turns, bot.at_once, bot.per_minute, bot.per_day), (4, 1, 10, 800));
    assert_eq!((bot.watchdog.as_secs(), bot.thinking, bot.disable_thinking), (300, Thinking::Spoiler, false));
    assert!(bot.rooms.is_empty() && bot.known_bots.is_empty() && bot.headers.is_empty());
    assert_eq!((bot.called, bot.provider, bot.system_prompt, bot.group), (None, None, None, None));
    assert_eq!((bot.per_minute_of_sender, bot.per_day_of_sender), (None, None));
}

#[test]
fn a_model_of_the_registry_needs_no_address_and_no_key() {
    let text = "BOT_TOKEN=syt_hush_token\nBOT_MXID=@llama:example.org\nLLM_MODEL=localbot/q3\n";
    let place = Place::new();
    place.write("cloud-bot-llama.env", text);
    let bot = place.read().bots.pop().expect("it can be served");
    assert_eq!((bot.model.as_str(), bot.base_url.as_ref()), ("localbot/q3", None));
    assert!(bot.api_key.expose_secret().is_empty());
    let told = place.refusal(format!("{text}LLM_BASE_URL=https://api.example.org/v1\n"));
    assert!(told.contains("LLM_BASE_URL") && told.contains("the registry says where its models are"), "{told}");
}

#[test]
fn every_key_is_read() {
    let bot = Place::new().bot(
        "HS_URL=https://hs.example.org\nBOT_NAME=llamabot\nLLM_PROVIDER=groq\nLLM_SYSTEM_PROMPT=\"Be kind.\\nBe short.\"\n\
         LLM_MAX_TOKENS=1500\nLLM_TEMPERATURE=0\nLLM_TIMEOUT_S=90\nHISTORY_TURNS=0\nLLM_DISABLE_THINKING=true\n\
         SHOW_THINKING=details\nALLOWED_ROOMS='!a:example.org, #b:example.org'\nRATE_LIMIT_RPM=3\nRATE_LIMIT_RPD=4\n\
         RATE_LIMIT_SENDER_RPM=2\nRATE_LIMIT_SENDER_RPD=3\nRATE_LIMIT_GROUP=groq\nLLM_CONCURRENT_MAX=2\nKNOWN_BOT_MXIDS=@qwen:example.org\nSYNC_WATCHDOG_S=120\n\
         EXTRA_HEADERS_JSON={\"HTTP-Referer\": \"https://example.org\", \"X-Title\": \"Ours\"}\n",
    );
    assert_eq!(bot.homeserver.as_str(), "https://hs.example.org/");
    assert_eq!((bot.called.as_deref(), bot.provider.as_deref()), (Some("llamabot"), Some("groq")));
    assert_eq!(bot.system_prompt.as_deref(), Some("Be kind.\nBe short."));
    assert_eq!((bot.max_tokens, bot.temperature, bot.timeout.as_secs(), bot.history_turns), (1500, 0.0, 90, 0));
    assert_eq!((bot.disable_thinking, bot.thinking), (true, Thinking::Details));
    assert_eq!(bot.rooms, ["!a:example.org", "#b:example.org"]);
    assert_eq!((bot.per_minute, bot.per_day, bot.group.as_deref(), bot.at_once), (3, 4, Some("groq"), 2));
    assert_eq!((bot.per_minute_of_sender, bot.per_day_of_sender), (Some(2), Some(3)));
    assert_eq!((bot.known_bots, bot.watchdog.as_secs()), (vec!["@qwen:example.org".to_owned()], 120));
    assert_eq!(bot.headers["x-title"].expose_secret(), "Ours");
}

#[test]
fn the_homeserver_is_ours_only_where_we_have_one_and_no_other_setting_is() {
    let elsewhere = [("LLM_API_KEY", "sk-ours"), ("LLM_MODEL", "ours"), ("ALLOWED_ROOMS", "!ours:example.org")];
    for (set, url) in [
        (("MATRIX_HOMESERVER", "https://ours.example.org"), "https://ours.example.org/"),
        (("MATRIX_USER", "@coder:matrix.org"), "http://127.0.0.1:8448/"),
    ] {
        let place = Place::with(&[elsewhere.as_slice(), &[set]].concat());
        let bot = place.bot("");
        assert_eq!(bot.homeserver.as_str(), url);
        assert_eq!((bot.api_key.expose_secret(), bot.model.as_str()), ("gsk_hush", "llama-3.3"));
        assert!(bot.rooms.is_empty());
        let shown = place.refusal("BOT_MXID=@llama:example.org\n");
        for key in ["BOT_TOKEN", "LLM_BASE_URL", "LLM_MODEL", "LLM_API_KEY"] {
            assert!(shown.contains(&format!("{key}: it is not set.")), "{shown}");
        }
    }
    // In plain HTTP the token goes nowhere, unless the operator trusts the network.
    let derived = Place::with(&[("VPS_IP", "203.0.113.7")]);
    derived.write("cloud-bot-llama.env", NEEDED);
    let CloudBots { bots, refused } = derived.read();
    assert!(bots.is_empty() && refused[0].to_string().contains("HS_URL: no token is sent to http://203.0.113.7:8008/"));
    let trusted = Place::with(&[("VPS_IP", "203.0.113.7"), ("ALLOW_PLAIN_HTTP", "true")]);
    assert_eq!(trusted.bot("").homeserver.as_str(), "http://203.0.113.7:8008/");
}

#[test]
fn a_mistake_is_told_with_key_and_line_and_without_the_value() {
    let place = Place::new();
    for (more, told) in [
        ("LLM_TEMPERATURE=warm", "LLM_TEMPERATURE (cloud-bot-llama.env:6): `warm` is no temperature."),
        ("LLM_TEMPERATURE=NaN", "LLM_TEMPERATURE (cloud-bot-llama.env:6)"),
        ("HISTORY_TURNS=-1", "HISTORY_TURNS (cloud-bot-llama.env:6)"),
        ("RATE_LIMIT_RPM=0", "RATE_LIMIT_RPM (cloud-bot-llama.env:6)"),
        ("LLM_DISABLE_THINKING=perhaps", "LLM_DISABLE_THINKING"),
        ("SHOW_THINKING=loud", "SHOW_THINKING"),
        ("SYNC_WATCHDOG_S=1", "SYNC_WATCHDOG_S"),
        ("ALLOWED_ROOMS=lobby", "ALLOWED_ROOMS"),
        ("KNOWN_BOT_MXIDS=llama", "KNOWN_BOT_MXIDS"),
        ("RATE_LIMIT_GROUP=two words", "RATE_LIMIT_GROUP"),
        ("EXTRA_HEADERS_JSON={\"X-Key\": hush}", "EXTRA_HEADERS_JSON (cloud-bot-llama.env:6): it is no JSON object"),
        ("EXTRA_HEADERS_JSON={\"X Key\": \"hush\"}", "cannot be a header"),
        ("EXTRA_HEADERS_JSON={\"Authorization\": \"hush\"}", "`authorization`"),
        ("LLM_SYSTEM_PROMPT=\"it begins", "cloud-bot-llama.env (cloud-bot-llama.env:6): the line is not"),
        ("LLM_TEMP_RATURE=1", "Did you mean LLM_TEMPERATURE?"),
        ("STATE_DIR=/tmp", "STATE_DIR (cloud-bot-llama.env:6): there is no such setting."),
        ("HS_URL=http://203.0.113.9:8008", "HS_URL (cloud-bot-llama.env:6): no token is sent to"),
    ] {
        let shown = place.refusal(format!("{NEEDED}{more}\n"));
        assert!(shown.contains(told), "{more}: {shown}");
    }
}

#[test]
fn placeholders_are_no_keys() {
    let place = Place::new();
    for key in ["BOT_TOKEN", "LLM_API_KEY"] {
        for value in ["REPLACE_ME", "your-api-key", "<key>", "gsk_xxxxxxxx", "changeme", "sk-...", "***", "placeholder"]
        {
            let shown = place.refusal(format!("{}{key}={value}\n", without(key)));
            assert!(shown.contains(key) && shown.contains("placeholder"), "{value}: {shown}");
        }
    }
    let bot = place.bot_of(&format!("{}LLM_API_KEY=none\n", without("LLM_API_KEY")));
    assert_eq!(bot.api_key.expose_secret(), "none", "for endpoints without keys");
}

/// What a bot needs but this key.
fn without(key: &str) -> String {
    let others = NEEDED.lines().filter(|line| !line.starts_with(key));
    others.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn a_key_that_stands_there_twice_is_a_mistake() {
    let shown = Place::new().refusal(format!("{NEEDED}LLM_API_KEY=sk-another-secret\n"));
    assert!(shown.contains("LLM_API_KEY") && shown.contains("stands in the file twice"), "{shown}");
    assert!(!shown.contains("another-secret"), "{shown}");
}

#[test]
fn a_file_that_is_none_is_told_and_the_others_are_served() {
    let place = Place::new();
    assert!(place.refusal([0xff, 0xfe, 0]).contains("the file is no text"));
    assert!(place.refusal(format!("{NEEDED}\0")).contains("the file is no text"));
    assert!(place.refusal("#".repeat(70_000)).contains("larger than"));
    assert!(place.refusal("").contains("BOT_TOKEN: it is not set."));
    assert!(place.refusal(&NEEDED[..60]).contains("LLM_MODEL: it is not set."), "half of a file");
    let path = place.path("cloud-bot-llama.env");
    for mode in [0o644, 0o640, 0o602] {
        place.write("cloud-bot-llama.env", NEEDED);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let shown = place.read().refused.pop().unwrap().to_string();
        assert!(shown.contains(&format!("(mode {mode:o})")) && shown.contains("chmod 600"), "{shown}");
    }
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(place.read().refused.pop().unwrap().to_string().contains("it is no file"), "and nobody waits for it");
    fs::remove_file(&path).unwrap();
    symlink("/nowhere", &path).unwrap();
    assert!(place.read().refused.pop().unwrap().to_string().contains("there is no such file"));
}

#[test]
fn a_strangers_file_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return; // Only root can make a stranger's file.
    }
    let place = Place::new();
    let path = place.write("cloud-bot-llama.env", NEEDED);
    std::os::unix::fs::chown(&path, Some(4242), None).unwrap();
    let shown = place.read().refused.pop().unwrap().to_string();
    assert!(shown.contains("it belongs to user 4242"), "{shown}");
}

#[test]
fn names_are_safe_and_other_files_are_left_alone() {
    let place = Place::new();
    for none in
        ["cloud-bot-llama.env~", "cloud-bot-llama.env.old", "cloud-bot.env", TEMPLATE, "matrix-coder-session.json"]
    {
        place.write(none, "no settings");
    }
    assert!(place.read().bots.is_empty() && place.read().refused.is_empty());
    for unsafe_name in ["cloud-bot-.env", "cloud-bot-a b.env", "cloud-bot-..env", "cloud-bot-A.env", "cloud-bot--x.env"]
    {
        let path = place.write(unsafe_name, NEEDED);
        let CloudBots { bots, refused } = place.read();
        assert!(bots.is_empty());
        assert!(refused[0].to_string().contains("cannot name a bot"), "{unsafe_name}: {}", refused[0]);
        fs::remove_file(path).unwrap();
    }
    assert!(CloudBot::path(&place.config, "../evil").is_err());
    assert_eq!(CloudBot::path(&place.config, "llama").unwrap(), place.path("cloud-bot-llama.env"));
    fs::remove_dir_all(place.config.paths.secrets()).unwrap();
    assert!(place.read().refused.is_empty(), "without a folder there is no bot and no mistake");
    assert!(place.folder.path().exists());
}

#[test]
fn one_account_is_one_bots() {
    let place = Place::with(&[("MATRIX_USER", "@coder:example.org")]);
    place.write("cloud-bot-a.env", NEEDED);
    place.write("cloud-bot-b.env", NEEDED);
    place.write("cloud-bot-c.env", NEEDED.replace("@llama", "@coder"));
    let CloudBots { bots, refused } = place.read();
    assert_eq!(bots.iter().map(|bot| bot.name.as_str()).collect::<Vec<_>>(), ["a"]);
    let told: Vec<_> = refused.iter().map(ToString::to_string).collect();
    assert!(
        told[0].contains("BOT_MXID (cloud-bot-b.env): @llama:example.org is the account of `cloud-bot-a.env`"),
        "{told:?}"
    );
    assert!(told[1].contains("BOT_MXID (cloud-bot-c.env): @coder:example.org is the account of `coder`"), "{told:?}");
}

#[test]
fn the_template_names_every_key_and_needs_only_to_be_filled_in() {
    let place = Place::new();
    let template = CloudBot::template();
    for about in keys::BOT.keys {
        assert!(
            template.contains(&format!("\n{} =", about.name)) || template.contains(&format!("\n# {} =", about.name))
        );
        assert!(about.doc.ends_with('.'), "{}", about.name);
        if let super::super::keys::Preset::Text(default) = about.default {
            assert_eq!((about.check)(default), Ok(()), "{}", about.name);
        }
    }
    let shown = place.refusal(&template);
    assert_eq!(shown.matches("it is not set").count(), 5, "{shown}");
    let filled = NEEDED.lines().fold(template, |text, line| {
        let (key, value) = line.split_once('=').unwrap();
        text.replace(&format!("\n{key} ="), &format!("\n{key} = {value}"))
    });
    place.write("cloud-bot-llama.env", filled);
    assert_eq!(place.read().bots.len(), 2);
}
