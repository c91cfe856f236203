//! Checks the database: can it be opened and written, and is it intact?

use std::{fs, path::Path, time::Duration};

use super::Check;
use crate::{
    config::{CloudBot, CloudBots, Config, ExobotAccount, TALK_ACCOUNTS, Talk, account_of_bot},
    ids::FIRST_ACCOUNT,
    store::{Health, Size, StoreError, Waiting},
    text,
};

const NAME: &str = "database";
/// How long the file is read; a large one is not read to its end then.
const LIMIT: Duration = Duration::from_secs(20);

/// Less free space than this is not reported, since new rows reuse it.
const WASTE: u64 = 64 << 20;

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let path = config.paths.database();
    // SQLite blocks; a panic in this task is caught where the check's task is awaited.
    let mut accounts: Vec<_> = config.accounts.iter().map(|account| account.name.clone()).collect();
    if config.cloud_bots.enabled {
        let CloudBots { bots, refused } = CloudBots::read(config);
        accounts.extend(bots.iter().map(CloudBot::account));
        accounts.extend(refused.iter().map(|refused| account_of_bot(&refused.name)));
    }
    if config.exobot.enabled {
        accounts.push(ExobotAccount::NAME.to_owned());
    }
    if Talk::is_set_up(config) {
        accounts.extend(TALK_ACCOUNTS.map(str::to_owned));
    }
    let looked = move || {
        let mut checks = vec![check_file(&path)];
        // A file that cannot be read has been reported by then.
        let waiting = if path.exists() { Waiting::of(&path).unwrap_or_default() } else { vec![] };
        checks.extend(held_back(&waiting));
        checks.extend(left_alone(waiting, &accounts));
        checks
    };
    let database = tokio::task::spawn_blocking(looked).await;
    database.unwrap_or_else(|_| vec![Check::bad(NAME, "the check itself failed", "Try again")])
}

fn check_file(path: &Path) -> Check {
    let shown = path.display();
    let Ok(metadata) = fs::metadata(path) else {
        if fs::symlink_metadata(path).is_ok() {
            let what = format!("{shown} is a link that leads to nothing");
            return Check::bad(NAME, what, "Bring back what it leads to, or remove the link to begin anew");
        }
        return Check::good(NAME, format!("{shown} (made at the first start)"));
    };
    let size = text::human_bytes(metadata.len());
    let health = Health::of(path, LIMIT);
    if let (Ok(Health::Whole | Health::Unread), Some(free)) = (&health, wasted(path)) {
        return Check::warning(
            NAME,
            format!("{shown}, {size}, writable; {} of it hold nothing", text::human_bytes(free)),
            "Nothing needs that space but others. Stop the server when it suits you, and run `matrix-agent compact`",
        );
    }
    match health {
        Ok(Health::Whole) => Check::good(NAME, format!("{shown}, {size}, whole and writable")),
        Ok(Health::Unread) => {
            let what = format!("{shown}, {size}, writable; too large to be read through in {} s", LIMIT.as_secs());
            Check::good(NAME, what)
        }
        Ok(Health::Damaged(what)) => Check::bad(
            NAME,
            format!("{shown} is damaged: {what}"),
            "Stop the server, keep a copy of the file, and restore the last backup or move the file away to begin anew",
        ),
        Err(StoreError::Newer { .. }) => Check::bad(
            NAME,
            format!("a newer version of this program has used {shown}, and this one is too old for it"),
            "Install that version again, or a newer one",
        ),
        Err(error) => Check::bad(
            NAME,
            format!("{shown} cannot be used ({error})"),
            "Check that the file and its folder belong to this user and that the disk is not full",
        ),
    }
}

/// Returns the free bytes of a database's file, if there are many and the server does not return them.
fn wasted(path: &Path) -> Option<u64> {
    let size = Size::of(path).ok()?;
    (!size.gives_back && size.free >= WASTE && size.free >= size.file / 3).then_some(size.free)
}

/// Tells of answers that Nextcloud has not taken: it is away, or has refused the bot, which the server's log tells.
fn held_back(waiting: &[Waiting]) -> Option<Check> {
    let answers: u64 = waiting.iter().filter(|it| TALK_ACCOUNTS.contains(&&*it.account)).map(|it| it.answers).sum();
    let mend = "Look again in a minute. If they are still there: `matrix-agent admin logs` tells why; if the bot was refused, install it anew \
                with `occ talk:bot:install`, and start the server again";
    (answers > 0)
        .then(|| Check::warning("Nextcloud Talk", format!("{answers} answers wait until Nextcloud takes them"), mend))
}

/// Finds accounts that are no longer configured although people wait for an answer there.
fn left_alone(waiting: Vec<Waiting>, accounts: &[String]) -> Vec<Check> {
    let gone = waiting.into_iter().filter(|it| it.account != FIRST_ACCOUNT && !accounts.contains(&it.account));
    gone.map(|Waiting { account, messages, answers }| {
        let account = text::one_line(&account, 40);
        Check::warning(
            "accounts",
            format!("`{account}` is not set up, and {messages} messages and {answers} answers wait there"),
            format!("They are kept. Set up `[accounts.{account}]` again and they go on"),
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::doctor::Status;

    #[test]
    fn a_missing_database_is_no_fault_and_a_damaged_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("matrix-agent.db");
        assert_eq!(check_file(&path).status, Status::Good);
        assert!(!path.exists(), "looking makes nothing");
        fs::write(&path, b"this is no database, but it is long enough to look like one".repeat(20)).unwrap();
        let check = check_file(&path);
        assert!(check.status == Status::Bad && check.what.contains("damaged"), "{}", check.what);
    }

    #[test]
    fn one_of_an_older_version_that_is_mostly_empty_can_be_compacted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("matrix-agent.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        let much =
            format!("CREATE TABLE t (x BLOB); INSERT INTO t VALUES (zeroblob({})); DELETE FROM t;", WASTE + 9999);
        connection.execute_batch(&much).unwrap();
        let check = check_file(&path);
        assert_eq!(check.status, Status::Warning);
        assert!(check.mend.unwrap().contains("matrix-agent compact"));
        drop(connection);
        Size::compact(&path).unwrap();
        assert_eq!(check_file(&path).status, Status::Good);
    }
}
