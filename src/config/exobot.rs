//! exobot's account: its token is in a file of its own, `STATE_DIR/secrets/exobot.env`, and nowhere else.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

#[cfg(test)]
use super::parse::Parsed;
use super::{
    Config, Mistakes, Unwritten, Wrong,
    cloud_bots::{file, values},
    dotenv,
    keys::{
        About, Key,
        Preset::{Follows, Unset},
        Table, keys,
    },
    make_private, parse,
    raw::Raw,
    reader::Reader,
};
use crate::net;

/// The file's name.
const FILE: &str = "exobot.env";

keys! {
    "Matrix" {
        /// Access token of exobot's Matrix account, which is its alone (no person's). `matrix-agent exobot login` writes it.
        (first secret) EXOBOT_TOKEN: SecretString = Unset, values::credential;
        /// Matrix user ID of the account.
        () EXOBOT_MXID: String = Follows("EXOBOT_LOCALPART, at the server of MATRIX_USER or MATRIX_ADMIN_USER"), parse::user;
        /// URL of its homeserver.
        () HS_URL: Url = Follows("MATRIX_HOMESERVER if that is set or follows from VPS_IP, else `http://127.0.0.1:8448`"), parse::url;
    }
}

/// What the file may hold.
const TABLE: Table = Table { keys: ALL, listed_in: FILE };

/// exobot's account.
#[derive(Clone, Debug)]
pub struct ExobotAccount {
    /// The access token of its Matrix account.
    pub token: SecretString,
    /// The account's user id.
    pub user: String,
    /// Its homeserver.
    pub homeserver: Url,
}

/// Returns the name of one of its settings by that of an account's, if this is its file.
pub(super) fn setting(file: &str, key: &str) -> Option<String> {
    let key = match key {
        "user" => EXOBOT_MXID.about.name,
        "homeserver" => HS_URL.about.name,
        _ => EXOBOT_TOKEN.about.name,
    };
    (file == FILE).then(|| format!("{key} in {file}"))
}

/// Why exobot has no account. `Display` is one sentence for each mistake; none holds the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedExobot(pub Mistakes);

