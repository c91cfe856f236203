//! The newest lines of the log, all and those about each cloud bot, for `admin logs` and `cloud-bot logs`: wherever the log goes, they
//! are here.
//!
//! One for the process, as the log is. Bounded by accounts, lines and bytes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

/// How the names of the accounts begin whose lines are kept.
const KEPT: &str = "cloud-";
/// Stands for all lines, beside the accounts' names.
pub(super) const SERVER: &str = "";
/// The most accounts, and the most lines and bytes of each.
const ACCOUNTS: usize = 128;
const LINES: usize = 400;
const BYTES: usize = 128 << 10;
/// Lines that somebody who follows may be behind; then the oldest are left out.
const BEHIND: usize = 256;

/// The lines of this process.
static RECENT: LazyLock<Recent> = LazyLock::new(Recent::default);

struct Recent {
    kept: Mutex<BTreeMap<String, Kept>>,
    fresh: broadcast::Sender<(String, String)>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self { kept: Mutex::default(), fresh: broadcast::Sender::new(BEHIND) }
    }
}

/// Keeps a line of the log.
pub(crate) fn note(line: &[u8]) {
    RECENT.note(line);
}

/// Returns the newest lines of an account, and all that come later, each with its account.
pub(super) fn of(account: &str) -> (Vec<String>, broadcast::Receiver<(String, String)>) {
    RECENT.of(account)
}

impl Recent {
    fn note(&self, line: &[u8]) {
        let plain = if line.contains(&0x1b) { strip_ansi_escapes::strip(line) } else { line.to_vec() };
        let line = String::from_utf8_lossy(plain.trim_ascii_end()).into_owned();
        let account = account_of(&line).unwrap_or(SERVER).to_owned();
        let mut all = self.kept();
        for of in BTreeSet::from([SERVER, &account]) {
            // One place more is the server's own, which is taken first.
            if all.contains_key(of) || all.len() <= ACCOUNTS {
                all.entry(of.to_owned()).or_default().push(line.clone());
            }
        }
        // Under the lock, so that whoever begins to follow gets each line once.
        let _ = self.fresh.send((account, line));
    }

    fn of(&self, account: &str) -> (Vec<String>, broadcast::Receiver<(String, String)>) {
        let all = self.kept();
        let lines = all.get(account).map(|kept| kept.lines.iter().cloned().collect());
        (lines.unwrap_or_default(), self.fresh.subscribe())
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES || self.bytes > BYTES {
            self.bytes -= self.lines.pop_front().map_or(self.bytes, |oldest| oldest.len());
        }
    }
}

/// Returns the account that the line's first span names, by itself or with a room.
fn account_of(line: &str) -> Option<&str> {
    let marks = ["account{account=", "room{room=", "{\"account\":\"", "{\"room\":\""]
        .map(|mark| line.find(mark).map(|at| at + mark.len()));
    let named = &line[marks.into_iter().flatten().min()?..];
    let named = named.split(['/', '}', ' ', '"']).find(|part| !part.is_empty())?;
    (named.starts_with(KEPT) && named.len() <= 64).then_some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bots_newest_lines_are_kept_and_nobody_elses() {
        let recent = Recent::default();
        recent.note(b"2026-11-30T00:00:00Z  INFO account{account=cloud-llama}: matrix_agent: one\n");
        recent.note(b"2026-11-30T00:00:00Z  WARN \x1b[1mroom\x1b[0m\x1b[1m{\x1b[0m\x1b[3mroom\x1b[0m\x1b[2m=\x1b[0mcloud-llama/!a:b\x1b[1m}\x1b[0m: two\n");
        recent.note(b"2026-11-30T00:00:00Z  INFO room{room=!a:b}: of the first account, about cloud-llama\n");
        recent.note(b"2026-11-30T00:00:00Z  INFO account{account=cloud-qwen}: another's\n");
        recent.note(
            br#"{"level":"INFO","fields":{"message":"as JSON"},"spans":[{"room":"cloud-json/!a:b","name":"room"}]}"#,
        );
        assert_eq!(recent.of("cloud-json").0.len(), 1);
        let (lines, mut fresh) = recent.of("cloud-llama");
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with("one") && lines[1].ends_with("room{room=cloud-llama/!a:b}: two"), "{lines:?}");
        recent.note(b"x account{account=cloud-llama}: three\n");
        let (account, line) = fresh.try_recv().unwrap();
        assert_eq!((account.as_str(), line.ends_with("three")), ("cloud-llama", true));
        assert!(recent.of("cloud-none").0.is_empty());
        assert_eq!(recent.of(SERVER).0.len(), 6, "all lines are the server's");
    }

    #[test]
    fn they_are_bounded() {
        let recent = Recent::default();
        for number in 0..10_000 {
            recent.note(format!("account{{account=cloud-{}}}: {number} {}", number % 300, "x".repeat(900)).as_bytes());
        }
        for _ in 0..1000 {
            recent.note(format!("account{{account=cloud-0}}: {}", "x".repeat(8000)).as_bytes());
        }
        let all = recent.kept();
        assert_eq!(all.len(), ACCOUNTS + 1);
        assert!(all.values().all(|kept| kept.lines.len() <= LINES && kept.bytes <= BYTES));
        assert_eq!(all["cloud-0"].bytes, all["cloud-0"].lines.iter().map(String::len).sum::<usize>());
    }
}
