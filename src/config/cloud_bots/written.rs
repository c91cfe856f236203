//! Writes bots' files: the template with what was given filled in.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    super::{Config, Wrong, dotenv, make_private},
    CloudBot, CloudBots, RefusedBot, Unwritten, file, keys, parse,
};

impl CloudBot {
    /// Returns the name of the setting in which a bot's password is given for its login. No file keeps it.
    pub const PASSWORD: &str = "BOT_PASSWORD";

    /// Reads settings as somebody gives them for a new bot: `KEY = value` lines of a bot's file, and [`CloudBot::PASSWORD`].
    ///
    /// # Errors
    ///
    /// A line is none, or there is no such setting. No value is shown.
    pub fn given(text: &str) -> Result<BTreeMap<String, String>, Wrong> {
        let (lines, broken) = dotenv::read(text);
        if let Some(line) = broken.first() {
            return Err(Wrong::new(format!("line {line} is not `KEY = value`"), "Mend or remove it"));
        }
        let mut given = BTreeMap::new();
        for line in lines {
            let name = match keys::BOT.find(&line.key) {
                Some(about) => about.name,
                None if line.key == Self::PASSWORD => Self::PASSWORD,
                None => {
                    let what = format!("line {} is no setting of a cloud bot", line.number);
                    return Err(Wrong::new(what, "Remove it; docs/cloud-bots.md lists all settings"));
                }
            };
            if !line.value.is_empty() {
                given.insert(name.to_owned(), line.value);
            }
        }
        Ok(given)
    }

    /// Returns the text of a bot's file with these settings.
    pub fn file_of(settings: &BTreeMap<String, String>) -> String {
        let mut text = String::new();
        for line in Self::template().lines() {
            let key = line.trim_start_matches("# ").split(" =").next().unwrap_or_default();
            match settings.get(key).filter(|_| line.contains(" =")) {
                Some(value) => text.extend([key, " = ", &dotenv::quoted(value), "\n"]),
                None => text.extend([line, "\n"]),
            }
        }
        text
    }

    /// Writes a bot's file, which must not exist yet; returns where it is.
    ///
    /// # Errors
    ///
    /// The directory is not private or cannot be made so, there is such a file, or it cannot be written.
    pub fn write(config: &Config, name: &str, text: &str) -> Result<PathBuf, Unwritten> {
        let path = Self::path(config, name).map_err(|wrong| Unwritten(wrong.what))?;
        make_private(&config.paths.secrets()).map_err(|error| Unwritten(error.to_string()))?;
        if path.exists() {
            return Err(Unwritten(format!("{} exists already", path.display())));
        }
        file::write(&path, text).map_err(|error| Unwritten(format!("{}: {error}", path.display())))?;
        Ok(path)
    }

    /// Puts a bot's file aside, so that it is one no more; returns where it is then, if there was one.
    ///
    /// # Errors
    ///
    /// It cannot be renamed.
    pub fn put_aside(config: &Config, name: &str) -> Result<Option<PathBuf>, Unwritten> {
        let path = Self::path(config, name).map_err(|wrong| Unwritten(wrong.what))?;
        let aside = path.with_extension("env.old");
        match std::fs::rename(&path, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Unwritten(format!("{}: {error}", path.display()))),
        }
    }
}

impl CloudBots {
    /// Checks whether a bot with a file of this text could be served beside the others.
    ///
    /// # Errors
    ///
    /// Its file would be refused.
    pub fn check(config: &Config, name: &str, text: &str) -> Result<CloudBot, RefusedBot> {
        let mut all = Self::read(config);
        let file = config.paths.secrets().join(format!("{}{name}{}", super::BEGINS, super::ENDS));
        let refused = |mistakes| RefusedBot { name: name.to_owned(), file: file.clone(), mistakes };
        let bot = parse(name, &file, text, config).map_err(refused)?;
        all.refused.clear();
        all.add(bot.clone(), config);
        all.refused.pop().map_or(Ok(bot), Err)
    }
}