impl fmt::Display for RefusedExobot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.0.iter().enumerate() {
            write!(f, "{}{mistake}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl std::error::Error for RefusedExobot {}

impl ExobotAccount {
    /// The name of the account in the store.
    pub const NAME: &str = "exobot";

    /// Returns where its file is.
    pub fn path(config: &Config) -> PathBuf {
        config.paths.secrets().join(FILE)
    }

    /// Returns the user id that follows from the settings, if one does.
    pub fn usual_user(config: &Config) -> Option<String> {
        let server = config.exobot.server.as_ref()?;
        Some(format!("@{}:{server}", config.exobot.localpart))
    }

    /// Reads its file.
    ///
    /// # Errors
    ///
    /// There is none, others could read it, something in it is wrong, or its account is another bot's.
    pub fn read(config: &Config) -> Result<Self, RefusedExobot> {
        let path = Self::path(config);
        let text = if path.exists() {
            file::text(&path)
        } else {
            Err(Wrong::new("there is no such file", "`matrix-agent exobot login` logs in and writes it"))
        };
        let text = text.map_err(|wrong| {
            let mut mistakes = Mistakes::default();
            mistakes.add(FILE, None, wrong);
            RefusedExobot(mistakes)
        })?;
        Self::parse(&text, config)
    }

    /// Reads the text of its file.
    ///
    /// # Errors
    ///
    /// As those of [`ExobotAccount::read`].
    pub fn parse(text: &str, config: &Config) -> Result<Self, RefusedExobot> {
        let rules = &config.cloud_bots;
        let mut mistakes = Mistakes::default();
        let raw = Raw::of_file(Path::new(FILE), text, TABLE, &mut mistakes);
        let mut reader = Reader { raw, settings: Vec::new(), mistakes };
        let homeserver = reader.optional(HS_URL).unwrap_or_else(|| rules.homeserver.clone());
        let (token, user) = (reader.optional(EXOBOT_TOKEN), reader.optional(EXOBOT_MXID));
        let mut mistakes = reader.mistakes;
        let mut add = |key: &str, what: String, mend: &str| {
            if !mistakes.has(key) {
                mistakes.add(key, None, Wrong::new(what, mend));
            }
        };
        if token.is_none() {
            add(
                EXOBOT_TOKEN.about.name,
                "it is not set".to_owned(),
                "`matrix-agent exobot login` logs in and writes it",
            );
        }
        let user = user.or_else(|| Self::usual_user(config));
        match &user {
            None => add(
                EXOBOT_MXID.about.name,
                "it is not set, and its server follows from no account of ours".to_owned(),
                "Write it like `@exobot:server.example`",
            ),
            Some(user) => {
                let mut others = config.all_accounts();
                if let Some((name, ..)) = others.find(|(name, matrix, _)| matrix.user == *user || *name == Self::NAME) {
                    let what = format!("{user} is the account of `{name}` already, or that has its name");
                    add(EXOBOT_MXID.about.name, what, "Give exobot an account of its own");
                }
            }
        }
        if net::is_plain(&homeserver) && !rules.allow_plain_http {
            add(
                HS_URL.about.name,
                format!("no token is sent to {homeserver}, since everybody on the way could read it"),
                "Write an https:// address, or one of this machine such as http://127.0.0.1:8448; on a network that you \
                 trust set ALLOW_PLAIN_HTTP=true in `.env`",
            );
        }
        match (token, user) {
            (Some(token), Some(user)) if mistakes.is_empty() => Ok(Self { token, user, homeserver }),
            _ => Err(RefusedExobot(mistakes)),
        }
    }

    /// Writes its file, in place of one that is there; returns where it is.
    ///
    /// # Errors
    ///
    /// The directory is not private or cannot be made so, or the file cannot be written.
    pub fn write(&self, config: &Config) -> Result<PathBuf, Unwritten> {
        let path = Self::path(config);
        let failed = |error: &dyn fmt::Display| Unwritten::of(format!("{}: {error}", path.display()));
        make_private(&config.paths.secrets()).map_err(|error| failed(&error))?;
        let mut text = "# exobot's account. `matrix-agent exobot login` writes this file.\n".to_owned();
        for (key, value) in [
            (EXOBOT_TOKEN.about.name, self.token.expose_secret()),
            (EXOBOT_MXID.about.name, self.user.as_str()),
            (HS_URL.about.name, self.homeserver.as_str()),
        ] {
            text.extend([key, " = ", &dotenv::quoted(value), "\n"]);
        }
        file::write(&path, &text).map_err(|error| failed(&error))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ffi::OsString, fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::config::{Sources, load};

    fn config(folder: &Path, lines: &[(&str, &str)]) -> Config {
        let mut environment: BTreeMap<OsString, OsString> =
            lines.iter().map(|(key, value)| (key.into(), value.into())).collect();
        environment.insert("STATE_DIR".into(), folder.join("state").into());
        let sources = Sources { folders: vec![], ..Sources::new(environment, folder.to_owned(), true) };
        load(&sources).config
    }

    #[test]
    fn what_is_written_is_read_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &[("MATRIX_USER", "@coder:a.org")]);
        let refused = ExobotAccount::read(&config).unwrap_err();
        assert!(refused.to_string().contains("matrix-agent exobot login"), "{refused}");
        let written = ExobotAccount {
            token: "syt_abc_def".into(),
            user: "@exo:a.org".to_owned(),
            homeserver: Url::parse("https://a.org").unwrap(),
        };
        fs::create_dir(folder.path().join("state")).unwrap();
        fs::set_permissions(folder.path().join("state"), fs::Permissions::from_mode(0o700)).unwrap();
        let path = written.write(&config).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = ExobotAccount::read(&config).unwrap();
        assert_eq!(
            (read.token.expose_secret(), &*read.user, read.homeserver.as_str()),
            ("syt_abc_def", "@exo:a.org", "https://a.org/")
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = ExobotAccount::read(&config).unwrap_err().to_string();
        assert!(refused.contains("chmod 600") && !refused.contains("syt_abc_def"), "{refused}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_told_without_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let ours = config(folder.path(), &[("MATRIX_USER", "@coder:a.org"), ("MATRIX_HOMESERVER", "https://a.org")]);
        let strangers = config(folder.path(), &[]);
        let parse = |text: &str, config: &Config| ExobotAccount::parse(text, config);
        assert_eq!(parse("EXOBOT_TOKEN=syt_1", &ours).unwrap().user, "@exobot:a.org");
        for (text, config, why) in [
            ("", &ours, "EXOBOT_TOKEN: it is not set"),
            ("EXOBOT_TOKEN=your-token", &ours, "placeholder"),
            ("EXOBOT_TOKEN=syt_1", &strangers, "EXOBOT_MXID: it is not set"),
            ("EXOBOT_TOKEN=syt_1\nEXOBOT_MXID=@coder:a.org", &ours, "is the account of `coder`"),
            ("EXOBOT_TOKEN=syt_1\nHS_URL=http://a.org", &ours, "no token is sent to"),
            ("EXOBOT_TOKEN=syt_1\nEXOBOT_TOKENS=2", &ours, "EXOBOT_TOKENS"),
        ] {
            let refused = parse(text, config).unwrap_err().to_string();
            assert!(refused.contains(why) && !refused.contains("syt_1"), "{text}: {refused}");
        }
    }

    #[test]
    fn the_originals_name_of_a_distribution_is_answered_with_what_to_use() {
        let folder = tempfile::tempdir().unwrap();
        let load = |value: &str| {
            let environment = BTreeMap::from([("EXOBOT_PROOT_DISTRO".into(), value.into())]);
            load(&Sources { folders: vec![], ..Sources::new(environment, folder.path().to_owned(), true) })
        };
        assert!(load("debian").mistakes.to_string().contains("LLAMA_SERVER_IMAGE"));
        assert!(!load("").mistakes.has("EXOBOT_PROOT_DISTRO"), "empty, it means this machine in the original, too");
    }

    #[test]
    fn who_talks_with_bots_needs_one() {
        let folder = tempfile::tempdir().unwrap();
        let load = |bots: &str| {
            let lines = [("CROSSBOT_ENABLED", "true"), ("EXOBOT_KNOWN_BOTS", bots)];
            let environment = lines.map(|(key, value)| (key.into(), value.into()));
            load(&Sources {
                folders: vec![],
                ..Sources::new(BTreeMap::from(environment), folder.path().to_owned(), true)
            })
        };
        assert!(load("").mistakes.has("CROSSBOT_ENABLED"));
        let loaded = load("@qwen:a.org");
        assert!(loaded.config.exobot.cross && !loaded.mistakes.has("CROSSBOT_ENABLED"));
    }
}
