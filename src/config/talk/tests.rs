use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use super::*;
use crate::config::{Sources, load};

/// A secret as Nextcloud takes it.
const SECRET_TEXT: &str = "hush0123456789abcdef0123456789abcdef0123456789abcdef";
/// What the bot needs.
const NEEDED: &str = "NEXTCLOUD_URL=https://cloud.example.com\nMODEL_BASE_URL=http://halo.example:8000/v1\n";

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
        fs::create_dir_all(config.paths.state_dir.join("secrets")).unwrap();
        Self { folder, config }
    }

    /// Writes a file, by default the bot's own, that nobody else reads.
    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    fn read(&self, text: &str) -> Result<Talk, String> {
        Self::write(&Talk::path(&self.config), text);
        let read = Talk::read(&self.config).map(|talk| talk.expect("it is set up"));
        read.map_err(|refused| {
            let shown = refused.to_string();
            assert!(!shown.contains("hush") && !format!("{refused:?}").contains("hush"), "{shown}");
            shown
        })
    }

    fn refusal(&self, more: &str) -> String {
        self.read(&format!("{NEEDED}BOT_SECRET={SECRET_TEXT}\n{more}\n")).expect_err(more)
    }
}

#[test]
fn without_a_file_there_is_no_bot() {
    let place = Place::new();
    assert!(!Talk::is_set_up(&place.config));
    assert!(Talk::read(&place.config).unwrap().is_none());
}

#[test]
fn what_nobody_writes_has_the_defaults_of_the_module() {
    let talk = Place::new().read(&format!("{NEEDED}BOT_SECRET={SECRET_TEXT}\n")).unwrap();
    assert_eq!(talk.listen, "127.0.0.1:8086".parse().unwrap());
    assert_eq!((talk.called.as_str(), talk.model.as_str()), ("Halo", "halo-8000"));
    assert_eq!((talk.history_turns, talk.timeout.as_secs()), (6, 120));
    assert!(talk.users.is_empty() && talk.direct.is_empty() && talk.coder.is_none());
    assert!(talk.system_prompt.is_none() && talk.api_key.is_none());
    assert_eq!(talk.secret.expose_secret(), SECRET_TEXT);
}

#[test]
fn what_the_module_writes_is_read() {
    let text = format!(
        "{NEEDED}BOT_SECRET={SECRET_TEXT}\nBOT_HOST = \"0.0.0.0\"\nBOT_PORT = \"9000\"\nMODEL_NAME = \"tiny\"\n\
         BOT_NAME = \"@My Bot\"\nALLOWED_USERS = \"ada, grace hopper,o'neil@example.com\"\nCONTEXT_MESSAGES = \"0\"\n\
         TIMEOUT = \"30\"\nSYSTEM_PROMPT = \"One line.\\nAnd \\\"another\\\".\"\nDIRECT_CONVERSATIONS = \"n3xtc10ud,abc\"\n\
         CODER_CONVERSATIONS=work1\nCODER_USERS=ada\n"
    );
    let talk = Place::new().read(&text).unwrap();
    assert_eq!(talk.listen, "0.0.0.0:9000".parse().unwrap());
    assert_eq!(talk.called, "My Bot");
    assert_eq!(talk.users, ["ada", "grace hopper", "o'neil@example.com"]);
    assert_eq!(talk.system_prompt.as_deref(), Some("One line.\nAnd \"another\"."));
    assert_eq!(talk.direct, ["n3xtc10ud", "abc"]);
    let coder = talk.coder.unwrap();
    assert_eq!(coder.conversations, ["work1"]);
    assert_eq!(coder.users, ["ada"]);
}

#[test]
fn a_list_that_is_empty_as_the_module_writes_it_is_everybody() {
    let text = format!("{NEEDED}BOT_SECRET={SECRET_TEXT}\nALLOWED_USERS = \"\"\nSYSTEM_PROMPT = \"\"\n");
    let talk = Place::new().read(&text).unwrap();
    assert!(talk.users.is_empty() && talk.system_prompt.is_none());
}

#[test]
fn our_own_users_are_not_nextclouds() {
    let place = Place::with(&[("ALLOWED_USERS", "@anna:example.org"), ("TIMEOUT", "7"), ("BOT_NAME", "Other")]);
    let talk = place.read(&format!("{NEEDED}BOT_SECRET={SECRET_TEXT}\nALLOWED_USERS=ada\n")).unwrap();
    assert_eq!(talk.users, ["ada"]);
    assert_eq!((talk.timeout.as_secs(), talk.called.as_str()), (120, "Halo"), "nothing comes from the environment");
    assert_eq!(place.config.people.allowed, ["@anna:example.org"]);
}

