//! Where the bot of Nextcloud Talk is tried: a scripted Nextcloud and model, and a state directory with the bot's file.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
};

use crate::{
    nextcloud::{Nextcloud, Posted, SECRET, Webhook, said},
    support::{
        rig::{BARE, Rig, Server, block_on, free_port, wait},
        scripted_llm::ScriptedLlm,
    },
};

/// A Nextcloud, a model, and a state directory for the Talk bot alone.
pub(super) struct Place {
    pub(super) nextcloud: Nextcloud,
    pub(super) llm: ScriptedLlm,
    pub(super) rig: Rig,
    pub(super) webhook: Webhook,
}

impl Place {
    pub(super) fn new() -> Self {
        Self::with("")
    }

    /// A place whose bot has these settings besides.
    pub(super) fn with(more: &str) -> Self {
        let (nextcloud, llm) = (Nextcloud::start(), block_on(ScriptedLlm::start()));
        let mut rig = Rig::new(BARE, "");
        for (key, value) in [
            // No model of the coding agent, and Podman is not there either.
            ("LLM_API_KEY", ""),
            ("LLM_MODEL", ""),
            ("PODMAN_PATH", "/nowhere/podman"),
            ("PODMAN_SOCKET", "/nowhere/podman.sock"),
            // Of ours, not of Nextcloud's.
            ("ALLOWED_USERS", "@anna:example.org"),
        ] {
            rig.set(key, value);
        }
        let port = free_port();
        let place = Self { nextcloud, llm, rig, webhook: Webhook(port) };
        place.write(&format!("BOT_SECRET={SECRET}\n{more}"));
        place
    }

    pub(super) fn file(&self) -> PathBuf {
        self.rig.path().join("s/secrets/nextcloud-talk.env")
    }

    /// Writes the bot's file.
    fn write(&self, more: &str) {
        let (path, url, model) = (self.file(), self.nextcloud.url(), self.llm.base_url());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for folder in [path.parent().unwrap(), path.parent().unwrap().parent().unwrap()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        let port = self.webhook.0;
        write!(file, "NEXTCLOUD_URL={url}\nMODEL_BASE_URL={model}\nMODEL_NAME=tiny\nBOT_PORT={port}\n{more}").unwrap();
    }

    pub(super) fn serve(&self) -> Server {
        self.rig.serve()
    }

    /// Waits until the bot has sent so many messages, and returns all of them.
    pub(super) fn posted(&self, count: usize) -> Vec<Posted> {
        wait(&format!("{count} messages"), || self.nextcloud.posted().len() >= count);
        self.nextcloud.posted()
    }

    /// Asks something and waits for its answer, behind which all others have come.
    pub(super) fn ask_last(&self, conversation: &str, id: u64) {
        self.llm.when("the last one").reply_text("this is the end");
        assert_eq!(self.webhook.tell(&said(conversation, id, "users/ada", "@Halo the last one")), 202);
        let is_end = |posted: &Posted| posted.text.starts_with("this is the end");
        wait("the last answer", || self.nextcloud.posted().iter().any(is_end));
    }

    /// Whether a conversation counts as left.
    pub(super) fn has_left(&self, conversation: &str) -> bool {
        let database = rusqlite::Connection::open(self.rig.database()).unwrap();
        let left = "SELECT missed IS NOT NULL FROM rooms WHERE room = 'talk:' || ?1";
        database.query_row(left, [conversation], |row| row.get(0)).unwrap()
    }

    /// How many rows of the outbox wait.
    pub(super) fn unsent(&self) -> u32 {
        let database = rusqlite::Connection::open(self.rig.database()).unwrap();
        database.query_row("SELECT count(*) FROM outbox WHERE sent IS NULL", [], |row| row.get(0)).unwrap()
    }
}