#[test]
fn the_secret_may_stand_in_a_file_or_come_from_systemd() {
    let place = Place::new();
    let file = place.folder.path().join("secret");
    Place::write(&file, &format!("{SECRET_TEXT}\n"));
    let named = format!("{NEEDED}BOT_SECRET_FILE={}\n", file.display());
    assert_eq!(place.read(&named).unwrap().secret.expose_secret(), SECRET_TEXT);
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert!(place.read(&named).unwrap_err().contains("chmod 600"));

    let folder = tempfile::tempdir().unwrap();
    let place = Place::with(&[("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())]);
    assert!(place.read(NEEDED).unwrap_err().contains("BOT_SECRET_FILE"));
    fs::write(folder.path().join("bot-secret"), SECRET_TEXT).unwrap();
    assert_eq!(place.read(NEEDED).unwrap().secret.expose_secret(), SECRET_TEXT);
}

#[test]
fn what_is_wrong_is_named_with_its_mend_and_no_secret() {
    let place = Place::new();
    for (more, told) in [
        ("BOT_PORT=0", "BOT_PORT"),
        ("BOT_HOST=cloud.example.com", "BOT_HOST"),
        ("TIMEOUT=0", "TIMEOUT"),
        ("CODER_USERS=ada", "CODER_CONVERSATIONS"),
        ("CODER_CONVERSATIONS=work1", "CODER_USERS"),
        ("DIRECT_CONVERSATIONS=../x", "no token of a conversation"),
        ("ALLOWED_USERS=@anna:example.org", "no name of a Nextcloud user"),
        ("ALLOWED_USER=ada", "ALLOWED_USERS"),
        ("BOT_SECRET_FILE=/nowhere/secret", "BOT_SECRET is set, too"),
        ("MODEL_API_KEY=changeme", "placeholder"),
    ] {
        let refusal = place.refusal(more);
        assert!(refusal.contains(told), "{more}: {refusal}");
    }
    let short = place.read(&format!("{NEEDED}BOT_SECRET=hush\n")).unwrap_err();
    assert!(short.contains("40 to 128"), "{short}");
    let missing = place.read(&format!("BOT_SECRET={SECRET_TEXT}\n")).unwrap_err();
    assert!(missing.contains("NEXTCLOUD_URL") && missing.contains("MODEL_BASE_URL"), "{missing}");
}

#[test]
fn a_secret_in_a_file_that_others_read_is_refused_and_what_is_no_secret_is_not() {
    let place = Place::new();
    let path = Talk::path(&place.config);
    let read = |text: &str| {
        Place::write(&path, text);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        Talk::read(&place.config).map(drop).map_err(|refused| refused.to_string())
    };
    let open = read(&format!("{NEEDED}BOT_SECRET={SECRET_TEXT}\n")).unwrap_err();
    assert!(open.contains("chmod 600"), "{open}");
    // Only root's own file may be open; whoever runs the tests as another user is refused as a whole.
    if nix::unistd::geteuid().is_root() {
        let secret = place.folder.path().join("secret");
        Place::write(&secret, SECRET_TEXT);
        assert_eq!(read(&format!("{NEEDED}BOT_SECRET_FILE={}\n", secret.display())), Ok(()));
    }
}

#[test]
fn the_page_names_every_key_and_every_default_is_valid() {
    let page = include_str!("../../../docs/nextcloud-talk.md");
    for about in keys::TALK.keys {
        assert!(page.contains(&format!("| `{}` |", about.name)), "{}", about.name);
        if let crate::config::keys::Preset::Text(default) = about.default {
            assert_eq!((about.check)(default), Ok(()), "{}", about.name);
        }
        assert!(about.doc.ends_with('.'), "{}", about.name);
    }
}

#[test]
fn the_nix_module_writes_what_is_read_with_the_same_defaults() {
    let module = include_str!("../../../nix/talk.nix");
    for about in keys::TALK.keys {
        // The secret comes as a credential, and the coding agent needs what the module does not have.
        let is_absent = about.secret || about.name.starts_with("CODER_") || about.name == "BOT_SECRET_FILE";
        assert_eq!(module.contains(&format!("\n    {} = ", about.name)), !is_absent, "{}", about.name);
    }
    let Talk { listen, called, model, history_turns, timeout, .. } =
        Place::new().read(&format!("{NEEDED}BOT_SECRET={SECRET_TEXT}\n")).unwrap();
    let (host, port, timeout) = (listen.ip(), listen.port(), timeout.as_secs());
    let named = [("host", host.to_string()), ("botName", called), ("model", model)]
        .map(|(name, value)| (name, format!("\"{value}\"")));
    let numbers =
        [("port", port.to_string()), ("contextMessages", history_turns.to_string()), ("timeout", timeout.to_string())];
    for (name, value) in named.into_iter().chain(numbers) {
        let option = module.split(&format!("\n    {name} = mkOption {{")).nth(1).expect(name);
        let option = option.split("};").next().unwrap();
        assert!(option.contains(&format!("default = {value};")), "{name}: {option}");
    }
    assert!(module.contains("LoadCredential = \"bot-secret:"), "the name under which it is looked for");
}
